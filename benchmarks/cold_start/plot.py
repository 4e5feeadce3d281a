"""The picture: time to the first result of each state, on a logarithmic axis, as SVG. Standard library only.

Each row is a state, each dot the median of one call, the line through it the range over processes. The colours are
legible on white and on black, and text follows the reader's colour scheme where the viewer tells it.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

from cold_start.report import TITLES

_COLOURS = {"dense": "#2f7fd6", "varlen": "#d9731a"}
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 900, 340, 70, 78, 34, 46
_OFFSET = {"dense": -7, "varlen": 7}
"""Pixels from the middle of the row."""

_TITLE = "Time to the first result after imports: 4096 tokens, Qwen3.5-9B, fresh processes"
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #6e7781; }
.title { font-size: 15px; font-weight: 600; }
.value { font-size: 11.5px; }
.grid { stroke: #8b949e; stroke-opacity: 0.3; stroke-width: 1; }
.band { fill: #8b949e; fill-opacity: 0.07; }
@media (prefers-color-scheme: light) { text { fill: #424a53; } }
@media (prefers-color-scheme: dark) { text { fill: #adb6c0; } }
"""


def draw(summary: dict[str, Any], caption: str) -> str:
    """Return the SVG document.

    Args:
        summary: What `cold_start.report.summarize` returned.
        caption: One line below the axis: device and versions.
    """
    rows = [(TITLES[case], _points(calls)) for case, calls in summary.items() if _points(calls)]
    values = [value for _, points in rows for point in points.values() for value in point]
    low = math.floor(math.log10(max(min(values, default=1.0), 1e-3)))
    high = max(low + 1, math.ceil(math.log10(max(values, default=10.0))))
    height = _TOP + _ROW * len(rows) + _BOTTOM

    def x(value: float) -> float:
        share = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    bottom = _TOP + _ROW * len(rows)
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{_TITLE}">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="16" y="26">{_TITLE}</text>',
        *_legend(),
        *(
            f'<rect class="band" x="0" y="{_TOP + _ROW * number}" width="{_WIDTH}" height="{_ROW}"/>'
            for number in range(0, len(rows), 2)
        ),
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line class="grid" x1="{at}" y1="{_TOP - 6}" x2="{at}" y2="{bottom}"/>')
        parts.append(f'<text class="value" x="{at}" y="{_TOP - 12}" text-anchor="middle">{_label(10.0**power)}</text>')
    for number, (title, points) in enumerate(rows):
        middle = _TOP + _ROW * number + _ROW / 2
        parts.append(f'<text x="16" y="{middle + 4.5}">{escape(title)}</text>')
        for call, (median, least, greatest) in points.items():
            parts += _dot(call, x(median), x(least), x(greatest), middle + _OFFSET[call], _label(median))
    parts.append(f'<text class="value" x="16" y="{height - 16}">{escape(caption)}</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def _points(calls: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Return call -> (median, least, greatest) milliseconds of the calls that were a process's first."""
    return {
        call: tuple(calls[call]["first_ms"][name] for name in ("median", "low", "high"))
        for call in _COLOURS
        if "first_ms" in calls.get(call, {})
    }


def _legend() -> list[str]:
    parts, at = [], 16
    for call, text in (("dense", "one prompt (dense)"), ("varlen", "three packed prompts (varlen); median and range")):
        parts.append(f'<circle cx="{at + 5}" cy="44" r="5" fill="{_COLOURS[call]}"/>')
        parts.append(f'<text x="{at + 16}" y="48.5">{text}</text>')
        at += 160
    return parts


def _dot(call: str, middle: float, least: float, greatest: float, y: float, label: str) -> list[str]:
    colour = _COLOURS[call]
    return [
        f'<line x1="{least}" y1="{y}" x2="{greatest}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
        f'<circle cx="{middle}" cy="{y}" r="4.5" fill="{colour}"/>',
        f'<text class="value" x="{max(middle, greatest) + 9}" y="{y + 4}">{label}</text>',
    ]


def _label(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.3g} s"
    return f"{milliseconds:.3g} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
