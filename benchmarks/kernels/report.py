"""From times per kernel and token count to sums, to the goals that they meet or miss, and to tables."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from harness import goal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.launches import Config
    from gdn_aot.records import tuning

COLUMNS = {
    "provider_best": "best of FLA's",
    "fla_tuned": "FLA tuned at this length",
    "pick64": "FLA tuned at 64",
    "shipped": "gdn-aot",
    "wide_best": "wide search",
    "floor": "memory floor",
}
"""Entry of the document -> what the tables call it. All are microseconds of device time."""
SLOWER_PICK = 1.4
"""Times that the choice made at 64 tokens must be slower than the shipped one, in sum, at `LONG`."""
LONG = (2048, 8192, 32768)
_NEAR, _NEAR_SHORT, _SHORT = 1.02, 1.10, 512
"""The shipped choice may take `_NEAR` times the provider's best for the length from `_SHORT` tokens on, below it
`_NEAR_SHORT` times."""

Place = tuple[str, tuple[Any, ...]]
"""A kernel and one of its autotune keys."""
Picks = dict[Place, "Config"]
Times = dict[str, float | None]
"""Column -> microseconds; None where something was not measured."""


class Lookup:
    """The times of a record.

    Args:
        record: Measured now.
        shipped: gdn-aot's choices.
        dummies: What FLA chose at 64 tokens, each time.
        bandwidth: Bytes per second.
    """

    def __init__(
        self, record: tuning.TuningRecord, shipped: tuning.TuningTable, dummies: Sequence[Picks], bandwidth: float
    ) -> None:
        self._shipped, self._dummies, self._bandwidth = shipped, dummies, bandwidth
        self._keys = {(kernel.kernel, one.key): (kernel, one) for kernel in record.kernels for one in kernel.choices}

    def at(self, launches: Sequence[Mapping[str, Any]], tokens: int, fla: Picks) -> dict[str, Any]:
        """Return the entries of a prompt's kernels in order, and the sum for each of what the dummy made FLA choose.

        Args:
            launches: As of `kernels.process.launches`.
            tokens: Of the prompt.
            fla: What FLA chose at this length; nothing if it was not asked.
        """
        kernels: dict[str, Any] = {}
        sums = [0.0 for _ in self._dummies]
        seen: Counter[str] = Counter()
        for launch in launches:
            place = launch["kernel"], tuple(launch["key"])
            seen[place[0]] += 1
            row, own = self._row(place, tokens)
            tuned, best = _of(row, fla.get(place)), _best(own)
            # A prompt whose key the dummy does not have makes FLA tune that kernel again, at this length.
            again = {**(tuned or best or {}), "retuned": True} if tuned or best else None
            picked = [_of(row, picks[place]) if place in picks else again for picks in self._dummies]
            sums = [total + (one["us"] if one else math.nan) for total, one in zip(sums, picked, strict=True)]
            choice = self._shipped.get(place)
            kernels[place[0] if seen[place[0]] == 1 else f"{place[0]} #{seen[place[0]]}"] = {
                "timed": len(row),
                "provider_best": best,
                "wide_best": _best(row),
                "fla_tuned": tuned,
                "pick64": picked[0] if picked else None,
                "shipped": _of(row, choice.config if choice else None),
                "floor": launch["moved"] / self._bandwidth * 1e6,
                "bytes": launch["moved"],
            }
        return {"kernels": kernels, "pick64_sums": [None if math.isnan(one) else round(one, 3) for one in sums]}

    def _row(self, place: Place, tokens: int) -> tuple[dict[Config, float], dict[Config, float]]:
        """Return the times of all candidates, and of the provider's own."""
        if place not in self._keys:
            return {}, {}
        kernel, choice = self._keys[place]
        us = next((times.us for times in choice.times if times.tokens == tokens), ())
        row = {config: one for config, one in zip(kernel.candidates, us, strict=False) if one is not None}
        return row, {config: row[config] for config in kernel.candidates[: kernel.offered] if config in row}


def _best(row: Mapping[Config, float]) -> dict[str, Any] | None:
    return _of(row, min(row, key=lambda config: row[config], default=None))


def _of(row: Mapping[Config, float], wanted: Config | None) -> dict[str, Any] | None:
    for config, us in row.items():
        if wanted is not None and _identity(config) == _identity(wanted):
            return {"us": round(us, 3), "config": str(config)}
    return None


def _identity(config: Config) -> tuple[object, ...]:
    return frozenset(config.kwargs), config.num_warps, config.num_stages, config.num_ctas, config.maxnreg


def times(kernel: dict[str, Any]) -> Times:
    """Return the columns of one kernel's entry."""
    values = {column: kernel.get(column) for column in COLUMNS}
    return {column: value["us"] if isinstance(value, dict) else value for column, value in values.items()}


def total(kernels: dict[str, Any]) -> Times:
    """Return the sum over kernels; None in a column that lacks one of them."""
    rows = [times(kernel) for kernel in kernels.values()]
    return {
        column: None if any(row[column] is None for row in rows) else math.fsum(row[column] or 0.0 for row in rows)
        for column in COLUMNS
    }


def ratio(row: Times, above: str, below: str) -> float | None:
    """Return one column divided by another."""
    upper, lower = row[above], row[below]
    return upper / lower if upper is not None and lower else None


def by_tokens(shape: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Return token count -> kernel -> entry, by length."""
    return {int(tokens): shape["tokens"][tokens]["kernels"] for tokens in sorted(shape["tokens"], key=int)}


def goals(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was asked for, what was found, and whether it is met. What was not measured is left out."""
    checks: list[dict[str, Any]] = []
    for name, shape in document["shapes"].items():
        for tokens, kernels in by_tokens(shape).items():
            row = total(kernels)
            slower, near = ratio(row, "pick64", "shipped"), ratio(row, "shipped", "provider_best")
            if slower is not None and tokens in LONG:
                text = f"{name}, {tokens} tokens: gdn-aot at least {SLOWER_PICK} times faster than the 64-token choice"
                checks.append(goal(text, f"{slower:.3f}", slower >= SLOWER_PICK))
            if near is not None:
                limit = _NEAR if tokens >= _SHORT else _NEAR_SHORT
                text = f"{name}, {tokens} tokens: gdn-aot at most {limit:.2f} times the best of FLA's candidates"
                checks.append(goal(text, f"{near:.3f}", near <= limit))
    return checks


def tables(document: dict[str, Any]) -> str:
    """Return per shape the table of the sum of all kernels: one row per token count."""
    heads = ["tokens", *COLUMNS.values(), "tuned at 64 / gdn-aot", "gdn-aot / best of FLA's", "three tunings at 64"]
    parts: list[str] = []
    for name, shape in document["shapes"].items():
        lines = [heads]
        for tokens, kernels in by_tokens(shape).items():
            row = total(kernels)
            shown = [ratio(row, "pick64", "shipped"), ratio(row, "shipped", "provider_best")]
            cells = ["-" if value is None else f"{value:,.3f}" for value in (*row.values(), *shown)]
            lines.append([f"{tokens}", *cells, ", ".join(map(str, shape["tokens"][str(tokens)]["pick64_sums"]))])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        parts += [f"{name}, microseconds", *("  ".join(map(str.rjust, cells, widths)) for cells in lines), ""]
    return "\n".join(parts)
