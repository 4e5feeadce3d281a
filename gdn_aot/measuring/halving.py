"""Successive halving: measure many candidates a little and the better ones more, within a time budget.

After Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016): each
round measures the better half of the last one twice as often, so that every round takes about the same time.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_LEAST = 2
"""Candidates that a comparison needs."""


@dataclass(frozen=True, slots=True)
class Round:
    """What to measure next."""

    candidates: tuple[int, ...]
    """Best first, as far as is known."""
    repetitions: int


class Halving:
    """Says what to measure next, and takes the scores.

    ``while (step := halving.next()) is not None: halving.take(measure(step))``. The time between `next` and `take` is
    the round's, from which the cost of the following ones is foreseen.

    Args:
        candidates: Indices, the most promising first: if time is short the last are never measured.
        incumbent: One of them that stays to the end, whatever its score: the others must beat it.
        budget: Seconds for all rounds.
        first: Repetitions in the first round.
        most: Repetitions in the last; reaching it ends the search.
        keep: Do not halve below so many.
        cost: Seconds that one repetition of one candidate is thought to take before anything was measured; with 0 the
            first round measures all.
        clock: Seconds from any start.
    """

    def __init__(
        self,
        candidates: Sequence[int],
        incumbent: int,
        budget: float,
        *,
        first: int = 2,
        most: int = 16,
        keep: int = 4,
        cost: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if incumbent not in candidates:
            raise ValueError(f"the incumbent {incumbent} is no candidate")
        if not 1 <= first <= most:
            raise ValueError(f"repetitions from {first} to {most} are no range")
        self._left = [incumbent, *(one for one in dict.fromkeys(candidates) if one != incumbent)]
        self._incumbent, self._keep, self._most = incumbent, max(keep, _LEAST), most
        self._repetitions, self._cost, self._clock = first, cost, clock
        self._end = clock() + budget
        self._begun = 0.0
        self._round: Round | None = None
        self._measured = False
        self.rejected: set[int] = set()
        """Candidates that got no score."""
        self.unmeasured: set[int] = set()
        """Candidates for which there was no time at all."""

    @property
    def survivors(self) -> tuple[int, ...]:
        """What is left, best first by the last round that it was in."""
        return tuple(self._left)

    def next(self) -> Round | None:
        """Return the next round, or None when the search has ended: time or candidates are used up."""
        if self._repetitions > self._most or len(self._left) < (_LEAST if self._measured else 1):
            return None
        width = self._affordable()
        if self._measured and width < _LEAST:
            return None
        taken = self._left[:width]
        if self._incumbent in self._left and self._incumbent not in taken:
            taken[-1:] = [self._incumbent]
        if not self._measured:
            self.unmeasured = {*self._left} - {*taken}
            self._left = taken
        self._round = Round(tuple(taken), self._repetitions)
        self._begun = self._clock()
        return self._round

    def _affordable(self) -> int:
        """Return how many candidates there is time for; at least the incumbent, and all if the cost is unknown."""
        if self._cost <= 0:
            return len(self._left)
        seconds = max(0.0, self._end - self._clock())
        return min(len(self._left), max(1, math.floor(seconds / (self._cost * self._repetitions))))

    def take(self, scores: Mapping[int, float | None]) -> None:
        """Take the scores of the round that `next` returned, lower is better.

        Args:
            scores: Per candidate; None, NaN or nothing for one that was rejected, which is not measured again. That
                holds for the incumbent too.

        Raises:
            ValueError: No round was begun.
        """
        if self._round is None:
            raise ValueError("scores without a round")
        step, self._round = self._round, None
        self._cost = max(0.0, self._clock() - self._begun) / (len(step.candidates) * step.repetitions)
        valid: dict[int, float] = {}
        for one in step.candidates:
            score = scores.get(one)
            if score is not None and math.isfinite(score):
                valid[one] = score
            else:
                self.rejected.add(one)
        place = {one: position for position, one in enumerate(self._left)}
        ranked = sorted(valid, key=lambda one: (valid[one], place[one]))
        half = ranked[: max(self._keep, math.ceil(len(ranked) / 2))]
        if self._incumbent in valid and self._incumbent not in half:
            half.append(self._incumbent)
        self._left, self._measured = half, True
        self._repetitions = self._next_repetitions(step.repetitions)

    def _next_repetitions(self, last: int) -> int:
        return self._most + 1 if last >= self._most else min(2 * last, self._most)
