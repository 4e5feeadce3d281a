"""``gdn-aot build --capture`` from a recording of FLA's kernels, and what is served from it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builds import Built, make
from commands import refused
from helpers import ROOT, gdn_aot, python
from launching import PRELUDE

from gdn_aot.capture.form import load

CALLS = "prefill(130); prefill(200, ends=[0, 77, 200], state=True); decode(2); decode(16)"
SERVED = {
    "l2norm_fwd_kernel",
    "chunk_local_cumsum_scalar_kernel",
    "chunk_gated_delta_rule_fwd_kkt_solve_kernel",
    "recompute_w_u_fwd_kernel",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "chunk_fwd_kernel_o",
    "fused_recurrent_gated_delta_rule_fwd_kernel",
}
PROGRAM = f"""
sys.path.insert(0, {str(ROOT / "tests/triton_versions")!r})
become("sm_90")
import kernels, torch
{CALLS}
y = torch.zeros(64)
kernels.every[(1,)](y, y, 1, 32, 3, 1 << 40, 0.5, None, 7, 5, BLOCK=16, NAME="relu", FLAG=True,
    KIND=kernels.tl.float16, ABSENT=None, RATIO=0.25)
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of a process that launches FLA's kernels and one of another module."""
    folder = tmp_path_factory.mktemp("recorded")
    program = folder / "program.py"
    program.write_text(PRELUDE + PROGRAM)
    extra = {"TRITON_CACHE_DIR": str(folder / "triton")}
    output = folder / "capture.json"
    gdn_aot("capture", "-o", output, "--json", "--", sys.executable, program, "none", home=folder, extra=extra)
    return output


@pytest.fixture(scope="module")
def built(recorded: Path, session_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return make(session_home, tmp_path_factory.mktemp("out"), "--capture", recorded)


def test_every_launch_of_the_provider_is_built(recorded: Path, built: Built) -> None:
    capture = load(recorded)
    own = {kernel.name: kernel for kernel in capture.kernels if kernel.module.startswith("fla.")}
    made = {kernel.name: kernel for kernel in built.manifest.kernels}
    assert made.keys() == own.keys()
    for name, kernel in own.items():
        wanted = {launch.key for launch in kernel.launches}
        assert {binary.launch_key for binary in made[name].binaries} == wanted
        assert made[name].cache_key == kernel.cache_key
        choices = {choice.key: choice for choice in made[name].choices}
        keys = {launch.tuning.key: launch.tuning.config for launch in kernel.launches if launch.tuning}
        assert {key: choice.config for key, choice in choices.items()} == keys
        assert {choice.provenance for choice in choices.values()} <= {"captured"}


def test_the_identifier_names_the_capture(recorded: Path, built: Built) -> None:
    name = built.manifest.workloads[-1]
    assert name.startswith("capture-")
    assert built.manifest.identifier.endswith(f"-sm_90-{name}")
    assert built.path.name == f"gdn-aot-{built.manifest.identifier}.tar.zst"
    assert built.manifest.models == ()
    assert gdn_aot("verify", built.path, "--json", home=built.home).json["ok"]
    assert name in gdn_aot("inspect", built.path, home=built.home).out


def test_kernels_of_others_are_left_out_with_the_reason(built: Built) -> None:
    left_out = {item["what"]: item["reason"] for item in built.document["left_out"]}
    assert left_out == {"kernels:every": "it is of package kernels, which is no provider; this artifact is of fla-core"}
    assert "left out: kernels:every" in built.err
    assert "kernels:every" not in json.dumps([gap.kernel for gap in built.manifest.not_covered])


def test_the_deployment_is_served_from_it(built: Built, tmp_path: Path) -> None:
    code = f"{PRELUDE}\ninstall(strict=True); become('sm_90'); {CALLS}; done()"
    got = python(code, built.path, home=tmp_path, extra={"TRITON_CACHE_DIR": str(tmp_path / "triton")})
    assert got["compiled"] == []
    assert got["benchmarked"] == 0
    assert got["report"]["misses"] == []
    assert set(got["launched"]) == SERVED


def test_what_was_recorded_is_loaded_before_memory_is_measured(built: Built, tmp_path: Path) -> None:
    code = f"""{PRELUDE}
install(strict=True); become('sm_90')
import torch
torch.cuda.mem_get_info = lambda *_: (1 << 30, 1 << 31)
torch.cuda.synchronize = lambda *_: None
from gdn_aot.serving.preload import load_shape
loaded = load_shape(None)._asdict()
modules = len(driver.loaded)
{CALLS}
done(first=loaded, before=modules, after=len(driver.loaded))
"""
    got = python(code, built.path, home=tmp_path, extra={"TRITON_CACHE_DIR": str(tmp_path / "triton")})
    assert got["before"] == got["after"] == got["first"]["modules"] > 0
    assert got["first"] == {
        "artifacts": [built.path.name.removeprefix("gdn-aot-").removesuffix(".tar.zst")],
        "captured": True,
        "models": 0,
        "kernels": 7,
        "modules": got["before"],
        "bytes": 0,
    }


def test_recording_a_served_process_gives_the_same_capture(recorded: Path, built: Built, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PRELUDE + "install(strict=True)\n" + PROGRAM)
    extra = {"TRITON_CACHE_DIR": str(tmp_path / "triton")}
    output = tmp_path / "capture.json"
    gdn_aot("capture", "-o", output, "--json", "--", sys.executable, program, built.path, home=tmp_path, extra=extra)
    assert load(output).kernels == load(recorded).kernels


def test_another_target_has_the_same_launches_and_its_own_candidates(
    recorded: Path, built: Built, build: Callable[..., Built]
) -> None:
    other = build("--capture", recorded, "--arch", "sm_120")
    for kernel in other.manifest.kernels:
        mine = built.kernel(kernel.qualname)
        assert {choice.key for choice in kernel.choices} == {choice.key for choice in mine.choices}
        assert {choice.provenance for choice in kernel.choices} <= {"default", "transferred"}
    assert {kernel.qualname for kernel in other.manifest.kernels} == {k.qualname for k in built.manifest.kernels}


def test_together_with_a_model_it_is_a_union(recorded: Path, built: Built, build: Callable[..., Built]) -> None:
    both = build("--capture", recorded, "--arch", "sm_90", "--model", "qwen3.5-9b", "--workload", "transformers-decode")
    assert [model.name for model in both.manifest.models] == ["qwen3.5-9b"]
    assert both.manifest.workloads == ("transformers-decode", built.manifest.workloads[-1])
    kernel = both.kernel("fused_recurrent_gated_delta_rule_fwd_kernel")
    captured = {binary.launch_key for binary in built.kernel(kernel.qualname).binaries}
    assert captured < {binary.launch_key for binary in kernel.binaries}
    alone = [binary for binary in kernel.binaries if not binary.models]
    assert all(binary.workloads == (1,) for binary in alone)
    shared = [binary for binary in kernel.binaries if binary.launch_key in captured and binary.models]
    assert all(binary.workloads == (0, 1) for binary in shared)


def test_twice_the_same_bytes(recorded: Path, built: Built, build: Callable[..., Built]) -> None:
    again = build("--capture", recorded)
    assert again.path.read_bytes() == built.path.read_bytes()
    assert again.row["compiled"] == 0


def test_two_captures_are_one(recorded: Path, built: Built, build: Callable[..., Built]) -> None:
    assert build("--capture", recorded, "--capture", recorded).row["identifier"] == built.row["identifier"]


def changed(recorded: Path, tmp_path: Path, change: Callable[[Any], Any]) -> Path:
    value = json.loads(recorded.read_text())
    change(value)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(value, indent=1) + "\n")
    return path


