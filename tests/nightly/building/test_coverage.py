"""Random traffic against artifacts of other models and of any length."""

from collections.abc import Callable

import pytest
from building.test_coverage import _cover
from builds import Built

_SMALL = ("--workload", "transformers-*")


@pytest.mark.parametrize(("model", "tp"), [("qwen3.5-27b", "2"), ("olmo-hybrid-7b", "1,2")])
def test_other_models(build: Callable[..., Built], model: str, tp: str) -> None:
    built = build(
        "--arch", "sm_120", "--model", model, "--tp", tp, "--max-tokens", 4096, "--max-batch", 4, *_SMALL
    )  # fmt: skip
    result = _cover(built, "--model", model, "--tp", tp, *_SMALL, "--calls", 400)
    assert result["misses"] == []
    assert result["refused"] == []
    assert result["hits"] == result["launches"] > 400


@pytest.mark.parametrize(
    ("model", "workload", "max_tokens"),
    [
        # Strides of the joined convolution need 64 bits from 174,763 tokens on.
        ("qwen3.5-397b-a17b", "short-conv", 262144),
        # The row buckets of the L2 norm, without the other workloads that have them too.
        ("qwen3.5-0.8b", "small-chunks", 32768),
    ],
)
def test_a_workload_stands_alone_at_any_length(
    build: Callable[..., Built], model: str, workload: str, max_tokens: int
) -> None:
    built = build("--arch", "sm_90", "--model", model, "--workload", workload, "--max-tokens", max_tokens)
    result = _cover(built, "--workload", workload, "--calls", 200)
    assert result["misses"] == []
    assert result["hits"] == result["launches"] > 100
