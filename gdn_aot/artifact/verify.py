"""Every check of an artifact file, before anything in it is used.

The order bounds what a hostile file can cost: the digest of the whole file, then the frame header, then member by
member with a limit on what may come next. A file that fails an early check is still read as far as that is safe, so
that the report names all that is wrong.
"""

from __future__ import annotations

import hashlib
import io
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot.artifact import tar
from gdn_aot.artifact.archive import MANIFEST_NAME, read_blobs
from gdn_aot.artifact.check import MAX_BLOB, MAX_TOTAL
from gdn_aot.artifact.container import MAX_FILE, Digests, FrameError, FrameReader, digest_file
from gdn_aot.artifact.parse import MAX_BYTES, load_manifest
from gdn_aot.artifact.reader import ProblemList
from gdn_aot.errors import Problem, UnknownFormatError, UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike
    from typing import BinaryIO

    from gdn_aot.artifact.manifest import Manifest

_CHUNK = 1 << 20
_SLACK = 1 << 20
"""Bytes read past the expected end, so that a small extra member is reported by its name."""
_AT_ONCE = 64 << 20
"""Bytes of a file that is read at once, and not a second time for what is in it."""
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
        return iter(self._blobs.items()) if self._blobs else read_blobs(self.path, self._body, self.manifest)

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


def open_artifact(path: str | PathLike[str], accept: Callable[[int, str], None] | None = None) -> Artifact:
    """Verify an artifact file and open it.

    Args:
        path: The file.
        accept: Told its bytes and SHA-256 before anything in it is looked at; what it raises refuses the file.

    Raises:
        UsageError: There is no such file, or it cannot be read.
        UnknownFormatError: It is of a format version that is not known.
        VerificationError: Anything else is wrong; the exception carries every problem.
    """
    report = examine(path, accept)
    if report.manifest is None or report.problems:
        raise report.error()
    return Artifact(report, report.manifest)


def examine(path: str | PathLike[str], accept: Callable[[int, str], None] | None = None) -> Report:
    """Run every check on a file: on the very bytes that were hashed, unless it is larger than 64 MiB.

    Args:
        path: The file.
        accept: As `open_artifact` takes it.

    Raises:
        UsageError: There is no such file, or it cannot be read.
    """
    path = Path(path)
    problems = ProblemList()
    members = _Members(problems)
    size = _size(path)
    try:
        with path.open("rb") as opened:
            file = io.BytesIO(opened.read(size)) if size <= _AT_ONCE else opened
            digests = _digest(file, size, problems)
            if accept is not None:
                accept(digests.size, digests.sha256)
            file.seek(0)
            if 0 < size <= MAX_FILE:
                with suppress(VerificationError):  # the list of problems is full
                    members.read(file, digests.body)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="check its permissions") from error
    return Report(
        path=path,
        size=digests.size,
        sha256=digests.sha256,
        problems=tuple(problems.found()),
        manifest=members.manifest,
        manifest_json=members.manifest_json,
        uncompressed=members.uncompressed,
        body=digests.body,
        blobs=members.blobs,
        unknown_format=members.unknown_format and len(problems.found()) == 1,
    )


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise UsageError(f"cannot find {str(path)!r}", hint="check the path and its permissions") from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is not a regular file", hint="name one gdn-aot-*.tar.zst file")
    return status.st_size


def _digest(file: BinaryIO, size: int, problems: ProblemList) -> Digests:
    if size > MAX_FILE:
        problems.add("file", f"is larger than {MAX_FILE} bytes")
        return Digests(size=size, sha256="", body=size, fault="not looked for")
    digests = digest_file(file, size)
    if size == 0:
        problems.add("file", "is empty")
    elif digests.fault:
        problems.add("trailer", digests.fault)
    return digests


