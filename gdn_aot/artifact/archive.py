"""Writing an artifact.

The same manifest and blobs give the same bytes wherever and whenever they are packed, for one version of zstd.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gdn_aot._files import write_whole
from gdn_aot.artifact import tar
from gdn_aot.artifact.container import compressor
from gdn_aot.artifact.manifest import MAX_EPOCH, Blob, Manifest
from gdn_aot.artifact.manifest_json import load_manifest, to_json
from gdn_aot.artifact.trailer import trailer
from gdn_aot.errors import NotWritableError, Problem, UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """An artifact file as `write_artifact` left it."""

    path: Path
    identifier: str
    size: int
    """Bytes."""
    sha256: str
    """Of the whole file."""


def epoch_from_environment() -> int:
    """Return ``SOURCE_DATE_EPOCH`` in seconds, or 0 if it is not set.

    Raises:
        UsageError: It is set to something that is not a time which a tar header can hold.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_EPOCH)) and int(text) <= MAX_EPOCH):
        raise UsageError(
            f"SOURCE_DATE_EPOCH={text} is not a number of seconds since 1970",
            hint="unset it, or set it to the time of the last commit: git log -1 --format=%ct",
        )
    return int(text)


def write_artifact(manifest: Manifest, blobs: Mapping[str, bytes], path: Path) -> Written:
    """Pack a manifest and its blobs into one file, which appears complete or not at all.

    The manifest's blob table is made anew; ``build.epoch`` becomes the time of every member. The path is normally named
    by ``names.file_name``; missing directories are made.

    Raises:
        NotWritableError: The file cannot be written: no space, no permission, read-only.
        VerificationError: The manifest and the blobs do not belong together; nothing was written.
    """
    wanted = dict.fromkeys(_references(manifest))
    problems = [Problem(f"blobs/{digest}", "is missing") for digest in wanted if digest not in blobs]
    problems += [Problem(f"blobs/{digest}", "nothing refers to it") for digest in sorted(blobs.keys() - wanted.keys())]
    problems += [
        Problem(f"blobs/{digest}", "the content has another SHA-256")
        for digest, content in sorted(blobs.items())
        if hashlib.sha256(content).hexdigest() != digest
    ]
    if problems:
        raise VerificationError("the manifest and the blobs do not belong together", problems)
    table = tuple(Blob(sha256=digest, size=len(blobs[digest])) for digest in wanted)
    manifest = replace(manifest, blobs=table)
    data = to_json(manifest)
    load_manifest(data)
    packed = _pack(manifest, data, blobs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, packed, sync=True)
    except OSError as error:
        raise NotWritableError(f"cannot write {path}: {error.strerror or error}") from error
    sha256 = hashlib.sha256(packed).hexdigest()
    return Written(path=path, identifier=manifest.identifier, size=len(packed), sha256=sha256)


def _references(manifest: Manifest) -> Iterator[str]:
    """Yield the digest of every blob that a manifest refers to, in the order of the archive.

    Cubins of one kernel are side by side: so they compress a tenth better than in the order of their digests.
    """
    yield from (file.blob for file in manifest.provider.license_files)
    yield from (file.blob for file in manifest.placed)
    yield from (binary.cubin for kernel in manifest.kernels for binary in kernel.binaries)
    yield from manifest.cached_blobs


def _pack(manifest: Manifest, data: bytes, blobs: Mapping[str, bytes]) -> bytes:
    """Return the whole container. One call to zstd: fed piece by piece it cuts other blocks and takes 0.3 % more."""
    members = [(MANIFEST_NAME, data), *((f"blobs/{blob.sha256}", blobs[blob.sha256]) for blob in manifest.blobs)]
    parts = []
    for name, content in members:
        parts += [tar.encode(name, len(content), manifest.build.epoch), content, bytes(tar.padding(len(content)))]
    content = b"".join((*parts, tar.END))
    frame = compressor(len(content)).compress(content)
    return frame + trailer(hashlib.sha256(frame).digest())
