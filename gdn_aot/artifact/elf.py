"""What a cubin says about itself: architecture, kernels, their parameters and threads, registers.

A cubin is a 64-bit little-endian ELF file. Two layouts are in use. In ABI 7 (``e_ident[8]``; ptxas 12 for targets
below sm_100) the architecture is the low byte of ``e_flags``, in ABI 8 (sm_100 and up) it is the byte above. Registers
and stack frames are attributes in the ``.nv.info`` section, parameters and threads of a kernel in ``.nv.info.<name>``.
Checked against ``cuobjdump`` for all targets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot.errors import Problem, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_IDENT = b"\x7fELF\x02\x01\x01"
_EM_CUDA = 190
_OS_ABI = 7
_ABI_VERSION = 8
_ARCH_SHIFT = {(0x33, 7): 0, (0x41, 8): 8}
"""(OS ABI, ABI version) -> position of the architecture in ``e_flags``."""
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PAIR = struct.Struct("<II")
_PARAMETER = struct.Struct("<IHHI")
"""Function, number, offset, and the size from bit 18 on."""
_SIZE_BIT = 18
_THREADS = struct.Struct("<III")
_TEXT = b".text."
_INFO = b".nv.info"
_PROGBITS, _EXECUTABLE = 1, 4
_CUDA_INFO = 0x70000000
"""Type of the sections that hold attributes."""
_EIFMT_SIZED = 0x04
"""Format of an attribute that is followed by its size and value; the others have two bytes in place of the size."""
_EIATTR_REGCOUNT = 0x2F
_EIATTR_FRAME_SIZE = 0x11
_EIATTR_REQNTID = 0x10
_EIATTR_KPARAM_INFO = 0x17
_WANTED = {_EIATTR_REGCOUNT, _EIATTR_FRAME_SIZE, _EIATTR_REQNTID, _EIATTR_KPARAM_INFO}
_MAX_SECTIONS, _MAX_ATTRIBUTES, _MAX_NAME = 256, 256, 256
"""Of a cubin. GDN kernels have up to 31 sections and 35 attributes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What a cubin says of one kernel in it."""

    parameters: tuple[int, ...] = ()
    """Bytes of each, in order."""
    threads: int | None = None
    """Threads of a block, if it can be launched with no other number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CubinInfo:
    """What `describe` reads from a cubin."""

    arch: int
    """90 for sm_90."""
    registers: int
    """32-bit registers per thread, the most over the functions."""
    local: int
    """Bytes of stack frame per thread, the most over the functions."""
    entries: dict[str, Entry]
    """The functions by name, sorted."""


def describe(cubin: bytes | memoryview) -> CubinInfo:
    """Read a cubin's headers.

    Raises:
        VerificationError: The bytes are not a whole cubin of a layout known here.
    """
    try:
        return _describe(memoryview(cubin))
    except (struct.error, IndexError, OverflowError, ValueError) as error:
        raise _wrong("is cut short or malformed") from error


def _describe(cubin: memoryview) -> CubinInfo:
    identity, _, machine, _, _, _, offset, flags, _, _, _, size, count, names = _HEADER.unpack_from(cubin)
    if not identity.startswith(_IDENT) or machine != _EM_CUDA:
        raise _wrong("is not a cubin")
    shift = _ARCH_SHIFT.get((identity[_OS_ABI], identity[_ABI_VERSION]))
    if shift is None:
        raise _wrong(f"has the unknown ABI {identity[_OS_ABI]:#x} version {identity[_ABI_VERSION]}")
    if size != _SECTION.size or count > _MAX_SECTIONS:
        raise _wrong(f"has {count} sections of {size} bytes, expected at most {_MAX_SECTIONS} of {_SECTION.size}")
    texts, infos = _sections(cubin, offset, count, names)
    if not texts:
        raise _wrong("holds no function")
    most = {_EIATTR_REGCOUNT: 0, _EIATTR_FRAME_SIZE: 0}
    for kind, value in _attributes(infos.get(_INFO, b"")):
        if kind in most and len(value) == _PAIR.size:
            most[kind] = max(most[kind], _PAIR.unpack(value)[1])
    return CubinInfo(
        arch=flags >> shift & 0xFF,
        registers=most[_EIATTR_REGCOUNT],
        local=most[_EIATTR_FRAME_SIZE],
        entries={name.decode("ascii"): _entry(infos.get(_INFO + b"." + name, b"")) for name in sorted(texts)},
    )


def _sections(cubin: memoryview, offset: int, count: int, names: int) -> tuple[list[bytes], dict[bytes, bytes]]:
    """Return the names of the functions, and the contents of the sections with attributes by name."""
    table = cubin[offset : offset + count * _SECTION.size]
    if len(table) != count * _SECTION.size:
        raise _wrong("is cut short or malformed")
    headers = [*_SECTION.iter_unpack(table)]
    strings = headers[names][4]
    texts, infos = [], {}
    for name_at, kind, flags, _, begin, length, *_ in headers:
        if kind == _CUDA_INFO or (kind == _PROGBITS and flags & _EXECUTABLE):
            at = strings + name_at
            name = bytes(cubin[at : at + _MAX_NAME]).partition(b"\0")[0]
            if kind == _CUDA_INFO:
                infos[name] = bytes(cubin[begin : begin + length])
            elif name.startswith(_TEXT):
                texts.append(name[len(_TEXT) :])
    return texts, infos


def _entry(info: bytes) -> Entry:
    sizes: dict[int, int] = {}
    threads = None
    for kind, value in _attributes(info):
        if kind == _EIATTR_KPARAM_INFO:
            _, number, _, packed = _PARAMETER.unpack(value)
            sizes[number] = packed >> _SIZE_BIT
        elif kind == _EIATTR_REQNTID:
            x, y, z = _THREADS.unpack(value)
            threads = x * y * z
    if sizes.keys() != {*range(len(sizes))}:
        raise _wrong("does not number the parameters of a function from 0 on")
    return Entry(parameters=tuple(sizes[number] for number in range(len(sizes))), threads=threads)


def _attributes(info: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (attribute, value) for those attributes of a section that are looked at here."""
    at, end = 0, len(info)
    for _ in range(_MAX_ATTRIBUTES):
        if at + 4 > end:
            return
        form, kind, length = info[at], info[at + 1], info[at + 2] | info[at + 3] << 8
        at += 4
        if form == _EIFMT_SIZED:
            if kind in _WANTED:
                yield kind, info[at : at + length]
            at += length
    raise _wrong(f"has more than {_MAX_ATTRIBUTES} attributes")


def _wrong(what: str) -> VerificationError:
    return VerificationError(f"the binary {what}", [Problem("", what)])
