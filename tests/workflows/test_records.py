"""``.github/scripts/records.py``: records on their way from a GPU machine to a pull request."""

import shutil
from pathlib import Path

import pytest
from helpers import ROOT
from workflow_scripts import git, script

from gdn_aot.records import tuning

records = script("records")
RECORD = "tuning/sm_90/fla-core-0.6.0.json"
CHECKED = "numerics/sm_90/fla-core-0.6.0.json"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose folder ``artifacts`` has the records of this one."""
    place = tmp_path / "checkout/artifacts"
    for kind in ("tuning", "numerics"):
        shutil.copytree(ROOT / "artifacts" / kind, place / kind)
    git(tmp_path, "init", "-q", "checkout")
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "records")
    return place


def put(folder: Path, name: str, content: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def accept(folder: Path) -> int:
    code: int = records.main(["accept", str(folder / "in"), str(folder / "out"), str(folder / "body.md")])
    assert (folder / "body.md").exists() is (code == 0)
    return code


def test_there_and_back(checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is new or changed is handed on, and nothing else."""
    assert records.collect(checkout, tmp_path / "none") == []
    put(checkout, RECORD, (checkout / RECORD).read_bytes().replace(b'"tool": "', b'"tool": "other '))
    (checkout / CHECKED).unlink()
    put(checkout, "tuning/sm_100/fla-core-0.6.0.json", (checkout / RECORD).read_bytes().replace(b"sm_90", b"sm_100"))
    put(checkout, "matrix.toml", b"not a record")
    assert records.main(["collect", str(checkout), str(tmp_path / "incoming")]) == 0
    names = ["tuning/sm_100/fla-core-0.6.0.json", RECORD]
    assert capsys.readouterr().out.splitlines() == names
    into = tmp_path / "into"
    assert records.main(["accept", str(tmp_path / "incoming"), str(into), str(tmp_path / "body.md")]) == 0
    assert sorted(str(path.relative_to(into)) for path in into.rglob("*.json")) == names
    assert (into / RECORD).read_bytes() == (checkout / RECORD).read_bytes()
    lines = (tmp_path / "body.md").read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    assert [line.split("`")[1] for line in lines] == names
    assert "NVIDIA H100 80GB HBM3, driver" in lines[1]


@pytest.mark.parametrize(
    "name",
    [
        "matrix.toml",
        "tuning/README.md",
        "tuning/sm_90/deeper/fla-core-0.6.0.json",
        "tuning/sm_100/fla-core-0.6.0.json",
        "tuning/sm_90/vllm-0.6.0.json",
        "tuning/sm_90/fla-core-0.6.1.json",
        "numerics/sm_90/fla-core-0.6.0.json",
        ".github/workflows/ci.yml",
    ],
)
def test_anything_else_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record of tuning at no place, or at that of another record; the good one beside it is not written either."""
    good = (ROOT / "artifacts" / RECORD).read_bytes()
    put(tmp_path / "in", RECORD, good)
    put(tmp_path / "in", name, good)
    assert accept(tmp_path) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("Error: ")
    assert "\nHint: " in found.err
    assert not list((tmp_path / "out").rglob("*"))


def test_links_and_what_cannot_be_read(tmp_path: Path) -> None:
    for content in (b"{}", (ROOT / "artifacts" / RECORD).read_bytes() + b"\n\n"):
        put(tmp_path / "in", RECORD, content)
        assert accept(tmp_path) == 2
    (tmp_path / "in" / RECORD).unlink()
    (tmp_path / "in" / RECORD).symlink_to(ROOT / "artifacts" / RECORD)
    assert accept(tmp_path) == 2
    assert records.main(["accept"]) == 2


def test_a_device_cannot_write_markdown() -> None:
    found = tuning.load(ROOT / "artifacts" / RECORD)
    assert found is not None
    assert records._plain("NVIDIA [x](http://y) `z`\n# H") == "NVIDIA ?x?(http???y) ?z??? H"


def test_a_record_by_proxy_has_a_place_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "tuning/proxy/sm_80/fla-core-0.6.0.json"
    made = (ROOT / "artifacts" / name).read_bytes()
    put(tmp_path / "in", name, made)
    assert accept(tmp_path) == 0
    assert (tmp_path / "out" / name).read_bytes() == made
    (tmp_path / "body.md").unlink()
    put(tmp_path / "in", name.replace("proxy/", ""), made)
    assert accept(tmp_path) == 2
    assert "against its place" in capsys.readouterr().err
