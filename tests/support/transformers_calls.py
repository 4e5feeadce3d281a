"""Models of real transformers in a process of their own; `programs.transformers_models` says how they are called."""

import os
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, SUPPORT, python

VERSIONS = ("5.17.0", "5.24.0")
"""Before and after it stopped repeating key heads (5.23). ``make unit`` installs them."""
MODELS = ("qwen3_5_text", "qwen3_next", "olmo_hybrid")
KDA_MODELS = {"5.17.0": ("kimi_linear",), "5.24.0": ("kimi_linear", "bailing_hybrid")}
"""Those that have KDA in each of these; ``glm5_next`` calls as the first does, but is no model of text alone."""
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
CHUNK_KDA, RECURRENT_KDA = "chunk_kda", "fused_recurrent_kda"
PREFILL_KDA = {
    "l2norm_fwd_kernel": 2,
    "chunk_local_cumsum_vector_kernel": 1,
    "chunk_kda_fwd_kernel_intra_token_parallel": 1,
    "chunk_kda_fwd_kernel_inter_solve_fused": 1,
    "recompute_w_u_fwd_kda_kernel": 1,
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64": 1,
    "chunk_gla_fwd_kernel_o": 1,
}
"""The same of KDA's."""


def call(version: str, artifact: Path, target: str, home: Path, *ways: str, models: tuple[str, ...] = MODELS) -> Any:
    """Call every model in these ways with a version of transformers, on a stand-in for a card of ``target``."""
    installed = ROOT / f".transformers-{version}"
    if not installed.is_dir():
        pytest.skip(f"make unit puts transformers {version} into {installed.name}")
    program = (SUPPORT / "programs/transformers_models.py").read_text()
    path = os.pathsep.join(map(str, (installed, ROOT, SUPPORT)))
    extra = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TRITON_CACHE_DIR": str(home / "triton")}
    got = python(program, artifact, target, ",".join(models), *ways, home=home, extra=extra)
    assert got["transformers"] == version
    return got


def check_served(got: Any, binaries: int = 20) -> None:
    """Check that nothing was missed, compiled or benchmarked, and that more ``binaries`` than that were loaded."""
    assert got["report"]["misses"] == []
    assert got["report"]["refused"] == {}
    assert got["compiled"] == []
    assert got["benchmarked"] == 0
    assert sum(got["report"]["loaded"].values()) > binaries
