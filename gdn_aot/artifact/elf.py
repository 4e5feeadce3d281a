"""What a cubin says about itself: architecture, kernels, registers.

A cubin is a 64-bit little-endian ELF file. Two layouts are in use. In ABI 7 (``e_ident[8]``; ptxas 12 for targets
below sm_100) the architecture is the low byte of ``e_flags``, in ABI 8 (sm_100 and up) it is the byte above. Registers
and stack frames are attributes in the ``.nv.info`` section. Checked against ``cuobjdump`` for all targets.
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
_TEXT = b".text."
_EIFMT_SIZED = 0x04
"""Format of an attribute that is followed by its size and value; the others have two bytes in place of the size."""
_EIATTR_REGCOUNT = 0x2F
_EIATTR_FRAME_SIZE = 0x11


@dataclass(frozen=True, kw_only=True, slots=True)
class CubinInfo:
    """What `describe` reads from a cubin."""

    arch: int
    """90 for sm_90."""
    registers: int
    """32-bit registers per thread, the most over the functions."""
    local: int
    """Bytes of stack frame per thread, the most over the functions."""
    kernels: tuple[str, ...]
    """Names of the functions."""


def describe(cubin: bytes) -> CubinInfo:
    """Read a cubin's headers.

    Raises:
        VerificationError: The bytes are not a whole cubin of a layout known here.
    """
    try:
        return _describe(cubin)
    except (struct.error, IndexError, OverflowError) as error:
        raise _wrong("is cut short or malformed") from error


def _describe(cubin: bytes) -> CubinInfo:
    identity, _, machine, _, _, _, offset, flags, _, _, _, size, count, names = _HEADER.unpack_from(cubin)
    if not identity.startswith(_IDENT) or machine != _EM_CUDA:
        raise _wrong("is not a cubin")
    shift = _ARCH_SHIFT.get((identity[_OS_ABI], identity[_ABI_VERSION]))
    if shift is None:
        raise _wrong(f"has the unknown ABI {identity[_OS_ABI]:#x} version {identity[_ABI_VERSION]}")
    sections = dict(_sections(cubin, offset, size, count, names))
    kernels = tuple(
        sorted(name[len(_TEXT) :].decode("ascii", "replace") for name in sections if name.startswith(_TEXT))
    )
    if not kernels:
        raise _wrong("holds no function")
    attributes = list(_attributes(sections.get(b".nv.info", b"")))
    return CubinInfo(
        arch=flags >> shift & 0xFF,
        registers=max((value for kind, value in attributes if kind == _EIATTR_REGCOUNT), default=0),
        local=max((value for kind, value in attributes if kind == _EIATTR_FRAME_SIZE), default=0),
        kernels=kernels,
    )


def _sections(cubin: bytes, offset: int, size: int, count: int, names: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield (name, contents) of each section."""
    headers = [_SECTION.unpack_from(cubin, offset + index * size) for index in range(count)]
    strings = headers[names][4]
    for header in headers:
        name = cubin[strings + header[0] : strings + header[0] + 4096].partition(b"\0")[0]
        yield name, cubin[header[4] : header[4] + header[5]]


def _attributes(info: bytes) -> Iterator[tuple[int, int]]:
    """Yield (attribute, value) for the attributes of ``.nv.info`` that hold a (function, number) pair."""
    position = 0
    while position + 4 <= len(info):
        kind, attribute = info[position], info[position + 1]
        length = int.from_bytes(info[position + 2 : position + 4], "little")
        position += 4
        if kind == _EIFMT_SIZED:
            if length == _PAIR.size:
                yield attribute, _PAIR.unpack_from(info, position)[1]
            position += length


def _wrong(what: str) -> VerificationError:
    return VerificationError(f"the binary {what}", [Problem("", what)])
