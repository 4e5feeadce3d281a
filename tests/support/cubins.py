"""Cubins that no assembler made: the headers and attributes that are looked at, and any code."""

import struct
from collections.abc import Sequence

_LAYOUTS = {7: (0x33, 0), 8: (0x41, 8)}
"""ABI version -> OS ABI, position of the architecture in the flags."""


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("<BBH", 4, kind, len(value)) + value


def make_cubin(
    name: str = "k",
    *,
    arch: int = 120,
    parameters: Sequence[int] = (),
    threads: int | None = None,
    registers: int = 0,
    local: int = 0,
    code: bytes = b"",
    info: bytes = b"",
    abi: int | None = None,
) -> bytes:
    """Return a cubin of one function, as ptxas writes it for an architecture; ``info`` is more of its attributes."""
    version = abi or (8 if arch >= 100 else 7)
    os_abi, shift = _LAYOUTS[version]
    places = [sum(parameters[:number]) for number in range(len(parameters))]
    info += b"".join(
        attribute(0x17, struct.pack("<IHHI", 0, number, place, size << 18 | 0x1F000))
        for number, (place, size) in reversed([*enumerate(zip(places, parameters, strict=True))])
    )
    info += attribute(0x10, struct.pack("<III", threads, 1, 1)) if threads is not None else b""
    most = attribute(0x2F, struct.pack("<II", 1, registers)) + attribute(0x11, struct.pack("<II", 1, local))
    sections = [
        (b"", 0, 0, b""),
        (b".text." + name.encode(), 1, 6, code),
        (b".nv.info", 0x70000000, 0, most),
        (b".nv.info." + name.encode(), 0x70000000, 0, info),
    ]
    names = b"\0".join([*(section[0] for section in sections), b".shstrtab", b""])
    sections.append((b".shstrtab", 3, 0, names))
    headers, contents, at = b"", b"", 64
    for title, kind, flags, content in sections:
        place = names.index(b"\0" + title + b"\0") + 1 if title else 0
        headers += struct.pack("<IIQQQQIIQQ", place, kind, flags, 0, at, len(content), 0, 0, 1, 0)
        contents, at = contents + content, at + len(content)
    ident = b"\x7fELF\x02\x01\x01" + bytes([os_abi, version]) + bytes(7)
    last = len(sections) - 1
    head = (ident, 2, 190, 1, 0, 0, at, arch << shift, 64, 0, 0, 64, len(sections), last)
    return struct.pack("<16sHHIQQQIHHHHHH", *head) + contents + headers
