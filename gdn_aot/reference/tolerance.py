"""How far results may be from float64, and how far they are.

`MEASURED` is the norm of the difference over the norm of what is expected, on an H100 against a float64 recurrence, at
300 tokens. A whole sequence may be off by twice that. A single chunk of 64 tokens is a small sample, whose error is
spread wider: three times. Chunks are looked at one by one because a wrong one among 500 would not show in the norm of
all. Sequences shorter than that, and what is left over of others, are taken together, 64 tokens or more at a time: one
token is too small a sample where a layer's norm makes a small result large, error and all.

What is exact but for the rounding to bf16 at the end is off by at most 2^-8 at each number.

Those are the figures for bf16. fp16 has three more bits: its rounding is off by an eighth. The chunked operator rounds
its intermediates too, and an eighth is what a simulation of those roundings gives (4.6e-4 against 3.7e-3 at 300
tokens); but where tensor cores take float32 operands as tf32, that rounding is as coarse as fp16 and comes on top, so a
quarter is allowed. A float32 model is allowed that quarter too: its operands are multiplied as tf32, which has as many
bits as fp16. What tensor cores have no part in is then exact but for float32 arithmetic. Doubling beta, for negative
eigenvalues, raises the error by less than a fifth in that simulation.

Gradients are looked at as outputs are. Those of the decay are differences of the products q dq and k dk: where these
are all but equal, as in a first token, the difference is rounding. So errors there are measured against q dq as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gdn_aot.reference import GRADIENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.reference import Tensors

MEASURED = {
    "chunk.out": 4.3e-3,
    "chunk.state": 3.3e-3,
    "recurrent.out": 1.7e-3,
    "recurrent.state": 1.4e-7,
    "rounding": 1.7e-3,  # of exact results to bf16
    # On an H200, in 200 calls of KDA's training, a run before that of benchmarks/results/gpu_tests_kda_train.json,
    # which is judged by it: the worst of the gradients of queries, keys, values, beta and states, and of those of the
    # decay and its parameters. In Triton's interpreter fp16 comes to a fifth of it or less, at 70 and 300 tokens.
    "chunk.d": 4.9e-3,
    "chunk.d.g": 8.6e-3,
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
    # In float32: the exponentials of softplus and sigmoid as above. A wrong kernel is off by 1e-3 or more.
    "gate.out": 1e-4,
    "gate.d": 1e-4,
    "chunk.d": 2 * MEASURED["chunk.d"],
    "chunk.d.g": 2 * MEASURED["chunk.d.g"],
    "norm.out": 2 * MEASURED["rounding"],
    "conv.out": 2 * MEASURED["rounding"],
    # An engine's whole layer: what its convolution gives is rounded before the state sees it, and where its float32 sum
    # is near the middle of two numbers it takes the other one. Each number is off by one rounding at most.
    "layer.out": 2 * ROUNDING,
    "layer.state": ROUNDING,
}
SHORT = {
    **LONG,
    "chunk.out": 3 * MEASURED["chunk.out"],
    "chunk.state": 3 * MEASURED["chunk.state"],
    "chunk.d": 3 * MEASURED["chunk.d"],
    "chunk.d.g": 3 * MEASURED["chunk.d.g"],
    "recurrent.out": ROUNDING,
    "norm.out": ROUNDING,
    "conv.out": ROUNDING,
}
CHUNK = 64
_OF_FP16 = {"chunk.out": 1 / 4, "chunk.state": 1 / 4, "recurrent.out": 1 / 8, "norm.out": 1 / 8, "conv.out": 1 / 8}
_OF_FP16 |= {"layer.out": 1 / 8, "layer.state": 1 / 8, "chunk.d": 1 / 4, "chunk.d.g": 1 / 4}
"""Limits for fp16 over those for bf16; what is not here is float32 in both."""
_OF_FP32 = {"chunk.out": 1 / 4, "chunk.state": 1 / 4, "recurrent.out": 2**-9, "norm.out": 2**-9, "conv.out": 2**-9}
_OF_FP32 |= {"chunk.d": 1 / 4, "chunk.d.g": 1 / 4}
"""The same for float32: 2^-9 of what rounding to bf16 may do is 7e-6, and a wrong kernel is off by 1e-3 or more."""
_FINER = {torch.float16: _OF_FP16, torch.float32: _OF_FP32}
_OF_DECAY = tuple(f"{GRADIENT}{name}" for name in ("g", "A_log", "dt_bias"))
_IN_PLACE = {"conv": ("cache",), "norm": ()}
"""Inputs that a call may change; elsewhere those of an engine's layer, which has them to itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deviation:
    """How far one result is off, and how far it may be."""

    name: str
    error: float
    limit: float

    @property
    def within(self) -> bool:
        """Whether it is close enough; NaN is not."""
        return self.error <= self.limit

    @property
    def share(self) -> float:
        """The error as a part of the limit; infinite if it is no number or nothing is allowed."""
        if self.error == 0:
            return 0.0
        return self.error / self.limit if self.limit and not math.isnan(self.error) else math.inf

    def __str__(self) -> str:
        return f"{self.name} is off by {self.error:.3g}, allowed is {self.limit:.3g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What comparing the results of one call came to."""

    deviations: tuple[Deviation, ...]
    problems: tuple[str, ...]
    """What is wrong beside numbers that are off: missing or unasked results, wrong shapes, NaN."""

    @property
    def wrong(self) -> str | None:
        """Everything that is wrong in one line, or None."""
        found = [*self.problems, *(str(item) for item in self.deviations if not item.within)]
        return "; ".join(found) or None

    @property
    def worst(self) -> Deviation | None:
        """The deviation that is nearest to its limit, or furthest past it."""
        return max(self.deviations, key=lambda item: item.share, default=None)


