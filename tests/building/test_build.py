"""Whole builds: architectures, kernels, choices, the same bytes again, and what the document says."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import triton
import tuning_records as records
from builds import Built, make
from helpers import ROOT, expect_error, gdn_aot, python
from msgspec import structs

from gdn_aot.artifact import elf
from gdn_aot.artifact.manifest_json import to_json
from gdn_aot.catalogue.targets import get_target
from gdn_aot.records import tuning as r
from gdn_aot.tracing import wide

if TYPE_CHECKING:
    from collections.abc import Callable

_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_LARGE = ("sm_120", "sm_90", "sm_70")

PR_36599 = {
    "local cumsum": {"chunk_local_cumsum_scalar_kernel"},
    "scaled dot KKT": {"chunk_scaled_dot_kkt_fwd_kernel", "chunk_gated_delta_rule_fwd_kkt_solve_kernel"},
    "triangular solve": {
        "solve_tril_16x16_kernel",
        "merge_16x16_to_32x32_inverse_kernel",
        "merge_16x16_to_64x64_inverse_kernel",
        "chunk_gated_delta_rule_fwd_kkt_solve_kernel",
    },
    "recompute w/u": {"recompute_w_u_fwd_kernel"},
    "forward h": {"chunk_gated_delta_rule_fwd_kernel_h_blockdim64"},
    "forward o": {"chunk_fwd_kernel_o"},
}
"""What vLLM's PR #36599 names, and the kernels of FLA that do it (0.6.0 joins KKT and solve at chunk size 64)."""


@pytest.fixture(params=_LARGE)
def built(request: pytest.FixtureRequest) -> Built:
    made: Built = request.getfixturevalue(request.param)
    return made


@pytest.mark.slow
def test_every_cubin_is_for_the_target(built: Built, tmp_path: Path) -> None:
    number = int(built.row["arch"].removeprefix("sm_"))
    for kernel in built.manifest.kernels:
        for binary in kernel.binaries:
            info = elf.describe(built.artifact.read_blob(binary.cubin))
            assert info.arch == number
            assert kernel.qualname in info.kernels
            assert binary.metadata["name"] in info.kernels
            assert info.registers == binary.resources.registers > 0
            assert binary.resources.shared == binary.metadata["shared"] <= built.manifest.target.max_shared
        # NVIDIA's own tool on one binary of each kernel
        path = tmp_path / f"{kernel.qualname}.cubin"
        path.write_bytes(built.artifact.read_blob(kernel.binaries[0].cubin))
        shown = subprocess.run([_CUOBJDUMP, "-elf", path], capture_output=True, text=True, check=True).stdout
        assert set(re.findall(r"\bsm=?_?(\d+)", shown.split("\n.section", 1)[0][:2000])) == {str(number)}
        assert f".text.{kernel.qualname}" in shown


@pytest.mark.slow
@pytest.mark.parametrize("what", PR_36599)
def test_the_kernels_of_vllm_pr_36599_are_covered(built: Built, what: str) -> None:
    there = {kernel.qualname for kernel in built.manifest.kernels if kernel.binaries}
    assert there & PR_36599[what]
    assert not {gap.kernel.rpartition(":")[2] for gap in built.manifest.not_covered} & PR_36599[what]


@pytest.mark.slow
def test_a_complete_build_has_every_kernel_of_the_model(sm_120: Built) -> None:
    there = {kernel.qualname for kernel in sm_120.manifest.kernels}
    assert {
        "fused_recurrent_gated_delta_rule_fwd_kernel",
        "l2norm_fwd_kernel",
        "layer_norm_gated_fwd_kernel",
        "causal_conv1d_fwd_kernel",
        "causal_conv1d_update_kernel",
        "causal_conv1d_states_fwd_kernel",
        "gdn_gate_chunk_cumsum_scalar_kernel",
        "fused_beta_sigmoid_fwd_kernel",
        "chunk_scaled_dot_kkt_fwd_kernel",
        "solve_tril_16x16_kernel",
        "merge_16x16_to_32x32_inverse_kernel",
    } <= there
    assert sm_120.manifest.not_covered == ()
    assert sm_120.row["size"] < 400_000


_OFFERED = """
import importlib, json, sys
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target(sys.argv[1]))
from triton.runtime.autotuner import Autotuner
offered = {}
for name in sys.argv[2:]:
    found = importlib.import_module(name.partition(":")[0])
    for part in name.partition(":")[2].split("."):
        found = getattr(found, part)
    while found is not None and not isinstance(found, Autotuner):
        found = getattr(found, "fn", None)
    offered[name] = [
        [dict(config.kwargs), config.num_warps, config.num_stages, config.num_ctas, config.maxnreg]
        for config in (found.configs if found else [])
    ]
print(json.dumps(offered))
"""