def fla_kernel(value: Any, name: str) -> Any:
    return next(kernel for kernel in value["kernels"] if kernel["qualname"] == name)


def test_a_kernel_that_differs_is_left_out_and_listed(
    recorded: Path, build: Callable[..., Built], tmp_path: Path
) -> None:
    def change(value: Any) -> None:
        fla_kernel(value, "l2norm_fwd_kernel")["source_sha256"] = "0" * 64
        fla_kernel(value, "chunk_fwd_kernel_o")["cache_key"] = "0" * 64
        fla_kernel(value, "recompute_w_u_fwd_kernel")["module"] = "fla.no_such_module"

    made = build("--capture", changed(recorded, tmp_path, change))
    gaps = {gap.kernel.rpartition(":")[2]: gap.reason for gap in made.manifest.not_covered}
    assert gaps["l2norm_fwd_kernel"] == "captured, but its source differs from the recorded one"
    assert gaps["chunk_fwd_kernel_o"].startswith("captured, but a function that it calls, a global that it reads")
    assert "No module named 'fla.no_such_module'" in gaps["recompute_w_u_fwd_kernel"]
    assert {kernel.qualname for kernel in made.manifest.kernels}.isdisjoint(gaps)


def test_a_launch_that_cannot_be_made_again_is_taken_as_recorded(
    recorded: Path, built: Built, build: Callable[..., Built], tmp_path: Path
) -> None:
    """An argument of a type that is not made here: the recorded specialization is compiled, with the choice."""
    name = "chunk_fwd_kernel_o"

    def change(value: Any) -> None:
        for launch in fla_kernel(value, name)["launches"]:
            launch["tuning"]["keywords"].append("unheard_of")

    made = build("--capture", changed(recorded, tmp_path, change))
    kernel, same = made.kernel(name), built.kernel(name)
    assert [binary.launch_key for binary in kernel.binaries] == [binary.launch_key for binary in same.binaries]
    assert [binary.cubin for binary in kernel.binaries] == [binary.cubin for binary in same.binaries]
    assert kernel.choices == same.choices


BAD: dict[str, tuple[Callable[[Any], Any], int, str]] = {
    "format": (lambda value: value.update(format=9), 5, "unknown-format"),
    "triton": (lambda value: value.update(triton="3.5.0"), 2, "usage"),
    "version": (lambda value: value["packages"][0].update(version="9.9"), 2, "usage"),
    "nothing of ours": (lambda value: value.update(kernels=value["kernels"][-1:]), 3, "nothing-selected"),
    "malformed": (lambda value: value.update(kernels=1), 5, "verification"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_captures(recorded: Path, tmp_path: Path, name: str) -> None:
    change, code, kind = BAD[name]
    path = changed(recorded, tmp_path, change)
    refused("build", "--capture", path, "-o", tmp_path / "out", home=tmp_path, code=code, kind=kind)
    assert not list((tmp_path / "out").glob("*"))
