"""``gdn-aot matrix``: what is printed, selected and refused."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, expect_error
from hypothesis import given
from hypothesis import strategies as st
from matrices import PUBLISHED, SMALL, toml
from test_imports import HEAVY, loaded

from gdn_aot.errors import UsageError
from gdn_aot.matrix import load
from gdn_aot.matrix.select import MOST_ALTERNATIVES, alternatives, select


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch, command: Any) -> Any:
    """Run ``gdn-aot matrix`` in this process, in the root of the repository."""
    monkeypatch.chdir(ROOT)
    return partial(command, "matrix")


def test_identifiers_one_per_line(matrix: Any) -> None:
    done = matrix()
    assert done.out.splitlines() == [row.identifier for row in load(PUBLISHED).rows]
    assert done.err == ""


def test_the_include_list_of_a_workflow(matrix: Any) -> None:
    done = matrix("--json", "--select", "fla*-triton3.6.0-sm_120")
    assert list(done.json) == ["include"]
    (row,) = done.json["include"]
    assert (row["identifier"], row["tp"], row["max_tokens"]) == ("fla0.6.0-triton3.6.0-sm_120", "1,2,4,8", 262144)
    assert row["requirements"] == "constraints/fla-core-0.6.0-triton-3.6.0.txt"
    assert len(matrix("--json").json["include"]) == 180


def test_requirements_are_seen_from_the_working_directory(matrix: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "docs")
    done = matrix("--json", "--matrix", "../artifacts/matrix.toml", "--select", "vllm0.33.0-*-sm_90")
    assert done.json["include"][0]["requirements"] == "../constraints/vllm-0.33.0.txt"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--select", "vllm*-sm_8?"), 48),
        (("--select", "fla*-{triton3.6.0,triton3.8.0}-sm_{70,1[02]0}"), 6),
        (("--select", "fla*sm_90", "--select", "vllm*sm_90"), 18),
        (("--select", "fla*", "--exclude", "*-sm_{7?,8?}"), 10),
        (("--exclude", "vllm*", "--exclude", "*3.8.0*"), 18),
    ],
)
def test_selectors(matrix: Any, arguments: tuple[str, ...], expected: int) -> None:
    found = matrix(*arguments).out.splitlines()
    assert len(found) == len(set(found)) == expected
    assert found == [row.identifier for row in load(PUBLISHED).rows if row.identifier in found]


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("vlm*-sm_9?", "vllm0.24.0-triton3.6.0-sm_89"),
        ("vllm0.33.0-triton3.6.0-sm_90", "vllm0.33.0-triton3.8.0-sm_90"),
        ("fla0.6.0-triton3.6.0-sm_91", "fla0.6.0-triton3.6.0-sm_90"),
        ("VLLM*", "vllm"),
    ],
)
def test_a_selector_that_matches_nothing(matrix: Any, pattern: str, near: str) -> None:
    error = expect_error(matrix("--json", "--select", "fla*", "--select", pattern, code=3), 3, "nothing-selected")
    assert repr(pattern) in error["message"]
    if near != "vllm":
        assert near in error["hint"]
    assert error["hint"].startswith("near misses: ")


def test_everything_excluded(matrix: Any) -> None:
    expect_error(matrix("--json", "--exclude", "*", code=3), 3, "nothing-selected")
    assert "--exclude 'zzz*' matches nothing" in matrix("--exclude", "zzz*").err


@pytest.mark.parametrize("pattern", ["", "!fla*", "fla{", "fla}", "{a,{b}", "{" + ",".join("abcdefghij") + "}" * 0])
def test_a_malformed_selector(matrix: Any, pattern: str) -> None:
    for option in ("--select", "--exclude"):
        expect_error(matrix("--json", option, pattern, code=2), 2, "usage")


def test_too_many_alternatives() -> None:
    with pytest.raises(UsageError, match=f"more than {MOST_ALTERNATIVES}"):
        alternatives("{a,b}" * 30)


def test_braces() -> None:
    assert set(alternatives("a{b,c{d,e}}{,f}")) == {"ab", "abf", "acd", "acdf", "ace", "acef"}
    assert alternatives("abc") == ["abc"]
    assert alternatives("{a,a}") == ["a"]


@given(st.lists(st.sampled_from([row.identifier for row in load(PUBLISHED).rows]), min_size=1, max_size=5))
def test_a_brace_selects_what_its_parts_do(names: list[str]) -> None:
    rows = load(PUBLISHED).rows
    assert select(rows, ["{" + ",".join(names) + "}"]) == select(rows, names)
    assert {row.identifier for row in select(rows, names)} == set(names)


def test_bad_files(matrix: Any, tmp_path: Path) -> None:
    expect_error(matrix("--json", "--matrix", tmp_path / "none.toml", code=2), 2, "usage")
    path = tmp_path / "matrix.toml"
    path.write_bytes(toml({**SMALL, "artefact": []}))
    error = expect_error(matrix("--json", "--matrix", path, code=2), 2, "matrix")
    assert error["problems"] == [{"where": "artefact", "what": "unknown key; did you mean artifact?"}]  # type: ignore[comparison-overlap]
    plain = matrix("--matrix", path, code=2)
    assert plain.out == ""
    assert "  artefact: unknown key; did you mean artifact?" in plain.err.splitlines()


def test_the_matrix_is_read_without_anything_heavy() -> None:
    start = f"import os; os.chdir({str(ROOT)!r}); from gdn_aot.cli.main import run"
    assert not loaded(f"{start}; assert run(['matrix', '--json']) == 0") & {*HEAVY}
    found = loaded(f"{start}; assert run(['build', '--only', 'fla0.6.0-triton3.8.0-sm_99']) == 3")
    assert not found & {"torch", "triton", "fla"}
