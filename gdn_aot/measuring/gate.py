"""The numeric gate: which candidates of a launch compute what the reference candidate computes.

Runs in the worker, on tensors of a live call that are the worker's own. What a kernel writes is found by looking, not
by declaration:

* an argument is an *output* if launching the reference changes it, or overwrites a poison put into it
* an output is *in place* if the result depends on what was in it before: it is restored before every launch
* what the reference leaves of the poison is what the kernel does not write; a candidate must leave exactly that

Tolerances, `TOLERANCE`: candidates of one kernel differ in the order of additions and, for float32 products, in whether
the tensor cores round to tf32. Outputs of 16 bits then differ by one rounding at some elements: at most half of the
format's spacing in relative norm. For float32 outputs the bound is what tf32 operands cost (2^-11 for each, as in PTX
ISA, ``.tf32``), times a factor of 4 for what the recurrence over chunks adds up. A wrong candidate is off by far more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TOLERANCE = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10, torch.float32: 2.0**-9, torch.float64: 2.0**-40}
"""Norm of the difference over the norm of the reference, by the type of the output."""
BLOCK_FACTOR = 4.0
"""How much more than `TOLERANCE` one block may be off: it is a small sample."""
BLOCK = 4096
"""Elements of a block. Each block is looked at: a wrong one among thousands would not show in the norm of all."""
FLOOR = 1e-3
"""A block counts as having at least this share of the mean energy, so that blocks near zero do not divide by zero."""

_POISON = {2: 0x7FD5, 4: 0x7FD5D5D5, 8: 0x7FF5D5D5D5D5D5D5}
"""Bits of a NaN that no arithmetic makes, by the bytes of an element: bfloat16 and float16, float32, float64."""
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

Tensors = dict[str, torch.Tensor]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return a floating-point tensor's bits as integers, in the same memory."""
    return tensor.view(_BITS[tensor.element_size()])


def poison(tensor: torch.Tensor) -> None:
    """Fill a floating-point tensor with a NaN that no arithmetic makes."""
    bits(tensor).fill_(_POISON[tensor.element_size()])


def poisoned(tensor: torch.Tensor) -> torch.Tensor:
    """Say for each element whether it still is what `poison` wrote."""
    return bits(tensor) == _POISON[tensor.element_size()]


def disagreement(found: torch.Tensor, expected: torch.Tensor, kept: torch.Tensor | None = None) -> str | None:
    """Return how a candidate's output differs from the reference's, or None if it agrees.

    ``kept`` says where the reference left the poison: ``found`` must have it too, and nothing else is looked at there.
    """
    if kept is not None and (reason := _unwritten(poisoned(found), kept)):
        return reason
    if not found.is_floating_point():
        wrong = int((found != expected).sum())
        return f"differs at {wrong} elements" if wrong else None
    got, want = (tensor.detach().float().flatten() for tensor in (found, expected))
    if kept is not None:
        outside = kept.flatten()
        got, want = got.masked_fill(outside, 0), want.masked_fill(outside, 0)
    if not bool(torch.isfinite(got).all()):
        left = 0 if kept is not None else int(poisoned(found).sum())  # else looked at above
        return f"leaves {left} elements unwritten" if left else "has numbers that are not finite"
    return _distance(got, want, TOLERANCE[found.dtype])


def _unwritten(left: torch.Tensor, kept: torch.Tensor) -> str | None:
    missing, extra = int((left & ~kept).sum()), int((~left & kept).sum())
    if missing:
        return f"leaves {missing} elements unwritten"
    return f"writes {extra} elements that the reference does not" if extra else None


def _distance(got: torch.Tensor, want: torch.Tensor, limit: float) -> str | None:
    wrong, right = _energy(got - want), _energy(want)
    whole = float((wrong.sum() / right.sum().clamp_min(1e-30)).sqrt())
    if not whole <= limit:
        return f"is off by {whole:.2e}, allowed is {limit:.2e}"
    block = float((wrong / (right + FLOOR * right.mean()).clamp_min(1e-30)).max().sqrt())
    if not block <= BLOCK_FACTOR * limit:
        return f"is off by {block:.2e} in a block of {BLOCK} elements, allowed is {BLOCK_FACTOR * limit:.2e}"
    return None


