"""Models of real transformers are trained with what an artifact for training has, forwards and backwards.

Not on Hopper: with Triton 3.4 to 3.7.0 FLA refuses its backward pass there.
"""

from typing import Any

import pytest
from builds import Built
from transformers_calls import CHUNK, MODELS, PREFILL, VERSIONS, call, check_served


@pytest.fixture(scope="module")
def artifact(build: Any) -> Built:
    workloads = ("--workload", "transformers-prefill", "--workload", "transformers-train")
    limits = ("--max-tokens", 256, "--max-batch", 2, "--mode", "train")
    made: Built = build("--arch", "sm_80", "--model", "qwen3.5-9b,olmo-hybrid-7b", *workloads, *limits)
    return made


@pytest.mark.parametrize("version", VERSIONS)
def test_training_misses_nothing(artifact: Built, version: str, tmp_path: Any) -> None:
    got = call(version, artifact.path, "sm_80", tmp_path, "train")
    check_served(got)
    for model in MODELS:
        done = got["done"][model]["train"]
        assert done["ran"] == {CHUNK: 3}
        assert {"chunk_gated_delta_rule_bwd_kernel_dhu_blockdim64", "l2norm_bwd_kernel", *PREFILL} <= set(
            done["launched"]
        )
