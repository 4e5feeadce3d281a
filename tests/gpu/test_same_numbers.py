"""What the artifact computes is what FLA computes with the same configurations, bit for bit."""

import json
from pathlib import Path

import pytest
from gpu import fla_configs, served
from gpu.conftest import Loaded, Program, Record

from gdn_aot.reference import tolerance as checking

pytestmark = pytest.mark.gpu


def test_bits_are_those_of_plain_fla(program: Program, artifact: Loaded, tmp_path: Path, record: Record) -> None:
    saved = str(tmp_path / "served.pt")
    choices = fla_configs.read_choices(artifact.path)
    fla_configs.export(choices, tmp_path / "configs")
    listed = tmp_path / "choices.json"
    listed.write_text(json.dumps(choices), encoding="utf-8")
    loader = program("numbers", served=True, saved=saved)
    plain = program(
        "numbers", served=False, saved=saved, choices=str(listed), extra=fla_configs.environment(tmp_path / "configs")
    )
    record(
        names=plain["names"],
        differ=plain["differ"],
        error_against_float64=loader["exact"],
        plain_compiled=len(plain["watch"]["compiled"]),
    )
    served.check_all(loader)
    assert len(plain["watch"]["of_fla"]) >= len(served.CHUNK_KERNELS), "Triton compiled the other side"
    assert plain["watch"]["benchmarked"] == 0, "the other side took the artifact's choices"
    assert plain["names"] == loader["names"]
    assert plain["differ"] == {}
    assert plain["zero"] == []
    for name, error in loader["exact"].items():
        assert error <= checking.LONG[name.split(" ")[1]], name
