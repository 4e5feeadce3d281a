"""Models of real transformers, before and after it stopped repeating key heads (5.23), are served all they launch."""

from pathlib import Path
from typing import Any

import pytest
from builds import Built
from helpers import ROOT, SUPPORT, python

VERSIONS = ("5.17.0", "5.24.0")
CHUNK, RECURRENT = "chunk_gated_delta_rule", "fused_recurrent_gated_delta_rule"
MODELS = ("qwen3_5_text", "qwen3_next", "olmo_hybrid")
WAYS = {
    "prefill": {CHUNK: 8},
    "padded": {CHUNK: 1, RECURRENT: 3},
    "packed": {CHUNK: 4},
    "decode": {CHUNK: 3, RECURRENT: 9},
    "turns": {CHUNK: 2, RECURRENT: 1},
    "chunked": {CHUNK: 3, RECURRENT: 3},
    "static": {CHUNK: 1, RECURRENT: 3},
    "train": {CHUNK: 3},
}
"""How often each way of calling a model of one such layer runs the operators: none ran in PyTorch instead."""
PREFILL = {
    "l2norm_fwd_kernel": 2,
    "chunk_local_cumsum_scalar_kernel": 1,
    "chunk_gated_delta_rule_fwd_kkt_solve_kernel": 1,
    "recompute_w_u_fwd_kernel": 1,
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64": 1,
    "chunk_fwd_kernel_o": 1,
}


@pytest.fixture(scope="module")
def artifact(build: Any) -> Built:
    models = ("--model", "qwen3.5-9b,olmo-hybrid-7b", "--mode", "train")
    made: Built = build(
        "--arch", "sm_90", *models, "--workload", "transformers-*", "--max-tokens", 1024, "--max-batch", 8
    )
    return made


@pytest.fixture(scope="module", params=VERSIONS)
def called(request: pytest.FixtureRequest, artifact: Built, tmp_path_factory: pytest.TempPathFactory) -> Any:
    installed = ROOT / f".transformers-{request.param}"
    if not installed.is_dir():
        pytest.skip(f"make unit puts transformers {request.param} into {installed.name}")
    program = Path(__file__).with_name("program.py").read_text()
    path = ":".join(map(str, (installed, ROOT, SUPPORT)))
    home = tmp_path_factory.mktemp("home")
    extra = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TRITON_CACHE_DIR": str(home / "triton")}
    got = python(program, artifact.path, home=home, extra=extra)
    assert got["transformers"] == request.param
    return got


def test_nothing_is_missed_compiled_or_benchmarked(called: Any) -> None:
    assert called["report"]["misses"] == []
    assert called["report"]["refused"] == {}
    assert called["compiled"] == []
    assert called["benchmarked"] == 0
    assert sum(called["report"]["loaded"].values()) > 40


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_every_call_reaches_the_operators_and_their_kernels_are_launched(called: Any, model: str, way: str) -> None:
    got = called["done"][model][way]
    assert got["ran"] == WAYS[way]
    launched = got["launched"]
    assert launched.get("fused_recurrent_gated_delta_rule_fwd_kernel", 0) == WAYS[way].get(RECURRENT, 0)
    if way == "train":
        assert {"chunk_gated_delta_rule_bwd_kernel_dhu_blockdim64", "l2norm_bwd_kernel", *PREFILL} <= set(launched)
    else:
        assert {name: launched[name] for name in PREFILL} == {
            name: count * WAYS[way][CHUNK] for name, count in PREFILL.items()
        }
