"""Choose one candidate of an autotune key from device times at several token counts.

A key has one configuration for every length, so the choice is a compromise: the weighted mean of time / best time
over the token counts, with a bound on the worst such ratio where a tenth of the weight or more is. What is near the
best at each of those comes before what is better on average. Candidates that differ by less than the measurement's
noise are tied, and of these the one with the fewest resources is taken, so that a second run takes the same one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from gdn_aot.codec import Record
from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Tokens = Annotated[int, Meta(ge=1, le=999_999_999)]
"""Tokens in one call."""
BOUND = 1.10
"""Largest ratio to the best time that a choice may have at a token count that is bounded."""
NEAR = 1.03
"""A candidate whose ratio is nowhere larger comes first: what it gives away on average is less still."""
_BOUNDED = 0.1
"""Share of the weight from which on a token count is bounded. By `DEFAULT` that leaves out 64 tokens alone: launches of
5 us, of which a bound would exclude what is best for every real prompt."""
_TIE_SIGMAS = 1.0
"""Standard errors of a difference below which candidates are tied. Not more: what a tie gives away is a real loss."""
_LEAST_MARGIN = 0.005
"""Differences of a score below this part of it are never told apart: clocks and placement vary by as much."""
_MOST_MARGIN = 0.05
"""Differences above this part are never given away, however noisy the run was."""
_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation: 1 / quantile(3/4)."""
_OF_MEDIAN = math.sqrt(math.pi / 2)
"""Standard error of a median over that of a mean, for a normal distribution and many samples."""
RESOLUTION_US = 0.5
"""Resolution of CUDA events in microseconds (CUDA Runtime API, ``cudaEventElapsedTime``)."""
RUN_TO_RUN = 0.003
"""Part of a time by which another run of it differs, as a standard deviation: two runs of 464 keys on an H100 differ by
0.6 % or less at nine of ten times above 80 us, which is 0.27 % for each. They are the runs of
``benchmarks/results/tuning_repeat.json``."""
_HINT = "for example --weights 64=0.1,512=0.3,2048=0.3,8192=0.3"


class Objective(Record):
    """What a choice is good at.

    Raises:
        ValueError: A token count below 1, a weight that is negative or not finite, all weights zero, or a bound
            below 1.
    """

    weights: dict[Tokens, Annotated[float, Meta(ge=0)]]
    """Weight per token count; only their proportions matter."""
    bound: Annotated[float, Meta(ge=1)] = BOUND
    """Largest ratio of a choice's time to the best time at a bounded token count, if some candidate keeps to it."""

    def __post_init__(self) -> None:
        for tokens, weight in self.weights.items():
            if tokens < 1:
                raise ValueError(f"{tokens} is no token count")
            if not math.isfinite(weight) or weight < 0:
                raise ValueError(f"the weight {weight} of {tokens} tokens is negative or not finite")
        total = sum(self.weights.values())
        if not 0 < total < math.inf:
            raise ValueError("the weights have no finite sum above zero")
        if not 1 <= self.bound < math.inf:
            raise ValueError(f"the bound {self.bound} is below 1 or not finite")

    def shares(self, tokens: Sequence[int]) -> dict[int, float]:
        """Return the part that each measured token count has in the score; they sum to 1.

        Weights of other counts are left out. A count without a weight gets the linear interpolation over
        log2(tokens) between its neighbours that have one, or the weight of the nearest at either end. If all come to
        zero, all count alike.
        """
        raw = {count: self._weight(count) for count in tokens}
        total = math.fsum(raw.values())
        if total <= 0:
            return dict.fromkeys(raw, 1 / len(raw)) if raw else {}
        return {count: weight / total for count, weight in raw.items()}

    def _weight(self, tokens: int) -> float:
        if tokens in self.weights:
            return self.weights[tokens]
        below = max((count for count in self.weights if count < tokens), default=None)
        above = min((count for count in self.weights if count > tokens), default=None)
        if below is None or above is None:
            nearest = above if below is None else below
            assert nearest is not None  # noqa: S101
            return self.weights[nearest]
        part = math.log2(tokens / below) / math.log2(above / below)
        return self.weights[below] * (1 - part) + self.weights[above] * part