def _energy(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of squares of each block."""
    padded = torch.nn.functional.pad(values, (0, -values.numel() % BLOCK))
    return padded.view(-1, BLOCK).square().sum(-1, dtype=torch.float64)


@dataclass
class Effects:
    """What a kernel does to its arguments, and what the reference candidate made of them."""

    before: Tensors
    """Contents before the launch: of outputs that are in place, and of every argument while finding out."""
    outputs: Tensors
    """The arguments that are written."""
    in_place: frozenset[str]
    zeroed: tuple[str, ...]
    """Arguments that the provider has set to zero before each launch."""
    expected: Tensors
    kept: dict[str, torch.Tensor | None]
    """Where the reference leaves the poison; None where it leaves none."""

    def restore(self) -> None:
        """Put back what a launch must find: the state that it updates, and zeros. Outputs are not touched."""
        for name in self.in_place:
            self.outputs[name].copy_(self.before[name])
        for name in self.zeroed:
            self.outputs[name].zero_()

    def poison(self) -> None:
        """Poison the outputs that are not in place."""
        for name, tensor in self.outputs.items():
            if name not in self.in_place and name not in self.zeroed and tensor.is_floating_point():
                poison(tensor)

    def objection(self) -> str | None:
        """Return why what the outputs hold now is not what the reference computes, or None."""
        for name, tensor in self.outputs.items():
            reason = disagreement(tensor, self.expected[name], self.kept[name])
            if reason is not None:
                return f"output {name} {reason}"
        return None

    def finish(self) -> None:
        """Leave the reference's results in the outputs, for the rest of the call."""
        for name, tensor in self.outputs.items():
            mask = self.kept[name]
            value = self.expected[name]
            tensor.copy_(value if mask is None else torch.where(mask, self.before[name], value))


def find_effects(arguments: Mapping[str, object], launch: Callable[[], None], zeroed: Sequence[str] = ()) -> Effects:
    """Find out what a launch of the reference candidate writes, by launching it; ``arguments`` are changed.

    Raises:
        ValueError: Repeated launches disagree: the reference itself is not reproducible.
    """
    tensors = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    return _Finder(tensors, launch, tuple(name for name in zeroed if name in tensors)).find()


class _Finder:
    def __init__(self, tensors: Tensors, launch: Callable[[], None], zeroed: tuple[str, ...]) -> None:
        self._tensors, self._launch, self._zeroed = tensors, launch, zeroed
        self._before = {name: tensor.clone() for name, tensor in tensors.items()}
        self._written: list[str] = []

    def _run(self, poisonous: Sequence[str] = ()) -> Tensors:
        """Launch on the first contents, some poisoned. Returns copies of what is known to be written."""
        for name, tensor in self._tensors.items():
            tensor.copy_(self._before[name])
        for name in self._zeroed:
            self._tensors[name].zero_()
        for name in poisonous:
            poison(self._tensors[name])
        self._launch()
        return {name: self._tensors[name].clone() for name in self._written}

    def find(self) -> Effects:
        self._find_written()
        plain = self._run()
        unzeroed = [name for name in self._written if name not in self._zeroed]
        clean = self._floating(unzeroed)
        trial = self._run(clean)
        if self._differ(trial, plain):
            clean = [name for name in clean if not self._differ(self._run((name,)), plain)]
            trial = self._run(clean)
            if self._differ(trial, plain):
                raise ValueError("the reference candidate gives other results each time")
        masks = {name: poisoned(trial[name]) for name in clean}
        left = {name: mask for name, mask in masks.items() if bool(mask.any())}
        in_place = frozenset(unzeroed).difference(clean)
        return Effects(
            before={name: self._before[name] for name in in_place.union(left)},
            outputs={name: self._tensors[name] for name in self._written},
            in_place=in_place,
            zeroed=self._zeroed,
            expected=trial,
            kept={**dict.fromkeys(self._written), **left},
        )

    def _find_written(self) -> None:
        tensors = self._tensors
        self._run()
        same = [name for name in tensors if name not in self._zeroed and _same(tensors[name], self._before[name])]
        others = self._floating(same)
        self._run(others)  # an output whose right value was there by chance shows now
        untouched = set(same).difference(name for name in others if not bool(poisoned(tensors[name]).all()))
        self._written = [name for name in tensors if name not in untouched]

    def _floating(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self._tensors[name].is_floating_point()]

    def _differ(self, trial: Tensors, plain: Tensors) -> bool:
        return any(_differs(trial[name], plain[name], self._before[name]) for name in self._written)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two tensors have the same bits; NaN equals itself."""
    if one.is_floating_point():
        one, other = bits(one), bits(other)
    return bool(torch.equal(one, other))


def _differs(trial: torch.Tensor, plain: torch.Tensor, before: torch.Tensor) -> bool:
    """Say whether a launch on poison gave another result than one on the first contents.

    An element that still holds the poison was not written, and must hold its first content in the other; if it does
    not, arithmetic has passed the poison on. That content may be anything, as it is in memory that nobody filled.
    """
    if not trial.is_floating_point():
        return not torch.equal(trial, plain)
    found = torch.where(poisoned(trial), before, trial)
    garbage = (bits(found) == bits(plain)) & ~torch.isfinite(plain)
    return disagreement(found.masked_fill(garbage, 0), plain.masked_fill(garbage, 0)) is not None
