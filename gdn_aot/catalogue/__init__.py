"""Tables of targets, models and providers, and what options choose of them. Nothing here imports torch or triton."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gdn_aot._files import parse_toml

_HERE = Path(__file__).parent


def read_table(name: str) -> dict[str, tuple[dict[str, Any], ...]]:
    """Return what a file of this folder holds, with tuples for lists, so that records of it are hashable."""
    rows: dict[str, tuple[dict[str, Any], ...]] = _frozen(parse_toml((_HERE / name).read_text(encoding="utf-8")))
    return rows


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
