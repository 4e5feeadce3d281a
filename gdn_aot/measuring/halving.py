"""Successive halving: measure many candidates a little and the better ones more, within a time budget.

After Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016): each
round measures the better half of the last one twice as often, so that every round takes about the same time.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Measure = Callable[[tuple[int, ...], int], Mapping[int, float | None]]
    """(candidates, repetitions) -> scores, lower is better; None, NaN or nothing for one that is rejected."""

_LEAST = 2
"""Candidates that a comparison needs."""


def halve(
    candidates: Sequence[int],
    incumbent: int,
    budget: float,
    measure: Measure,
    *,
    first: int = 2,
    most: int = 16,
    keep: int = 4,
    cost: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, ...]:
    """Return the candidates that are left, best first by the last round that they were in.

    Args:
        candidates: Indices, the most promising first: if time is short the last are never measured.
        incumbent: One of them that stays to the end, whatever its score: the others must beat it.
        budget: Seconds for all rounds.
        measure: Measures. One that it rejects is not measured again, the incumbent included.
        first: Repetitions in the first round.
        most: Repetitions in the last; reaching it ends the search.
        keep: Do not halve below so many.
        cost: Seconds that one repetition of one candidate is thought to take before anything was measured; with 0 the
            first round measures all.
        clock: Seconds from any start.
    """
    if incumbent not in candidates:
        raise ValueError(f"the incumbent {incumbent} is no candidate")
    if not 1 <= first <= most:
        raise ValueError(f"repetitions from {first} to {most} are no range")
    left = list(dict.fromkeys([incumbent, *candidates]))
    end, repetitions, least = clock() + budget, first, 1
    while repetitions <= most and len(left) >= least:
        width = len(left)
        if cost > 0:
            width = min(width, max(1, math.floor(max(0.0, end - clock()) / (cost * repetitions))))
        if width < least:
            break
        taken = left[:width]
        if incumbent in left and incumbent not in taken:
            taken[-1] = incumbent
        begun = clock()
        scores = measure(tuple(taken), repetitions)
        cost = max(0.0, clock() - begun) / (len(taken) * repetitions)
        valid = {one: score for one in taken if (score := scores.get(one)) is not None and math.isfinite(score)}
        ranked = sorted(valid, key=lambda one: (valid[one], taken.index(one)))
        left = ranked[: max(keep, _LEAST, math.ceil(len(ranked) / 2))]
        if incumbent in valid and incumbent not in left:
            left.append(incumbent)
        least = _LEAST
        repetitions = most + 1 if repetitions == most else min(2 * repetitions, most)
    return tuple(left)
