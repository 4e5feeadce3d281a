"""Tables of targets, models and providers, and what options choose of them. Nothing here imports torch or triton."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gdn_aot._files import parse_toml


def read_table(name: str) -> dict[str, list[dict[str, Any]]]:
    """Return what a file of this folder holds; its lists become tuples, so that records of them are hashable."""
    rows = parse_toml((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return {key: [{field: _plain(value) for field, value in row.items()} for row in rows[key]] for key in rows}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
