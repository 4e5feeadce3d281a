"""The runner does what GitHub does with what our workflows use, and refuses everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers import ROOT
from workflows.actions import UnknownAction
from workflows.expressions import UnknownExpression, condition, evaluate, fill
from workflows.runner import Runner, UnknownKey, load, pairs

if TYPE_CHECKING:
    from pathlib import Path

SEEN: dict[str, Any] = {
    "github": {"event_name": "push", "event": {}},
    "inputs": {"tag": "", "n": 2, "yes": True},
    "matrix": {"arch": "sm_90", "tp-size": "1,2"},
    "needs": {"rows": {"outputs": {"matrix": '{"include":[{"a":1}]}'}}},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'it''s'", "it's"),
        ("github.event_name == 'PUSH'", True),
        ("github.event_name != 'push' || inputs.n == 2", True),
        ("inputs.tag || github.event_name", "push"),
        ("inputs.tag && 'x' || 'y'", "y"),
        ("!inputs.tag", True),
        ("(inputs.yes == true) && !(inputs.n != 2)", True),
        ("github.event.pull_request.base.sha", None),
        ("github.event.pull_request.base.sha == ''", True),
        ("inputs.missing != ''", False),
        ("fromJSON(needs.rows.outputs.matrix)", {"include": [{"a": 1}]}),
        ("matrix.tp-size", "1,2"),
    ],
)
def test_values(text: str, value: object) -> None:
    assert evaluate(text, SEEN) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "matrix",
        "secret.TOKEN",
        "runner.os",
        "hashFiles('x')",
        "contains(github.event_name, 'p')",
        "github['event_name']",
        "github.*.x",
        "inputs.n < 3",
        "inputs.n == '2'",
        "(inputs.n",
        "inputs.n inputs.n",
        "inputs.n ==",
        "fromJSON('1'",
        '"double"',
        "a ? b : c",
        "${{ inputs.n }}",
    ],
)
def test_what_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(UnknownExpression):
        evaluate(text, SEEN)


def test_texts() -> None:
    assert fill("arch ${{ matrix.arch }} of ${{ inputs.n }}${{ inputs.missing }}", SEEN) == "arch sm_90 of 2"
    assert fill("${{ inputs.yes }}", SEEN) is True
    assert fill("plain", SEEN) == "plain"
    with pytest.raises(UnknownExpression):
        fill("${{ inputs.n", SEEN)
    with pytest.raises(UnknownExpression):
        fill("x ${{ fromJSON(needs.rows.outputs.matrix) }}", SEEN)


@pytest.mark.parametrize(
    ("text", "well", "expected"),
    [
        ("inputs.n == 2", True, True),
        ("inputs.n == 2", False, False),
        ("${{ !cancelled() }}", False, True),
        ("failure()", False, True),
        ("failure()", True, False),
        ("always() && inputs.n == 3", True, False),
    ],
)
def test_conditions(text: str, well: bool, expected: bool) -> None:
    states = {
        "success": lambda: well, "failure": lambda: not well, "always": lambda: True, "cancelled": lambda: False,
    }  # fmt: skip
    assert condition(text, SEEN, states) is expected


SMALL = """\
name: Small
on: {workflow_dispatch: {inputs: {word: {default: "", type: string}}}}
permissions: {}
env: {OUTER: "1", WORD: "${{ inputs.word }}"}
jobs:
  first:
    runs-on: x
    outputs: {rows: "${{ steps.rows.outputs.rows }}"}
    steps:
      - id: rows
        run: |
          echo 'rows={"include":[{"k":"a"},{"k":"b"}]}' >> "$GITHUB_OUTPUT"
          echo "SET=$WORD" >> "$GITHUB_ENV"
          mkdir tools && printf '#!/bin/sh\\necho tool $SET\\n' > tools/tool && chmod +x tools/tool
          echo "$PWD/tools" >> "$GITHUB_PATH"
      - name: Use
        env: {INNER: "${{ env.OUTER }}2"}
        run: |
          tool
          echo "$INNER"
          echo "id-token: ${ACTIONS_ID_TOKEN_REQUEST_TOKEN:-none}"
          echo "## $SET" >> "$GITHUB_STEP_SUMMARY"
  many:
    needs: first
    runs-on: x
    permissions: {id-token: write}
    strategy: {fail-fast: false, matrix: "${{ fromJSON(needs.first.outputs.rows) }}"}
    steps:
      - name: Part
        env: {K: "${{ matrix.k }}"}
        run: |
          echo "id-token: ${ACTIONS_ID_TOKEN_REQUEST_TOKEN:-none}"
          test "$K" != FAILS | cat
      - name: After
        run: echo after
      - {name: Mend, if: failure(), run: echo mended}
  last:
    needs: [first, many]
    runs-on: x
    steps: [{run: echo last}]
