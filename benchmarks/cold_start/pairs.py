"""(e) compared with the floor (f) in pairs: processes of one round and call that ran one after the other.

The rule, which was fixed before the first run that it judges: the median of the differences of all pairs of a run is at
most `LIMIT`, and so is the upper end of its interval at 95 %. A first call takes as long as PyTorch and the driver take
to load their own code, which differs by tens of milliseconds from process to process; the part of it that is spent in
launches (`cold_start.launching`) is judged by the same rule; the rest of it, where both run the same code, is shown.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from harness import goal

from cold_start.plan import PAIR

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 10.0
"""Milliseconds that (e) may take above (f)."""
_CONFIDENCE = 0.95
_PARTS = {
    "first_ms": "(e) at most {limit:.0f} ms above (f)",
    "launching_ms": "launches of (e) at most {limit:.0f} ms above those of (f)",
}
"""Measurement -> the goal."""


def compare(records: list[dict[str, Any]], call: str) -> dict[str, dict[str, float]]:
    """Return the differences of a call, (e) less (f), in milliseconds.

    By measurement - ``first_ms``, ``launching_ms`` and ``rest_ms``, the first without the second - the median, the ends
    ``low`` and ``high`` of its interval at 95 % (see `interval`), and the number of pairs. Empty without pairs.
    """
    found: dict[int, dict[str, dict[str, float]]] = {}
    for record in records:
        measured = record.get(call, {})
        if record["ok"] and record["call"] == call and "round" in record and "launching_ms" in measured:
            found.setdefault(record["round"], {})[record["case"]] = {
                **{name: measured[name] for name in _PARTS},
                "rest_ms": measured["first_ms"] - measured["launching_ms"],
            }
    paired = [cases for cases in found.values() if {*PAIR} <= cases.keys()]
    return {
        name: _summary(
            [ours[name] - floor[name] for ours, floor in ([cases[case] for case in PAIR] for cases in paired)]
        )
        for name in (*_PARTS, "rest_ms")
        if paired
    }


def goals(document: dict[str, Any], call: str) -> Iterator[dict[str, Any]]:
    """Yield whether (e) is as near to (f) as asked for, as a whole and in its launches; nothing without pairs."""
    found = document.get("pairs", {}).get(call)
    for name, text in _PARTS.items() if found else ():
        row = found[name]
        ends = f"{row['low']:.3g} to {row['high']:.3g} ms" if "high" in row else "too few to say how sure"
        shown = f"{row['median']:.3g} ms, {ends}, in {row['pairs']} pairs"
        yield goal(f"{call}: {text.format(limit=LIMIT)}", shown, row.get("high", math.inf) <= LIMIT)


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