DEFAULT = Objective({64: 0.05, 512: 0.25, 2048: 0.30, 8192: 0.30, 32768: 0.10})
"""Prefill of 512 to 8192 tokens is favoured, because that is what prompts and chunks of them are; 64 tokens is what
warm-ups tune on and 32768 is rare, so they count little, but from 512 on nowhere is more than 10 % lost."""


def parse(text: str, bound: float = BOUND) -> Objective:
    """Read weights as ``64=0.1,512=0.4``.

    Raises:
        UsageError: It is of another form, names a count twice, or makes no `Objective`.
    """
    weights: dict[int, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            tokens, weight = int(name), float(value)
        except ValueError:
            raise UsageError(f"{part.strip()!r} in the weights is not TOKENS=WEIGHT", hint=_HINT) from None
        if not equals or tokens in weights:
            raise UsageError(f"the weights name {tokens} tokens twice", hint=_HINT)
        weights[tokens] = weight
    try:
        return Objective(weights, bound)
    except ValueError as error:
        raise UsageError(f"the weights {text!r} cannot be used: {error}", hint=_HINT) from None


@dataclass(frozen=True, slots=True)
class Sample:
    """The time of one candidate at one token count."""

    us: float
    """Median device time in microseconds."""
    noise: float
    """Standard error of that median, in microseconds."""

    @property
    def valid(self) -> bool:
        """Whether both are finite, the time above zero and the noise not below."""
        return math.isfinite(self.us) and math.isfinite(self.noise) and self.us > 0 <= self.noise


def sample(times: Sequence[float]) -> Sample:
    """Return the median of times in microseconds, and the error that another run would show.

    That is the standard error of the median within this run, estimated from the median absolute deviation, which a
    few slow outliers do not move; with what repeating does not average away: the resolution of the clock, and where
    tensors and code happen to lie in memory (`RUN_TO_RUN`).

    Raises:
        ValueError: There are no times.
    """
    import statistics  # not for builds, which only choose

    if not times:
        raise ValueError("no times")
    median = statistics.median(times)
    spread = _SIGMA * statistics.median(abs(value - median) for value in times)
    within = _OF_MEDIAN * spread / math.sqrt(len(times))
    rounding = RESOLUTION_US / math.sqrt(12)  # standard deviation of a value rounded to the resolution
    return Sample(us=median, noise=math.hypot(within, rounding, RUN_TO_RUN * median))


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The choice for one autotune key."""

    chosen: int
    """Index of the candidate."""
    score: float
    """Its weighted mean of time / best time; 1 if it is the best everywhere."""
    worst: float
    """Its largest time / best time at a bounded token count."""
    ranking: tuple[int, ...]
    """The eligible candidates: those near the best everywhere by score, then the others within the bound, then the rest
    by their worst ratio."""
    regret: Mapping[int, float]
    """Per token count, the part by which it is slower than the best for that count."""
    tied: tuple[int, ...]
    """The candidates that the measurement cannot tell from the best, the chosen one among them, by index."""
    note: str


@dataclass(frozen=True, slots=True)
class Rated:
    """A candidate that has a valid time at every token count."""

    index: int
    score: float
    noise: float
    worst: float
    worst_noise: float
    worst_at: int
    ratios: dict[int, float]
    size: tuple[int, ...]


def choose(
    samples: Mapping[int, Sequence[Sample | None]], size: Sequence[tuple[int, ...]], objective: Objective = DEFAULT
) -> Decision | None:
    """Choose a candidate; None if none has a valid time at every token count.

    Args:
        samples: Per token count, the sample of each candidate; None where it was rejected or not measured. A
            candidate is eligible only with a valid sample at every count.
        size: Per candidate what it takes, least first wins among tied ones: bytes of the binary, shared memory,
            registers times threads.
        objective: What to be good at. A candidate whose worst ratio is above `NEAR` is taken only if all are; one whose
            worst ratio, less its standard error, is above the bound only if all are: then that with the least.

    Raises:
        ValueError: A row of samples has another length than ``size``.
    """
    if any(len(row) != len(size) for row in samples.values()):
        raise ValueError(f"each token count needs {len(size)} samples, one for each candidate")
    rated = rate(samples, size, objective)
    if not rated:
        return None
    near = [one for one in rated if one.worst <= min(NEAR, objective.bound)]
    within = [one for one in rated if one not in near and one.worst - one.worst_noise <= objective.bound]
    outside = [one for one in rated if one not in near and one not in within]
    for group in (near, within):
        group.sort(key=lambda one: (one.score, one.size, one.index))
    outside.sort(key=lambda one: (one.worst, one.size, one.index))
    judged = attrgetter("score", "noise") if near or within else attrgetter("worst", "worst_noise")
    group = near or within or outside
    best = group[0]
    tied = [one for one in group if alike(*judged(one), *judged(best))]
    chosen = min(tied, key=lambda one: (one.size, one.index))
    return Decision(
        chosen=chosen.index,
        score=chosen.score,
        worst=chosen.worst,
        ranking=tuple(one.index for one in (*near, *within, *outside)),
        regret={tokens: ratio - 1 for tokens, ratio in chosen.ratios.items()},
        tied=tuple(sorted(one.index for one in tied)),
        note=_note(chosen, best, len(tied), len(rated), objective.bound if group is outside else None),
    )


def rate(
    samples: Mapping[int, Sequence[Sample | None]], size: Sequence[tuple[int, ...]], objective: Objective
) -> list[Rated]:
    """Rate the eligible candidates; arguments as of `choose`."""
    counts = sorted(samples)
    rows: dict[int, dict[int, Sample]] = {}
    for index in range(len(size)):
        row = {tokens: sample for tokens in counts if (sample := samples[tokens][index]) is not None and sample.valid}
        if counts and len(row) == len(counts):
            rows[index] = row
    if not rows:
        return []
    best = {
        tokens: min((row[tokens] for row in rows.values()), key=lambda one: (one.us, one.noise)) for tokens in counts
    }
    shares = objective.shares(counts)
    bounded = [tokens for tokens in counts if shares[tokens] >= _BOUNDED] or counts
    return [_rating(index, row, best, shares, bounded, size[index]) for index, row in rows.items()]


def _rating(
    index: int,
    row: dict[int, Sample],
    best: dict[int, Sample],
    shares: dict[int, float],
    bounded: Sequence[int],
    size: tuple[int, ...],
) -> Rated:
    ratios = {tokens: sample.us / best[tokens].us for tokens, sample in row.items()}
    at = max(bounded, key=lambda tokens: (ratios[tokens], -tokens))
    noise = math.hypot(*(shares[tokens] * sample.noise / best[tokens].us for tokens, sample in row.items()))
    relative = math.hypot(row[at].noise / row[at].us, best[at].noise / best[at].us)
    return Rated(
        index=index,
        score=math.fsum(shares[tokens] * ratio for tokens, ratio in ratios.items()),
        noise=noise,
        worst=ratios[at],
        worst_noise=ratios[at] * relative,
        worst_at=at,
        ratios=ratios,
        size=size,
    )


def alike(value: float, noise: float, best: float, best_noise: float, sigmas: float = _TIE_SIGMAS) -> bool:
    """Say whether a score is no further above the best one than so many standard errors of their difference."""
    margin = max(sigmas * math.hypot(noise, best_noise), _LEAST_MARGIN * best)
    return value - best <= min(margin, _MOST_MARGIN * best)


def _note(chosen: Rated, best: Rated, tied: int, eligible: int, bound: float | None) -> str:
    text = f"{chosen.score:.3f} of the best time on weighted average, {chosen.worst:.3f} at {chosen.worst_at} tokens"
    text += f", of {eligible} eligible"
    if tied > 1:
        text += f"; smallest of {tied} that noise does not tell apart"
    if chosen.index != best.index:
        text += f", the fastest of which has {best.score:.3f}"
    return text if bound is None else f"{text}; none stays within {bound:.2f}, so the least worst ratio decides"
