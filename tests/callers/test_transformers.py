"""Models of real transformers are served all that they launch."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from builds import Built
from helpers import ROOT, SUPPORT, run
from transformers_calls import CHUNK, MODELS, PREFILL, RECURRENT, VERSIONS, call, check_served

WAYS = {
    "prefill": {CHUNK: 8},
    "padded": {CHUNK: 1, RECURRENT: 3},
    "packed": {CHUNK: 4},
    "decode": {CHUNK: 3, RECURRENT: 9},
    "turns": {CHUNK: 2, RECURRENT: 1},
    "chunked": {CHUNK: 3, RECURRENT: 3},
    "static": {CHUNK: 1, RECURRENT: 3},
}
"""How often each way of calling a model with one such layer runs the operators: none runs in PyTorch instead."""

EXAMPLE = ROOT / "examples/transformers/generate.py"
ON_A_STAND_IN = """
import runpy, sys, launching
launching.start("sm_90")
from gdn_aot.providers.fla import stand_in
stand_in.answer_for_tensors_on_no_device()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def artifact(build: Any) -> Built:
    workloads = ("--workload", "transformers-prefill", "--workload", "transformers-decode")
    limits = ("--max-tokens", 1024, "--max-batch", 8)
    made: Built = build("--arch", "sm_90", "--model", "qwen3.5-9b,olmo-hybrid-7b", *workloads, *limits)
    return made


@pytest.fixture(scope="module", params=VERSIONS)
def called(request: pytest.FixtureRequest, artifact: Built, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return call(request.param, artifact.path, "sm_90", tmp_path_factory.mktemp("home"), *WAYS)


def test_nothing_is_missed_compiled_or_benchmarked(called: Any) -> None:
    check_served(called)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_every_call_reaches_the_operators_and_their_kernels_are_launched(called: Any, model: str, way: str) -> None:
    got = called["done"][model][way]
    assert got["ran"] == WAYS[way]
    wanted = {name: count * WAYS[way][CHUNK] for name, count in PREFILL.items()}
    if RECURRENT in WAYS[way]:
        wanted["fused_recurrent_gated_delta_rule_fwd_kernel"] = WAYS[way][RECURRENT]
    assert got["launched"] == wanted


def test_the_example_generates(artifact: Built, tmp_path: Path) -> None:
    """On a stand-in for a card; and without one it says so."""
    installed = ROOT / f".transformers-{VERSIONS[-1]}"
    if not installed.is_dir():
        pytest.skip(f"make unit puts it into {installed.name}")
    extra = {"PYTHONPATH": os.pathsep.join(map(str, (installed, ROOT, SUPPORT))), "HF_HUB_OFFLINE": "1"}
    command = [str(EXAMPLE), "--artifact", str(artifact.path)]
    done = run([sys.executable, "-c", ON_A_STAND_IN, *command, "--device", "cpu"], tmp_path, extra)
    assert done.code == 0, done.err[-3000:]
    first, second, served = done.out.splitlines()
    assert re.fullmatch(r"first prompt: \d+\.\d{3} s", first)
    assert re.fullmatch(r"second prompt: \d+\.\d{3} s", second)
    found = re.fullmatch(r"served from artifacts: (\d+) binaries of (\d+) kernels, 0 misses", served)
    assert found
    assert int(found[1]) >= int(found[2]) >= len(PREFILL)
    done = run([sys.executable, *command], tmp_path, extra)
    assert (done.code, done.out) == (1, "")
    assert "gdn-aot doctor says" in done.err
