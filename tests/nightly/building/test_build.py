"""Builds that compile for minutes."""

from collections.abc import Callable

from building.test_build import _TRAIN
from builds import Built


def test_forward_h_fits_the_shared_memory_of_sm_75(build: Callable[..., Built]) -> None:
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
        noted = {str(choice.config): choice.note for choice in kernel.choices if choice.note}
        assert all("do not fit" in note for note in noted.values())
    rejected = [row for row in made.row["rejected"] if "chunk_fwd_kernel_o" in row["kernel"]]
    assert rejected
    assert all("shared memory, sm_75 has 65536" in row["reason"] for row in rejected)


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
