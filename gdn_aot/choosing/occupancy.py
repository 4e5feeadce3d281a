"""How many blocks of a kernel share an SM, and what to add to a launch so that fewer do.

The rules are those of the CUDA Occupancy Calculator: registers are allotted to warps in units of 256, shared memory in
units of 128 bytes, and from compute capability 8.0 on the system keeps 1 KiB of shared memory per block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.launches import CompiledKernel

_REGISTER_UNIT = 8
"""Registers per thread are allotted in multiples of this: 256 per warp of 32."""
_SHARED_UNIT = 128
"""Bytes."""
_RESERVED_SHARED = 1024
"""Bytes of shared memory that the system keeps per block (CUDA C++ Programming Guide)."""
_RESERVED_FROM = 80


def blocks_per_sm(compiled: CompiledKernel, target: Target, shared: int | None = None) -> int:
    """Return how many blocks of a kernel one SM of a target can hold at a time; 0 if not one fits.

    ``shared`` is the dynamic shared memory of a launch in bytes, if it is not what the kernel asks for.
    """
    registers = -(-max(compiled.registers, 1) // _REGISTER_UNIT) * _REGISTER_UNIT
    held = [
        target.blocks_per_sm,
        target.threads_per_sm // compiled.threads,
        target.registers_per_sm // (registers * compiled.threads),
    ]
    taken = _taken(compiled.shared if shared is None else shared, target)
    return min([*held, target.shared_per_sm // taken] if taken else held)


def shared_for(compiled: CompiledKernel, target: Target, blocks: int) -> int:
    """Return the bytes of dynamic shared memory with which no more than ``blocks`` blocks share an SM of a target.

    Never less than the kernel asks for; if even that lets fewer blocks share an SM, it is what is returned.
    """
    if blocks_per_sm(compiled, target) <= blocks:
        return compiled.shared
    each = target.shared_per_sm // blocks // _SHARED_UNIT * _SHARED_UNIT
    return max(compiled.shared, min(target.max_shared, each - _reserved(target)))


def _taken(shared: int, target: Target) -> int:
    return -(-(shared + _reserved(target)) // _SHARED_UNIT) * _SHARED_UNIT


def _reserved(target: Target) -> int:
    return _RESERVED_SHARED if target.arch_number >= _RESERVED_FROM else 0
