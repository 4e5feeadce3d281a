"""Judge the outputs of one call by those of float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gdn_aot.numerics import tolerance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.providers.base import Tensors


@dataclass(frozen=True, slots=True)
class Judged:
    """One comparison."""

    name: str
    error: float
    """Norm of the difference over the norm of what is expected; infinite for numbers that are not finite."""
    limit: float

    @property
    def ok(self) -> bool:
        """Whether the error is within the limit; NaN is not."""
        return tolerance.within(self.error, self.limit)

    def __str__(self) -> str:
        return f"{self.name} is off by {self.error:.3g}, allowed is {self.limit:.3g}"


def judge(
    kind: str, inputs: Tensors, found: Tensors, expected: Tensors, lengths: Sequence[int] | None = None
) -> list[Judged]:
    """Compare every output of a call.

    Args:
        kind: `Workload.kind`.
        inputs: What the call was made with; says whether gates were made in the kernel.
        found: What came back.
        expected: The same in float64.
        lengths: Of packed sequences.
    """
    if found.keys() != expected.keys():
        names = ", ".join(sorted(set(found) ^ set(expected)))
        return [Judged(f"{kind}: {names} came back or is missing", float("inf"), 0.0)]
    made = []
    for name, value in found.items():
        wanted = expected[name]
        assert value is not None  # noqa: S101
        assert wanted is not None  # noqa: S101
        if not bool(torch.isfinite(value).all()):
            made.append(Judged(f"{kind}.{name}", float("inf"), 0.0))
        elif name == "out":
            made += _outputs(kind, value, wanted, lengths)
        else:
            made.append(_state(kind, name, inputs, value, wanted))
    return made


def _outputs(kind: str, found: torch.Tensor, expected: torch.Tensor, lengths: Sequence[int] | None) -> list[Judged]:
    sequence, chunk = tolerance.token_errors(found, expected, lengths)
    made = [Judged(f"{kind}.out of a chunk", chunk, tolerance.SHORT[f"{kind}.out"])]
    if sequence is not None:
        made.append(Judged(f"{kind}.out of a sequence", sequence, tolerance.LONG[f"{kind}.out"]))
    return made


def _state(kind: str, name: str, inputs: Tensors, found: torch.Tensor, expected: torch.Tensor) -> Judged:
    if kind == "conv":  # the last inputs, unchanged
        return Judged(f"{kind}.{name}", float((found.double() - expected.double()).abs().max()), 0.0)
    gated = kind == "recurrent" and inputs.get("A_log") is not None
    limit = tolerance.SHORT["gated.state" if gated else f"{kind}.state"]
    return Judged(f"{kind}.{name}", tolerance.state_error(found, expected), limit)
