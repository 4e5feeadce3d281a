"""``gdn-aot build --only``: one row, the same bytes as the options that it stands for; what does not go beside it."""

import copy
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
from builds import Built
from commands import refused
from helpers import gdn_aot
from matrices import SMALL, toml

from gdn_aot.machine import installed

HERE = f"fla{importlib.metadata.version('fla-core')}-triton{importlib.metadata.version('triton')}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a matrix with one row of the installed versions, as `builds.sm_120` builds it, and one of others."""
    document: dict[str, Any] = copy.deepcopy(SMALL)
    document["environment"][0].update(
        version=importlib.metadata.version("fla-core"), triton=importlib.metadata.version("triton")
    )
    document["artifact"][0].update(targets=["sm_120", "sm_70"], models=["qwen3.5-9b"], tp=[1], max_tokens=32768)
    path = tmp_path / "matrix.toml"
    path.write_bytes(toml(document))
    return path


def test_a_row_is_built_as_its_options_would(sm_120: Built, session_home: Path, file: Path, tmp_path: Path) -> None:
    done = gdn_aot(
        "build", "--only", f"{HERE}-sm_120", "--matrix", file, "-o", tmp_path / "out", "--json", home=session_home
    )
    (row,) = done.json["artifacts"]
    assert row["identifier"] == f"{HERE}-sm_120"
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == f"gdn-aot-{HERE}-sm_120.tar.zst"
    assert path.read_bytes() == sm_120.path.read_bytes()


def test_records_are_those_beside_the_matrix(session_home: Path, file: Path, tmp_path: Path) -> None:
    record = tmp_path / "tuning" / "sm_120" / f"fla-core-{importlib.metadata.version('fla-core')}.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    arguments = ("build", "--only", f"{HERE}-sm_120", "--matrix", file, "-o", tmp_path / "out")
    assert str(record) in refused(*arguments, home=session_home, code=2, kind="usage")["message"]


@pytest.fixture
def refuse(file: Path, tmp_path: Path) -> Any:
    """Run a build that must be refused before anything is done."""

    def refuse(*arguments: str, code: int, kind: str) -> dict[str, str]:
        out, home = tmp_path / "out", tmp_path / "home"
        error = refused("build", *arguments, "--matrix", file, "-o", out, home=home, code=code, kind=kind)
        assert not out.exists()
        assert not list(home.iterdir())
        return error

    return refuse


def test_an_unknown_identifier(refuse: Any) -> None:
    error = refuse("--only", f"{HERE}-sm_121", code=3, kind="nothing-selected")
    assert f"{HERE}-sm_120" in error["hint"]
    refuse("--only", "fla*", code=3, kind="nothing-selected")
    refuse("--only", "", code=3, kind="nothing-selected")


@pytest.mark.parametrize(
    "beside",
    [
        ("--arch", "sm_120"),
        ("--model", "all"),
        ("--tp", "1"),
        ("--shape", "heads=1"),
        ("--dtype", "bf16"),
        ("--provider", "fla"),
        ("--mode", "inference"),
        ("--max-tokens", "32768"),
        ("--max-batch", "64"),
        ("--workload", "*"),
        ("--exclude-workload", "x"),
        ("--capture", "x.json"),
        ("--candidates", "chosen"),
    ],
)
def test_options_that_say_what_the_row_says(refuse: Any, beside: tuple[str, str]) -> None:
    error = refuse("--only", f"{HERE}-sm_120", *beside, code=2, kind="usage")
    assert f"{beside[0]} cannot stand beside --only" in error["message"]


def test_a_matrix_without_a_row_of_it(refuse: Any) -> None:
    error = refuse("--arch", "sm_120", "--model", "all", code=2, kind="usage")
    assert "--matrix without --only" in error["message"]


def test_another_environment(refuse: Any) -> None:
    error = refuse("--only", "vllm0.33.0-triton3.8.0-sm_90", code=2, kind="usage")
    assert "is built with vllm 0.33.0 and triton 3.8.0, but here is" in error["message"]
    assert "python3.11 -m venv .venv-b" in error["hint"]
    assert "pip install --no-deps -r ../b.txt" in error["hint"]


@pytest.mark.parametrize(("name", "version"), [("triton", "3.9.9"), ("fla-core", "0.5.2"), ("fla-core", None)])
def test_one_version_differs(refuse: Any, monkeypatch: pytest.MonkeyPatch, name: str, version: str | None) -> None:
    real = installed.version
    monkeypatch.setattr(installed, "version", lambda asked: version if asked == name else real(asked))
    error = refuse("--only", f"{HERE}-sm_120", code=2, kind="usage")
    assert (f"{name} {version}" if version else f"no {name}") in error["message"]
