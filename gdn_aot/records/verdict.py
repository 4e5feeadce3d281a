"""The choice that the times of a key come to, from what a tuning record holds of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gdn_aot.launches import SOUND_LOCAL
from gdn_aot.records.objective import Sample, choose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.launches import Config
    from gdn_aot.records.objective import Decision, Objective
    from gdn_aot.records.tuning import Footprint, MeasuredChoice, MeasuredKernel

Samples = dict[int, list[Sample | None]]
"""Per token count the sample of each candidate; None where it was rejected or not measured."""


def samples_of(choice: MeasuredChoice, count: int) -> Samples:
    """Return the samples of the first ``count`` candidates of a key."""
    rejected = {item.candidate for item in choice.rejected}
    return {
        row.tokens: [
            None if us is None or noise is None or index in rejected else Sample(us, noise)
            for index, (us, noise) in enumerate(zip(row.us[:count], row.noise, strict=False))
        ]
        for row in choice.times
    }


def is_sound(taken: Footprint | None) -> bool:
    """Say whether a build ships a candidate for what it spills; what nothing is known of is taken for sound."""
    return taken is None or taken.local <= SOUND_LOCAL


def derives(choice: MeasuredChoice) -> bool:
    """Say whether a build takes another candidate than the record's, which is not sound: one that has no time."""
    return choice.resources is not None and not is_sound(choice.resources[choice.chosen])


def only_sound(samples: Mapping[int, Sequence[Sample | None]], taken: Sequence[Footprint | None]) -> Samples:
    """Return the samples without those of candidates that are not sound.

    If no sound one has a sample at every token count, all are returned.
    """
    sound = [is_sound(footprint) for footprint in taken]
    left = {
        tokens: [one if kept else None for one, kept in zip(row, sound, strict=True)] for tokens, row in samples.items()
    }
    complete = any(all(row[index] is not None for row in left.values()) for index in range(len(taken)))
    return left if complete else {tokens: list(row) for tokens, row in samples.items()}


def decide(
    samples: Mapping[int, Sequence[Sample | None]],
    taken: Sequence[Footprint | None],
    configs: Sequence[Config],
    objective: Objective,
) -> Decision | None:
    """Choose among the sound candidates of a key, or if none of these was measured in full, among all.

    What is not sound a build ships only where nothing else is, so its time is no measure of a choice either.

    Args:
        samples: As of `gdn_aot.records.objective.choose`.
        taken: What each candidate's binary takes, None where it was not compiled.
        configs: The candidates.
        objective: What to be good at.
    """
    sizes: list[tuple[int, ...]] = [
        (one.size, one.shared, one.registers * 32 * config.num_warps) if one else ()
        for one, config in zip(taken, configs, strict=True)
    ]
    return choose(only_sound(samples, taken), sizes, objective)


def said(verdict: Decision) -> dict[str, Any]:
    """Return the fields of a `MeasuredChoice` that say what was chosen and why."""
    return {
        "chosen": verdict.chosen,
        "score": round(verdict.score, 4),
        "worst": round(verdict.worst, 4),
        "note": verdict.note,
        "regret": {tokens: round(part, 4) for tokens, part in verdict.regret.items()},
    }


def chosen_again(kernel: MeasuredKernel, choice: MeasuredChoice, objective: Objective) -> MeasuredChoice:
    """Return a choice as today's rule makes it from the times that were recorded; itself if there are too few."""
    count = len(kernel.candidates)
    taken = choice.resources or (None,) * count
    verdict = decide(samples_of(choice, count), taken, kernel.candidates, objective)
    if verdict is None:
        return choice
    return replace(choice, **said(verdict))
