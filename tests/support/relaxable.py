# ruff: noqa: ANN001, ANN201, ANN202 - Triton reads the annotations
"""Kernels whose constexprs are used in one way each."""

import triton
import triton.language as tl


@triton.jit
def _position(X: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    return pid % X, pid // X


@triton.autotune(configs=[triton.Config({}, num_warps=warps) for warps in (1, 2)], key=["N", "B", "NB"])
@triton.jit(do_not_specialize=["T"])
def every(x, T, N: tl.constexpr, B: tl.constexpr, NB: tl.constexpr, H: tl.constexpr):
    """Use N as a size and B and H in sums, and NB not at all."""
    batch, chunk = _position(B * H)
    offsets = chunk * N + tl.arange(0, N)
    tl.store(x + batch * T + offsets, B * 1.0, mask=offsets < T)  # B is nothing but a factor


@triton.jit
def as_a_divisor(x, B: tl.constexpr):
    """Divide by B, which Python and Triton do in two ways."""
    tl.store(x, (tl.program_id(0) - 5) // B)


@triton.jit
def in_some_launches(x, B: tl.constexpr, SIZED: tl.constexpr):
    """Use B for what only a constexpr can be if SIZED."""
    tl.store(x, B * 2)
    if SIZED:
        tl.store(x + tl.arange(0, B * 1), 1.0)


@triton.jit
def as_a_size(x, B: tl.constexpr):
    """Use B for what only a constexpr can be."""
    tl.store(x + tl.arange(0, B), 1.0)


@triton.jit
def in_a_branch(x, NB: tl.constexpr):
    """Read NB to decide what is compiled."""
    tl.store(x, 1.0)
    if NB > 1000:
        tl.store(x, 2.0)


@triton.jit
def as_a_bound(x, B: tl.constexpr):
    """Guard a store with B."""
    place = tl.load(x)
    tl.store(x, 1.0, mask=(place >= 0) & (place < B))


@triton.jit
def as_a_bound_of_a_branch(x, B: tl.constexpr):
    """Decide on a branch by B."""
    if tl.program_id(0) < B:
        tl.store(x, 1.0)
