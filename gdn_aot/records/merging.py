"""Tuning records of one card, put together."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from gdn_aot.errors import UsageError
from gdn_aot.records.tuning import SECOND, MeasuredKernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.launches import Config
    from gdn_aot.records.tuning import MeasuredChoice, TuningRecord

_T = TypeVar("_T")
_ALIKE = ("target", "provider", "triton", "ptxas", "device.name", "device.driver", "method", "objective", "proxy")
"""What two records have in common that may be merged."""


def merge(old: TuningRecord | None, new: TuningRecord) -> TuningRecord:
    """Return ``old`` with the choices of ``new``: those replace old ones of the same key, the others stay.

    The candidates of a kernel are united, the provider's own first.

    Raises:
        UsageError: The records were not measured alike: another target, provider version, Triton, assembler, device,
            driver, method or objective; or other sources of a kernel.
    """
    if old is None:
        return new
    for name in _ALIKE:
        before, now = map(attrgetter(name), (old, new))
        if before != now:
            raise UsageError(
                f"these measurements do not belong into the tuning record: its {name} is {before}, this is {now}",
                hint=f"-o artifacts/tuning/{SECOND} keeps them beside it; or remove it, and tune anew",
            )
    kernels = {kernel.kernel: kernel for kernel in old.kernels}
    for kernel in new.kernels:
        before_kernel = kernels.get(kernel.kernel)
        if before_kernel and before_kernel.digest and kernel.digest not in (UNSET, before_kernel.digest):
            raise UsageError(
                f"these measurements do not belong into the tuning record: {kernel.kernel} has another source there",
                hint="remove it, and tune anew",
            )
        kernels[kernel.kernel] = kernel if before_kernel is None else merge_kernel(before_kernel, kernel)
    return replace(new, kernels=tuple(kernels[name] for name in sorted(kernels)))


def merge_kernel(old: MeasuredKernel, new: MeasuredKernel) -> MeasuredKernel:
    """Return the choices of two records of one kernel over the union of their candidates, the provider's own first.

    If either does not say what source was measured, nor does what is returned.
    """
    offered = list(dict.fromkeys([*old.candidates[: old.offered], *new.candidates[: new.offered]]))
    united = list(dict.fromkeys([*offered, *old.candidates, *new.candidates]))
    choices = {choice.key: _remap(choice, old.candidates, united) for choice in old.choices}
    choices |= {choice.key: _remap(choice, new.candidates, united) for choice in new.choices}
    return MeasuredKernel(
        kernel=new.kernel,
        digest=new.digest if old.digest else UNSET,
        candidates=tuple(united),
        offered=len(offered),
        choices=tuple(choices.values()),
    )


def _remap(choice: MeasuredChoice, before: Sequence[Config], united: list[Config]) -> MeasuredChoice:
    """Return a choice whose candidates are numbered as in ``united``."""
    places, count = [united.index(config) for config in before], len(united)
    times = (
        replace(row, us=_spread(row.us, places, count), noise=_spread(row.noise, places, count)) for row in choice.times
    )
    return replace(
        choice,
        chosen=places[choice.chosen],
        reference=places[choice.reference],
        times=tuple(times),
        rejected=tuple(replace(item, candidate=places[item.candidate]) for item in choice.rejected),
        unheld=tuple(sorted(places[index] for index in choice.unheld)),
        resources=None if choice.resources is None else _spread(choice.resources, places, count),
    )


def _spread(values: Sequence[_T | None], places: list[int], count: int) -> tuple[_T | None, ...]:
    found: list[_T | None] = [None] * count
    for place, value in zip(places, values, strict=True):
        found[place] = value
    return tuple(found)
