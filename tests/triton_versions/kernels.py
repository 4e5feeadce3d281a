"""Kernels with every kind of argument. Imported only in processes where the stub driver is active."""

from __future__ import annotations

import triton
import triton.language as tl

SCALE = tl.constexpr(3)


@triton.jit
def _twice(x):  # noqa: ANN001, ANN202
    return x * 2


@triton.jit(do_not_specialize=["free"])
def every(  # noqa: ANN201
    aligned,  # noqa: ANN001
    unaligned,  # noqa: ANN001
    one,  # noqa: ANN001
    multiple,  # noqa: ANN001
    odd,  # noqa: ANN001
    large,  # noqa: ANN001
    number,  # noqa: ANN001
    nothing,  # noqa: ANN001
    free,  # noqa: ANN001
    annotated: tl.int64,
    BLOCK: tl.constexpr,
    NAME: tl.constexpr,
    FLAG: tl.constexpr,
    KIND: tl.constexpr,
    ABSENT: tl.constexpr,
    RATIO: tl.constexpr,
):
    at = tl.arange(0, BLOCK)
    value = tl.load(aligned + at).to(KIND) * number + one + multiple + odd + free + annotated + large
    if FLAG:
        value = _twice(value) * SCALE
    if NAME == "relu":
        value = tl.maximum(value, 0.0)
    if nothing is None and ABSENT is None:
        value += RATIO
    tl.store(unaligned + at, value)


@triton.autotune(
    configs=[
        triton.Config({"BLOCK": 64}, num_warps=2, num_stages=2),
        triton.Config({"BLOCK": 128}, num_warps=4, num_stages=3),
    ],
    key=["n", "WIDE", "absent"],
)
@triton.heuristics({"HAS_BIAS": lambda args: args["bias"] is not None})
@triton.jit
def tuned(  # noqa: ANN201
    x,  # noqa: ANN001
    bias,  # noqa: ANN001
    y,  # noqa: ANN001
    n,  # noqa: ANN001
    WIDE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n)
    if HAS_BIAS:
        value += tl.load(bias + at, mask=at < n)
    tl.store(y + at, value, mask=at < n)
