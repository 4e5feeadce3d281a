"""The candidates of one autotune key: which to try next, by what is known of those that were tried.

A candidate is *sound* if no binary that its key can launch has more local memory per thread than `SOUND_LOCAL`. What an
unsound one needs says which of the others cannot be sound either, and those are not compiled while others are left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gdn_aot.launches import SOUND_LOCAL
from gdn_aot.tracing import wide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.launches import Config, Outcome
    from gdn_aot.records.tuning import TunedChoice
    from gdn_aot.tracing.records import Tuning

_SLACK = 1.5
"""A candidate is put off while it would, by its elements per thread, need so many times its registers. More than 1
because what is spilled needs more room than the registers that it is spilled from."""
FAR_TOO_MUCH = SOUND_LOCAL * 3 // 2
"""What spills more with one key of a kernel is put off for others of the same sizes."""


def most_local(outcomes: Sequence[Outcome]) -> int:
    """Return the most local memory per thread of what compiled, in bytes."""
    return max(outcome.object.local for outcome in outcomes if outcome.object is not None)


@dataclass(frozen=True, slots=True)
class Spill:
    """What an unsound candidate came to."""

    local: int
    """Bytes of local memory per thread."""
    load: float
    """Its elements per register."""
    needed: float
    """How many times the registers of a thread it needs."""
    reason: str

    @classmethod
    def of(cls, config: Config, target: Target, outcomes: Sequence[Outcome], reason: str) -> Spill:
        """Return what a candidate came to of which some binary compiled."""
        made = [outcome.object for outcome in outcomes if outcome.object is not None]
        needed = max(one.registers + one.local / 4 for one in made) / wide.registers(config, target)
        return cls(most_local(outcomes), wide.load(config, target), needed, reason)

    def leaves(self, load: float, slack: float = _SLACK) -> bool:
        """Say whether a candidate of a load may be sound: it holds less, by as much as this one needs too many."""
        return load < self.load and self.needed * load / self.load <= slack


@dataclass(slots=True)
class Walk:
    """What was found out of the candidates of one key."""

    tuning: Tuning
    target: Target
    order: Sequence[int]
    tuned: dict[int, TunedChoice]
    """What records say of the candidates that come first."""
    ended: bool = False
    reasons: list[str] = field(default_factory=list)
    """Why the candidates that were tried are not chosen."""
    spilling: dict[int, Spill] = field(default_factory=dict)
    """The candidates that fit and are not sound."""
    followers: list[Walk] = field(default_factory=list)
    """Keys of the same kernel and sizes, which wait for this one."""
    lessons: list[Spill] = field(default_factory=list)
    """What spilled with the key that this one waited for."""
    _refused: set[int] = field(default_factory=set)
    _too_large: list[int] = field(default_factory=list)
    """Candidates that need more shared memory than the target has."""

    def refuse(self, candidate: int, reason: str, outcomes: Sequence[Outcome]) -> None:
        """Take a candidate that does not fit."""
        self._refused.add(candidate)
        self.reasons.append(reason)
        if any(outcome.object is not None and outcome.object.shared > self.target.max_shared for outcome in outcomes):
            self._too_large.append(candidate)

    def put_off(self, candidate: int, reason: str, outcomes: Sequence[Outcome]) -> None:
        """Take a candidate that fits and is not sound."""
        self.spilling[candidate] = Spill.of(self.tuning.candidates[candidate], self.target, outcomes, reason)
        self.reasons.append(reason)

    def learn(self, leader: Walk) -> None:
        """Take over what spills far too much with another key of the same kernel and sizes."""
        self.lessons = [spill for spill in leader.spilling.values() if spill.local > FAR_TOO_MUCH]

    def next(self, *, final: bool) -> int | None:
        """Return the candidate to try next: the first that may be sound by what is known.

        If there is none, it is the one with the fewest elements per register of those that are not excluded; but only
        if ``final``: else there may be better ones that were not traced.
        """
        left = [index for index in self.order if index not in self._refused and index not in self.spilling]
        left = [index for index in left if not self._excluded(index)]
        hopeful = next((index for index in left if self._hopeful(index)), None)
        if hopeful is not None or not final:
            return hopeful
        return min(left, key=self._load, default=None)

    def _load(self, index: int) -> float:
        return wide.load(self.tuning.candidates[index], self.target)

    def _hopeful(self, index: int) -> bool:
        """Say whether it may be sound by what is known of each unsound one."""
        load = self._load(index)
        return all(spill.leaves(load) for spill in (*self.spilling.values(), *self.lessons))

    def _excluded(self, index: int) -> bool:
        """Say whether a candidate asks for no less than one that is out for it: nothing would change by trying it."""
        config, candidates, target = self.tuning.candidates[index], self.tuning.candidates, self.target
        offered = index < self.tuning.offered
        return any(
            wide.covers(config, candidates[other])
            and config.num_warps <= candidates[other].num_warps
            and wide.registers(config, target) <= wide.registers(candidates[other], target)
            for other in self.spilling
        ) or (not offered and any(wide.covers(config, candidates[other]) for other in self._too_large))
