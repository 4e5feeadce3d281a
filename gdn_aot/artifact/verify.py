"""Every check of an artifact file, before anything in it is used.

The order bounds what a hostile file can cost: the digest of the whole file, then the frame header, then the manifest,
then member by member what the manifest calls for, with a limit on what may come next. Each header is compared with the
one that belongs there, each cubin with what the manifest says of it. A file that fails a check is read on as far as it
is known what comes next, so that the report names all that is wrong.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._files import open_regular
from gdn_aot._text import plural
from gdn_aot.artifact import tar
from gdn_aot.artifact.archive import MANIFEST_NAME
from gdn_aot.artifact.container import Frame, FrameError
from gdn_aot.artifact.cubins import Cubins
from gdn_aot.artifact.manifest_json import load_manifest
from gdn_aot.artifact.names import MAX_FILE, MAX_MANIFEST
from gdn_aot.artifact.trailer import Digests, digest
from gdn_aot.errors import Problem, UnknownFormatError, UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from gdn_aot.artifact.manifest import Manifest

_AHEAD = 4 << 20
"""Bytes of members that are decompressed at once, while those before them are checked."""
_KEPT = 64 << 20
"""Bytes of blobs that an open artifact keeps in memory at most."""
_UNCOMPRESSED, _RATIO = 128 << 20, 64
"""A file may hold so many bytes, or so many times its own. Artifacts hold 9 to 32 times their own."""


@dataclass(kw_only=True, slots=True)
class Examination:
    """What `examine` finds."""

    path: Path
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the whole file; empty if it is too large to be an artifact."""
    body: memoryview
    """What is before the trailer."""
    problems: list[Problem] = field(default_factory=list)
    manifest: Manifest | None = None
    """None if the manifest cannot be trusted to be what it says. Not to be used if there are problems."""
    manifest_json: bytes = b""
    """``manifest.json`` as it is in the file; empty if it could not be read."""
    uncompressed: int = 0
    """Bytes of all members with their headers, as the frame header promises."""
    blobs: dict[str, memoryview] = field(default_factory=dict)
    """Contents by SHA-256 of a file without problems; empty if they are more than 64 MiB, or were not looked at."""
    unknown_format: bool = False
    """The format version is not known."""

    def error(self) -> VerificationError:
        """Return the problems as an exception: an `UnknownFormatError` if nothing else is known to be wrong."""
        count = plural(len(self.problems), "problem")
        kind = UnknownFormatError if self.unknown_format and len(self.problems) == 1 else VerificationError
        return kind(f"{self.path} is not a sound artifact: {count}", self.problems)

    def read(self, *, lazy: bool) -> None:
        """Read what is compressed."""
        try:
            frame = Frame(self.body)
            self.uncompressed = frame.content_size
            if self.uncompressed > max(_UNCOMPRESSED, _RATIO * self.size):
                what = f"holds {self.uncompressed} bytes, over {_RATIO} times as many as the file has"
                self.note("compressed data", what)
                return
            manifest = self._read_manifest(frame)
        except FrameError as error:
            self.note("compressed data", str(error))
            return
        if frame.leftover:
            self.note("file", f"has {frame.leftover} bytes after the compressed data")
        if manifest is None or lazy:
            return
        keep = sum(blob.size for blob in manifest.blobs) <= _KEPT
        for sha256, content in _read_blobs(frame, manifest, self.problems):
            if keep:
                self.blobs[sha256] = content

    def _read_manifest(self, frame: Frame) -> Manifest | None:
        """Read the first member; return the manifest if it can be trusted to be what it says."""
        header = _exactly(frame, tar.BLOCK)
        size = tar.content_size(header)
        if size is None or not header.startswith(MANIFEST_NAME.encode() + b"\0"):
            self.note(MANIFEST_NAME, "is not the first member, or not written as gdn-aot writes it")
            return None
        if size > MAX_MANIFEST:
            self.note(MANIFEST_NAME, f"is larger than {MAX_MANIFEST} bytes")
            return None
        self.manifest_json = _exactly(frame, size)
        padding = _exactly(frame, tar.padding(size))
        try:
            self.manifest = manifest = load_manifest(self.manifest_json)
        except VerificationError as error:
            self.problems += [Problem(found.where or MANIFEST_NAME, found.what) for found in error.problems]
            self.unknown_format = isinstance(error, UnknownFormatError)
            return None
        if header != tar.encode(MANIFEST_NAME, size, manifest.build.epoch) or any(padding):
            self.note(MANIFEST_NAME, "its header or padding is not what the manifest calls for")
        expected = sum(map(tar.member_size, (size, *(blob.size for blob in manifest.blobs)))) + len(tar.END)
        if frame.content_size != expected:
            found = f"holds {frame.content_size} bytes"
            self.note("compressed data", f"{found}, but the manifest accounts for {expected}")
        return manifest

    def note(self, where: str, what: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(where, what))


class Artifact:
    """A verified artifact, whatever becomes of its file: the bytes that were read are in memory.

    Its fields are those of `Examination`.
    """

    def __init__(self, report: Examination, manifest: Manifest) -> None:
        self.path, self.size, self.sha256, self.manifest = report.path, report.size, report.sha256, manifest
        self.manifest_json, self.uncompressed = report.manifest_json, report.uncompressed
        self._body, self._blobs = report.body, report.blobs

    def iter_blobs(self) -> Iterator[tuple[str, memoryview]]:
        """Yield (SHA-256, content) of every blob, checked.

        Raises:
            VerificationError: One is not what the manifest calls for; only if the artifact was opened lazily.
        """
        if self._blobs:
            yield from self._blobs.items()
            return
        problems: list[Problem] = []
        frame = Frame(self._body)
        frame.read(tar.member_size(len(self.manifest_json)))
        for found in _read_blobs(frame, self.manifest, problems):
            if problems:
                break
            yield found
        if problems:
            raise VerificationError(f"{self.path} is not a sound artifact", problems)

    def read_blob(self, sha256: str) -> bytes:
        """Return the content of one blob. Cheap unless its blobs have over 64 MiB.

        Raises:
            KeyError: The artifact has no such blob.
        """
        if sha256 in self._blobs:
            return bytes(self._blobs[sha256])
        for found, content in self.iter_blobs():
            if found == sha256:
                return bytes(content)
        raise KeyError(sha256)


