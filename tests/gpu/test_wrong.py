"""On a real card: choices and binaries that are wrong cost a compile and a warning each, and nothing else."""

import shutil
from pathlib import Path

import pytest
import storing
import wrong
from gpu.conftest import Program, Record

pytestmark = pytest.mark.gpu

ROUNDING = 1e-2
"""Other configurations round otherwise: bf16 results of one formula."""


def test_a_wrong_artifact(program: Program, store: Path, tmp_path: Path, record: Record) -> None:
    home, saved = tmp_path / "home", str(tmp_path / "plain.pt")
    shutil.copytree(store, home)
    storing.rewrite(storing.place_of(home), wrong.spoil)
    plain = program("wrong", served=False, saved=saved, timeout=500)
    answer = program("wrong", served=True, saved=saved, timeout=500, extra={"GDN_AOT_HOME": str(home)})
    warnings = answer["watch"]["warnings"]
    record(warnings=warnings, differ=answer["differ"], compiled=answer["watch"]["of_fla"])
    assert sorted(answer["differ"]) == plain["names"]
    for name, error in answer["differ"].items():
        assert error <= (0 if name.startswith("decode") else ROUNDING), name
    for said in wrong.SAID:
        found = [warning for warning in warnings if f":{said.kernel}: " in warning and said.what in warning]
        assert len(found) == 1, (said, warnings)
    assert not any("Please report" in warning for warning in warnings)
    assert sorted(answer["same"]) == plain["names"]
    assert answer["again"] == answer["watch"], "the second calls compile, measure and say nothing"
    assert answer["report"]["loaded"], "the other kernels are served"
