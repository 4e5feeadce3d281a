"""A deployment of SGLang is recorded, built and served: kernels of experts and of a sampler.

Needs an interpreter that has SGLang, named by ``GDN_AOT_TEST_SGLANG``; SGLang need not be able to run a model there.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import ABSENT, ROOT, run

from gdn_aot.capture.form import load

PYTHON = os.environ.get("GDN_AOT_TEST_SGLANG", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="GDN_AOT_TEST_SGLANG names no Python that has SGLang")

PROGRAM = Path(__file__).parent / "sglang_program.py"
EXPERTS = "sglang.kernels.ops.moe.fused_moe_triton_kernels:fused_moe_kernel"
SAMPLER = "sglang.kernels.ops.sampling.murmur_hash:murmur_hash32_kernel"
LAUNCHED = ["fused_moe_kernel", "fused_moe_kernel", "murmur_hash32_kernel"]


def python(folder: Path, *words: object, **extra: str) -> str:
    """Run SGLang's Python; return what it prints."""
    path = {"PYTHONPATH": os.pathsep.join([str(ABSENT), str(ROOT)]), "TRITON_CACHE_DIR": str(folder / "triton")}
    done = run([PYTHON, *map(str, words)], folder / "home", {**path, **extra}, folder)
    assert done.code == 0, done.err[-3000:]
    return done.out


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


def test_what_a_spawned_scheduler_launches_is_recorded(recorded: Path) -> None:
    capture = load(recorded)
    assert (capture.processes, capture.targets, capture.left_out) == (1, ("sm_90",), ())
    kernels = {kernel.name: [launch.key for launch in kernel.launches] for kernel in capture.kernels}
    assert {name: len(keys) for name, keys in kernels.items()} == {EXPERTS: 2, SAMPLER: 1}
    assert ["tensordesc<bf16[16, 64]>" in key for key in kernels[EXPERTS]].count(True) == 1


def test_all_of_it_is_built_and_the_plugin_serves_it_in_strict_mode(built: dict[str, Any], tmp_path: Path) -> None:
    assert built["left_out"] == built["not_covered"] == []
    say = 'from importlib.metadata import version; print(f\'sglang{version("sglang")}-triton{version("triton")}\')'
    assert built["identifier"].startswith(f"{python(tmp_path, '-c', say).strip()}-sm_90-capture-")
    launched, compiled = json.loads(python(tmp_path, PROGRAM, GDN_AOT_ARTIFACT=built["path"], GDN_AOT_STRICT="1"))
    assert (launched, compiled) == (LAUNCHED, [])


def test_without_an_artifact_triton_compiles_it(tmp_path: Path) -> None:
    launched, compiled = json.loads(python(tmp_path, PROGRAM))
    assert launched == compiled == LAUNCHED
