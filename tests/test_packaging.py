"""What an installed package has beside its modules: the records that were measured."""

import sysconfig
from pathlib import Path

import pytest
from helpers import ROOT

from gdn_aot._files import parse_toml
from gdn_aot.cli._job import tuning_root, usual_records


def test_every_folder_of_records_is_installed() -> None:
    listed = parse_toml((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    there = {path.parent.relative_to(ROOT) for path in (ROOT / "artifacts").glob("*/**/*.json")}
    assert listed == {
        f"share/gdn-aot/{folder.relative_to('artifacts')}": [f"{folder}/*.json"] for folder in sorted(there)
    }
    included = (ROOT / "MANIFEST.in").read_text().splitlines()
    assert {f"recursive-include artifacts/{folder.parts[1]} *.json" for folder in there} <= {*included}


def test_they_are_found_where_there_are_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    assert usual_records("tuning") is None
    installed = tmp_path / "data/share/gdn-aot/tuning"
    installed.mkdir(parents=True)
    assert tuning_root(None) == installed
    (tmp_path / "artifacts/tuning").mkdir(parents=True)
    assert tuning_root(None) == Path("artifacts/tuning")
    assert tuning_root(tmp_path) == tmp_path
