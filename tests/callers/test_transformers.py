"""Models of real transformers are served all that they launch."""

from typing import Any

import pytest
from builds import Built
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
