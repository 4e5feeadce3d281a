"""Whether a well-formed manifest makes sense: the rules that tie its fields to each other."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from gdn_aot.artifact.names import is_capture, make_identifier
from gdn_aot.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from gdn_aot.artifact.manifest import Kernel, Manifest

MAX_BLOB = 64 << 20
"""Bytes of one blob. The largest GDN cubin seen is under 1 MB."""
MAX_TOTAL = 1 << 30
"""Bytes of everything in an artifact, uncompressed."""
MAX_EPOCH = 0o77777777777
"""Seconds; the largest time that a tar header holds."""

DIGEST = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")


def check_manifest(manifest: Manifest) -> Iterator[Problem]:
    """Yield what is inconsistent in a manifest, with its path.

    Names, digests and relative paths have their form; kernels, autotune keys (as Triton compares them: 1 equals
    True) and launch keys are unique; binaries point to models and workloads that are there; the blobs listed are
    exactly those referred to.
    """
    yield from _check_identity(manifest)
    yield from _unique("kernels", ((kernel.module, kernel.qualname) for kernel in manifest.kernels))
    models = _IndexFaults(len(manifest.models))
    workloads = _IndexFaults(len(manifest.workloads))
    captures = {number for number, name in enumerate(manifest.workloads) if is_capture(name)}
    for number, kernel in enumerate(manifest.kernels):
        yield from _check_kernel(kernel, f"kernels[{number}]")
        for inner, binary in enumerate(kernel.binaries):
            captured = not captures.isdisjoint(binary.workloads)
            if (binary.models or not captured) and (fault := models[binary.models]):
                yield Problem(f"kernels[{number}].binaries[{inner}].models", fault)
            if fault := workloads[binary.workloads]:
                yield Problem(f"kernels[{number}].binaries[{inner}].workloads", fault)
    if manifest.build.commit is not None and not COMMIT.fullmatch(manifest.build.commit):
        yield Problem("build.commit", "expected null or 40 lower-case hexadecimal digits")
    if not 0 <= manifest.build.epoch <= MAX_EPOCH:
        yield Problem("build.epoch", f"expected seconds from 0 to {MAX_EPOCH}")
    yield from _check_blobs(manifest)


def _check_identity(manifest: Manifest) -> Iterator[Problem]:
    provider, target = manifest.provider, manifest.target
    expected = make_identifier(
        provider.name, provider.version, manifest.triton.version, target.name, manifest.workloads
    )
    if manifest.identifier != expected:
        yield Problem("identifier", f"is not what the fields below give, {_short(expected)}")
    elif not IDENTIFIER.fullmatch(manifest.identifier):
        yield Problem("identifier", "has characters that a file name must not have")
    major, minor = target.capability
    if target.name != f"sm_{major}{minor}" or not 0 <= minor <= 9:  # noqa: PLR2004
        yield Problem("target.capability", f"[{major}, {minor}] is not that of {_short(target.name)}")
    for number, file in enumerate(provider.license_files):
        yield from _check_path(file.path, f"provider.license_files[{number}].path")


def _check_kernel(kernel: Kernel, where: str) -> Iterator[Problem]:
    yield from _check_digest(kernel.cache_key, f"{where}.cache_key")
    yield from _check_digest(kernel.source_sha256, f"{where}.source_sha256")
    for number, needed in enumerate(kernel.dependencies):
        if needed.source_sha256:
            yield from _check_digest(needed.source_sha256, f"{where}.dependencies[{number}].source_sha256")
    for number, source in enumerate(kernel.sources):
        yield from _check_path(source.path, f"{where}.sources[{number}].path")
        yield from _check_digest(source.sha256, f"{where}.sources[{number}].sha256")
    yield from _unique(f"{where}.relaxations", (relaxed.argument for relaxed in kernel.relaxations), ".argument")
    for number, relaxed in enumerate(kernel.relaxations):
        for inner, binary in enumerate(kernel.binaries):
            if binary.specialization.signature.get(relaxed.argument) != "constexpr":
                yield Problem(f"{where}.relaxations[{number}].argument", f"is no constexpr of binaries[{inner}]")
                break
    yield from _unique(f"{where}.choices", (choice.key for choice in kernel.choices), ".key")
    yield from _unique(f"{where}.binaries", (binary.launch_key for binary in kernel.binaries), ".launch_key")


class _IndexFaults(dict[tuple[int, ...], str]):
    """What is wrong with lists of indices, or nothing; each list is looked at once."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def __missing__(self, indices: tuple[int, ...]) -> str:
        fault = ""
        if not indices:
            fault = "is empty"
        elif any(left >= right for left, right in pairwise(indices)):
            fault = "expected indices in rising order, each once"
        elif not 0 <= indices[0] <= indices[-1] < self._length:
            fault = f"expected indices from 0, below {self._length}"
        self[indices] = fault
        return fault


def _check_blobs(manifest: Manifest) -> Iterator[Problem]:
    listed = {blob.sha256 for blob in manifest.blobs if DIGEST.fullmatch(blob.sha256)}
    referenced = set()
    for where, digest in references(manifest):
        referenced.add(digest)
        if digest not in listed:
            bad = list(_check_digest(digest, where))
            yield from bad or [Problem(where, f"blob {digest} is not in the blob table")]
    previous = ""
    for number, blob in enumerate(manifest.blobs):
        where = f"blobs[{number}]"
        yield from _check_digest(blob.sha256, f"{where}.sha256")
        if blob.sha256 == previous:
            yield Problem(f"{where}.sha256", "is listed twice")
        elif blob.sha256 < previous:
            yield Problem(f"{where}.sha256", "is out of order")
        elif blob.sha256 not in referenced:
            yield Problem(f"{where}.sha256", "nothing refers to this blob")
        previous = blob.sha256
        if not 0 <= blob.size <= MAX_BLOB:
            yield Problem(f"{where}.size", f"expected 0 to {MAX_BLOB} bytes")
    if sum(max(blob.size, 0) for blob in manifest.blobs) > MAX_TOTAL:
        yield Problem("blobs", f"are larger than {MAX_TOTAL} bytes together")


def references(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield (path, digest) for every field of a manifest that names a blob."""
    for number, file in enumerate(manifest.provider.license_files):
        yield f"provider.license_files[{number}].blob", file.blob
    for outer, kernel in enumerate(manifest.kernels):
        for inner, binary in enumerate(kernel.binaries):
            yield f"kernels[{outer}].binaries[{inner}].cubin", binary.cubin


def _check_digest(digest: str, where: str) -> Iterator[Problem]:
    if not DIGEST.fullmatch(digest):
        yield Problem(where, "expected 64 lower-case hexadecimal digits")


def _check_path(path: str, where: str) -> Iterator[Problem]:
    parts = path.split("/")
    if "\\" in path or ":" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        yield Problem(where, "expected a relative path with forward slashes, without . and ..")


def _unique(where: str, keys: Iterable[Hashable], field: str = "") -> Iterator[Problem]:
    seen: dict[Hashable, int] = {}
    for number, key in enumerate(keys):
        first = seen.setdefault(key, number)
        if first != number:
            yield Problem(f"{where}[{number}]{field}", f"is the same as that of {where}[{first}]")


def _short(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")  # noqa: PLR2004
