"""``.github/scripts/summary.py``: what a summary says, and what it does not let pass."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from workflow_scripts import script

summary = script("summary")


@pytest.fixture(autouse=True)
def _no_summary_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


NAME = "fla0.6.0-triton3.6.0-sm_90"


def write(folder: Path, identifier: str = NAME, **changes: Any) -> None:
    folder.mkdir(exist_ok=True)
    content = identifier.encode() * 1000
    (folder / f"gdn-aot-{identifier}.tar.zst").write_bytes(content)
    built = {
        "identifier": identifier,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "kernels": 16,
        "binaries": 1218,
        "provenance": {"measured": 1, "proxy": 4, "captured": 0, "transferred": 2, "default": 3},
        "not_covered": [{"kernel": "m:k", "reason": "needs <more>\n| shared", "keys": 1}],
        "seconds": {"trace": 1.2, "compile": 60.0},
    }
    coverage = {"launches": 4321, "misses": []}
    for name, document in (("build", {"artifacts": [built | changes.get("built", {})]}), ("coverage", coverage)):
        (folder / f"{identifier}.{name}.json").write_text(json.dumps(document | changes.get(name, {})))


def test_a_row_for_each_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "dist")
    write(tmp_path / "dist", "vllm0.24.0-triton3.6.0-sm_80")
    assert summary.main([str(tmp_path / "dist"), "--expect", "2"]) == 0
    said = capsys.readouterr().out
    digest = hashlib.sha256(NAME.encode() * 1000).hexdigest()[:16]
    assert f"| `{NAME}` | 25 | 16 | 1,218 | 1 | 4 | 0 | 2 | 3 | 1 | 4,321 | 0 | 61 | `{digest}` |" in said
    assert "| `vllm0.24.0-triton3.6.0-sm_80` |" in said
    assert f"- `{NAME}`: `m:k`: needs &lt;more> \\| shared" in said
    widths = {line.count(" |") for line in said.splitlines() if line.startswith("|")}
    assert len(widths) == 1


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"coverage": {"misses": [{}]}}, "1 launches would miss"),
        ({"coverage": {"launches": 0}}, "replayed no launch"),
        ({"built": {"sha256": "0" * 64}}, "is not the file that its build reported"),
        ({"built": {"identifier": "other"}}, "is not the file that its build reported"),
    ],
)
def test_what_is_wrong_ends_it(
    changes: dict[str, Any], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "dist", **changes)
    assert summary.main([str(tmp_path / "dist")]) == 1
    found = capsys.readouterr()
    assert (found.out, what in found.err) == ("", True)


def test_what_is_missing_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dist").mkdir()
    assert summary.main([str(tmp_path / "dist")]) == 1
    write(tmp_path / "dist")
    assert summary.main([str(tmp_path / "dist"), "--expect", "2"]) == 1
    (tmp_path / "dist" / f"{NAME}.coverage.json").unlink()
    assert summary.main([str(tmp_path / "dist")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in errors] == ["Error"] * 3
    assert "1 artifacts are in" in errors[1]


def test_what_was_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "repo": "hf://acme/kernels",
        "commit": "f" * 40,
        "tag": "v1.0.0",
        "artifacts": [{"identifier": NAME, "action": "added"}],
    }
    (tmp_path / "published.json").write_text(json.dumps(document))
    assert summary.main(["--published", str(tmp_path / "published.json")]) == 0
    said = capsys.readouterr().out
    assert f"`hf://acme/kernels`, commit `{'f' * 40}`, tag `v1.0.0`" in said
    assert f"- `{NAME}`: added" in said


def test_the_summary_of_a_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed is added to it; what is wrong is not."""
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    write(tmp_path / "dist")
    assert summary.main([str(tmp_path / "dist")]) == 0
    assert page.read_text() == f"before\n{capsys.readouterr().out}"
    assert summary.main([str(tmp_path / "dist"), "--expect", "2"]) == 1
    assert page.read_text().count("### Artifacts") == 1
