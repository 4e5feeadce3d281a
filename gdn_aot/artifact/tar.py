"""Tar headers: one way to write them. A header that is read is compared with the one that would have been written.

The layout is POSIX 1003.1-1988 ustar, which every tar reads. There is no use for the extensions that make tar files
dangerous (links, devices, long names, sparse files), so none is understood here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_T = TypeVar("_T")
BLOCK = 512
END = bytes(2 * BLOCK)
"""What follows the last member."""

_SIZE = slice(124, 136)
_OCTAL = re.compile(rb"[0-7]{11}\0")
_OWNER = b"0000644\0" + b"0000000\0" * 2
_REST = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
_CONSTANT = sum(_OWNER) + sum(_REST) + 8 * 0x20
"""What is the same in the checksum of every header that `encode` writes."""


def encode(name: str, size: int, mtime: int) -> bytes:
    """Return the header of a regular file that belongs to nobody, mode 0644."""
    named = name.encode("ascii")
    numbers = b"%011o\0%011o\0" % (size, mtime)
    checksum = _CONSTANT + sum(named) + sum(numbers)
    return b"".join((named.ljust(100, b"\0"), _OWNER, numbers, b"%06o\0 " % checksum, _REST))


def content_size(header: bytes) -> int | None:
    """Return the bytes of content that a header speaks of, or None if it does not say so as `encode` does."""
    field = header[_SIZE]
    return int(field[:-1], 8) if _OCTAL.fullmatch(field) else None


def padding(size: int) -> int:
    """Return how many zero bytes follow content of ``size`` bytes."""
    return -size % BLOCK


def grouped(items: Iterable[_T], size_of: Callable[[_T], int], enough: int) -> Iterator[list[_T]]:
    """Yield items in lists, each of which ends where it has more than ``enough`` bytes."""
    group: list[_T] = []
    size = 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if size > enough:
            yield group
            group, size = [], 0
    if group:
        yield group


def member_size(size: int) -> int:
    """Return the bytes that a member takes: header, content, padding."""
    return BLOCK + size + padding(size)
