"""``.github/scripts/rows.py``: what people and pull requests may say of what is built."""

import json
from pathlib import Path

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st
from workflow_scripts import Job, here, script

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


def pairs(text: str) -> dict[str, str]:
    """Return outputs, which are lines ``name=value``."""
    found = [line.partition("=") for line in text.splitlines()]
    assert all(equals and "<<" not in name for name, equals, _ in found)
    return {name: value for name, _, value in found}


def test_outputs_are_one_line_each() -> None:
    text = rows.outputs(json.dumps({"include": [{"identifier": "a"}, {"identifier": "b\nc=d"}]}))
    found = pairs(text)
    assert set(found) == {"matrix", "count"}
    assert found["count"] == "2"
    assert json.loads(found["matrix"])["include"][1]["identifier"] == "b\nc=d"
    with pytest.raises(rows.Refused, match="256"):
        rows.outputs(json.dumps({"include": [{}] * 257}))


def run(tmp_path: Path, code: int = 0, workflow: str = "artifacts", **env: str) -> tuple[dict[str, str], str]:
    """Run the step of a workflow; return its outputs and what it says."""
    root = tmp_path / f"job-{len(list(tmp_path.iterdir()))}"
    values = {"MATRIX": "artifacts/matrix.toml", "SELECT": "", **env}
    job = Job(workflow=workflow, job="matrix", root=root, values=values, **here(tmp_path / "store"))
    for name in ("artifacts", "constraints"):
        (job.work / name).symlink_to(ROOT / name)
    done = job.step("Rows", code)
    assert "Traceback" not in done.err
    return pairs(job.written("GITHUB_OUTPUT")), done.err


def test_rows_of_the_committed_matrix(tmp_path: Path) -> None:
    found, _ = run(tmp_path, EVENT="workflow_dispatch", SELECT="fla0.6.0-triton3.6.0-sm_{90,120}")
    assert found["count"] == "2"
    for row in json.loads(found["matrix"])["include"]:
        assert (ROOT / row["requirements"]).is_file()
        assert all(isinstance(value, str | int) for value in row.values())


def test_a_pull_request_builds_a_row_of_each_provider(tmp_path: Path) -> None:
    """A tag builds every row."""
    found, _ = run(tmp_path, EVENT="pull_request")
    rows = json.loads(found["matrix"])["include"]
    assert [row["identifier"] for row in rows] == [
        "fla0.6.0-triton3.6.0-sm_90",
        "vllm0.24.0-triton3.6.0-sm_120",
        "sglang0.5.17-triton3.6.0-sm_90",
    ]
    assert int(run(tmp_path, EVENT="push")[0]["count"]) == 180


def test_failures_keep_their_exit_codes(tmp_path: Path) -> None:
    found, err = run(tmp_path, 3, EVENT="workflow_dispatch", SELECT="flo*")
    assert found == {}
    assert "Hint: " in err
    found, err = run(tmp_path, 2, EVENT="workflow_dispatch", SELECT="`id`")
    assert found == {}
    assert err.startswith("Error: SELECT cannot be")


def test_rows_of_one_tuning_record_are_refused_where_it_is_written(tmp_path: Path) -> None:
    both = "fla0.6.0-triton3.{6,8}.0-sm_90"
    run(tmp_path, EVENT="workflow_dispatch", SELECT=both)
    _, err = run(tmp_path, 2, "tune", EVENT="workflow_dispatch", SELECT=both)
    assert "fla0.6.0-triton3.6.0-sm_90 and fla0.6.0-triton3.8.0-sm_90 have one tuning record" in err
