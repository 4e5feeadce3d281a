"""The index of an installed artifact: what the loader looks up, in one file that is never read whole.

A serving process uses a dozen of an artifact's thousands of binaries, so the manifest's JSON is taken apart once, when
the artifact is installed: `write_index` makes the file, `Index` reads single records of it. Every byte is covered by a
digest: the header's and the table's are in the first bytes, each record's is in the table.

Layout, integers little-endian::

    8 bytes   magic with the format number
    u32 u32   bytes of the header, rows of the table
    32 32     SHA-256 of the header and of the table
    header    JSON: identity of the artifact, enough to accept or reject it
    table     rows sorted by name: 16-byte digest of the record's name, u32 offset and u32 size in what follows,
              16-byte digest of the record
    records   JSON
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from gdn_aot.errors import Problem, UnknownFormatError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from gdn_aot.artifact.manifest import Binary, Choice, Kernel, Manifest

NAME = "index"
"""File name of the index beside ``manifest.json``."""

_MAGIC = b"gdnaot\0\2"
_FIXED = struct.Struct("<8sII32s32s")
_ROW = struct.Struct("<16sII16s")
_DIGEST = 16
_MAX_HEADER = 1 << 24


class KernelRecord(NamedTuple):
    """What is needed to recognize a kernel in a process that imported its module."""

    module: str
    qualname: str
    source_sha256: str
    """Of the function's text as Triton read it."""
    sources: list[tuple[str, str]]
    """(path relative to the provider's site-packages, SHA-256) of each file that its text is in."""
    dependencies: list[tuple[str, str, str, str]]
    """(name it is called by, module, qualname, SHA-256 of its text) of each function that it calls."""
    globals: list[tuple[str, str]]
    """(name, repr) of each global that it reads."""

    @property
    def name(self) -> str:
        """``module:qualname``."""
        return f"{self.module}:{self.qualname}"


class ConfigRecord(NamedTuple):
    """One ``triton.Config``."""

    kwargs: dict[str, Any]
    num_warps: int
    num_stages: int
    num_ctas: int
    maxnreg: int | None


class ChoiceRecord(NamedTuple):
    """The configuration for one autotune key."""

    key: tuple[Any, ...]
    config: ConfigRecord
    provenance: str


class BinaryRecord(NamedTuple):
    """One compiled kernel, without its code."""

    launch_key: str
    cubin: str
    """SHA-256 of the code."""
    metadata: dict[str, Any]
    """Triton's, without what belongs to the machine that compiled."""
    specialization: dict[str, Any]
    """Signature, constants, attributes and options, in JSON form."""


def binary_name(kernel: str, launch_key: str) -> bytes:
    """Return the name of the record of one binary; ``kernel`` is ``module:qualname``."""
    return _name("binary", kernel, launch_key)


def write_index(manifest: Manifest, sha256: str) -> bytes:
    """Return the bytes of an artifact's index.

    Args:
        manifest: The artifact's manifest.
        sha256: Of the artifact file.
    """
    records: dict[bytes, bytes] = {}
    models: list[dict[str, list[str]]] = [{} for _ in manifest.models]
    for kernel in manifest.kernels:
        name = f"{kernel.module}:{kernel.qualname}"
        records[_name("choices", name)] = _dump([_choice(choice) for choice in kernel.choices])
        for binary in kernel.binaries:
            key = binary_name(name, binary.launch_key)
            records[key] = _dump(_binary(binary))
            for model in binary.models:
                models[model].setdefault(name, []).append(key.hex())
    for number, wanted in enumerate(models):
        records[_name("model", str(number))] = _dump(wanted)
    records[_name("kernels")] = _dump([_kernel(kernel) for kernel in manifest.kernels])
    header = _dump(_header(manifest, sha256))
    rows, body, offset = [], [], 0
    for key in sorted(records):
        record = records[key]
        rows.append(_ROW.pack(key, offset, len(record), _digest(record)))
        body.append(record)
        offset += len(record)
    table = b"".join(rows)
    fixed = _FIXED.pack(_MAGIC, len(header), len(rows), hashlib.sha256(header).digest(), hashlib.sha256(table).digest())
    return b"".join([fixed, header, table, *body])


