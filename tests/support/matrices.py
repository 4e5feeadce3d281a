"""Matrix files for tests: the published one as plain data, small ones, and the TOML of either."""

import copy
import json
from pathlib import Path
from typing import Any

from helpers import ROOT

from gdn_aot._files import parse_toml
from gdn_aot.matrix.load import parse

PUBLISHED = ROOT / "artifacts" / "matrix.toml"

SMALL: dict[str, Any] = {
    "format": 1,
    "defaults": {"python": "3.11", "runner": "ubuntu-24.04", "models": ["all"], "tp": [1, 2], "max_tokens": 8192},
    "environment": [
        {"name": "a", "provider": "fla", "version": "0.6.0", "triton": "3.6.0", "requirements": "a.txt"},
        {"name": "b", "provider": "vllm", "version": "0.33.0", "triton": "3.8.0", "requirements": "b.txt"},
    ],
    "artifact": [
        {"environments": ["a"], "targets": ["sm_70", "sm_90"], "models": ["qwen3.5-9b"]},
        {"environments": ["b"], "targets": ["sm_90"], "tp": [8], "max_tokens": 64},
    ],
}
"""Two environments and three rows."""


def published() -> dict[str, Any]:
    """Return the published matrix as parsed TOML."""
    return parse_toml(PUBLISHED.read_text(encoding="utf-8"))


def changed(steps: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return `SMALL` with another value at a place; the value ``...`` takes what is there away."""
    document = copy.deepcopy(SMALL)
    at: Any = document
    for step in steps[:-1]:
        at = at[step]
    if value is ...:
        del at[steps[-1]]
    else:
        at[steps[-1]] = value
    return document


def toml(document: dict[str, Any]) -> bytes:
    """Return a document as TOML; lists of tables are written inline, and null, which TOML lacks, is not written."""
    return "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in document.items()).encode()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def made(document: dict[str, Any]) -> Any:
    """Return the `Matrix` of a document."""
    return parse(toml(document), Path("matrix.toml"))