def compare(kind: str, inputs: Tensors, found: Tensors, expected: Tensors) -> Comparison:
    """Compare the results of a call (`Workload.apply`) with those expected in float64 (`Workload.expect`)."""
    ends = inputs.get("cu_seqlens")
    lengths = None if ends is None else ends.diff().tolist()
    deviations: list[Deviation] = []
    problems = [f"no {name} came back" for name in sorted(set(expected) - set(found))]
    problems += [f"a {name} came back that nobody asked for" for name in sorted(set(found) - set(expected))]
    for name, wanted in expected.items():
        value = found.get(name)
        if value is None or wanted is None:
            if value is not wanted and name in found:
                problems.append(f"{name} came back empty" if value is None else f"{name} should be empty")
            continue
        if value.shape != wanted.shape:
            problems.append(f"{name} has shape {tuple(value.shape)}, not {tuple(wanted.shape)}")
            continue
        if not bool(torch.isfinite(value).all()):
            problems.append(f"{name} has numbers that are not finite")
        if name == "out":
            deviations += _outputs(kind, value, wanted, lengths)
        elif name.startswith(GRADIENT):
            deviations += _gradients(kind, name, value, inputs, expected, lengths)
        else:
            deviations.append(_state(kind, name, value, wanted, long=lengths is None, inputs=inputs))
    return Comparison(deviations=tuple(deviations), problems=tuple(problems))


def changed(kind: str, inputs: Tensors, kept: Tensors) -> str | None:
    """Say which inputs a call changed, or None. Decode updates a convolution's cache in place."""
    names = []
    for name, value in inputs.items():
        before = kept[name]
        if value is not None and before is not None and name not in _IN_PLACE.get(kind, ("cache", "projected")):
            names += [] if torch.equal(value, before) else [name]
    return f"the call changed its {', '.join(names)}" if names else None


def _outputs(kind: str, found: torch.Tensor, expected: torch.Tensor, lengths: Sequence[int] | None) -> list[Deviation]:
    name = f"{kind}.out"
    finer = _FINER.get(found.dtype, {}).get(name, 1.0)
    sequence, chunk = token_errors(found, expected, lengths)
    made = [Deviation(name=f"{name} of a chunk", error=chunk, limit=finer * SHORT[name])]
    if sequence is not None:
        made.append(Deviation(name=f"{name} of a sequence", error=sequence, limit=finer * LONG[name]))
    return made


