"""Builds that compile for minutes, and random traffic against artifacts of other models and of any length."""

from collections.abc import Callable

import pytest
from building.test_build import _TRAIN
from building.test_coverage import _cover
from builds import Built

from gdn_aot.launches import SOUND_LOCAL


def test_what_sm_75_gets_fits_its_shared_memory_and_is_sound(build: Callable[..., Built]) -> None:
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
        assert all(binary.resources.local <= SOUND_LOCAL for binary in kernel.binaries)
    assert made.row["spills"] == []
    reasons = [row["reason"] for row in made.row["rejected"] if "chunk_fwd_kernel_o" in row["kernel"]]
    assert any("shared memory, sm_75 has 65536" in reason for reason in reasons)
    assert any(" spills " in reason for reason in reasons)


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
