"""The index of an installed artifact: what the loader looks up, in one file that is never read whole.

A serving process uses a dozen of an artifact's thousands of binaries, so the manifest's JSON is taken apart once, when
the artifact is installed: `gdn_aot.store.index_writer` makes the file, `Index`
reads single records of it. Every byte is covered by a
digest: the header's and the table's are in the first bytes, each record's is in the table.

Layout, integers little-endian::

    8 bytes   magic with the format number
    u32 u32   bytes of the header, rows of the table
    32 32     SHA-256 of the header and of the table
    header    JSON: identity of the artifact, enough to accept or reject it
    table     rows sorted by name: 16-byte digest of the record's name, u32 offset and u32 size in what follows,
              16-byte digest of the record
    records   JSON, but for the one that says where in the pack each blob is: rows sorted by name, 32-byte SHA-256, u64
              offset and u64 size

What many binaries have in common word for word, such as their metadata, is a record of its own, and their records name
it by its number.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from contextlib import contextmanager

from gdn_aot._files import check_size, read_at
from gdn_aot.artifact.names import MAX_CHOICES, MAX_HEADER, MAX_MODULES
from gdn_aot.errors import Problem, UnknownFormatError, VerificationError

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from gdn_aot.store.index_records import BinaryRecord, CacheRecord, ChoiceRecord, KernelRecord, PlacedRecord

NAME = "index"
"""File name of the index in the directory of an artifact."""

MAGIC = b"gdnaot\0\3"
FORMAT = MAGIC[-1]
FIXED = struct.Struct("<8sII32s32s")
ROW = struct.Struct("<16sII16s")
BLOB = struct.Struct("<32sQQ")
_DIGEST = 16
_LARGEST = 256 << 20
"""Bytes of an index."""
_KEYS = (
    (("identifier", "sha256", "manifest_sha256", "target", "provider", "distribution", "version", "triton"), str),
    (("capability", "workloads", "models", "modules", "packages"), list),
    (("kernels", "choices", "binaries"), int),
)
"""Keys of the header by the type that each must have."""


def binary_name(kernel: str, launch_key: str) -> bytes:
    """Return the name of the record of one binary; ``kernel`` is ``module:qualname``."""
    return record_name("binary", kernel, launch_key)


def part_name(number: int) -> bytes:
    """Return the name of the record of something that binaries have in common."""
    return record_name("part", str(number))


class Index:
    """Reads an index. Safe to use from several threads and after a fork: every read names its offset.

    It owns the descriptor of the file, which messages call ``path``, or has its content instead. What is read from it
    raises `VerificationError` if it is damaged, or of another form than ours, and `OSError` if the disk fails.

    Raises:
        OSError: The file cannot be read, or is too large.
        VerificationError: It is not an index, or is damaged.
    """

    def __init__(self, file: int, path: str, content: bytes | None = None) -> None:
        self.path, self._file, self._content = path, file, content
        self._size = len(content) if content is not None else check_size(file, _LARGEST, path)
        fixed = self._fixed = self._read(0, FIXED.size) if self._size >= FIXED.size else b""
        if fixed[:6] != MAGIC[:6]:
            raise self._damaged("it is not an index")
        magic, size, self._rows, header_digest, self._table_digest = FIXED.unpack(fixed)
        if magic != MAGIC:
            problem = Problem(self.path, f"format {magic[-1]}, expected {MAGIC[-1]}")
            raise UnknownFormatError(f"{self.path} is of another format", [problem])
        if size > MAX_HEADER:
            raise self._damaged("its header is too large")
        data = self._read(FIXED.size, size)
        if hashlib.sha256(data).digest() != header_digest:
            raise self._damaged("its header is damaged")
        with self._of_our_form():
            self.header: Mapping[str, Any] = checked_header(json.loads(data))
            """Identity of the artifact: see `gdn_aot.store.index_writer`."""
        self._table_at = FIXED.size + size
        self._table: bytes | None = None
        self._blobs: bytes | None = None
        self._kernels: list[KernelRecord] | None = None
        self._parts: dict[int, bytes] = {}

    @classmethod
    def in_memory(cls, content: bytes) -> Index:
        """Open an index that no file holds."""
        return cls(-1, NAME, content)

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    @property
    def root(self) -> str:
        """Digest of the first bytes, which have the digests of everything else: SHA-256 in hexadecimal."""
        return hashlib.sha256(self._fixed).hexdigest()

    def check(self, *, deep: bool) -> None:
        """Check the table, and that the file has all bytes that it speaks of.

        ``deep`` reads every record too, and compares it with its digest.

        Raises:
            OSError: The file cannot be read.
            VerificationError: It is damaged.
        """
        table = self._whole_table()
        end = max((offset + size for _, offset, size, _ in ROW.iter_unpack(table)), default=0)
        if self._size < self._table_at + len(table) + end:
            raise self._damaged("it is truncated")
        for row in ROW.iter_unpack(table) if deep else ():
            self._record(row[0])

    def kernels(self) -> list[KernelRecord]:
        """Return what identifies each kernel."""
        from gdn_aot.store.index_records import KernelRecord

        if self._kernels is None:
            with self._of_our_form():
                self._kernels = [KernelRecord(*fields) for fields in self._json(record_name("kernels")) or ()]
        return self._kernels

    def relaxations(self, kernel: str) -> list[tuple[str, int | None, int | None]]:
        """Return the relaxations of a kernel, as `KernelRecord` has them."""
        return [one for record in self.kernels() if record.name == kernel for one in record.relaxations]

    def not_covered(self) -> list[tuple[str, str, int]]:
        """Return (kernel, reason, number of autotune keys) of what the build left out; without keys all of a kernel."""
        with self._of_our_form():
            return [(kernel, reason, keys) for kernel, reason, keys in self._json(record_name("not covered")) or ()]

    def placed(self) -> list[PlacedRecord]:
        """Return the files that are put in place when an engine starts."""
        from gdn_aot.store.index_records import PlacedRecord

        with self._of_our_form():
            return [PlacedRecord(*fields) for fields in self._json(record_name("placed")) or ()]

    def compile_cache(self) -> CacheRecord | None:
        """Return what the engine compiled, which is put in place if the user asks for it; None if there is none."""
        from gdn_aot.store.index_records import CacheRecord

        with self._of_our_form():
            found = self._json(record_name("compile cache"))
            return CacheRecord(*found) if found else None

    def blobs(self) -> list[tuple[str, int]]:
        """Return (SHA-256, bytes) of every blob, in the order in which the pack has them one after another."""
        rows = sorted(BLOB.iter_unpack(self._places()), key=lambda row: row[1:])
        return [(name.hex(), size) for name, _, size in rows]

    def place(self, sha256: str) -> tuple[int, int]:
        """Return (offset, bytes) of a blob in the pack.

        Raises:
            OSError: The file cannot be read.
            VerificationError: The artifact has no such blob, or the file is damaged.
        """
        found = _search(self._places(), BLOB, bytes.fromhex(sha256))
        if found is None:
            raise self._damaged(f"it has no blob {sha256}")
        return found[1], found[2]

    def choices(self, kernel: str) -> list[ChoiceRecord]:
        """Return the choices of a kernel, which is named ``module:qualname``."""
        from gdn_aot.store.index_records import ChoiceRecord, ConfigRecord

        with self._of_our_form():
            found = self._json(record_name("choices", kernel)) or ()
            if len(found) > MAX_CHOICES:
                raise self._damaged(f"it has more than {MAX_CHOICES} choices of {kernel}")
            return [ChoiceRecord(tuple(key), ConfigRecord(*config), provenance) for key, config, provenance in found]

    def binary(self, kernel: str, launch_key: str) -> BinaryRecord | None:
        """Return one binary, or None if the artifact lacks it."""
        found = self._json(binary_name(kernel, launch_key))
        return self._binary(found) if found and found[0] == launch_key else None

    def binary_by_name(self, name: str) -> BinaryRecord:
        """Return a binary by the name of its record, in hexadecimal as `model` returns it."""
        found = self._json(bytes.fromhex(name))
        if found is None:
            raise self._damaged(f"binary {name} is missing")
        return self._binary(found)

    def model(self, number: int) -> dict[str, list[tuple[str, list[int]]]]:
        """Return the binaries of one model: ``module:qualname`` -> (name in hexadecimal, indices of workloads)."""
        return self._json(record_name("model", str(number))) or {}

    def launch_keys(self, kernel: str) -> Iterator[str]:
        """Yield the launch key of every binary of a kernel. Reads each of them, which is nothing for every launch."""
        wanted = [*map(self.model, range(len(self.header["models"]))), self.captured()]
        with self._of_our_form():
            names = dict.fromkeys(name for binaries in wanted for name, _ in binaries.get(kernel, ()))
        for name in names:
            yield self.binary_by_name(name).launch_key

    def captured(self) -> dict[str, list[tuple[str, list[int]]]]:
        """Return the binaries that a capture asked for, as `model` does those of a model."""
        return self._json(record_name("captured")) or {}

    def _binary(self, found: list[Any]) -> BinaryRecord:
        from gdn_aot.store.index_records import SPECIALIZATION, BinaryRecord

        with self._of_our_form():
            launch_key, cubin, metadata, *rest = found
            specialization = {field: self._part(number) for field, number in zip(SPECIALIZATION, rest, strict=True)}
            return BinaryRecord(launch_key, cubin, self._part(metadata), specialization)

    def _part(self, number: int) -> Any:
        """Return what binaries have in common under a number; a new object each time."""
        if number not in self._parts:
            record = self._record(part_name(number))
            if record is None:
                raise self._damaged(f"part {number} of its binaries is missing")
            self._parts[number] = record
        return json.loads(self._parts[number])

    def _json(self, name: bytes) -> Any:
        record = self._record(name)
        with self._of_our_form():
            return None if record is None else json.loads(record)

    def _record(self, name: bytes) -> bytes | None:
        row = self._find(name)
        if row is None:
            return None
        _, offset, size, expected = row
        data = self._read(self._table_at + self._rows * ROW.size + offset, size)
        if digest(data) != expected:
            raise self._damaged("a record is damaged")
        return data

    def _find(self, name: bytes) -> tuple[Any, ...] | None:
        return _search(self._whole_table(), ROW, name)

    def _whole_table(self) -> bytes:
        if self._table is None:
            table = self._read(self._table_at, self._rows * ROW.size)
            if hashlib.sha256(table).digest() != self._table_digest:
                raise self._damaged("its table is damaged")
            self._table = table
        return self._table

    def _places(self) -> bytes:
        """Return where each blob is, as rows of `BLOB`."""
        if self._blobs is None:
            self._blobs = self._record(record_name("blobs")) or b""
            if len(self._blobs) % BLOB.size:
                raise self._damaged("its table of blobs is damaged")
        return self._blobs

    def _read(self, offset: int, size: int) -> bytes:
        if self._content is not None:
            data = self._content[offset : offset + size]
        else:
            data = read_at(self._file, size, offset) if offset + size <= self._size else b""
        if len(data) != size:
            raise self._damaged("it is truncated")
        return data

    @contextmanager
    def _of_our_form(self) -> Iterator[None]:
        """Turn what happens to whoever reads records of another form into an error of this file."""
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise self._damaged("a record has another form") from error

    def _damaged(self, what: str) -> VerificationError:
        return VerificationError(f"{self.path}: {what}", [Problem(self.path, what)])


def checked_header(header: Any) -> Any:
    """Return a header that has what is read of it.

    Raises:
        LookupError: Something is missing.
        TypeError: Something has another type.
        ValueError: It names more modules than any artifact has.
    """
    typed: list[tuple[object, type]] = [(header[name], kind) for names, kind in _KEYS for name in names]
    typed += [(member, int) for member in header["capability"]] + [(header.get("card", ""), str)]
    typed += [(member, str) for name in ("modules", "packages", "workloads") for member in header[name]]
    if not all(isinstance(value, kind) for value, kind in typed):
        raise TypeError
    if len(header["modules"]) > MAX_MODULES or len(header["capability"]) != 2:  # noqa: PLR2004
        raise ValueError
    return header


def _search(table: bytes, row: struct.Struct, name: bytes) -> tuple[Any, ...] | None:
    """Return the row of a sorted table whose first bytes are a name, or None."""
    low, high = 0, len(table) // row.size
    while low < high:
        middle = (low + high) // 2
        at = middle * row.size
        if table[at : at + len(name)] < name:
            low = middle + 1
        else:
            high = middle
    at = low * row.size
    return row.unpack_from(table, at) if table[at : at + len(name)] == name else None


def record_name(*parts: str) -> bytes:
    """Return the name of a record."""
    return digest("\0".join(parts).encode())


def digest(data: bytes) -> bytes:
    """Return the digest that names and checks records."""
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()
