"""A deployment of SGLang is recorded, built and served: kernels of experts, of the way to them, and of a sampler.

Needs an interpreter that has SGLang, named by ``GDN_AOT_TEST_SGLANG``; SGLang need not be able to run a model there.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import ABSENT, ROOT, run

from gdn_aot.capture.form import load

PYTHON = os.environ.get("GDN_AOT_TEST_SGLANG", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="GDN_AOT_TEST_SGLANG names no Python that has SGLang")

PROGRAM = Path(__file__).parent / "sglang_program.py"
OPS = "sglang.kernels.ops."
CHOOSES = [
    f"{OPS}moe.moe_fused_gate:_router_triton_kernel",
    f"{OPS}moe.fused_moe_triton_kernels:_fused_append_shared_experts_with_weights_kernel",
]
SORTS = f"{OPS}moe.moe_align_small_numel:_moe_align_small_numel_kernel"
EXPERTS = f"{OPS}moe.fused_moe_triton_kernels:fused_moe_kernel"
SAMPLER = f"{OPS}sampling.murmur_hash:murmur_hash32_kernel"


def python(folder: Path, *words: object, **extra: str) -> str:
    """Run SGLang's Python; return what it prints."""
    path = {"PYTHONPATH": os.pathsep.join([str(ABSENT), str(ROOT)]), "TRITON_CACHE_DIR": str(folder / "triton")}
    done = run([PYTHON, *map(str, words)], folder / "home", {**path, **extra}, folder)
    assert done.code == 0, done.err[-3000:]
    return done.out


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the versions of SGLang and of Triton."""
    say = "from importlib.metadata import version; print(version('sglang'), version('triton'))"
    sglang, triton = python(tmp_path_factory.mktemp("release"), "-c", say).split()
    return sglang, triton


@pytest.fixture(scope="module")
def launched(release: tuple[str, str]) -> list[str]:
    """Return the kernels of the program, in the order of their launches; 0.5.17 sorts tokens by expert with CUDA."""
    return [*CHOOSES, *([] if release[0] == "0.5.17" else [SORTS]), EXPERTS, EXPERTS, SAMPLER]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    python(folder, "-m", "gdn_aot", "capture", "-o", folder / "capture.json", "--", PYTHON, PROGRAM)
    return folder / "capture.json"


@pytest.fixture(scope="module")
def built(recorded: Path) -> dict[str, Any]:
    """Return what ``build --json`` says of the one artifact."""
    words = ("build", "--capture", recorded, "-o", recorded.parent / "out", "--json")
    document = json.loads(python(recorded.parent, "-m", "gdn_aot", *words))
    (row,) = document["artifacts"]
    return {**row, "left_out": document["left_out"]}


def test_what_a_spawned_scheduler_launches_is_recorded(recorded: Path, launched: list[str]) -> None:
    capture = load(recorded)
    assert (capture.processes, capture.targets, capture.left_out) == (1, ("sm_90",), ())
    kernels = {kernel.name: [launch.key for launch in kernel.launches] for kernel in capture.kernels}
    assert {name: len(keys) for name, keys in kernels.items()} == Counter(launched)
    assert ["tensordesc<bf16[16, 64]>" in key for key in kernels[EXPERTS]].count(True) == 1


def test_all_of_it_is_built_and_the_plugin_serves_it_in_strict_mode(
    built: dict[str, Any], release: tuple[str, str], launched: list[str], tmp_path: Path
) -> None:
    assert built["left_out"] == built["not_covered"] == []
    assert built["identifier"].startswith("sglang{}-triton{}-sm_90-capture-".format(*release))
    served = json.loads(python(tmp_path, PROGRAM, GDN_AOT_ARTIFACT=built["path"], GDN_AOT_STRICT="1"))
    assert served == [names(launched), []]


def test_without_an_artifact_triton_compiles_it(launched: list[str], tmp_path: Path) -> None:
    assert json.loads(python(tmp_path, PROGRAM)) == [names(launched)] * 2


def names(kernels: list[str]) -> list[str]:
    return [kernel.partition(":")[2] for kernel in kernels]
