"""Tar headers: one way to write them, and a strict reading that says what differs from it.

The layout is POSIX 1003.1-1988 ustar, which every tar reads. There is no use for the extensions that make tar files
dangerous (links, devices, long names, sparse files), so none is understood here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BLOCK = 512
END = bytes(2 * BLOCK)
"""What follows the last member."""

_NAME = re.compile(rb"manifest\.json|blobs/[0-9a-f]{64}")
_OCTAL = re.compile(rb"([0-7]+)[ \0]+")
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a FIFO",
    b"g": "a pax global header",
    b"x": "a pax header",
    b"K": "a GNU long link",
    b"L": "a GNU long name",
    b"S": "a GNU sparse file",
}
_FIELDS = {
    "name": (0, 100),
    "mode": (100, 108),
    "uid": (108, 116),
    "gid": (116, 124),
    "size": (124, 136),
    "mtime": (136, 148),
    "checksum": (148, 156),
    "type": (156, 157),
    "linkname": (157, 257),
    "magic": (257, 265),
    "uname": (265, 297),
    "gname": (297, 329),
    "device": (329, 345),
    "prefix": (345, 500),
    "padding": (500, 512),
}


_OWNER = b"0000644\0" + b"0000000\0" * 2
_REST = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
_CONSTANT = sum(_OWNER) + sum(_REST) + 8 * 0x20
"""What is the same in the checksum of every header that `encode` writes."""


class HeaderError(Exception):
    """A header after which the next one cannot be found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """One header as read."""

    name: str
    """As stored, with anything that is not printable ASCII escaped."""
    size: int
    """Bytes of content."""
    mtime: int | None
    """Seconds since 1970; None if that field cannot be read."""
    problems: tuple[str, ...]
    """Why the member must be refused; empty for a header that `encode` would write."""


def encode(name: str, size: int, mtime: int) -> bytes:
    """Return the header of a regular file that belongs to nobody, mode 0644."""
    named = name.encode("ascii")
    numbers = b"%011o\0%011o\0" % (size, mtime)
    checksum = _CONSTANT + sum(named) + sum(numbers)
    return b"".join((named.ljust(100, b"\0"), _OWNER, numbers, b"%06o\0 " % checksum, _REST))


def padding(size: int) -> int:
    """Return how many zero bytes follow content of ``size`` bytes."""
    return -size % BLOCK


def member_size(size: int) -> int:
    """Return the bytes that a member takes: header, content, padding."""
    return BLOCK + size + padding(size)


def decode(header: bytes) -> Header:
    """Read one header of 512 bytes that are not all zero.

    Raises:
        HeaderError: The checksum is wrong or the size cannot be read.
    """
    parts = {field: header[start:stop] for field, (start, stop) in _FIELDS.items()}
    checksum = _octal(parts["checksum"])
    if checksum != sum(header) - sum(parts["checksum"]) + 8 * 0x20:
        raise HeaderError("header checksum is wrong")
    size = _octal(parts["size"])
    if size is None:
        raise HeaderError("size field is not octal")
    raw = parts["name"].rstrip(b"\0")
    if parts["prefix"].strip(b"\0"):
        raw = parts["prefix"].rstrip(b"\0") + b"/" + raw
    name = ascii(raw.decode("latin-1"))[1:-1]
    mtime = _octal(parts["mtime"])
    problems = []
    if parts["type"] != b"0":
        found = _KINDS.get(parts["type"], f"of type {parts['type'].decode('latin-1')!a}")
        problems.append(f"is {found}, not a regular file")
    if not _NAME.fullmatch(raw):
        problems.append(f"has {_name_fault(raw)}, expected manifest.json or blobs/<sha256>")
    if not problems:
        wanted = encode(name, size, mtime or 0)
        wrong = [field for field, (a, b) in _FIELDS.items() if wanted[a:b] != header[a:b]]
        if wrong:
            named = [field for field in wrong if field != "checksum"] or wrong
            problems.append(f"is not in canonical form: {', '.join(named)}")
    return Header(name=name, size=size, mtime=mtime, problems=tuple(problems))


def _octal(field: bytes) -> int | None:
    match = _OCTAL.fullmatch(field)
    return int(match[1], 8) if match else None


def _name_fault(raw: bytes) -> str:
    if raw.startswith(b"/"):
        return "an absolute path"
    if b".." in raw.split(b"/"):
        return "a path with .."
    if b"\\" in raw:
        return "a backslash in its path"
    return "another name"
