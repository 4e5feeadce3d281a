"""What is true of every process in which the artifact serves all of FLA's kernels."""

from typing import Any

CHUNK_KERNELS = (
    "chunk_fwd_kernel_o",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "chunk_gated_delta_rule_fwd_kkt_solve_kernel",
    "chunk_local_cumsum_scalar_kernel",
    "l2norm_fwd_kernel",
    "recompute_w_u_fwd_kernel",
)
"""Kernels of a prefill; see ``chunk_gated_delta_rule_fwd`` in fla/ops/gated_delta_rule/chunk.py."""
DECODE_KERNEL = "fused_recurrent_gated_delta_rule_fwd_kernel"
NORM_KERNEL = "layer_norm_gated_fwd_kernel"


def check_watch(watch: dict[str, Any]) -> None:
    """Check that nothing of FLA was compiled, nothing benchmarked, and that the loader had nothing to warn of."""
    assert watch["of_fla"] == []
    assert watch["warnings"] == []
    assert watch["benchmarked"] == 0


def check_report(report: dict[str, Any]) -> None:
    """Check that the loader missed nothing."""
    assert report["active"]
    assert report["problem"] == ""
    assert report["misses"] == []
    assert report["refused"] == {}


def check_all(answer: dict[str, Any]) -> None:
    """Check a process that used no kernels but FLA's."""
    assert answer["watch"]["compiled"] == []
    check_watch(answer["watch"])
    check_report(answer["report"])


def loaded_kernels(report: dict[str, Any]) -> set[str]:
    """Return the names of the kernels that came from the artifact, without their modules."""
    return {name.rpartition(":")[2] for name in report["loaded"]}
