"""The page on how good choices are: its tables, made of the results."""

from __future__ import annotations

import re
import statistics
from functools import partial
from typing import TYPE_CHECKING, Any

from regret.figures import ALL
from regret.whole import LENGTHS
from regret.whole import table as whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the page, by name."""
    found = {name for one in results["targets"] for rows in one["choices"].values() for name in rows}
    lengths = [*sorted(map(int, found - {ALL})), ALL]
    columns = [f"{length} tokens" if length != ALL else "all lengths" for length in lengths]
    return {
        "records": _table(
            ["target", "provenance", "provider", "card", "Triton"],
            (
                (one["target"], one["provenance"], one["provider"], _card(one), one["triton"])
                for one in results["records"]
            ),
        ),
        "keys": _table(
            ["provider", "target", "choice", *columns],
            (
                (one["provider"], one["target"], f"`{name}`", *(_spread(rows.get(str(length))) for length in lengths))
                for one in results["targets"]
                for name, rows in one["choices"].items()
            ),
        ),
        "expected": _table(
            ["choice", "targets", "median", "90th percentile", "maximum"],
            (
                (f"`{name}`", row["targets"], *(share(row[part]) for part in ("median", "p90", "max")))
                for name, row in results["expected"].items()
            ),
        ),
        "forward": _table(
            ["provider", "target", "choice", *columns[:-1]],
            (
                (one["provider"], one["target"], f"`{name}`", *(_models(one, name, length) for length in lengths[:-1]))
                for one in results["targets"]
                for name in one["choices"]
            ),
        ),
        "held out": _table(
            ["provider", "target", "provenance", "keys", "of which transferred", *columns],
            (
                (
                    *(one[name] for name in ("provider", "target", "provenance", "keys", "known")),
                    *(_spread(one["regret"].get(str(length))) for length in lengths),
                )
                for one in results["held_out"]
            ),
        ),
        "shipped": _table(
            ["keys of the record", "keys", "not timed", *columns],
            (
                (kind, row["keys"], row["untimed"], *(_spread(row["regret"].get(str(length))) for length in lengths))
                for kind, row in results["shipped"].items()
            ),
        ),
        "pairs": _table(
            ["pair", "chooses", "keys", *columns],
            (
                (
                    *(pair["label"], f"{side['target']} on {_card(side)}", side["keys"]),
                    *(_spread(side["regret"].get(str(length))) for length in lengths),
                )
                for pair in results["pairs"]
                for side in pair["sides"]
            ),
        ),
    }


def page(text: str, results: Mapping[str, Any]) -> str:
    """Return the page with its tables made of the results; raises what `filled` does."""
    return filled(text, tables(results))


def decision(text: str, results: Mapping[str, Any]) -> str:
    """Return the record of the decision with the table of whole calls; raises what `filled` does."""
    heads = ["record", "calls", "without", "models", *(f"{tokens} tokens" for tokens in LENGTHS)]
    return filled(text, {"whole": _table(heads, whole(results))})


def filled(text: str, made: Mapping[str, str]) -> str:
    """Return a text with these tables; each lies between ``<!-- NAME -->`` and ``<!-- end -->``.

    Raises:
        ValueError: The text has no place for a table, or several.
    """
    for name, table in made.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, partial(_between, table), text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page has {count} places for the table {name!r}")
    return text


def _between(table: str, found: re.Match[str]) -> str:
    return f"{found[1]}\n{table}\n\n{found[2]}"


def _card(one: Mapping[str, str]) -> str:
    return f"{one['device']}, driver {one['driver']}"


def _models(target: Mapping[str, Any], choice: str, length: object) -> str:
    """Return median and maximum over the models of what a prompt's kernels take more."""
    rows = (model["regret"].get(choice, {}) for model in target["forward"].values())
    values = [row[str(length)] for row in rows if str(length) in row]
    return f"{share(statistics.median(values))} / {share(max(values))}" if values else ""


def _spread(row: Mapping[str, float] | None) -> str:
    return " / ".join(share(row[name]) for name in ("median", "p90", "max")) if row else ""


def share(value: float) -> str:
    """Return a regret as the page has it: per cent, or from twice the time on how many times it is."""
    return f"{value:.1%}" if value < 1 else f"x {value + 1:.1f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (heads, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]]) if len(lines) > 1 else "Nothing was compared."
