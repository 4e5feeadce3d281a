"""Draws the floors of ``gdn_aot`` from the contract in ``pyproject.toml``: ``python docs/_site/floors.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs/pictures/floors.svg"
_GROUPS = {
    "serving": "commands and serving",
    "capture": "stages of building and tuning",
    "triton_internals": "kernels",
    "artifact | trust": "artifacts and where they lie",
    "_files | _hooks | _locks | _plain | _text | _version": "ground",
}
"""What floors are for, by the lowest of them."""
_WIDTH, _LEFT, _RIGHT, _ROW, _BOX, _GAP = 720, 232, 704, 34, 28, 8
_LABELS = 'aria-labelledby="title about"'
_STYLE = """  <style>
    text { font: 15px system-ui, sans-serif; fill: #52606d; font-size: 13px }
    .page { fill: #ffffff } .band { fill: #eef2f4 } .room { fill: #0f766e }
    .name { font-size: 14px; fill: #ffffff; text-anchor: middle } .many { font-size: 12px }
    @media (prefers-color-scheme: dark) {
      text { fill: #b8c2cc } .page { fill: #1e2129 } .band { fill: #2a2f3a } .room { fill: #0d6b64 }
    }
  </style>
"""


def _groups() -> list[tuple[str, list[str]]]:
    """Return what each group of floors is for, and its floors, the highest first."""
    contracts: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]["contracts"]
    groups, floors = [], []
    for floor in next(contract["layers"] for contract in contracts if contract["type"] == "layers"):
        floors.append(floor)
        if floor in _GROUPS:
            groups.append((_GROUPS[floor], floors))
            floors = []
    if floors:
        raise LookupError(f"_GROUPS does not say what {', '.join(floors)} is for")
    return groups


def draw() -> str:
    """Return the picture."""
    shapes, top, groups = [], 12, _groups()
    for about, floors in groups:
        height = len(floors) * _ROW + 10
        shapes.append(f'<rect class="band" x="12" y="{top}" width="{_WIDTH - 24}" height="{height}" rx="8"/>')
        shapes.append(f'<text x="28" y="{top + height // 2 + 5}">{about}</text>')
        for number, floor in enumerate(floors):
            rooms, y = floor.split(" | "), top + 8 + number * _ROW
            width = (_RIGHT - _LEFT - _GAP * (len(rooms) - 1)) / len(rooms)
            kind = "name many" if len(rooms) > 3 else "name"  # noqa: PLR2004
            for place, room in enumerate(rooms):
                x = _LEFT + place * (width + _GAP)
                shapes.append(f'<rect class="room" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BOX}" rx="4"/>')
                shapes.append(f'<text class="{kind}" x="{x + width / 2:.1f}" y="{y + 19}">{room}</text>')
        top += height + _GAP
    order = "; ".join(floor.replace(" | ", " and ") for _, floors in groups for floor in floors)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 4}" role="img" {_LABELS}>',
            '  <title id="title">The floors of gdn_aot</title>',
            f'  <desc id="about">From the highest: {order}.</desc>',
            f'{_STYLE}  <rect class="page" width="{_WIDTH}" height="{top + 4}" rx="8"/>',
            *(f"  {shape}" for shape in shapes),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
