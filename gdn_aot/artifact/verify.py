"""Every check of an artifact file, before anything in it is used.

The order bounds what a hostile file can cost: the digest of the whole file, then the frame header, then the manifest,
then member by member what the manifest calls for, with a limit on what may come next. Each header is compared with the
one that belongs there. A file that fails a check is read on as far as it is known what comes next, so that the report
names all that is wrong.
"""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot.artifact import tar
from gdn_aot.artifact.archive import MANIFEST_NAME, read_blobs
from gdn_aot.artifact.container import MAX_FILE, Digests, FrameError, FrameReader, digest_file
from gdn_aot.artifact.manifest_json import MAX_BYTES, load_manifest
from gdn_aot.errors import Problem, UnknownFormatError, UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike
    from typing import BinaryIO

    from gdn_aot.artifact.manifest import Manifest

_CHUNK = 1 << 20
_SLACK = 1 << 20
"""Bytes read past the expected end, so that a small extra member is reported as one."""
_CACHE = 128 << 20
"""Bytes of blobs that an open artifact keeps in memory at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What `examine` found."""

    path: Path
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the whole file; empty if it is too large to be an artifact."""
    problems: tuple[Problem, ...]
    manifest: Manifest | None
    """None if the manifest cannot be trusted to be what it says. Not to be used if there are problems."""
    manifest_json: bytes
    """``manifest.json`` as it is in the file; empty if it could not be read."""
    uncompressed: int
    """Bytes that the frame header promises."""
    body: int
    """Bytes before the trailer."""
    blobs: dict[str, bytes]
    """Contents by SHA-256 of a file without problems; empty if they are more than 128 MiB together."""
    unknown_format: bool
    """The format version is not known, and nothing else is known to be wrong."""

    def error(self) -> VerificationError:
        """Return the problems as an exception."""
        count = f"{len(self.problems)} problem{'s' * (len(self.problems) != 1)}"
        kind = UnknownFormatError if self.unknown_format else VerificationError
        return kind(f"{self.path} is not a sound artifact: {count}", list(self.problems))


class Artifact:
    """A verified artifact file. Blobs of over 128 MiB together are read and checked again, less are kept in memory."""

    def __init__(self, report: Report, manifest: Manifest) -> None:
        self.path = report.path
        self.manifest = manifest
        self.size = report.size
        """Bytes of the file."""
        self.sha256 = report.sha256
        """Of the whole file."""
        self.manifest_json = report.manifest_json
        """``manifest.json`` as it is in the file."""
        self.uncompressed = report.uncompressed
        """Bytes of all members with their headers."""
        self._body = report.body
        self._blobs = report.blobs

    def iter_blobs(self) -> Iterator[tuple[str, bytes]]:
        """Yield (SHA-256, content) of every blob, reading the file once if at all.

        Raises:
            VerificationError: The file is no longer the one that was verified.
        """
        return (
            iter(self._blobs.items())
            if self._blobs
            else read_blobs(self.path, self._body, self.manifest, len(self.manifest_json))
        )

    def read_blob(self, sha256: str) -> bytes:
        """Return the content of one blob. Cheap unless the artifact is over 128 MiB.

        Raises:
            KeyError: The artifact has no such blob.
            VerificationError: The file is no longer the one that was verified.
        """
        if sha256 in self._blobs:
            return self._blobs[sha256]
        for digest, content in self.iter_blobs():
            if digest == sha256:
                return content
        raise KeyError(sha256)


def verify(path: str | PathLike[str]) -> list[Problem]:
    """Return all that is wrong with an artifact file; nothing for a sound one.

    Raises:
        UsageError: There is no such file, or it cannot be read.
    """
    return list(examine(path).problems)


def open_artifact(path: str | PathLike[str]) -> Artifact:
    """Verify an artifact file and open it.

    Raises:
        UsageError: There is no such file, or it cannot be read.
        UnknownFormatError: It is of a format version that is not known.
        VerificationError: Anything else is wrong; the exception carries every problem.
    """
    report = examine(path)
    if report.manifest is None or report.problems:
        raise report.error()
    return Artifact(report, report.manifest)


def examine(path: str | PathLike[str]) -> Report:
    """Run every check on a file.

    Raises:
        UsageError: There is no such file, or it cannot be read.
    """
    path = Path(path)
    problems: list[Problem] = []
    members = _Members(problems)
    size = _size(path)
    try:
        with path.open("rb") as file:
            digests = _digest(file, size, problems)
            file.seek(0)
            if 0 < size <= MAX_FILE:
                members.read(file, digests.body)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="check its permissions") from error
    return Report(
        path=path,
        size=digests.size,
        sha256=digests.sha256,
        problems=tuple(problems),
        manifest=members.manifest,
        manifest_json=members.manifest_json,
        uncompressed=members.uncompressed,
        body=digests.body,
        blobs=members.blobs,
        unknown_format=members.unknown_format and len(problems) == 1,
    )


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise UsageError(f"cannot find {str(path)!r}", hint="check the path and its permissions") from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is not a regular file", hint="name one gdn-aot-*.tar.zst file")
    return status.st_size


def _digest(file: BinaryIO, size: int, problems: list[Problem]) -> Digests:
    if size > MAX_FILE:
        problems.append(Problem("file", f"is larger than {MAX_FILE} bytes"))
        return Digests(size=size, sha256="", body=size, fault="not looked for")
    digests = digest_file(file, size)
    if size == 0:
        problems.append(Problem("file", "is empty"))
    elif digests.fault:
        problems.append(Problem("trailer", digests.fault))
    return digests


class _Members:
    """The state of reading through the members of one file."""

    def __init__(self, problems: list[Problem]) -> None:
        self.manifest: Manifest | None = None
        self.manifest_json = b""
        self.uncompressed = 0
        self.unknown_format = False
        self.blobs: dict[str, bytes] = {}
        self._problems = problems

    def read(self, file: BinaryIO, body: int) -> None:
        """Read the frame that fills the first ``body`` bytes."""
        try:
            reader = FrameReader(file, body)
            self.uncompressed = reader.content_size
            reader.limit = MAX_BYTES + _SLACK
            if self._read_manifest(reader) and self._read_blobs(reader) and (leftover := reader.leftover()):
                self._note("file", f"has {leftover} bytes after the compressed data")
        except FrameError as error:
            self._note("compressed data", str(error))

    def _read_manifest(self, reader: FrameReader) -> bool:
        """Read the first member; say whether the manifest can be trusted to be what it says."""
        header = _exactly(reader, tar.BLOCK)
        size = tar.content_size(header)
        if size is None or not header.startswith(MANIFEST_NAME.encode() + b"\0"):
            self._note(MANIFEST_NAME, "is not the first member, or not written as gdn-aot writes it")
            return False
        if size > MAX_BYTES:
            self._note(MANIFEST_NAME, f"is larger than {MAX_BYTES} bytes")
            return False
        self.manifest_json = _exactly(reader, size)
        padding = _exactly(reader, tar.padding(size))
        try:
            self.manifest = manifest = load_manifest(self.manifest_json)
        except VerificationError as error:
            self._problems += [Problem(found.where or MANIFEST_NAME, found.what) for found in error.problems]
            self.unknown_format = isinstance(error, UnknownFormatError)
            return False
        if header != tar.encode(MANIFEST_NAME, size, manifest.build.epoch) or any(padding):
            self._note(MANIFEST_NAME, "its header or padding is not what the manifest calls for")
        expected = sum(map(tar.member_size, (size, *(blob.size for blob in manifest.blobs)))) + len(tar.END)
        reader.limit = expected + _SLACK
        if reader.content_size != expected:
            found = f"holds {reader.content_size} bytes"
            self._note("compressed data", f"{found}, but the manifest accounts for {expected}")
        return True

    def _read_blobs(self, reader: FrameReader) -> bool:
        """Read what follows the manifest; say whether it could be read to its end."""
        assert self.manifest is not None  # noqa: S101
        blobs, epoch = self.manifest.blobs, self.manifest.build.epoch
        keep = sum(blob.size for blob in blobs) <= _CACHE
        for number, blob in enumerate(blobs, 1):
            name = f"blobs/{blob.sha256}"
            if _exactly(reader, tar.BLOCK) != tar.encode(name, blob.size, epoch):
                self._note(
                    name, f"member {number} is not what the manifest calls for: a file of this name, size and time"
                )
                return False
            content = _exactly(reader, blob.size)
            if hashlib.sha256(content).hexdigest() != blob.sha256:
                self._note(name, f"the content has the SHA-256 {hashlib.sha256(content).hexdigest()}")
            elif keep:
                self.blobs[blob.sha256] = content
            if any(_exactly(reader, tar.padding(blob.size))):
                self._note(name, "is padded with something other than zeros")
        if any(_exactly(reader, len(tar.END))) or reader.read(1):
            self._note("archive", "goes on after the last member that the manifest calls for")
            while reader.read(_CHUNK):
                pass
        return True

    def _note(self, where: str, what: str) -> None:
        self._problems.append(Problem(where, what))


def _exactly(reader: FrameReader, size: int) -> bytes:
    data = reader.read(size)
    if len(data) != size:
        raise FrameError("ends in the middle of a member")
    return data