@pytest.mark.slow
def test_every_choice_is_one_of_the_providers_candidates(built: Built, tmp_path: Path) -> None:
    kernels = {f"{kernel.module}:{kernel.qualname}": kernel for kernel in built.manifest.kernels}
    offered = python(_OFFERED, built.row["arch"], *kernels, home=tmp_path)
    choices = [(name, choice) for name, kernel in kernels.items() for choice in kernel.choices]
    assert len(choices) >= 10
    for name, choice in choices:
        config = choice.config
        own = [dict(config.kwargs), config.num_warps, config.num_stages, config.num_ctas, config.maxnreg]
        assert (own in offered[name]) is not choice.derived
        assert choice.provenance == "default"
        if not choice.note:
            assert own == offered[name][0], "default is the first of the provider's candidates"
    assert built.row["provenance"] == {
        "measured": 0, "captured": 0, "transferred": 0, "default": len(choices)
    }  # fmt: skip
    assert {name for name, kernel in kernels.items() if kernel.choices} == {
        name for name, configs in offered.items() if len(configs) > 1
    }


def _paths_of_this_machine(built: Built) -> set[bytes]:
    places = {
        str(ROOT), sys.prefix, sys.base_prefix, str(Path.home()), str(built.home), str(built.path.parent),
        str(Path(triton.__file__).parent), tempfile.gettempdir() + "/", "/work/", "site-packages",
    }  # fmt: skip
    return {os.fsencode(place) for place in places if len(place) > 1}


@pytest.mark.slow
def test_nothing_names_this_machine(built: Built) -> None:
    contents = {"manifest": to_json(built.manifest)}
    contents |= {binary.cubin: b"" for kernel in built.manifest.kernels for binary in kernel.binaries}
    for digest in contents:
        data = contents[digest] or built.artifact.read_blob(digest)
        assert [place for place in _paths_of_this_machine(built) if place in data] == []
        assert b".py" not in data or digest == "manifest"
        assert not re.search(rb"\.(nv_)?debug_(line|info)", data), "line information holds paths"


@pytest.mark.slow
def test_the_provider_licence_is_inside(built: Built) -> None:
    provider = built.manifest.provider
    assert provider.license == "MIT"
    (file,) = provider.license_files
    assert b"MIT License" in built.artifact.read_blob(file.blob)


