"""How far from the best choices are expected to be: the table is what was measured, and ``inspect`` says it."""

import json
from pathlib import Path
from typing import get_args

import factory
import pytest
from helpers import ROOT, gdn_aot

from gdn_aot.artifact.manifest import Provenance
from gdn_aot.records import expected
from gdn_aot.records.expected import Expected, expected_errors, transfer_errors

RESULT = ROOT / "benchmarks/results/regret.json"


def test_the_table_has_the_numbers_of_the_result_file_and_no_others() -> None:
    """Without a result file nothing was measured; it also has what is chosen in other ways than builds do."""
    measured = json.loads(RESULT.read_text(encoding="utf-8"))["expected"] if RESULT.exists() else {}
    table, known = expected_errors(), get_args(Provenance)
    assert {name: (row.median, row.p90) for name, row in table.items()} == {
        name: (row["median"], row["p90"]) for name, row in measured.items() if name in known
    }
    for row in table.values():
        assert 0 <= row.median <= row.p90
        assert row.source


def test_errors_of_transferred_choices_are_those_of_the_result_file() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    measured = {(row["provider"].split()[0], row["target"], "key"): row["regret"]["all"] for row in result["held_out"]}
    for row in result["targets"]:
        if "transferred" in row["choices"]:
            measured[row["provider"], row["target"], "target"] = row["choices"]["transferred"]["all"]
    assert {place: (row.median, row.p90) for place, row in transfer_errors().items()} == {
        place: (row["median"], row["p90"]) for place, row in measured.items()
    }


def test_inspect_says_it_for_each_provenance_that_the_artifact_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "expected.toml"
    table.write_text('[[expected]]\nprovenance = "measured"\nmedian = 0.02\np90 = 0.0625\nsource = "two cards"\n')
    found = expected_errors(table)
    assert found == {"measured": Expected(median=0.02, p90=0.0625, source="two cards")}
    monkeypatch.setattr(expected, "expected_errors", lambda: found)
    monkeypatch.setattr("gdn_aot.reporting.facts.expected_errors", lambda: found)
    artifact = factory.write(tmp_path)
    text = gdn_aot("inspect", artifact, home=tmp_path).out
    assert "expected error  measured 2 % (median), 6.2 % (9 of 10): two cards\n" in text
    assert "expected error  default not known\n" in text
    document = gdn_aot("inspect", artifact, "--json", home=tmp_path).json
    assert document["expected_error"] == {
        "default": None, "measured": {"median": 0.02, "p90": 0.0625, "source": "two cards"},
    }  # fmt: skip
