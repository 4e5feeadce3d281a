"""Random traffic against artifacts, with misses where the build was not complete; builds with tuning records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tuning_records as records
from builds import Built, offered
from commands import refused
from helpers import gdn_aot
from msgspec import structs

from gdn_aot.catalogue.targets import get_target
from gdn_aot.machine import installed
from gdn_aot.records import tuning as r
from gdn_aot.tracing import wide


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


def test_what_an_artifact_has_on_request_is_replayed_too(build: Callable[..., Built]) -> None:
    built = build("--arch", "sm_90", "--model", "kimi-linear-48b-a3b", "--tp", 8, "--workload", "kda-gate")
    usual = ("transformers-kda-prefill", "transformers-kda-decode", "gated-norm")
    result = _cover(built, "--calls", 60, code=5)
    assert result["hits"] > 0
    assert {miss["call"].partition("(")[0] for miss in result["misses"]} == set(usual)
    named = _cover(built, "--calls", 60, *(word for name in usual for word in ("--workload", name)), code=5)
    assert named["hits"] == 0


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
    models = [(row.name, row.tp, row.heads, row.v_heads, row.k_dim, row.dtype) for row in built.manifest.models]
    assert models == [("mine", 1, 2, 4, 64, "fp16"), ("mine", 2, 1, 2, 64, "fp16")]
    binaries = [binary for kernel in built.manifest.kernels for binary in kernel.binaries]
    kinds = {str(kind) for binary in binaries for kind in binary.specialization.signature.values()}
    assert kinds & {"*fp16", "*bf16"} == {"*fp16"}
    only = ("--workload", "transformers-decode", "--calls", 20)
    assert _cover(built, *only)["misses"] == []
    assert _cover(built, "--tp", 2, *only)["misses"] == []
    assert _cover(built, "--model", "mine", *only)["misses"] == []
    refused("coverage", built.path, "--tp", 4, home=built.home, code=3, kind="nothing-selected")


_NORM = (
    "--arch", "sm_90", "--shape", "heads=2,v_heads=2,k_dim=64,v_dim=64,dtype=bf16", "--workload", "gated-norm",
    "--max-tokens", 64,
)  # fmt: skip


def test_all_candidates_add_binaries_and_change_no_choice(build: Callable[..., Built]) -> None:
    chosen, every = build(*_NORM), build(*_NORM, "--candidates", "all")
    assert every.row["binaries"] > chosen.row["binaries"] > 0
    for kernel in chosen.manifest.kernels:
        assert every.kernel(kernel.qualname).choices == kernel.choices
        keys = {binary.launch_key for binary in kernel.binaries}
        assert keys < {binary.launch_key for binary in every.kernel(kernel.qualname).binaries}


def _tuned(made: Built, home: Path, chosen: int) -> r.TuningRecord:
    """Return a record with the last of the provider's candidates, or the given one, for a key of the only kernel."""
    (kernel,) = made.manifest.kernels
    name = kernel.name
    configs = [
        r.Config(tuple(kwargs.items()), warps, stages, ctas, maxnreg)
        for kwargs, warps, stages, ctas, maxnreg in offered("sm_90", name, home=home)[name]
    ]
    version = made.manifest.provider.version
    us = [2.0 + number for number in range(len(configs))]
    us[chosen] = 1.0
    row = records.choice(records.times(64, *us), key=kernel.choices[0].key, chosen=chosen % len(us))
    return records.record(
        records.kernel(configs, row, name=name),
        provider=structs.replace(records.FLA, version=version),
        triton=made.manifest.triton.version,
    )


def test_a_tuning_record_decides_the_choice(build: Callable[..., Built], tmp_path: Path) -> None:
    default = build(*_NORM)
    record = _tuned(default, tmp_path, -1)
    records.write(tmp_path / "records", record)
    made = build(*_NORM, "--tuning", tmp_path / "records")
    default_ones = default.row["choices"] - 1
    assert made.row["provenance"] == {
        "measured": 1, "proxy": 0, "captured": 0, "transferred": 0, "default": default_ones,
    }  # fmt: skip
    (kernel,) = made.manifest.kernels
    (choice,) = (choice for choice in kernel.choices if choice.provenance == "measured")
    assert choice.note == "on NVIDIA H100 80GB HBM3, driver 580.159.04: lowest score"
    assert choice.config.num_warps == record.kernels[0].candidates[-1].num_warps
    assert made.row["sha256"] != default.row["sha256"]
    shown = gdn_aot("inspect", made.path, home=tmp_path).out
    assert "\nchoices from\n  1 measured on NVIDIA H100 80GB HBM3, driver 580.159.04\n" in shown
    assert "choices from" not in gdn_aot("inspect", default.path, home=tmp_path).out


def test_a_target_without_a_record_gets_transferred_choices(build: Callable[..., Built], tmp_path: Path) -> None:
    """sm_75 is traced for fp16; the record is of bf16."""
    record = _tuned(build(*_NORM), tmp_path, -1)
    records.write(tmp_path / "records", record)
    arguments = (str(item).replace("dtype=bf16", "dtype=fp16") for item in _NORM[2:])
    made = build("--arch", "sm_75", *arguments, "--tuning", tmp_path / "records")
    assert made.row["provenance"]["measured"] == 0
    assert made.row["provenance"]["transferred"] == 1
    (kernel,) = made.manifest.kernels
    (choice,) = (choice for choice in kernel.choices if choice.provenance == "transferred")
    assert choice.note.startswith("from sm_90 (NVIDIA H100 80GB HBM3, driver 580.159.04): its choice, rank 1 of ")
    assert choice.note.endswith(" there, for bfloat16")
    assert not choice.derived
    shown = gdn_aot("inspect", made.path, home=tmp_path).out
    assert "  1 transferred from sm_90 (NVIDIA H100 80GB HBM3, driver 580.159.04)\n" in shown


def test_a_wide_choice_is_built_and_an_invented_one_refused(build: Callable[..., Built], tmp_path: Path) -> None:
    record = _tuned(build(*_NORM), tmp_path, 0)
    (kernel,) = record.kernels
    offered = list(kernel.candidates)
    beyond = wide.candidates(offered, get_target("sm_90"))[0]
    (choice,) = kernel.choices
    row = records.times(64, *[2.0] * len(offered), 1.0)
    for config, root in ((beyond, "wide"), (structs.replace(beyond, num_stages=77), "invented")):
        chosen = structs.replace(choice, chosen=len(offered), times=(row,))
        widened = structs.replace(kernel, candidates=(*offered, config), choices=(chosen,))
        records.write(tmp_path / root, structs.replace(record, kernels=(widened,)))
    made = build(*_NORM, "--tuning", tmp_path / "wide")
    (found,) = (found for found in made.manifest.kernels[0].choices if found.provenance == "measured")
    assert found.derived
    assert (found.config.num_warps, found.config.num_stages) == (beyond.num_warps, beyond.num_stages)
    arguments = ("build", *_NORM, "--tuning", tmp_path / "invented", "-o", tmp_path / "out")
    error = refused(*arguments, home=made.home, code=2, kind="usage")
    assert "num_stages=77" in error["message"]
    assert "is no candidate of it" in error["message"]
