"""Which candidates of each autotune key are compiled to be measured.

The provider's own are. With ``--search wide`` all others that it does not offer, too; with ``relieved`` those that ask
less of a thread, where one of its own is not sound, and of these only the sound ones. What spills takes the assembler
long: so of each kernel one key goes first, and what spills far too much there is not compiled for others if something
is sound, nor what is not the provider's and spills far too much there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gdn_aot.choosing.choose import misfit
from gdn_aot.choosing.walk import FAR_TOO_MUCH, Spill, most_local
from gdn_aot.launches import SOUND_LOCAL
from gdn_aot.tracing import wide

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.compilation import Compilation
    from gdn_aot.launches import CompiledKernel, Config, KernelKey, Outcome
    from gdn_aot.tracing.records import Trace
    from gdn_aot.tracing.records import Tuning as TracedKey

_SLACK = 2.5
"""As in `gdn_aot.choosing.walk`, but more: on sm_70 what is sound of fwd_h would, by what spills, need 1.8 times its
registers."""
_SKIPPED = "it spills far too much with another key, and was not compiled"


class Selection:
    """Compiles, and remembers what became of it.

    ``search`` is that of `gdn_aot.measuring.plan.TuneTask`; keys in ``idle`` are launched, not measured: of those the
    first candidate that fits is enough.
    """

    def __init__(self, work: Compilation, trace: Trace, target: Target, search: str, idle: set[KernelKey]) -> None:
        self._work, self._trace, self._target = work, trace, target
        self._search, self._idle = search, idle
        self.outcomes: dict[int, Outcome] = {}
        """By launch."""
        self.kept: dict[KernelKey, list[int]] = {}
        """Of each key the candidates to record, by their places in the trace."""
        self._led: set[int] = set()
        """Kernels of which one key was compiled."""
        self._fair: dict[int, set[Config]] = {}
        """Of each kernel the derived configurations that do not spill far too much with the key that went first."""
        self._far: set[tuple[int, Config]] = set()
        """Kernels and configurations of the provider that spill far too much with a key for which others are sound."""

    def add(self, keys: Iterable[TracedKey], plain: Iterable[int]) -> None:
        """Compile what these keys need, and these launches of kernels without autotuning."""
        self._compile(plain)
        new = [traced for traced in keys if self._trace.key_of(traced) not in self.kept]
        leaders: dict[int, TracedKey] = {}
        if self._search == "relieved":
            for traced in new:
                if traced.kernel not in self._led and self._trace.key_of(traced) not in self._idle:
                    leaders.setdefault(traced.kernel, traced)
        self._led.update(leaders)
        followers = [traced for traced in new if leaders.get(traced.kernel) is not traced]
        for group in (list(leaders.values()), followers):
            self._compile(launch for traced in group for launch in launches(traced, self._first(traced)))
            self._compile(launch for traced in group for launch in launches(traced, self._second(traced)))
            for traced in group:
                self.kept[self._trace.key_of(traced)] = self._worth(traced)

    def reason(self, launch: int) -> str | None:
        """Return why a launch of what is kept cannot run on the target, or None."""
        outcome = self.outcomes.get(launch)
        if outcome is None:
            return _SKIPPED
        if outcome.object is None:
            return outcome.rejected or outcome.failed or "it was not compiled"
        return misfit(outcome.object, self._target)

    def made(self, launch: int) -> CompiledKernel | None:
        """Return what a launch was compiled to, if it was."""
        outcome = self.outcomes.get(launch)
        return outcome.object if outcome else None

    def _compile(self, wanted: Iterable[int]) -> None:
        self.outcomes |= self._work.every([launch for launch in wanted if launch not in self.outcomes])

    def _first(self, traced: TracedKey) -> list[int]:
        """Return the candidates that are compiled whatever becomes of the others."""
        if self._trace.key_of(traced) in self._idle:
            return [0]
        if self._search == "wide":
            return list(range(len(traced.candidates)))
        own = range(traced.offered)
        return [index for index in own if (traced.kernel, traced.candidates[index]) not in self._far]

    def _second(self, traced: TracedKey) -> list[int]:
        """Return those that are compiled for what became of the first."""
        if self._trace.key_of(traced) in self._idle:
            return [] if self._local(traced, 0) < math.inf else list(range(traced.offered))
        local = {index: self._local(traced, index) for index in self._first(traced)}
        spilling = any(SOUND_LOCAL < value < math.inf for value in local.values())
        if self._search != "relieved" or (not spilling and min(local.values(), default=math.inf) <= SOUND_LOCAL):
            return []
        spills = []
        for index in (index for index, value in local.items() if value > SOUND_LOCAL):
            outcomes = [self.outcomes[launch] for launch in launches(traced, [index])]
            if any(outcome.object for outcome in outcomes):
                spills.append(Spill.of(traced.candidates[index], self._target, outcomes, ""))
        derived = range(traced.offered, len(traced.candidates))
        return [index for index in derived if self._promises(traced.kernel, traced.candidates[index], spills)]

    def _promises(self, kernel: int, config: Config, spills: Sequence[Spill]) -> bool:
        if fair := self._fair.get(kernel):
            return config in fair
        return all(spill.leaves(wide.load(config, self._target), _SLACK) for spill in spills)

    def _worth(self, traced: TracedKey) -> list[int]:
        """Return the candidates to record: the provider's own, and others to measure."""
        compiled = [
            index
            for index in range(len(traced.candidates))
            if all(launch in self.outcomes for launch in launches(traced, [index]))
        ]
        if self._search != "relieved" or self._trace.key_of(traced) in self._idle:
            return compiled
        local = {index: self._local(traced, index) for index in compiled}
        sound = {index for index in compiled if local[index] <= SOUND_LOCAL}
        own = range(traced.offered)
        rest = [index for index in compiled if index not in own]
        if not self._fair.get(traced.kernel):
            self._fair[traced.kernel] = {traced.candidates[index] for index in rest if local[index] <= FAR_TOO_MUCH}
        if sound:
            far = [index for index in own if local.get(index, 0) > FAR_TOO_MUCH]
            self._far |= {(traced.kernel, traced.candidates[index]) for index in far}
        return [*own] + [index for index in rest if index in sound]

    def _local(self, traced: TracedKey, index: int) -> float:
        """Return the most local memory per thread of a candidate's binaries in bytes; infinite if it does not fit."""
        mine = launches(traced, [index])
        return math.inf if any(map(self.reason, mine)) else most_local([self.outcomes[launch] for launch in mine])


def launches(traced: TracedKey, candidates: Iterable[int]) -> list[int]:
    """Return every launch that these candidates can cause."""
    return [variant[index] for index in candidates for variant in traced.variants]