@pytest.mark.slow
def test_the_document(built: Built) -> None:
    assert set(built.document) >= {"artifacts", "seconds"}
    row, kernels = built.row, built.manifest.kernels
    fields = "path identifier arch size sha256 kernels choices binaries provenance not_covered"
    assert set(row) >= set(fields.split())
    data = built.path.read_bytes()
    assert (row["size"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert row["identifier"] == built.manifest.identifier
    assert built.path.name == f"gdn-aot-{row['identifier']}.tar.zst"
    assert row["kernels"] == len(kernels)
    assert row["choices"] == sum(len(kernel.choices) for kernel in kernels)
    assert row["binaries"] == sum(len(kernel.binaries) for kernel in kernels)
    assert built.document["failures"] == built.document["skipped"] == []


@pytest.mark.slow
def test_an_unchanged_build_compiles_nothing(sm_120: Built, tmp_path: Path) -> None:
    again = make(sm_120.home, tmp_path / "elsewhere", *sm_120.arguments)
    assert again.row["compiled"] == 0
    assert sm_120.row["compiled"] > 0
    assert again.path.read_bytes() == sm_120.path.read_bytes()


def test_the_same_bytes_with_another_cache_and_directory(decode: Built, tmp_path: Path) -> None:
    again = make(tmp_path / "another-home", tmp_path / "a" / "longer" / "way", *decode.arguments, "--jobs", 1)
    assert again.row["compiled"] == decode.row["binaries"] > 0
    assert again.path.read_bytes() == decode.path.read_bytes()


def test_the_same_trace_in_another_environment(decode: Built, tmp_path: Path) -> None:
    """Traced again from nothing; what was compiled before answers for every launch."""
    for kind in ("launches", "objects", "cubins"):
        shutil.copytree(decode.home / "build" / kind, tmp_path / "build" / kind)
    extra = {"PYTHONHASHSEED": "4711", "TZ": "Asia/Tokyo", "TRITON_DEBUG": "1", "FLA_USE_FAST_OPS": "1"}
    arguments = (*decode.arguments, "-o", tmp_path / "out", "--json")
    (row,) = gdn_aot("build", *arguments, home=tmp_path, extra=extra).json["artifacts"]
    assert row["compiled"] == 0
    assert row["sha256"] == decode.row["sha256"]


def test_source_date_epoch(decode: Built, tmp_path: Path) -> None:
    arguments = (*decode.arguments, "-o", tmp_path, "--json")
    (row,) = gdn_aot(
        "build", *arguments, home=decode.home, extra={"SOURCE_DATE_EPOCH": "1700000000"}
    ).json["artifacts"]  # fmt: skip
    assert row["sha256"] != decode.row["sha256"]
    assert row["compiled"] == 0


def test_several_targets_in_one_command(build: Callable[..., Built]) -> None:
    made = build(
        "--arch", "sm_80,sm_100", "--arch", "sm_121", "--model", "qwen3.5-9b", "--workload", "transformers-decode"
    )  # fmt: skip
    rows = made.document["artifacts"]
    assert [row["arch"] for row in rows] == ["sm_80", "sm_100", "sm_121"]
    assert len({row["sha256"] for row in rows}) == 3
    assert all(row["binaries"] and not row["not_covered"] for row in rows)
    assert len(list(Path(rows[0]["path"]).parent.iterdir())) == 3


def test_an_indivisible_pair_is_skipped_and_the_rest_built(build: Callable[..., Built]) -> None:
    made = build(
        "--arch", "sm_90", "--model", "olmo-hybrid-7b", "--model", "qwen3.5-9b", "--tp", "4",
        "--workload", "transformers-decode",
    )  # fmt: skip
    assert "skipped: olmo-hybrid-7b has 30 key heads, which 4 does not divide" in made.err
    assert [(row["model"], row["tp"]) for row in made.document["skipped"]] == [("olmo-hybrid-7b", 4)]
    assert [(row.name, row.tp, row.v_heads) for row in made.manifest.models] == [("qwen3.5-9b", 4, 8)]


def test_another_shape_in_fp16(build: Callable[..., Built]) -> None:
    shape = "heads=4,v_heads=8,k_dim=64,v_dim=64,dtype=fp16,name=mine"
    made = build("--arch", "sm_90", "--shape", shape, "--workload", "transformers-decode", "--workload", "gated-norm")
    (row,) = made.manifest.models
    assert (row.name, row.heads, row.v_heads, row.k_dim, row.dtype) == ("mine", 4, 8, 64, "fp16")
    signatures = {
        str(kind)
        for kernel in made.manifest.kernels
        for binary in kernel.binaries
        for kind in binary.specialization.signature.values()
    }
    assert "*fp16" in signatures
    assert "*bf16" not in signatures


def test_cards_without_bf16_get_fp16(build: Callable[..., Built]) -> None:
    arguments = ("--arch", "sm_75", "--model", "qwen3.5-9b", "--workload", "transformers-decode")
    made = build(*arguments)
    assert [row.dtype for row in made.manifest.models] == ["fp16"]
    assert "sm_75 has no bf16 arithmetic: building for fp16" in made.err
    asked = build(*arguments, "--dtype", "bf16")
    assert [row.dtype for row in asked.manifest.models] == ["bf16"]


@pytest.mark.slow
def test_forward_h_fits_the_shared_memory_of_sm_75(build: Callable[..., Built]) -> None:
    made = build(
        "--arch", "sm_75", "--model", "qwen3.5-9b", "--dtype", "fp16", "--max-batch", 1, "--max-tokens", 2048,
        "--workload", "transformers-prefill",
    )  # fmt: skip
    forward_h = made.kernel("chunk_gated_delta_rule_fwd_kernel_h_blockdim64")
    assert forward_h.choices
    assert forward_h.binaries
    assert made.manifest.not_covered == ()
    for kernel in made.manifest.kernels:
        assert all(binary.resources.shared <= 65536 for binary in kernel.binaries)
        noted = {str(choice.config): choice.note for choice in kernel.choices if choice.note}
        assert all("do not fit" in note for note in noted.values())
    rejected = [row for row in made.row["rejected"] if "chunk_fwd_kernel_o" in row["kernel"]]
    assert rejected
    assert all("shared memory, sm_75 has 65536" in row["reason"] for row in rejected)


_TRAIN = (
    "--model", "qwen3.5-9b", "--mode", "train", "--workload", "transformers-train",
    "--max-batch", 1, "--max-tokens", 256,
)  # fmt: skip


@pytest.mark.slow
def test_training_kernels(build: Callable[..., Built]) -> None:
    made = build("--arch", "sm_80", *_TRAIN)
    there = {kernel.qualname for kernel in made.manifest.kernels if kernel.binaries}
    assert {
        "chunk_bwd_kernel_dqkwg",
        "chunk_bwd_kernel_dv_local",
        "chunk_gated_delta_rule_bwd_kernel_dhu_blockdim64",
        "prepare_wy_repr_bwd_kernel",
        "l2norm_bwd_kernel",
    } <= there
    assert made.manifest.not_covered == ()
    assert made.manifest.mode == "train"


@pytest.mark.slow
def test_what_the_provider_refuses_on_a_target_is_listed(build: Callable[..., Built]) -> None:
    """FLA refuses its gated backward kernel on Hopper with this Triton: wrong results (its issue #640)."""
    if not (3, 4) <= tuple(map(int, triton.__version__.split(".")[:2])) <= (3, 7):
        pytest.skip(f"FLA does not refuse with Triton {triton.__version__}")
    made = build("--arch", "sm_90", *_TRAIN)
    assert "chunk_bwd_kernel_dqkwg" not in {kernel.qualname for kernel in made.manifest.kernels}
    (gap,) = made.row["not_covered"]
    assert "transformers-train" in gap["kernel"]
    assert "refused by the provider" in gap["reason"]
    assert "produces incorrect results for gated chunk_bwd_dqkwg" in gap["reason"]
    assert "not covered: " in made.err


def test_the_text_output_is_the_paths(decode: Built, tmp_path: Path) -> None:
    done = gdn_aot("build", *decode.arguments, "-o", tmp_path, home=decode.home)
    assert done.out == f"{tmp_path / decode.path.name}\n"
    assert "compiled 0" in done.err


def test_all_candidates_add_binaries_and_change_no_choice(build: Callable[..., Built]) -> None:
    arguments = (
        "--arch", "sm_90", "--shape", "heads=2,v_heads=2,k_dim=64,v_dim=64,dtype=bf16", "--workload", "gated-norm",
        "--max-tokens", 64,
    )  # fmt: skip
    chosen, every = build(*arguments), build(*arguments, "--candidates", "all")
    assert every.row["binaries"] > chosen.row["binaries"] > 0
    for kernel in chosen.manifest.kernels:
        assert every.kernel(kernel.qualname).choices == kernel.choices
        keys = {binary.launch_key for binary in kernel.binaries}
        assert keys < {binary.launch_key for binary in every.kernel(kernel.qualname).binaries}


_NORM = (
    "--arch", "sm_90", "--shape", "heads=2,v_heads=2,k_dim=64,v_dim=64,dtype=bf16", "--workload", "gated-norm",
    "--max-tokens", 64,
)  # fmt: skip


def _tuned(made: Built, home: Path, chosen: int, **more: Any) -> r.TuningRecord:
    """Return a record with the last of the provider's candidates, or the given one, for a key of the only kernel."""
    (kernel,) = made.manifest.kernels
    name = f"{kernel.module}:{kernel.qualname}"
    configs = [
        r.Config(tuple(kwargs.items()), warps, stages, ctas, maxnreg)
        for kwargs, warps, stages, ctas, maxnreg in python(_OFFERED, "sm_90", name, home=home)[name]
    ]
    version = made.manifest.provider.version
    us = [2.0 + number for number in range(len(configs))]
    us[chosen] = 1.0
    row = records.choice(records.times(64, *us), key=kernel.choices[0].key, chosen=chosen % len(us))
    record = records.record(
        records.kernel(configs, row, name=name),
        provider=structs.replace(records.FLA, version=version),
        triton=made.manifest.triton.version,
    )
    return structs.replace(record, **more)


def test_a_tuning_record_decides_the_choice(build: Callable[..., Built], tmp_path: Path) -> None:
    default = build(*_NORM)
    record = _tuned(default, tmp_path, -1)
    records.write(tmp_path / "records", record)
    made = build(*_NORM, "--tuning", tmp_path / "records")
    assert made.row["provenance"] == {
        "measured": 1,
        "captured": 0,
        "transferred": 0,
        "default": default.row["choices"] - 1,
    }
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
    arguments = ("--arch", "sm_75", *_NORM[2:4], *_NORM[4:])
    arguments = tuple(str(item).replace("dtype=bf16", "dtype=fp16") for item in arguments)
    made = build(*arguments, "--tuning", tmp_path / "records")
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
    done = gdn_aot(
        "build", *_NORM, "--tuning", tmp_path / "invented", "-o", tmp_path / "out", "--json", home=made.home, code=2
    )
    error = expect_error(done, 2, "usage")
    assert "num_stages=77" in error["message"]
    assert "is no candidate of it" in error["message"]


def test_workloads_can_be_excluded(build: Callable[..., Built]) -> None:
    made = build(
        "--arch", "sm_120", "--model", "qwen3.5-9b", "--workload", "transformers-*",
        "--exclude-workload", "*-prefill",
    )  # fmt: skip
    assert made.manifest.workloads == ("transformers-decode",)