def open_artifact(
    path: str | PathLike[str], accept: Callable[[int, str], None] | None = None, *, lazy: bool = False
) -> Artifact:
    """Verify an artifact file and open it.

    ``accept`` is told its bytes and SHA-256 before anything in it is looked at; what it raises refuses the file.
    ``lazy`` leaves the blobs to `Artifact.iter_blobs`, which checks each as it is read.

    Raises:
        UsageError: There is no such file, or it cannot be read.
        UnknownFormatError: It is of a format version that is not known.
        VerificationError: Anything else is wrong; the exception carries every problem.
    """
    report = examine(path, accept, lazy=lazy)
    if report.manifest is None or report.problems:
        raise report.error()
    return Artifact(report, report.manifest)


def open_bytes(data: bytes, path: str | PathLike[str]) -> Artifact:
    """Open what an artifact file holds, which ``path`` is the name of, as `open_artifact` does lazily.

    Raises:
        UnknownFormatError: It is of a format version that is not known.
        VerificationError: Anything else is wrong; the exception carries every problem.
    """
    report = _examine(Path(path), data, len(data), None, lazy=True)
    if report.manifest is None or report.problems:
        raise report.error()
    return Artifact(report, report.manifest)


def examine(
    path: str | PathLike[str], accept: Callable[[int, str], None] | None = None, *, lazy: bool = False
) -> Examination:
    """Run every check on a file, which is read once: what is hashed is what is looked into. See `open_artifact`.

    Raises:
        UsageError: There is no such file, or it cannot be read.
    """
    path = Path(path)
    return _examine(path, *_read(path), accept, lazy=lazy)


def _examine(
    path: Path, data: bytes | None, size: int, accept: Callable[[int, str], None] | None, *, lazy: bool
) -> Examination:
    digests = Digests(sha256="", body=0, fault="") if data is None else digest(data)
    report = Examination(path=path, size=size, sha256=digests.sha256, body=memoryview(data or b"")[: digests.body])
    if data is None:
        report.note("file", f"is larger than {MAX_FILE} bytes")
    elif not data:
        report.note("file", "is empty")
    elif digests.fault:
        report.note("trailer", digests.fault)
    if accept is not None:
        accept(size, digests.sha256)
    if data:
        report.read(lazy=lazy)
    return report


def _read(path: Path) -> tuple[bytes | None, int]:
    """Return what is in a file and its size; nothing of one that is too large."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(MAX_FILE + 1) if size <= MAX_FILE else b""
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", None) or "no such file"
        hint = "name one gdn-aot-*.tar.zst file" if "regular" in reason else "check the path and its permissions"
        raise UsageError(f"cannot read {str(path)!r}: {reason}", hint=hint) from error
    size = max(size, len(data))
    return (data, len(data)) if size <= MAX_FILE else (None, size)


def _read_blobs(frame: Frame, manifest: Manifest, problems: list[Problem]) -> Iterator[tuple[str, memoryview]]:
    """Yield (SHA-256, content) of each blob that is right, in the order of the manifest; add what is wrong to a list.

    The frame is read up to the end of the manifest. Each few MiB are decompressed by another thread while those before
    them are looked at.
    """
    cubins = Cubins(manifest)
    groups = list(tar.grouped(manifest.blobs, lambda blob: blob.size, _AHEAD))
    sizes = [*(sum(tar.member_size(blob.size) for blob in group) for group in groups), len(tar.END)]
    epoch, number = manifest.build.epoch, 0
    with ThreadPoolExecutor(1) as ahead:
        try:
            coming = ahead.submit(_exactly, frame, sizes[0])
            for group, size in zip(groups, sizes[1:], strict=True):
                members, at = coming.result(), 0
                coming = ahead.submit(_exactly, frame, size)
                for blob in group:
                    number += 1
                    name, begin = f"blobs/{blob.sha256}", at + tar.BLOCK
                    end = begin + blob.size
                    if members[at:begin] != tar.encode(name, blob.size, epoch):
                        what = "is not what the manifest calls for: a file of this name, size and time"
                        problems.append(Problem(name, f"member {number} {what}"))
                        return
                    content = memoryview(members)[begin:end]
                    found = hashlib.sha256(content).hexdigest()
                    at += tar.member_size(blob.size)
                    if found != blob.sha256:
                        problems.append(Problem(name, f"the content has the SHA-256 {found}"))
                    if members[end:at] != bytes(at - end):
                        problems.append(Problem(name, "is padded with something other than zeros"))
                    known = len(problems)
                    problems += cubins.problems(blob.sha256, content) if found == blob.sha256 else ()
                    if found == blob.sha256 and len(problems) == known:
                        yield found, content
            if any(coming.result()) or frame.read(1):
                problems.append(Problem("archive", "continues after the last member of the manifest"))
        except FrameError as error:
            problems.append(Problem("compressed data", str(error)))


def _exactly(frame: Frame, size: int) -> bytes:
    data = frame.read(size)
    if len(data) != size:
        raise FrameError("ends in the middle of a member")
    return data
