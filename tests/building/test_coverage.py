"""Random traffic against artifacts: no misses where the build was complete, misses where it was not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builds import Built
from commands import refused
from helpers import gdn_aot

from gdn_aot.machine import installed


def _cover(built: Built, *arguments: object, code: int = 0) -> Any:
    return gdn_aot("coverage", built.path, *arguments, "--json", home=built.home, code=code).json


def test_a_complete_build_has_no_misses(sm_120: Built) -> None:
    result = _cover(sm_120, "--model", "qwen3.5-9b", "--calls", 1000, "--seed", 7)
    assert result["misses"] == []
    assert result["not_covered"] == []
    assert result["refused"] == []
    assert result["calls"] == 1000
    assert result["hits"] == result["launches"] > 1000
    text = gdn_aot("coverage", sm_120.path, "--calls", 20, home=sm_120.home).out
    assert "20 calls, " in text
    assert ", 0 misses, " in text


def test_a_missing_workload_shows(decode: Built) -> None:
    result = _cover(decode, "--calls", 60, code=5)
    assert result["hits"] + sum(miss["count"] for miss in result["misses"]) == result["launches"]
    missed = {miss["kernel"].rpartition(":")[2] for miss in result["misses"]}
    assert {"chunk_fwd_kernel_o", "chunk_gated_delta_rule_fwd_kernel_h_blockdim64"} <= missed
    for miss in result["misses"]:
        assert {"kernel", "autotune_key", "launch_key", "call", "reason", "count"} <= set(miss)
        assert miss["autotune_key"] or miss["launch_key"]
        assert "qwen3.5-9b tp 1" in miss["call"]
    text = gdn_aot("coverage", decode.path, "--calls", 60, home=decode.home, code=5).out
    assert "miss: fla." in text


def test_a_missing_shape_shows(decode: Built) -> None:
    result = _cover(decode, "--model", "qwen3.5-9b", "--tp", "2", "--workload", "transformers-decode", code=5)
    assert result["misses"]
    assert result["hits"] == 0


def test_the_seed_decides_the_traffic(decode: Built) -> None:
    first, again, other = (_cover(decode, "--calls", 30, "--seed", seed, code=5) for seed in (1, 1, 2))
    del first["seconds"], again["seconds"], other["seconds"]
    assert first == again
    assert first != other


def test_bad_input(decode: Built, tmp_path: Path) -> None:
    def fail(path: Path, *arguments: object, code: int = 2, kind: str = "usage") -> dict[str, str]:
        return refused("coverage", path, *arguments, home=tmp_path, code=code, kind=kind)

    assert "qwen3.5-9b" in fail(decode.path, "--model", "qwen3.5-9")["hint"]
    assert "workloads are" in fail(decode.path, "--workload", "nope*")["hint"]
    fail(tmp_path / "nothing.tar.zst")
    (tmp_path / "text").write_text("no artifact")
    fail(tmp_path / "text", code=5, kind="verification")


def test_another_version_is_refused(decode: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = installed.version
    monkeypatch.setattr(installed, "version", lambda name: "3.8.0" if name == "triton" else real(name))
    error = refused("coverage", decode.path, home=tmp_path, code=2, kind="usage")
    assert "triton 3." in error["message"]
    assert "installed is 3.8.0" in error["message"]


def test_a_shape_of_ones_own(build: Callable[..., Built]) -> None:
    shape = "heads=2,v_heads=4,k_dim=64,v_dim=96,dtype=fp16,name=mine"
    built = build("--arch", "sm_89", "--shape", shape, "--tp", "1,2", "--workload", "transformers-decode")
    only = ("--workload", "transformers-decode", "--calls", 20)
    assert _cover(built, *only)["misses"] == []
    assert _cover(built, "--tp", 2, *only)["misses"] == []
    assert _cover(built, "--model", "mine", *only)["misses"] == []
    refused("coverage", built.path, "--tp", 4, home=built.home, code=3, kind="nothing-selected")
