"""Tuning records: the measured or transferred choices kept in git under ``artifacts/tuning/``.

One file per target and provider version: ``<target>/<distribution>-<version>.json``, with
``resources/tuning.schema.json`` as its schema.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gdn_aot.build.records import Config, Scalar
from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1
_PROVENANCES = ("measured", "transferred")


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedChoice:
    """The configuration that a record gives for one autotune key."""

    config: Config
    provenance: str
    note: str


TuningTable = dict[tuple[str, tuple[Scalar, ...]], TunedChoice]
"""(``module:qualname``, autotune key) -> choice."""


def record_path(root: Path, target: str, distribution: str, version: str) -> Path:
    """Return where the record of a target and provider version lies."""
    return root / target / f"{distribution}-{version}.json"


def load(root: Path | None, target: str, distribution: str, version: str) -> TuningTable:
    """Read the record of a target and provider version; without one the table is empty.

    Raises:
        UsageError: The file is not a record of this format, target and provider version. Records are never mixed.
    """
    path = record_path(root, target, distribution, version) if root else None
    if path is None or not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
        found = {
            "format": data["format"],
            "target": data["target"],
            "distribution": data["provider"]["distribution"],
            "version": data["provider"]["version"],
        }
    except (ValueError, KeyError, TypeError) as error:
        raise _refused(path, f"it is not a tuning record ({type(error).__name__}: {error})") from error
    wanted = {"format": FORMAT, "target": target, "distribution": distribution, "version": version}
    for name, value in wanted.items():
        if found[name] != value:
            raise _refused(path, f"its {name} is {found[name]!r}, not {value!r}")
    try:
        return _table(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _refused(path, f"a choice in it is malformed ({type(error).__name__}: {error})") from error


def _table(data: Mapping[str, Any]) -> TuningTable:
    table: TuningTable = {}
    for kernel in data["kernels"]:
        for choice in kernel["choices"]:
            provenance = choice["provenance"]
            if provenance not in _PROVENANCES:
                raise ValueError(f"provenance {provenance!r} is not one of {', '.join(_PROVENANCES)}")
            key = tuple(_is(part, "key", str, int, bool, float, None) for part in _is(choice["key"], "key", list))
            table[_is(kernel["kernel"], "kernel", str), key] = TunedChoice(
                config=_config(choice["config"]), provenance=provenance, note=_is(choice.get("note", ""), "note", str)
            )
    return table


def _config(config: Mapping[str, Any]) -> Config:
    kwargs = _is(config["kwargs"], "kwargs", dict)
    return Config(
        kwargs=tuple((name, _is(value, name, int, bool)) for name, value in kwargs.items()),
        num_warps=_is(config["num_warps"], "num_warps", int),
        num_stages=_is(config["num_stages"], "num_stages", int),
        num_ctas=_is(config.get("num_ctas", 1), "num_ctas", int),
        maxnreg=_is(config.get("maxnreg"), "maxnreg", int, None),
    )


def _is(value: Any, name: str, *kinds: type | None) -> Any:
    """Return a value whose type is one of ``kinds``; None stands for null."""
    if (None if value is None else type(value)) in kinds:
        return value
    wanted = " or ".join("null" if kind is None else kind.__name__ for kind in kinds)
    raise TypeError(f"{name}: expected {wanted}, got {type(value).__name__}")


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(
        f"tuning record {path} is refused: {why}",
        hint="remove it to build with default choices, or tune again",
    )
