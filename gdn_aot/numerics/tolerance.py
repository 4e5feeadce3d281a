"""How far results may be from float64, and how far they are.

`MEASURED` is the norm of the difference over the norm of what is expected, on an H100 against a float64 recurrence, at
300 tokens. A whole sequence may be off by twice that. A single chunk of 64 tokens, or a sequence shorter than that, is
a small sample, whose error is spread wider: three times. Chunks are looked at one by one because a wrong one among 500
would not show in the norm of all.

What is exact but for the rounding to bf16 at the end is off by at most 2^-8 at each number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

MEASURED = {
    "chunk.out": 4.3e-3,
    "chunk.state": 3.3e-3,
    "recurrent.out": 1.7e-3,
    "recurrent.state": 1.4e-7,
    "rounding": 1.7e-3,  # of exact results to bf16
}
ROUNDING = 1.02 * 2**-8
"""The most that rounding to bf16 can do, and a little for the float32 arithmetic before it."""
LONG = {
    "chunk.out": 2 * MEASURED["chunk.out"],
    "chunk.state": 2 * MEASURED["chunk.state"],
    "recurrent.out": 2 * MEASURED["recurrent.out"],
    # The state of one step is the old one times exp(g), which the hardware approximates to about 2^-22. A wrong kernel
    # is off by 1e-3 or more.
    "recurrent.state": 2e-6,
    # Where the kernel makes g = -A softplus(x) itself, lg2.approx is off by 2^-22.6 (PTX ISA) and 1 + exp(x) by 2^-24:
    # with A = 16, and 64 steps that err alike, 1.7e-4.
    "gated.state": 3e-4,
    "norm.out": 2 * MEASURED["rounding"],
    "conv.out": 2 * MEASURED["rounding"],
}
SHORT = {
    **LONG,
    "chunk.out": 3 * MEASURED["chunk.out"],
    "chunk.state": 3 * MEASURED["chunk.state"],
    "recurrent.out": ROUNDING,
    "norm.out": ROUNDING,
    "conv.out": ROUNDING,
}
CHUNK = 64


def token_errors(
    found: torch.Tensor, expected: torch.Tensor, lengths: Sequence[int] | None
) -> tuple[float | None, float]:
    """Compare outputs ``[batch, tokens, ...]``.

    Returns:
        The largest relative error of a sequence of 64 tokens or more, None if there is none, and that of a chunk of 64
        tokens or the rest of a sequence.
    """
    expected = expected.double()
    wrong = (found.double() - expected).square().flatten(2).sum(-1).cpu()
    right = expected.square().flatten(2).sum(-1).cpu()
    if lengths is not None:
        parts = list(zip(wrong[0].split(list(lengths)), right[0].split(list(lengths)), strict=True))
    else:
        parts = list(zip(wrong, right, strict=True))
    whole = [float(a.sum() / b.sum()) ** 0.5 for a, b in parts if len(a) >= CHUNK]
    chunks = [_chunks(a) / _chunks(b) for a, b in parts]
    return (max(whole) if whole else None), _largest(torch.cat(chunks)) ** 0.5


def _chunks(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, -len(values) % CHUNK)).unflatten(0, (-1, CHUNK)).sum(-1)


def _largest(values: torch.Tensor) -> float:
    """Return the largest value; NaN if there is one."""
    return float(values.max())


def state_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest relative error of a sequence's state."""
    expected = expected.double()
    wrong = (found.double() - expected).square().flatten(1).sum(-1)
    return math.sqrt(_largest(wrong / expected.square().flatten(1).sum(-1)))


def within(error: float, limit: float) -> bool:
    """Say whether an error is at most the limit; NaN is not."""
    return error <= limit
