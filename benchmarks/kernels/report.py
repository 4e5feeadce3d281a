"""From times per kernel and token count to sums, to the goals that they meet or miss, and to tables."""

from __future__ import annotations

import math
from typing import Any

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
_SAME = 0.995
"""A ratio from here on is no loss: clocks vary by as much."""
_GAIN = 1.02
"""A wide search's gain is reported from here on."""

Times = dict[str, float | None]
"""Column -> microseconds; None where something was not measured."""


def times(kernel: dict[str, Any]) -> Times:
    """Return the columns of one kernel's entry."""
    found: Times = {}
    for column in COLUMNS:
        value = kernel.get(column)
        value = value.get("us") if isinstance(value, dict) else value
        found[column] = float(value) if value is not None and math.isfinite(value) else None
    return found


def total(kernels: dict[str, Any]) -> Times:
    """Return the sum over kernels; None in a column that lacks one of them."""
    rows = [times(kernel) for kernel in kernels.values()]
    return {column: _sum([row[column] for row in rows]) for column in COLUMNS}


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if values and len(known) == len(values) else None


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
                goal = f"{name}, {tokens} tokens: gdn-aot at least {SLOWER_PICK} times faster than the 64-token choice"
                checks.append({"goal": goal, "found": f"{slower:.3f}", "met": slower >= SLOWER_PICK})
            if near is not None:
                limit = _NEAR if tokens >= _SHORT else _NEAR_SHORT
                goal = f"{name}, {tokens} tokens: gdn-aot at most {limit:.2f} times the best of FLA's candidates"
                checks.append({"goal": goal, "found": f"{near:.3f}", "met": near <= limit})
        _check_wide(name, shape, checks)
    return checks


def _check_wide(name: str, shape: dict[str, Any], checks: list[dict[str, Any]]) -> None:
    found = {
        (kernel, tokens): part
        for tokens, kernels in by_tokens(shape).items()
        for kernel, entry in kernels.items()
        if (part := ratio(times(entry), "provider_best", "wide_best")) is not None
    }
    if found:
        (kernel, tokens), least = min(found.items(), key=lambda item: item[1])
        text = f"{least:.3f} at worst ({short(kernel)}, {tokens} tokens)"
        checks.append(
            {"goal": f"{name}: wide search at least as fast as FLA's list", "found": text, "met": least >= _SAME}
        )


def gains(document: dict[str, Any]) -> list[str]:
    """Return where the wide search is faster than the provider's list, as lines of text, the largest gain first."""
    found = [
        (part, f"{part:.2f} times: {short(kernel)}, {tokens} tokens, {name}: {_config(entry['wide_best'])}")
        for name, shape in document["shapes"].items()
        for tokens, kernels in by_tokens(shape).items()
        for kernel, entry in kernels.items()
        if (part := ratio(times(entry), "provider_best", "wide_best")) is not None and part >= _GAIN
    ]
    return [text for _, text in sorted(found, key=lambda item: (-item[0], item[1]))]


def _config(entry: object) -> str:
    return str(entry.get("config", "")) if isinstance(entry, dict) else ""


def short(kernel: str) -> str:
    """Return a kernel's name without its module."""
    return kernel.rpartition(":")[2]


def rows(shape: dict[str, Any], kernel: str | None = None) -> list[list[str]]:
    """Return a table's cells, heads first: one row per token count, of one kernel or of the sum of all."""
    heads = [
        "tokens",
        *(f"{title}, us" for title in COLUMNS.values()),
        "tuned at 64 / gdn-aot",
        "gdn-aot / best of FLA's",
    ]
    lines = [heads]
    for tokens, kernels in by_tokens(shape).items():
        if kernel is not None and kernel not in kernels:
            continue
        row = total(kernels) if kernel is None else times(kernels[kernel])
        ratios = ratio(row, "pick64", "shipped"), ratio(row, "shipped", "provider_best")
        lines.append(
            [
                f"{tokens}",
                *(_microseconds(row[column]) for column in COLUMNS),
                *("-" if value is None else f"{value:.3f}" for value in ratios),
            ]
        )
    return lines


def _microseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def tables(document: dict[str, Any], *, markdown: bool) -> str:
    """Return per shape the table of the sum and then one per kernel, in Markdown or as aligned text."""
    layout = _markdown if markdown else _text
    parts: list[str] = []
    for name, shape in document["shapes"].items():
        names = dict.fromkeys(kernel for kernels in by_tokens(shape).values() for kernel in kernels)
        for kernel in (None, *names):
            what = f"sum of {len(names)} kernels" if kernel is None else short(kernel)
            parts += [f"### {name}: {what}" if markdown else f"{name}: {what}", "", layout(rows(shape, kernel)), ""]
    return "\n".join(parts)


def _markdown(lines: list[list[str]]) -> str:
    head, *body = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([head, "|" + "---:|" * len(lines[0]), *body])


def _text(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) for cells in lines)
