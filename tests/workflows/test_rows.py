"""``.github/scripts/rows.py``: what people and pull requests may say of what is built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st
from workflows.runner import pairs
from workflows.scripts import script

if TYPE_CHECKING:
    from pathlib import Path

rows = script("rows")


def test_what_an_event_selects() -> None:
    assert rows.arguments({"EVENT": "push", "SELECT": "", "MATRIX": ""}) == []
    assert rows.arguments({"EVENT": "pull_request", "SELECT": ""})[1::2] == list(rows.PULL_REQUEST)
    by_hand = {"EVENT": "workflow_dispatch", "SELECT": " fla*-sm_{80,9?}   vllm*[!0] ", "MATRIX": "artifacts/x.toml"}
    assert rows.arguments(by_hand) == [
        "--matrix", "artifacts/x.toml", "--select", "fla*-sm_{80,9?}", "--select", "vllm*[!0]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SELECT", "$(id)"),
        ("SELECT", "a;b"),
        ("SELECT", "a\nmatrix={}"),
        ("SELECT", "x" * 501),
        ("SELECT", "ä"),
        ("MATRIX", "../matrix.toml"),
        ("MATRIX", "/etc/passwd"),
        ("MATRIX", "artifacts/../../x"),
        ("MATRIX", "--json"),
    ],
)
def test_other_characters_are_refused(name: str, value: str) -> None:
    if value == "a\nmatrix={}":  # a line more would be an output more, but white space only separates globs
        assert rows.arguments({"EVENT": "push", name: value.replace("=", "")})[1::2] == ["a", "matrix{}"]
        return
    with pytest.raises(rows.Refused, match=name):
        rows.arguments({"EVENT": "pull_request", name: value})


@given(st.text(max_size=40))
def test_an_argument_is_never_an_option(text: str) -> None:
    try:
        found = rows.arguments({"EVENT": "push", "SELECT": text})
    except rows.Refused:
        return
    assert found[::2] == ["--select"] * (len(found) // 2)
    assert all(not pattern.isspace() and pattern for pattern in found[1::2])


def test_outputs_are_one_line_each() -> None:
    text = rows.outputs(json.dumps({"include": [{"identifier": "a"}, {"identifier": "b\nc=d"}]}))
    found = pairs(text)
    assert set(found) == {"matrix", "count"}
    assert found["count"] == "2"
    assert json.loads(found["matrix"])["include"][1]["identifier"] == "b\nc=d"
    with pytest.raises(rows.Refused, match="256"):
        rows.outputs(json.dumps({"include": [{}] * 257}))


def run(tmp_path: Path, **env: str) -> tuple[int, str, str]:
    output = tmp_path / "output"
    output.touch()
    done = subprocess.run(
        [sys.executable, str(ROOT / ".github/scripts/rows.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "GITHUB_OUTPUT": str(output), **env},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, output.read_text(), done.stderr


def test_rows_of_the_committed_matrix(tmp_path: Path) -> None:
    code, text, _ = run(tmp_path, EVENT="workflow_dispatch", SELECT="fla0.6.0-triton3.6.0-sm_{90,120}")
    assert code == 0
    found = pairs(text)
    assert found["count"] == "2"
    for row in json.loads(found["matrix"])["include"]:
        assert (ROOT / row["requirements"]).is_file()
        assert all(isinstance(value, str | int) for value in row.values())


def test_failures_keep_their_exit_codes(tmp_path: Path) -> None:
    code, text, err = run(tmp_path, EVENT="workflow_dispatch", SELECT="flo*")
    assert (code, text) == (3, "")
    assert "Hint: " in err
    code, text, err = run(tmp_path, EVENT="workflow_dispatch", SELECT="`id`")
    assert (code, text) == (2, "")
    assert err.startswith("Error: SELECT cannot be")


def test_rows_of_one_tuning_record_are_refused_where_it_is_written(tmp_path: Path) -> None:
    both = "fla0.6.0-triton3.{6,8}.0-sm_90"
    assert run(tmp_path, EVENT="workflow_dispatch", SELECT=both)[0] == 0
    code, _, err = run(tmp_path, EVENT="workflow_dispatch", SELECT=both, ONE_RECORD="true")
    assert code == 2
    assert "fla0.6.0-triton3.6.0-sm_90 and fla0.6.0-triton3.8.0-sm_90 have one tuning record" in err
    tune = (ROOT / ".github/workflows/tune.yml").read_text()
    assert 'ONE_RECORD: "true"' in tune