def _state(
    kind: str, name: str, found: torch.Tensor, expected: torch.Tensor, *, long: bool, inputs: Tensors
) -> Deviation:
    if kind == "conv" or name == "window":  # the last inputs themselves
        off = float((found.double() - expected.double()).abs().max())
        return Deviation(name=f"{kind}.{name}", error=off, limit=0.0)
    first = inputs.get("q", inputs.get("projected"))
    assert first is not None  # noqa: S101
    full = f"gated.{name}" if kind == "recurrent" and inputs.get("A_log") is not None else f"{kind}.{name}"
    finer = _FINER.get(first.dtype, {}).get(full, 1.0)
    limits = LONG if long and first.shape[1] >= CHUNK else SHORT
    rounding = 0.0 if found.dtype == torch.float32 else ROUNDING  # some engines keep states in 16 bits
    return Deviation(name=full, error=state_error(found, expected), limit=finer * limits[full] + rounding)


def _gradients(
    kind: str, name: str, found: torch.Tensor, inputs: Tensors, every: Tensors, lengths: Sequence[int] | None
) -> list[Deviation]:
    """Compare one gradient with its part of ``every`` expected result."""
    expected, q, products = every[name], inputs.get("q"), every.get(f"{GRADIENT}q")
    assert expected is not None  # noqa: S101
    row, beside = f"{kind}.d", None
    if q is not None and products is not None and name in _OF_DECAY:
        row, beside = f"{row}.g", (q.detach().double() * products).square().flatten(2).sum(-1)
    finer = _FINER.get((found if q is None else q).dtype, {}).get(row, 1.0)
    long, short = (finer * limits[row] + 0.51 * torch.finfo(found.dtype).eps for limits in (LONG, SHORT))
    full = f"{kind}.{name}"
    if name == f"{GRADIENT}initial_state":
        return [Deviation(name=full, error=state_error(found, expected), limit=short)]
    if name not in _OF_DECAY[1:]:
        sequence, chunk = token_errors(found, expected, lengths, beside)
        made = [Deviation(name=f"{full} of a chunk", error=chunk, limit=short)]
        if sequence is not None:
            made.append(Deviation(name=f"{full} of a sequence", error=sequence, limit=long))
        return made
    right = expected.square().sum()
    if beside is not None:  # a parameter's gradient is the sum of those of the decay in all tokens
        decay = every[f"{GRADIENT}g"]
        assert decay is not None  # noqa: S101
        right = right + beside.sum() + decay.square().sum()
    error = float(((found.double() - expected).square().sum() / right).sqrt())
    return [Deviation(name=full, error=error, limit=short)]


def token_errors(
    found: torch.Tensor, expected: torch.Tensor, lengths: Sequence[int] | None, beside: torch.Tensor | None = None
) -> tuple[float | None, float]:
    """Compare outputs ``[batch, tokens, ...]``; ``beside`` has squares for each token to measure against as well.

    Returns the largest relative error of a sequence of 64 tokens or more, None if there is none, and that of a chunk of
    64 tokens; shorter ones are taken together.
    """
    expected = expected.double()
    wrong = (found.double() - expected).square().flatten(2).sum(-1).cpu()
    right = expected.square().flatten(2).sum(-1).cpu()
    if beside is not None:
        right += beside.cpu()
    if lengths is not None:
        parts = list(zip(wrong[0].split(list(lengths)), right[0].split(list(lengths)), strict=True))
    else:
        parts = list(zip(wrong, right, strict=True))
    whole = [float(a.sum() / b.sum()) ** 0.5 for a, b in parts if len(a) >= CHUNK]
    errors = _sums([a for a, _ in parts]) / _sums([b for _, b in parts])
    return (max(whole) if whole else None), float(errors.max()) ** 0.5  # NaN if there is one


def _sums(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum of each whole chunk of all sequences, and sums of what is left of them, of 64 tokens or more."""
    ends = [len(part) // CHUNK * CHUNK for part in parts]
    whole = torch.cat([part[:end] for part, end in zip(parts, ends, strict=True)]).unflatten(0, (-1, CHUNK)).sum(-1)
    left = torch.cat([part[end:] for part, end in zip(parts, ends, strict=True)])
    shares = left.tensor_split(max(1, len(left) // CHUNK)) if len(left) else ()
    return torch.cat([whole, *(share.sum()[None] for share in shares)])


def state_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest relative error of a sequence's state."""
    expected = expected.double()
    wrong = (found.double() - expected).square().flatten(1).sum(-1)
    return math.sqrt((wrong / expected.square().flatten(1).sum(-1)).max())  # NaN if there is one
