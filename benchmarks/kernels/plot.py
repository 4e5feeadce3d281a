"""The picture: how much longer each choice takes than the best of FLA's own candidates, as SVG. Standard library only.

One panel per shape; along the token counts, the sum of all kernels divided by that of the best for the length.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

from cold_start.plot import STYLE

from kernels.report import COLUMNS, by_tokens, ratio, total

_COLOURS = {
    "fla_tuned": "#a066d3",
    "pick64": "#d9731a",
    "shipped": "#2f7fd6",
    "wide_best": "#2e9e5b",
    "floor": "#8b949e",
}
_ABREAST = 2
_WIDTH, _PANEL, _LEFT, _RIGHT, _TOP, _HEAD, _PLOT, _FOOT, _CAPTION = 900, 450, 52, 66, 70, 30, 190, 36, 36
_TITLE = "GPU time of the GDN prefill kernels, relative to the best of FLA's candidates at each length"

Line = dict[int, float]
"""Token count -> ratio."""


def draw(document: dict[str, Any], caption: str) -> str:
    """Return the SVG document.

    Args:
        document: The benchmark's result.
        caption: One line at the foot: device and versions.
    """
    panels = {name: _lines(shape) for name, shape in document["shapes"].items()}
    values = [value for lines in panels.values() for line in lines.values() for value in line.values()]
    top = max(1.2, math.ceil(max(values, default=1.0) * 5 + 0.25) / 5)
    deep = _HEAD + _PLOT + _FOOT
    height = _TOP + deep * -(-len(panels) // _ABREAST) + _CAPTION
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{_TITLE}">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="16" y="26">{_TITLE}</text>',
        *_legend(),
    ]
    for number, (name, lines) in enumerate(panels.items()):
        parts += _panel(name, lines, top, _PANEL * (number % _ABREAST), _TOP + deep * (number // _ABREAST))
    parts.append(f'<text class="value" x="16" y="{height - 14}">{escape(caption)}</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def _lines(shape: dict[str, Any]) -> dict[str, Line]:
    lines: dict[str, Line] = {column: {} for column in _COLOURS}
    for tokens, kernels in by_tokens(shape).items():
        row = total(kernels)
        for column, line in lines.items():
            value = ratio(row, column, "provider_best")
            if value is not None:
                line[tokens] = value
    return lines


def _legend() -> list[str]:
    parts, at = [], 16
    for column, colour in _COLOURS.items():
        title = COLUMNS[column]
        parts.append(f'<circle cx="{at + 5}" cy="46" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{at + 16}" y="50.5">{escape(title)}</text>')
        at += 46 + 7 * len(title)
    return parts


def _panel(name: str, lines: dict[str, Line], top: float, left: int, upper: int) -> list[str]:
    counts = sorted({tokens for line in lines.values() for tokens in line})
    low, high = (math.log2(counts[0]), math.log2(counts[-1])) if counts else (0.0, 1.0)
    x0, x1, y0 = left + _LEFT, left + _PANEL - _RIGHT, upper + _HEAD + _PLOT

    def x(tokens: int) -> float:
        share = (math.log2(tokens) - low) / (high - low) if high > low else 0.5
        return round(x0 + share * (x1 - x0), 1)

    def y(value: float) -> float:
        return round(y0 - value / top * _PLOT, 1)

    parts = [f'<text x="{left + 16}" y="{upper + 16}">{escape(name)}</text>']
    step = 0.2 if top <= 2 else 0.5 if top <= 5 else 10 ** math.ceil(math.log10(top / 5))
    for number in range(math.floor(top / step + 1e-9) + 1):
        value = number * step
        width = 2 if abs(value - 1) < 1e-9 else 1
        parts.append(
            f'<line class="grid" x1="{x0}" y1="{y(value)}" x2="{x1}" y2="{y(value)}" style="stroke-width:{width}"/>'
        )
        parts.append(f'<text class="value" x="{x0 - 7}" y="{y(value) + 4}" text-anchor="end">{value:.3g}</text>')
    parts += [
        f'<text class="value" x="{x(tokens)}" y="{y0 + 17}" text-anchor="middle">{tokens}</text>' for tokens in counts
    ]
    for column, line in lines.items():
        parts += _line(_COLOURS[column], [(x(tokens), y(value)) for tokens, value in line.items()])
    parts += _labels({column: line for column, line in lines.items() if line}, x1 + 9, y)
    return parts


def _line(colour: str, points: list[tuple[float, float]]) -> list[str]:
    path = " ".join(f"{across},{down}" for across, down in points)
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{across}" cy="{down}" r="3.5" fill="{colour}"/>' for across, down in points),
    ]


def _labels(lines: dict[str, Line], at: float, y: Any) -> list[str]:
    """Return the last value of each line, moved apart where they would overlap."""
    parts: list[str] = []
    above = -math.inf
    for column, line in sorted(lines.items(), key=lambda item: -item[1][max(item[1])]):
        value = line[max(line)]
        above = max(y(value) + 4, above + 13)
        parts.append(f'<text class="value" x="{at}" y="{above}" style="fill:{_COLOURS[column]}">{value:.2f}</text>')
    return parts
