"""An artifact of a store, opened: its index and its pack, a file of blobs one after another.

Serving processes read it so, with the standard library alone.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import cached_property

from gdn_aot._files import check_size, read_at, read_regular
from gdn_aot.artifact.names import MAX_BLOB, MAX_MANIFEST, SIGNATURE, beside
from gdn_aot.errors import Problem, UntrustedError, VerificationError
from gdn_aot.machine.owners import check_trust
from gdn_aot.store.admission import Candidate, check_admitted, home_of
from gdn_aot.store.folder import open_place
from gdn_aot.store.index import FORMAT, Index
from gdn_aot.store.index import NAME as INDEX
from gdn_aot.trust import MAX_ENVELOPE

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.trust.judge import Claim

PACK = "pack"
"""File name of the blobs in the directory of an artifact. Where each is the index says."""
MANIFEST = "manifest.json.zst"
"""File name of the compressed manifest in the directory of an artifact."""


RELEASE = "release.json"
"""File name of what its publisher has signed, in the directory of an artifact: `gdn_aot.trust.statement`."""
_KEPT = 64 << 20
"""Bytes of blobs that are all kept when one is asked for; of more, those that are asked for."""


class StoredArtifact(Candidate):
    """Reads an artifact. Safe to use from several threads and after a fork; goes on to work when its files are removed.

    Args:
        place: Its directory in a store.
        judged: Whether it may be used is asked here. Else whoever opens it asks `gdn_aot.store.admission` before
            anything but the header is read.

    Raises:
        OSError: Its index or its pack cannot be opened.
        UntrustedError: It is not signed, and somebody else than root or this user may have written it.
        VerificationError: Its index is damaged, or not what its publisher has signed.
    """

    elsewhere = ""
    """Why it serves only copies of what it was built from in other packages; empty if it serves the provider."""
    same: tuple[int, int] | None = None
    """Of one for another version than is installed: how many of its kernels have the source that is, and how many it
    has."""
    _file = -1

    def __init__(self, place: str, *, judged: bool = True) -> None:
        self.place = place
        with open_place(place) as folder:
            index = folder.file(INDEX)
            status = os.fstat(index)
            self.index = Index(index, f"{place}/{INDEX}")
            self._file = folder.file(PACK)
            with suppress(FileNotFoundError):
                self.release = folder.read(RELEASE, MAX_ENVELOPE)
            try:
                folder.check_trust()
                check_trust(status, f"{place}/{INDEX}")
                check_trust(os.fstat(self._file), f"{place}/{PACK}")
            except UntrustedError as error:
                self.foreign = error
        self.size = os.fstat(self._file).st_size
        """Bytes of the pack."""
        if judged:
            check_admitted(self, home_of(place))

    def claim(self) -> Claim:
        """Return what is to be judged of it, if it is signed."""
        from gdn_aot.trust.judge import Claim

        header = self.header
        return Claim(self.release, header["identifier"], header["sha256"], self.index.root, str(FORMAT))

    @property
    def header(self) -> Mapping[str, Any]:
        """What identifies it, as `gdn_aot.artifact.header.header_of` makes it."""
        return self.index.header

    @property
    def is_read(self) -> bool:
        """Its index can be asked without waiting for more than a read."""
        return True

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def read_blob(self, sha256: str) -> bytes:
        """Return the content of a blob.

        Raises:
            OSError: It cannot be read.
            VerificationError: It is damaged, or the artifact has none of this name.
        """
        offset, size = self.index.place(sha256)
        content = read_at(self._file, size, offset) if size <= MAX_BLOB and offset + size <= self.size else b""
        if hashlib.sha256(content).hexdigest() != sha256:
            path = f"{self.place}/{PACK}"
            problem = Problem(path, f"the content of blob {sha256} is not what its name says")
            raise VerificationError(f"{path}: blob {sha256} is damaged", [problem])
        return content

    def read_blobs(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (SHA-256, content) of several blobs, in any order, each once and none kept; see `read_blob`."""
        for name in dict.fromkeys(names):
            yield name, self.read_blob(name)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, with every check.

        Raises:
            OSError: It cannot be read.
            VerificationError: It is damaged.
        """
        from gdn_aot.artifact.manifest_json import load_manifest

        data = read_manifest(self.place)
        if hashlib.sha256(data).hexdigest() != self.header["manifest_sha256"]:
            path = f"{self.place}/{MANIFEST}"
            what = "is not the manifest that the index was made of"
            raise VerificationError(f"{path} {what}", [Problem(path, what)])
        return load_manifest(data)


class UnpackedArtifact(StoredArtifact):
    """An artifact file that no store takes, in this process's memory.

    It is verified when its index is asked for, and unpacked when the first blob is: until then a process waits for
    neither. ``data`` is what the file holds, ``header`` what `gdn_aot.artifact.glance` says of it.

    Raises:
        VerificationError: By whatever needs more than the header: the artifact is not sound.
    """

    def __init__(self, path: str, data: bytes, header: Mapping[str, Any], release: bytes = b"") -> None:
        self.place, self.data, self._header, self.release = path, data, header, release
        self._blobs: dict[str, bytes] = {}

    @property
    def header(self) -> Mapping[str, Any]:
        """What identifies it."""
        return self._header

    claim = Candidate.claim  # the file is all that its index is made of

    @property
    def is_read(self) -> bool:
        """It was verified and unpacked already."""
        return "index" in self.__dict__

    @cached_property
    def _artifact(self) -> Artifact:
        from gdn_aot.artifact.verify import open_bytes

        return open_bytes(self.data, self.place)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, with every check."""
        return self._artifact.manifest

    @cached_property
    def index(self) -> Index:  # type: ignore[override]
        """Its index."""
        from gdn_aot.store.index_writer import write_index

        return Index.in_memory(write_index(self._artifact))

    def read_blob(self, sha256: str) -> bytes:
        """Return the content of a blob; see `StoredArtifact.read_blob`."""
        self.index.place(sha256)
        if sha256 not in self._blobs:
            apart = self._apart
            everything = sum(size for name, size in self.index.blobs() if name not in apart) <= _KEPT
            for name, content in self._artifact.iter_blobs():
                if name == sha256 or (everything and name not in apart):
                    self._blobs[name] = bytes(content)
        return self._blobs[sha256]

    @cached_property
    def _apart(self) -> frozenset[str]:
        """Blobs of its compile cache, which no launch asks for."""
        cache = self.index.compile_cache() if self.header.get("compile_cache") else None
        return frozenset(blob for _, blobs in (cache.files if cache else ()) for blob in blobs)

    def read_blobs(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield several blobs, as `StoredArtifact.read_blobs` does: the file is unpacked once."""
        wanted = {*names}
        for name in wanted:
            self.index.place(name)
        yield from ((name, bytes(content)) for name, content in self._artifact.iter_blobs() if name in wanted)


class NamedArtifact(Candidate):
    """An artifact file that somebody names to a command.

    Args:
        path: Of the file. Its statement lies beside it.
        identifier: Of the artifact, as it was found to be in it.
        sha256: Of the file.

    Raises:
        OSError: The statement is there and cannot be read.
    """

    def __init__(self, path: str, identifier: str, sha256: str) -> None:
        self.place, self.release = path, release_beside(path)
        self._header = {"identifier": identifier, "sha256": sha256}

    @property
    def header(self) -> Mapping[str, Any]:
        """What identifies it."""
        return self._header


def read_release(place: str) -> bytes:
    """Return what its publisher signed of an installed artifact, or nothing if there is none, or it cannot be read."""
    with suppress(OSError), open_place(place) as folder:
        return folder.read(RELEASE, MAX_ENVELOPE)
    return b""


def release_beside(file: str) -> bytes:
    """Return what a publisher has signed of an artifact file, as it lies beside that, or nothing.

    Raises:
        OSError: It is there and cannot be read.
    """
    with suppress(FileNotFoundError):
        return read_regular(beside(file, SIGNATURE), MAX_ENVELOPE)
    return b""


def read_manifest(place: str) -> bytes:
    """Return the JSON of the manifest of an installed artifact.

    It counts only if its digest is that in the index: who may have written it does not matter.

    Raises:
        OSError: It is not there or cannot be read.
        VerificationError: It is damaged.
    """
    import zstandard

    path = f"{place}/{MANIFEST}"
    with open_place(place) as folder, os.fdopen(folder.file(MANIFEST), "rb") as file:
        content = file.read(check_size(file.fileno(), MAX_MANIFEST, path))
    try:
        if zstandard.get_frame_parameters(content).content_size <= MAX_MANIFEST:
            return zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)
    except zstandard.ZstdError:
        pass
    raise VerificationError(f"{path} is damaged", [Problem(path, "is not a compressed manifest")])