class Index:
    """Reads an index. Safe to use from several threads and after a fork: every read names its offset.

    Raises:
        OSError: The file cannot be opened or read.
        VerificationError: It is not an index, or is damaged.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        fixed = os.pread(self._file, _FIXED.size, 0)
        if len(fixed) != _FIXED.size or fixed[:6] != _MAGIC[:6]:
            raise self._damaged("it is not an index")
        magic, size, self._rows, header_digest, self._table_digest = _FIXED.unpack(fixed)
        if magic != _MAGIC:
            problem = Problem(self.path, f"format {magic[-1]}, expected {_MAGIC[-1]}")
            raise UnknownFormatError(f"{self.path} is of another format", [problem])
        if size > _MAX_HEADER:
            raise self._damaged("its header is too large")
        data = self._read(_FIXED.size, size)
        if hashlib.sha256(data).digest() != header_digest:
            raise self._damaged("its header is damaged")
        self.header: Mapping[str, Any] = json.loads(data)
        """Identity of the artifact: see `_header`."""
        self._table_at = _FIXED.size + size
        self._table: bytes | None = None
        self._kernels: list[KernelRecord] | None = None

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def kernels(self) -> list[KernelRecord]:
        """Return what identifies each kernel."""
        if self._kernels is None:
            self._kernels = [KernelRecord(*fields) for fields in self._json(_name("kernels")) or ()]
        return self._kernels

    def choices(self, kernel: str) -> list[ChoiceRecord]:
        """Return the choices of a kernel, which is named ``module:qualname``."""
        found = self._json(_name("choices", kernel)) or ()
        return [ChoiceRecord(tuple(key), ConfigRecord(*config), provenance) for key, config, provenance in found]

    def binary(self, kernel: str, launch_key: str) -> BinaryRecord | None:
        """Return one binary, or None if the artifact lacks it."""
        found = self._json(binary_name(kernel, launch_key))
        return BinaryRecord(*found) if found and found[0] == launch_key else None

    def binary_by_name(self, name: str) -> BinaryRecord:
        """Return a binary by the name of its record, in hexadecimal as `model` returns it."""
        found = self._json(bytes.fromhex(name))
        if found is None:
            raise self._damaged(f"binary {name} is missing")
        return BinaryRecord(*found)

    def model(self, number: int) -> dict[str, list[str]]:
        """Return the names of the binaries of one model: ``module:qualname`` -> names in hexadecimal."""
        return self._json(_name("model", str(number))) or {}

    def _json(self, name: bytes) -> Any:
        row = self._find(name)
        if row is None:
            return None
        _, offset, size, digest = row
        data = self._read(self._table_at + self._rows * _ROW.size + offset, size)
        if _digest(data) != digest:
            raise self._damaged("a record is damaged")
        return json.loads(data)

    def _find(self, name: bytes) -> tuple[bytes, int, int, bytes] | None:
        if self._table is None:
            table = self._read(self._table_at, self._rows * _ROW.size)
            if hashlib.sha256(table).digest() != self._table_digest:
                raise self._damaged("its table is damaged")
            self._table = table
        low, high = 0, self._rows
        while low < high:
            middle = (low + high) // 2
            at = middle * _ROW.size
            if self._table[at : at + _DIGEST] < name:
                low = middle + 1
            else:
                high = middle
        at = low * _ROW.size
        if low == self._rows or self._table[at : at + _DIGEST] != name:
            return None
        return _ROW.unpack_from(self._table, at)

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._file, size, offset)
        if len(data) != size:
            raise self._damaged("it is truncated")
        return data

    def _damaged(self, what: str) -> VerificationError:
        return VerificationError(f"{self.path}: {what}", [Problem(self.path, what)])


def _name(*parts: str) -> bytes:
    return _digest("\0".join(parts).encode())


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _header(manifest: Manifest, sha256: str) -> dict[str, object]:
    return {
        "identifier": manifest.identifier,
        "sha256": sha256,
        "target": manifest.target.name,
        "capability": manifest.target.capability,
        "provider": manifest.provider.name,
        "distribution": manifest.provider.distribution,
        "version": manifest.provider.version,
        "triton": manifest.triton.version,
        "workloads": manifest.workloads,
        "models": [
            {
                "name": model.name,
                "tp": model.tp,
                "heads": model.heads,
                "v_heads": model.v_heads,
                "k_dim": model.k_dim,
                "v_dim": model.v_dim,
                "conv_width": model.conv_width,
                "dtype": model.dtype,
            }
            for model in manifest.models
        ],
        "modules": sorted({kernel.module for kernel in manifest.kernels}),
        "kernels": len(manifest.kernels),
        "choices": sum(len(kernel.choices) for kernel in manifest.kernels),
        "binaries": sum(len(kernel.binaries) for kernel in manifest.kernels),
        "dirty": manifest.build.dirty,
    }


def _kernel(kernel: Kernel) -> KernelRecord:
    return KernelRecord(
        kernel.module,
        kernel.qualname,
        kernel.source_sha256,
        [(source.path, source.sha256) for source in kernel.sources],
        [(needed.name, needed.module, needed.qualname, needed.source_sha256) for needed in kernel.dependencies],
        [(used.name, used.value) for used in kernel.globals],
    )


def _choice(choice: Choice) -> ChoiceRecord:
    config = choice.config
    return ChoiceRecord(
        choice.key,
        ConfigRecord(dict(config.kwargs), config.num_warps, config.num_stages, config.num_ctas, config.maxnreg),
        choice.provenance,
    )


def _binary(binary: Binary) -> BinaryRecord:
    specialization = {
        "signature": dict(binary.specialization.signature),
        "constants": binary.specialization.constants,
        "attributes": binary.specialization.attributes,
        "options": dict(binary.specialization.options),
    }
    return BinaryRecord(binary.launch_key, binary.cubin, dict(binary.metadata), specialization)
