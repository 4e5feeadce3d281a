"""(e) compared with the floor (f) in pairs: processes of one round and call that ran one after the other.

The rule, which was fixed before the first run that it judges: the median of the differences of all pairs is at most
`LIMIT`, and so is the upper end of its interval at 95 %. A first call takes as long as PyTorch and the driver take to
load their own code, which differs by tens of milliseconds from process to process. So the part of it that is spent in
launches (`cold_start.launching`) is judged by the same rule, and the rest of it, where both run the same code, is
shown; and (e-torch) is compared with (f-torch), in which PyTorch did that before.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from harness import goal

from cold_start.plan import PAIRS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LIMIT = 10.0
"""Milliseconds that (e) may take above (f)."""
_CONFIDENCE = 0.95
_PARTS = {
    "first_ms": "({}) at most {:.0f} ms above ({})",
    "launching_ms": "launches of ({}) at most {:.0f} ms above those of ({})",
}
"""Measurement -> the goal."""


def compared(records: list[dict[str, Any]], calls: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return by pair of states (``e-f``) and call what `compare` does."""
    return {"-".join(pair): {call: compare(records, call, pair) for call in calls} for pair in PAIRS}


def compare(records: list[dict[str, Any]], call: str, pair: tuple[str, str] = PAIRS[0]) -> dict[str, dict[str, float]]:
    """Return what the `differences` of a call are.

    By measurement the median, the ends ``low`` and ``high`` of its interval at 95 % (see `interval`), and the number of
    pairs. Empty without pairs.
    """
    return {name: _summary(found) for name, found in differences(records, call, pair).items() if found}


def differences(records: list[dict[str, Any]], call: str, pair: tuple[str, str]) -> dict[str, list[float]]:
    """Return by how much the first state of a pair takes longer than the second in a call, in milliseconds.

    By measurement - ``first_ms``, ``launching_ms`` and ``rest_ms``, the first without the second - one difference for
    each round of a run in which both were measured.
    """
    found: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    for record in records:
        measured = record.get(call, {})
        if record["ok"] and record["call"] == call and "round" in record and "launching_ms" in measured:
            found.setdefault((record.get("run", ""), record["round"]), {})[record["case"]] = {
                **{name: measured[name] for name in _PARTS},
                "rest_ms": measured["first_ms"] - measured["launching_ms"],
            }
    paired = [[cases[case] for case in pair] for cases in found.values() if {*pair} <= cases.keys()]
    return {name: [ours[name] - floor[name] for ours, floor in paired] for name in (*_PARTS, "rest_ms")}


def goals(document: dict[str, Any], call: str) -> Iterator[dict[str, Any]]:
    """Yield for each pair of states whether the first is as near to the second as asked for, and in its launches.

    Nothing without pairs; with too few it is not decided.
    """
    for ours, floor in PAIRS:
        found = document.get("pairs", {}).get(f"{ours}-{floor}", {}).get(call)
        for name, text in _PARTS.items() if found else ():
            row = found[name]
            sure = "high" in row
            ends = f"{row['low']:.3g} to {row['high']:.3g} ms" if sure else "too few to say how sure"
            shown = f"{row['median']:.3g} ms, {ends}, in {row['pairs']} pairs"
            yield goal(f"{call}: {text.format(ours, LIMIT, floor)}", shown, row["high"] <= LIMIT if sure else None)


def _summary(differences: list[float]) -> dict[str, float]:
    named = {
        "median": statistics.median(differences),
        **dict(zip(("low", "high"), interval(differences), strict=False)),
    }
    return {**{name: round(value, 3) for name, value in named.items()}, "pairs": len(differences)}


def interval(values: list[float]) -> tuple[float, ...]:
    """Return an interval that holds the median of what values are drawn from with a probability of at least 95 %.

    Its ends are values, whatever they are distributed like: the median is between the k-th least and the k-th greatest
    of n, unless fewer than k fall to one side of it, and their number is binomial (n, 1/2). Of fewer than six values no
    such k exists, and the result is empty.
    """
    ordered, count = sorted(values), len(values)
    below, rank = 0.0, 0
    while rank < count:
        below += math.comb(count, rank) / 2**count
        if 2 * below > 1 - _CONFIDENCE:
            break
        rank += 1
    return (ordered[rank - 1], ordered[-rank]) if rank else ()
