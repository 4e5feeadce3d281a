"""What an installed package has beside its modules: the records that were measured."""

from pathlib import Path

from helpers import ROOT

from gdn_aot._files import parse_toml
from gdn_aot.cli._job import installed_records


def test_every_folder_of_records_is_installed() -> None:
    listed = parse_toml((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    there = {path.parent.relative_to(ROOT) for path in (ROOT / "artifacts").glob("*/**/*.json")}
    assert listed == {
        f"share/gdn-aot/{folder.relative_to('artifacts')}": [f"{folder}/*.json"] for folder in sorted(there)
    }
    included = (ROOT / "MANIFEST.in").read_text().splitlines()
    assert {f"recursive-include artifacts/{folder.parts[1]} *.json" for folder in there} <= {*included}


def test_a_clone_has_its_own() -> None:
    assert installed_records("tuning") == ROOT / "artifacts/tuning"
    assert installed_records("numerics") == ROOT / "artifacts/numerics"
    assert installed_records("nothing") is None
    assert Path(str(installed_records("tuning"))).is_dir()