"""


def small(tmp_path: Path, text: str = SMALL, **more: Any) -> Runner:
    file = tmp_path / "small.yml"
    file.write_text(text)
    given = {"inputs": {"word": "hello"}, "id_token": {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "given"}, **more}
    return Runner(workflow=file, root=tmp_path / "run", source=ROOT, **given)


def test_what_steps_hand_on(tmp_path: Path) -> None:
    run = small(tmp_path).run()
    assert run.results == {"first": "success", "many": "success", "last": "success"}
    (first,) = run.jobs["first"]
    assert first.log("Use").splitlines()[:3] == ["tool hello", "12", "id-token: none"]
    assert first.summary == "## hello\n"
    assert [job.matrix["k"] for job in run.jobs["many"]] == ["a", "b"]
    assert "id-token: given" in run.jobs["many"][0].log("Part")


@pytest.mark.parametrize("row", ["a", "b"])
def test_a_job_that_fails_stops_what_needs_it(row: str, tmp_path: Path) -> None:
    """The other rows of its matrix run on; a failure anywhere in a pipe counts."""
    run = small(tmp_path, SMALL.replace("FAILS", row)).run()
    assert run.results == {"first": "success", "many": "failure", "last": "skipped"}
    for job in run.jobs["many"]:
        fails = job.matrix["k"] == row
        assert job.failed == ("Part" if fails else None)
        assert [name for name in ("After", "Mend") if name in job.seconds] == (["Mend"] if fails else ["After"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("permissions: {}", "permissions: {}\nrun-name: x"),
        ("needs: first", "needs: first\n    container: x"),
        ("- name: Use", "- name: Use\n        continue-on-error: true"),
        ("fail-fast: false", "fail-fast: false, x: 1"),
        ("permissions: {}", "permissions: {}\ndefaults: {run: {shell: sh}}"),
        ("run: echo after", "uses: actions/checkout@0\n        run: echo after"),
    ],
)
def test_keys_that_are_not_known_stop_it(old: str, new: str, tmp_path: Path) -> None:
    assert old in SMALL
    with pytest.raises(UnknownKey):
        small(tmp_path, SMALL.replace(old, new))


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("{run: 'echo ${{ inputs.word }}'}", UnknownKey),
        ("{run: 'true', env: {X: '${{ runner.os }}'}}", UnknownExpression),
        (f"{{uses: some/action@{'0' * 40}}}", UnknownAction),
        ("{uses: actions/checkout@v5, with: {persist-credentials: false}}", UnknownAction),
        (f"{{uses: actions/checkout@{'0' * 40}}}", UnknownAction),
        (f"{{uses: actions/checkout@{'0' * 40}, with: {{persist-credentials: false, ref: x}}}}", UnknownAction),
    ],
)
def test_steps_that_are_not_known_stop_it(step: str, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        small(tmp_path, SMALL.replace("- {name: Mend, if: failure(), run: echo mended}", f"- {step}")).run()


def test_an_input_that_is_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UnknownKey, match="other"):
        small(tmp_path, inputs={"other": "x"})


def test_lines_of_outputs() -> None:
    assert pairs("a=1\nb=x=y\n\nc=\n") == {"a": "1", "b": "x=y", "c": ""}
    for bad in ("a", "a<<EOF\n1\nEOF"):
        with pytest.raises(UnknownKey):
            pairs(bad)


@pytest.mark.parametrize("name", ["ci", "artifacts", "tune", "release"])
def test_our_workflows_can_be_read(name: str) -> None:
    assert load(ROOT / f".github/workflows/{name}.yml")["jobs"]
