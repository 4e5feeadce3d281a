"""How far from the best candidate choices are expected to be, by where they came from: ``records/expected.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gdn_aot._files import parse_toml

_TABLE = Path(__file__).with_name("expected.toml")
_TRANSFERS = {
    "key": "every key and length: keys of one model at a time, chosen for from the target's other keys",
    "target": "every key and length: choices of sm_90, with the target's code on an H200",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """The error of the choices of one provenance: their time, divided by that of the best candidate, less 1."""

    median: float
    p90: float
    """What nine of ten do not exceed."""
    source: str
    """What was compared, and where."""

    def __str__(self) -> str:
        return f"{_percent(self.median)} (median), {_percent(self.p90)} (9 of 10): {self.source}"


def expected_errors(table: Path = _TABLE) -> dict[str, Expected]:
    """Return the rows of a table by provenance; one that has none was not measured."""
    rows = parse_toml(table.read_text(encoding="utf-8")).get("expected", [])
    return {row["provenance"]: Expected(median=row["median"], p90=row["p90"], source=row["source"]) for row in rows}


def transfer_errors(table: Path = _TABLE) -> dict[tuple[str, str, str], Expected]:
    """Return the errors of transferred choices by provider, target, and where they are from.

    That is ``key``, another key of the target's own record, or ``target``, the record of sm_90. They are over autotune
    keys and token counts, in which every key counts the same.
    """
    rows = parse_toml(table.read_text(encoding="utf-8")).get("transfers", {})
    return {
        (provider, target, kind): Expected(median=median, p90=p90, source=_TRANSFERS[kind])
        for provider, targets in rows.items()
        for target, kinds in targets.items()
        for kind, (median, p90) in kinds.items()
    }


def _percent(error: float) -> str:
    return f"{100 * error:.1f}".removesuffix(".0") + " %"
