"""The build cache: traces and compiled kernels keyed by content, so that an unchanged rebuild does no work.

Three layers under one directory, every file written to a temporary name and renamed:

* ``traces/KEY``: a trace, keyed by everything it depends on
* ``launches/KEY``: what became of one (kernel source, launch key, target, compiler): an object, or a rejection
* ``objects/KEY``: a compiled kernel, keyed by the IR its source becomes, so launches that differ only in a constexpr
  which the kernel does not use share one; cubins lie beside it by digest, and so does, where it was asked for, the
  PTX that a cubin was assembled from
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zstandard

from gdn_aot._files import write_whole
from gdn_aot.errors import NotWritableError
from gdn_aot.launches import CompiledKernel, Outcome
from gdn_aot.store.store import default_home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gdn_aot.launches import Json, Kernel, Specialization

VERSION = 1
"""Part of every key: raise it when what is stored changes its meaning."""


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
    """A build cache directory.

    Raises:
        NotWritableError: From any write, when the directory is read-only or full.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def trace(self, key: str) -> bytes | None:
        """Return a stored trace, or None."""
        stored = self._read("traces", key)
        with contextlib.suppress(zstandard.ZstdError):
            return None if stored is None else zstandard.ZstdDecompressor().decompress(stored)
        return None

    def put_trace(self, key: str, trace: bytes) -> None:
        """Store a trace."""
        self._write("traces", key, zstandard.ZstdCompressor(level=3).compress(trace))

    def launch(self, key: str) -> Outcome | None:
        """Return what became of a launch, or None if it was never compiled or its files are gone."""
        with contextlib.suppress(ValueError):
            stored = msgspec.json.decode(self._read("launches", key) or b"", type=_Launch)
            if stored.rejected is not None:
                return Outcome(rejected=stored.rejected)
            found = self.object(str(stored.object))
            return None if found is None else Outcome(object=found)
        return None

    def put_launch(self, key: str, *, object_key: str | None = None, rejected: str | None = None) -> None:
        """Store what became of a launch."""
        self._write("launches", key, msgspec.json.encode(_Launch(object_key, rejected)))

    def object(self, key: str) -> CompiledKernel | None:
        """Return a compiled kernel, or None."""
        with contextlib.suppress(ValueError):
            found = msgspec.json.decode(self._read("objects", key) or b"", type=CompiledKernel)
            return found if self._path("cubins", found.cubin).is_file() else None
        return None

    def put_object(
        self, key: str, cubin: bytes, metadata: dict[str, Json], registers: int, local: int
    ) -> CompiledKernel:
        """Store a compiled kernel."""
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
            ValueError: Its bytes have changed.
        """
        data = self._path("cubins", sha256).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            self._path("cubins", sha256).unlink(missing_ok=True)
            raise ValueError(f"cubin {sha256} in the build cache has changed on disk; build again")
        return data

    def put_cubin(self, sha256: str, cubin: bytes) -> None:
        """Store a cubin of which nothing else is known here."""
        self._write("cubins", sha256, cubin)

    def has_cubin(self, sha256: str) -> bool:
        """Say whether a cubin is there."""
        return self._path("cubins", sha256).is_file()

    def has_ptx(self, sha256: str) -> bool:
        """Say whether the PTX of a cubin is kept."""
        return self._path("ptx", sha256).is_file()

    def put_ptx(self, sha256: str, ptx: str) -> None:
        """Keep the PTX that a cubin was assembled from."""
        self._write("ptx", sha256, zstandard.ZstdCompressor(level=9).compress(ptx.encode()))

    def ptx(self, sha256: str) -> str:
        """Return the PTX that a cubin was assembled from.

        Raises:
            ValueError: It is not there, or its bytes have changed.
        """
        stored = self._read("ptx", sha256)
        with contextlib.suppress(zstandard.ZstdError):
            if stored is not None:
                return zstandard.ZstdDecompressor().decompress(stored).decode()
        raise ValueError(f"the PTX of cubin {sha256} is not in the build cache; build again")

    def cubin_size(self, sha256: str) -> int:
        """Return the bytes of a cubin.

        Raises:
            OSError: It is not there.
        """
        return self._path("cubins", sha256).stat().st_size

    def _path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / key

    def _read(self, kind: str, key: str) -> bytes | None:
        try:
            return self._path(kind, key).read_bytes()
        except OSError:
            return None

    def _write(self, kind: str, key: str, data: bytes) -> None:
        path = self._path(kind, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            raise NotWritableError(
                f"cannot write the build cache {self.root}: {error.strerror}",
                hint="set GDN_AOT_HOME to a directory with free space",
            ) from error


def default_cache() -> BuildCache:
    """Return the cache at ``$GDN_AOT_HOME/build``, or under the XDG cache directory."""
    return BuildCache(Path(default_home()) / "build")
