"""Do two tuning runs choose alike? Their records are compared key by key."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from gdn_aot.records import objective
from gdn_aot.records import tuning as record

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.launches import Config, Scalar

GOAL = 0.95
"""Share of the keys whose choices must be equal or within noise."""


def compare(paths: tuple[Path, Path]) -> dict[str, Any]:
    """Return how the choices of two records agree.

    Raises:
        UsageError: One is no record.
        FileNotFoundError: One is not there.
    """
    loaded = []
    for path in paths:
        found = record.load(path)
        if found is None:
            raise FileNotFoundError(path)
        loaded.append(found)
    first, second = map(_choices, loaded)
    both = [place for place in first if place in second]
    weights = loaded[0].objective
    verdicts = {place: _verdict(first[place], second[place], weights) for place in both}
    counts = Counter(verdicts.values())
    share = (counts["equal"] + counts["within noise"]) / len(both) if both else 0.0
    return {
        "records": [{"device": one.device.name, "driver": one.device.driver, "tool": one.tool} for one in loaded],
        "keys": len(both),
        "only_first": len(first) - len(both),
        "only_second": len(second) - len(both),
        "equal": counts["equal"],
        "within_noise": counts["within noise"],
        "share": round(share, 4),
        "goal": {"goal": f"at least {GOAL:.0%} equal or within noise", "found": f"{share:.1%}", "met": share >= GOAL},
        "others": [_other(place, first[place], second[place]) for place in both if verdicts[place] == "other"],
    }


_Choice = tuple[record.MeasuredKernel, record.MeasuredChoice]


def _choices(loaded: record.TuningRecord) -> dict[tuple[str, tuple[Scalar, ...]], _Choice]:
    return {(kernel.kernel, choice.key): (kernel, choice) for kernel in loaded.kernels for choice in kernel.choices}


def _verdict(one: _Choice, two: _Choice, weights: objective.Objective) -> str:
    ours, theirs = (kernel.candidates[choice.chosen] for kernel, choice in (one, two))
    if ours == theirs:
        return "equal"
    configs = list(dict.fromkeys([*one[0].candidates, *two[0].candidates]))
    samples = [_samples(made, configs) for made in (one, two)]
    same = objective.equivalent(configs.index(ours), configs.index(theirs), *samples, weights)
    return "within noise" if same else "other"


def _samples(made: _Choice, configs: list[Config]) -> objective.Samples:
    kernel, choice = made
    found: objective.Samples = {}
    for row in choice.times:
        known = {
            config: objective.Sample(us, noise)
            for config, us, noise in zip(kernel.candidates, row.us, row.noise, strict=True)
            if us is not None and noise is not None
        }
        found[row.tokens] = [known.get(config) for config in configs]
    return found


def _other(place: tuple[str, tuple[Scalar, ...]], one: _Choice, two: _Choice) -> dict[str, Any]:
    """Return a difference: what each chose, and how much slower each run found the other's choice."""
    chosen = [kernel.candidates[choice.chosen] for kernel, choice in (one, two)]
    return {
        "kernel": place[0],
        "key": list(place[1]),
        "chosen": list(map(str, chosen)),
        "scores": [one[1].score, two[1].score],
        "ratios": [_ratios(one, chosen), _ratios(two, chosen)],
    }


def _ratios(made: _Choice, chosen: list[Config]) -> dict[int, float]:
    """Return, by token count, the time of the second run's choice over that of the first's."""
    ratios = {}
    for tokens, row in _samples(made, chosen).items():
        ours, theirs = row
        if ours is not None and theirs is not None:
            ratios[tokens] = round(theirs.us / ours.us, 4)
    return ratios


def text(found: dict[str, Any]) -> str:
    """Return the comparison as lines."""
    missing = f"; {found['only_first']} only in the first, {found['only_second']} only in the second"
    lines = [
        f"{found['keys']} keys in both{missing}",
        f"{found['equal']} choices equal, {found['within_noise']} within noise, {len(found['others'])} others",
        f"{found['goal']['goal']}: {found['goal']['found']}, {'met' if found['goal']['met'] else 'MISSED'}",
    ]
    for row in found["others"]:
        lines.append(f"  {row['kernel'].rpartition(':')[2]} {row['key']}: {row['chosen'][0]} / {row['chosen'][1]}")
        lines += [f"    second over first choice: {ratios}" for ratios in row["ratios"]]
    return "\n".join(lines)
