"""Models of real transformers with Kimi Delta Attention are served all that they launch."""

from functools import cache
from typing import Any

import pytest
from builds import Built
from transformers_calls import CHUNK_KDA, KDA_MODELS, PREFILL_KDA, RECURRENT_KDA, call, check_served

WAYS = {
    "prefill": {CHUNK_KDA: 8},
    "padded": {CHUNK_KDA: 1, RECURRENT_KDA: 3},
    "packed": {CHUNK_KDA: 4},
    "decode": {CHUNK_KDA: 3, RECURRENT_KDA: 9},
    "turns": {CHUNK_KDA: 2, RECURRENT_KDA: 1},
    "chunked": {CHUNK_KDA: 3, RECURRENT_KDA: 3},
}
"""How often each way of calling a model with one such layer runs the operators: none runs in PyTorch instead."""


@pytest.fixture(scope="module")
def artifact(build: Any) -> Built:
    options = ("--exclude-workload", "gated-norm", "--max-tokens", 1024, "--max-batch", 8)
    made: Built = build("--arch", "sm_90", "--model", "kimi-linear-48b-a3b", *options)
    return made


@pytest.fixture(scope="module")
def called(artifact: Built, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Make the calls of a version, once."""

    @cache
    def called(version: str) -> Any:
        home = tmp_path_factory.mktemp("home")
        return call(version, artifact.path, "sm_90", home, *WAYS, models=KDA_MODELS[version])

    return called


@pytest.mark.parametrize("version", KDA_MODELS)
def test_nothing_is_missed_compiled_or_benchmarked(called: Any, version: str) -> None:
    check_served(called(version), binaries=10)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("version", "model"), [(version, model) for version, models in KDA_MODELS.items() for model in models]
)
def test_every_call_reaches_the_operators_and_their_kernels_are_launched(
    called: Any, version: str, model: str, way: str
) -> None:
    got = called(version)["done"][model][way]
    assert got["ran"] == WAYS[way]
    wanted = {name: count * WAYS[way][CHUNK_KDA] for name, count in PREFILL_KDA.items()}
    if RECURRENT_KDA in WAYS[way]:
        wanted["fused_recurrent_kda_fwd_kernel"] = WAYS[way][RECURRENT_KDA]
    assert got["launched"] == wanted
