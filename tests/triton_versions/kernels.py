"""Kernels with every kind of argument. Imported only in processes where the stub driver is active."""
# ruff: noqa: ANN001, ANN003, ANN201, ANN202

import torch
import triton
import triton.language as tl

SCALE = tl.constexpr(3)


@triton.jit
def _twice(x):
    return x * 2


@triton.jit(do_not_specialize=["free"])
def every(
    aligned, unaligned, one, multiple, odd, large, number, nothing, free, annotated: tl.int64, BLOCK: tl.constexpr,
    NAME: tl.constexpr, FLAG: tl.constexpr, KIND: tl.constexpr, ABSENT: tl.constexpr, RATIO: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, BLOCK)
    value = tl.load(aligned + at).to(KIND) * number + one + multiple + odd + free + annotated + large
    if FLAG:
        value = _twice(value) * SCALE
    if NAME == "relu":
        value = tl.maximum(value, 0.0)
    if nothing is None and ABSENT is None:
        value += RATIO
    tl.store(unaligned + at, value)


STORAGE = torch.zeros(4096, dtype=torch.float32)


def arguments(**changes):
    """Return arguments of `every`, some of them others."""
    numbers = {"one": 1, "multiple": 16, "odd": 7, "large": 1 << 40, "number": 2.5, "free": 16, "annotated": 5}
    constants = {"BLOCK": 64, "NAME": "relu", "FLAG": True, "KIND": tl.float32, "ABSENT": None, "RATIO": 0.5}
    given = {"aligned": STORAGE, "unaligned": STORAGE[1:], "nothing": None, **numbers, **constants, **changes}
    return {name: given[name] for name in every.arg_names}


@triton.autotune(
    configs=[
        triton.Config({"BLOCK": 64}, num_warps=2, num_stages=2),
        triton.Config({"BLOCK": 128}, num_warps=4, num_stages=3),
    ],
    key=["n", "WIDE", "absent"],
)
@triton.heuristics({"HAS_BIAS": lambda args: args["bias"] is not None})
@triton.jit
def tuned(x, bias, y, n, WIDE: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n)
    if HAS_BIAS:
        value += tl.load(bias + at, mask=at < n)
    tl.store(y + at, value, mask=at < n)


@triton.jit
def staged(x, y, num_stages: tl.constexpr, launch_pdl: tl.constexpr):
    """Has parameters that are options of a launch, too."""
    total = 0.0
    for number in tl.range(0, 4, num_stages=num_stages):
        total += tl.load(x + number)
    tl.store(y, total if launch_pdl else -total)
