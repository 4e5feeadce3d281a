"""Do two tuning runs choose alike? Their records are compared key by key."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from harness import goal

from gdn_aot.records import objective, tuning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.launches import Config
    from gdn_aot.records.tuning import MeasuredChoice, MeasuredKernel, TuningRecord

    Choice = tuple[MeasuredKernel, MeasuredChoice]
    Samples = Mapping[int, Sequence[objective.Sample | None]]

GOAL = 0.95
"""Share of the keys whose choices must be equal or within noise."""
_NOISE_SIGMAS = 2.0
"""Standard errors of a difference below which the choices of two runs are equivalent: 95 % of pure noise is below."""


def compare(first: TuningRecord, second: TuningRecord) -> dict[str, Any]:
    """Return how the choices of two records agree."""
    ours, theirs = (
        {(kernel.kernel, one.key): (kernel, one) for kernel in record.kernels for one in kernel.choices}
        for record in (first, second)
    )
    both = [place for place in ours if place in theirs]
    verdicts = {place: _verdict(ours[place], theirs[place], first.objective) for place in both}
    counts = Counter(verdicts.values())
    share = (counts["equal"] + counts["within noise"]) / len(both) if both else 0.0
    return {
        "records": [tuning.origin(one) for one in (first, second)],
        "keys": len(both),
        "only_first": len(ours) - len(both),
        "only_second": len(theirs) - len(both),
        "equal": counts["equal"],
        "within_noise": counts["within noise"],
        "share": round(share, 4),
        "goal": goal(f"at least {GOAL:.0%} equal or within noise", f"{share:.1%}", share >= GOAL),
        "others": [
            {"kernel": place[0], "key": list(place[1]), "chosen": [str(_chosen(one[place])) for one in (ours, theirs)]}
            for place in both
            if verdicts[place] == "other"
        ],
    }


def _chosen(made: Choice) -> Config:
    return made[0].candidates[made[1].chosen]


def _verdict(one: Choice, two: Choice, weights: objective.Objective) -> str:
    if _chosen(one) == _chosen(two):
        return "equal"
    configs = list(dict.fromkeys([*one[0].candidates, *two[0].candidates]))
    numbers = configs.index(_chosen(one)), configs.index(_chosen(two))
    same = equivalent(*numbers, _samples(one, configs), _samples(two, configs), weights)
    return "within noise" if same else "other"


def equivalent(a: int, b: int, samples_a: Samples, samples_b: Samples, weights: objective.Objective) -> bool:
    """Return whether the choices ``a`` and ``b`` of two runs over the same candidates are equal, or within noise.

    They are within noise if neither run's scores of the two differ by more than two standard errors of the difference.
    """
    return a == b or all(_within_noise(a, b, samples, weights) for samples in (samples_a, samples_b))


def _within_noise(a: int, b: int, samples: Samples, weights: objective.Objective) -> bool:
    count = len(next(iter(samples.values()), ()))
    rated = sorted(objective.rate(samples, [()] * count, weights), key=lambda one: one.score)
    two = [one for one in rated if one.index in (a, b)]
    if len(two) < 2:
        return False
    low, high = two
    return objective.alike(high.score, high.noise, low.score, low.noise, _NOISE_SIGMAS)


def _samples(made: Choice, configs: list[Config]) -> Samples:
    kernel, choice = made
    found: dict[int, Sequence[objective.Sample | None]] = {}
    for row in choice.times:
        pairs = zip(kernel.candidates, row.us, row.noise, strict=True)
        known = {config: objective.Sample(us, noise or 0.0) for config, us, noise in pairs if us is not None}
        found[row.tokens] = [known.get(config) for config in configs]
    return found
