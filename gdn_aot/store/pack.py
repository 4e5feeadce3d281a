"""Packs: the files of a store that hold the blobs, many in each.

A file for each blob costs a fifth of a millisecond to make and wastes part of a disk block; a pack of two thousand
blobs costs as much as a few of them. A pack never changes: it is written whole, and removed.

Layout, integers little-endian::

    8 bytes   magic with the format number
    u64       rows of the table
    table     rows sorted by name: SHA-256 of the blob, u64 offset from the start of the file, u64 size
    blobs     one after another
"""

from __future__ import annotations

import os
import struct

from gdn_aot.errors import Problem, VerificationError

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"gdnpack\1"
FIXED = struct.Struct("<8sQ")
ROW = struct.Struct("<32sQQ")
_DIGEST = 32
_MOST_ROWS = 1 << 24


class Pack:
    """Reads a pack. Safe to use from several threads and after a fork; goes on to work when the file is removed.

    Raises:
        OSError: The file cannot be opened or read.
        VerificationError: It is not a pack.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._file).st_size
        """Bytes of the file."""
        fixed = os.pread(self._file, FIXED.size, 0)
        magic, self._rows = FIXED.unpack(fixed) if len(fixed) == FIXED.size else (b"", 0)
        self._table = os.pread(self._file, self._rows * ROW.size, FIXED.size) if self._rows < _MOST_ROWS else b""
        if magic != MAGIC or len(self._table) != self._rows * ROW.size:
            raise VerificationError(f"{path} is not a pack", [Problem(path, "is not a pack, or is cut short")])

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, digest: bytes) -> bytes | None:
        """Return what is there for a blob, which is not checked; None if the pack does not have it.

        Args:
            digest: Its SHA-256.

        Raises:
            OSError: The file cannot be read.
        """
        table, low, high = self._table, 0, self._rows
        while low < high:
            middle = (low + high) // 2
            at = middle * ROW.size
            if table[at : at + _DIGEST] < digest:
                low = middle + 1
            else:
                high = middle
        at = low * ROW.size
        if low == self._rows or table[at : at + _DIGEST] != digest:
            return None
        _, offset, size = ROW.unpack_from(table, at)
        return os.pread(self._file, size, offset) if offset + size <= self.size else b""

    def blobs(self) -> Iterator[tuple[str, int]]:
        """Yield (SHA-256, bytes) of every blob; of one that is cut short, the bytes that are there."""
        for digest, offset, size in ROW.iter_unpack(self._table):
            yield digest.hex(), max(min(size, self.size - offset), 0)