class _Members:
    """The state of reading through the members of one file."""

    def __init__(self, problems: ProblemList) -> None:
        self.manifest: Manifest | None = None
        self.manifest_json = b""
        self.uncompressed = 0
        self.unknown_format = False
        self._problems = problems
        self.blobs: dict[str, bytes] = {}
        self._seen: set[str] = set()
        self._last = ""
        self._sizes: dict[str, int] | None = None
        """Size of each blob by member name; None while the manifest is not known or not usable."""
        self._epoch: int | None = None
        self._keep = False

    def read(self, file: BinaryIO, body: int) -> None:
        """Read the frame that fills the first ``body`` bytes."""
        try:
            reader = FrameReader(file, body)
            self.uncompressed = reader.content_size
            reader.limit = MAX_BYTES + _SLACK
            if self._read_manifest(reader):
                self._read_blobs(reader)
                if leftover := reader.leftover():
                    self._problems.add("file", f"has {leftover} bytes after the compressed data")
        except FrameError as error:
            self._problems.add("compressed data", str(error))
        except tar.HeaderError as error:
            self._problems.add("archive", str(error))

    def _read_manifest(self, reader: FrameReader) -> bool:
        """Read the first member; say whether reading can go on."""
        header = self._header(reader)
        if header is None:
            self._problems.add(MANIFEST_NAME, "missing")
            return False
        if header.name != MANIFEST_NAME:
            self._problems.add(header.name, "is the first member, expected manifest.json")
            return False
        if header.size > MAX_BYTES:
            self._problems.add(MANIFEST_NAME, f"is larger than {MAX_BYTES} bytes")
            return False
        self._seen.add(header.name)
        self.manifest_json = data = _exactly(reader, header.size)
        self._pad(reader, header.name, header.size)
        reader.limit = MAX_TOTAL
        try:
            self.manifest = load_manifest(data)
        except UnknownFormatError as error:
            self._note(error)
            self.unknown_format = True
            return False
        except VerificationError as error:
            self._note(error)
            return True
        self._sizes = {f"blobs/{blob.sha256}": blob.size for blob in self.manifest.blobs}
        self._keep = sum(self._sizes.values()) <= _CACHE
        self._epoch = self.manifest.build.epoch
        self._check_time(header)
        expected = sum(map(tar.member_size, (header.size, *self._sizes.values()))) + len(tar.END)
        reader.limit = expected + _SLACK
        if reader.content_size != expected:
            found = f"holds {reader.content_size} bytes"
            self._problems.add("compressed data", f"{found}, but the manifest accounts for {expected}")
        return True

    def _read_blobs(self, reader: FrameReader) -> None:
        expected = iter((self._sizes or {}).items())
        while any(block := _exactly(reader, tar.BLOCK)):
            name, size = next(expected, ("", 0))
            if name and block == tar.encode(name, size, self._epoch or 0) and name > self._last:
                self._last = name
                self._seen.add(name)
            else:
                header = self._decode(block)
                self._check_place(header)
                name, size = header.name, header.size
            if size > MAX_BLOB:
                raise tar.HeaderError(f"member {name} is larger than {MAX_BLOB} bytes")
            self._read_blob(reader, name, size)
        for name in self._sizes or ():
            if name not in self._seen:
                self._problems.add(name, "missing, but in the blob table")
        if any(_exactly(reader, len(tar.END) - tar.BLOCK)) or reader.read(1):
            self._problems.add("archive", "goes on after its end marker")
            while reader.read(_CHUNK):
                pass

    def _read_blob(self, reader: FrameReader, name: str, size: int) -> None:
        if size <= _CHUNK:
            content = _exactly(reader, size)
            found = hashlib.sha256(content).hexdigest()
        else:
            found, content = self._read_large(reader, size)
        if name == f"blobs/{found}":
            if self._keep:
                self.blobs[found] = content
        elif name.startswith("blobs/"):
            self._problems.add(name, f"the content has the SHA-256 {found}")
        self._pad(reader, name, size)

    def _read_large(self, reader: FrameReader, size: int) -> tuple[str, bytes]:
        """Return the SHA-256 of a blob, and its content if that is to be kept."""
        digest = hashlib.sha256()
        parts = []
        while size:
            chunk = _exactly(reader, min(size, _CHUNK))
            digest.update(chunk)
            size -= len(chunk)
            if self._keep:
                parts.append(chunk)
        return digest.hexdigest(), b"".join(parts)

    def _check_place(self, header: tar.Header) -> None:
        """Compare a header with the blob table and with the members before it."""
        self._check_time(header)
        if header.name in self._seen:
            self._problems.add(header.name, "is in the archive twice")
        elif self._sizes is not None and header.name not in self._sizes:
            self._problems.add(header.name, "is not in the blob table")
        elif self._sizes is not None and header.size != self._sizes[header.name]:
            expected = self._sizes[header.name]
            self._problems.add(header.name, f"has {header.size} bytes, expected {expected}")
        if header.name < self._last:
            self._problems.add(header.name, "is out of order")
        self._last = header.name
        self._seen.add(header.name)

    def _check_time(self, header: tar.Header) -> None:
        if self._epoch is not None and not header.problems and header.mtime != self._epoch:
            self._problems.add(header.name, f"has the time {header.mtime}, expected {self._epoch}")

    def _header(self, reader: FrameReader) -> tar.Header | None:
        """Read one header; None at the end marker."""
        block = _exactly(reader, tar.BLOCK)
        return self._decode(block) if any(block) else None

    def _decode(self, block: bytes) -> tar.Header:
        header = tar.decode(block)
        for problem in header.problems:
            self._problems.add(header.name, problem)
        return header

    def _pad(self, reader: FrameReader, name: str, size: int) -> None:
        if any(_exactly(reader, tar.padding(size))):
            self._problems.add(name, "is padded with something other than zeros")

    def _note(self, error: VerificationError) -> None:
        for problem in error.problems:
            self._problems.add(problem.where or MANIFEST_NAME, problem.what)


def _exactly(reader: FrameReader, size: int) -> bytes:
    data = reader.read(size)
    if len(data) != size:
        raise FrameError("ends in the middle of a member")
    return data
