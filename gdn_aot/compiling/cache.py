"""The build cache: traces and compiled kernels keyed by content, so that an unchanged rebuild does no work.

Three layers under one directory, in which a file is whole as soon as it has its name. Every key is a SHA-256 in
hexadecimal, and no symbolic link below the directory is written through:

* ``traces/KEY``: a trace, keyed by everything it depends on
* ``launches/KEY``: what became of one (kernel source, launch key, target, compiler): an object, or a rejection
* ``objects/KEY``: a compiled kernel, keyed by the IR its source becomes, so launches that differ only in a constexpr
  which the kernel does not use share one; cubins lie beside it by digest, and so does, where it was asked for, the
  PTX that a cubin was assembled from
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zstandard

from gdn_aot._files import read_regular
from gdn_aot._text import shown
from gdn_aot.errors import NotWritableError, VerificationError
from gdn_aot.launches import CompiledKernel, Outcome
from gdn_aot.store.folder import Folder
from gdn_aot.store.store import default_home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gdn_aot.launches import Json, Kernel, Specialization

VERSION = 1
"""Part of every key: raise it when what is stored changes its meaning."""
_MOST = 128 << 20
"""Bytes of an entry, also when it is decompressed: some twenty times the largest trace that there is."""
_MOST_RECORD = 1 << 20
"""Bytes of a record: one has less than a thousand, or the message of a compiler."""
_MODE, _FILE_MODE = 0o777, 0o666
_IS_DIGEST = re.compile("[0-9a-f]{64}").fullmatch


def digest(*parts: object) -> str:
    """Return the SHA-256 of a canonical JSON form of ``parts``."""
    text = json.dumps([VERSION, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def launch_digest(kernel: Kernel, specialization: Specialization, compiler: Mapping[str, str]) -> str:
    """Return the key of one launch in the cache; ``compiler`` has the target and the versions of Triton and ptxas."""
    return digest(kernel.name, kernel.cache_key, msgspec.to_builtins(specialization), dict(compiler))


class _Launch(msgspec.Struct, omit_defaults=True):
    object: str | None = None
    rejected: str | None = None


class BuildCache:
    """A build cache directory. An entry that is no regular file, a link, damaged or too large is none.

    Raises:
        ValueError: From everything, when a key is no SHA-256.
        NotWritableError: From any write, when the directory is read-only or full, or a link is in the way.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def trace(self, key: str) -> bytes | None:
        """Return a stored trace, or None."""
        return _decompressed(self._read("traces", key))

    def put_trace(self, key: str, trace: bytes) -> None:
        """Store a trace."""
        self._write("traces", key, zstandard.ZstdCompressor(level=3).compress(trace))

    def launch(self, key: str) -> Outcome | None:
        """Return what became of a launch, or None if it was never compiled or its files are gone."""
        data = self._read("launches", key, _MOST_RECORD)
        with contextlib.suppress(ValueError, RecursionError):
            stored = msgspec.json.decode(data or b"", type=_Launch)
            if stored.rejected is not None:
                return Outcome(rejected=stored.rejected)
            found = self.object(str(stored.object))
            return None if found is None else Outcome(object=found)
        return None

    def put_launch(self, key: str, *, object_key: str | None = None, rejected: str | None = None) -> None:
        """Store what became of a launch."""
        if object_key is not None:
            check_key(object_key)
        self._write("launches", key, msgspec.json.encode(_Launch(object_key, rejected)))

    def object(self, key: str) -> CompiledKernel | None:
        """Return a compiled kernel, or None."""
        data = self._read("objects", key, _MOST_RECORD)
        with contextlib.suppress(ValueError, RecursionError):
            found = msgspec.json.decode(data or b"", type=CompiledKernel)
            return found if self.has_cubin(found.cubin) else None
        return None

    def put_object(
        self, key: str, cubin: bytes, metadata: dict[str, Json], registers: int, local: int
    ) -> CompiledKernel:
        """Store a compiled kernel."""
        check_key(key)
        stored = CompiledKernel(
            cubin=hashlib.sha256(cubin).hexdigest(), metadata=metadata, registers=registers, local=local
        )
        self._write("cubins", stored.cubin, cubin)
        self._write("objects", key, msgspec.json.encode(stored))
        return stored

    def cubin(self, sha256: str) -> bytes:
        """Return a cubin, checked against its digest.

        Raises:
            OSError: It is not there.
            VerificationError: Its bytes have changed.
        """
        data = read_regular(self._path("cubins", sha256), _MOST, follow=False)
        if hashlib.sha256(data).hexdigest() != sha256:
            self._discard("cubins", sha256)
            raise VerificationError(f"cubin {sha256} in the build cache has changed on disk", hint="build again")
        return data

    def put_cubin(self, sha256: str, cubin: bytes) -> None:
        """Store a cubin of which nothing else is known here."""
        self._write("cubins", sha256, cubin)

    def has_cubin(self, sha256: str) -> bool:
        """Say whether a cubin is there."""
        return self._has("cubins", sha256)

    def has_ptx(self, sha256: str) -> bool:
        """Say whether the PTX of a cubin is kept."""
        return self._has("ptx", sha256)

    def put_ptx(self, sha256: str, ptx: str) -> None:
        """Keep the PTX that a cubin was assembled from."""
        self._write("ptx", sha256, zstandard.ZstdCompressor(level=9).compress(ptx.encode()))

    def ptx(self, sha256: str) -> str:
        """Return the PTX that a cubin was assembled from.

        Raises:
            VerificationError: It is not there, or its bytes have changed.
        """
        found = _decompressed(self._read("ptx", sha256))
        with contextlib.suppress(UnicodeDecodeError):
            if found is not None:
                return found.decode()
        self._discard("ptx", sha256)
        raise VerificationError(f"the PTX of cubin {sha256} is not in the build cache", hint="build again")

    def cubin_size(self, sha256: str) -> int:
        """Return the bytes of a cubin.

        Raises:
            OSError: It is not there.
        """
        return os.lstat(self._path("cubins", sha256)).st_size

    def _path(self, kind: str, key: str) -> str:
        check_key(key)
        return f"{self.root}/{kind}/{key[:2]}/{key}"

    def _has(self, kind: str, key: str) -> bool:
        path = self._path(kind, key)
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            return stat.S_ISREG(status.st_mode) and status.st_size <= _MOST
        return False

    def _read(self, kind: str, key: str, most: int = _MOST) -> bytes | None:
        path = self._path(kind, key)
        with contextlib.suppress(OSError):
            return read_regular(path, most, follow=False)
        return None

    def _folder(self, kind: str, key: str) -> Folder:
        with Folder.at(str(self.root)) as root, root.make(kind, _MODE) as layer:
            return layer.make(key[:2], _MODE)

    def _write(self, kind: str, key: str, data: bytes) -> None:
        check_key(key)
        if self._read(kind, key) == data:
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._folder(kind, key) as folder:
                folder.put(key, data, mode=_FILE_MODE)
        except OSError as error:
            linked = error.errno == errno.ELOOP
            place = os.fsdecode(error.filename) if linked and error.filename else self.root
            raise NotWritableError(
                f"cannot write the build cache {place}: {error.strerror}",
                hint="remove the link: only the cache as a whole may be elsewhere"
                if linked
                else "set GDN_AOT_HOME to a directory with free space",
            ) from error

    def _discard(self, kind: str, key: str) -> None:
        with contextlib.suppress(OSError), self._folder(kind, key) as folder:
            folder.discard(key)


def check_key(key: str) -> None:
    """Check that a key of an entry is a digest: it becomes part of a path.

    Raises:
        ValueError: It is none.
    """
    if not _IS_DIGEST(key):
        raise ValueError(f"{shown(key)!r} is not the key of an entry of a build cache")


def _decompressed(stored: bytes | None) -> bytes | None:
    """Return what was compressed, or None if it was not, or is too large."""
    with contextlib.suppress(zstandard.ZstdError):
        if stored is not None and zstandard.get_frame_parameters(stored).content_size <= _MOST:
            return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    return None


def default_cache() -> BuildCache:
    """Return the cache at ``$GDN_AOT_HOME/build``, or under the XDG cache directory."""
    return BuildCache(Path(default_home()) / "build")
