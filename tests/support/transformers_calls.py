"""Models of real transformers in a process of their own; `programs.transformers_models` says how they are called."""

import os
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, SUPPORT, python

VERSIONS = ("5.17.0", "5.24.0")
"""Before and after it stopped repeating key heads (5.23). ``make unit`` installs them."""
MODELS = ("qwen3_5_text", "qwen3_next", "olmo_hybrid")
CHUNK, RECURRENT = "chunk_gated_delta_rule", "fused_recurrent_gated_delta_rule"
PREFILL = {
    "l2norm_fwd_kernel": 2,
    "chunk_local_cumsum_scalar_kernel": 1,
    "chunk_gated_delta_rule_fwd_kkt_solve_kernel": 1,
    "recompute_w_u_fwd_kernel": 1,
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64": 1,
    "chunk_fwd_kernel_o": 1,
}
"""What one forward pass of the chunked operator launches."""


def call(version: str, artifact: Path, target: str, home: Path, *ways: str) -> Any:
    """Call every model in these ways with a version of transformers, on a stand-in for a card of ``target``."""
    installed = ROOT / f".transformers-{version}"
    if not installed.is_dir():
        pytest.skip(f"make unit puts transformers {version} into {installed.name}")
    program = (SUPPORT / "programs/transformers_models.py").read_text()
    path = os.pathsep.join(map(str, (installed, ROOT, SUPPORT)))
    extra = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TRITON_CACHE_DIR": str(home / "triton")}
    got = python(program, artifact, target, *ways, home=home, extra=extra)
    assert got["transformers"] == version
    return got


def check_served(got: Any) -> None:
    """Check that nothing was missed, compiled or benchmarked, and that binaries of the artifact were launched."""
    assert got["report"]["misses"] == []
    assert got["report"]["refused"] == {}
    assert got["compiled"] == []
    assert got["benchmarked"] == 0
    assert sum(got["report"]["loaded"].values()) > 20
