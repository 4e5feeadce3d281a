"""Names of Triton kernels that nothing but the gated delta rule has, in whatever package.

A loader that serves something takes a kernel of one of these names for one that its user believes to be served. Kernels
that other operators have too (cumulative sums, norms, convolutions) are left out: those of artifacts in use count.

Sources: fla/ops/gated_delta_rule, fla/ops/common/chunk_delta_h.py and fla/ops/common/gate.py of fla-core 0.4.2 to
0.6.0, and of kernels-community/fla; vllm/model_executor/layers/fla/ops of vLLM; and
sglang/srt/layers/attention/fla of SGLang.
"""

from __future__ import annotations

KERNEL_NAMES = frozenset(
    (
        "chunk_gated_delta_rule_bwd_kernel_dhu_blockdim64",
        "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
        "chunk_gated_delta_rule_fwd_kkt_solve_kernel",
        "fused_gdn_gating_kernel",
        "fused_recurrent_gated_delta_rule_fwd_kernel",
        "fused_recurrent_gated_delta_rule_packed_decode_kernel",
        "fused_recurrent_gated_delta_rule_update_fwd_kernel",
        "fused_sigmoid_gating_delta_rule_update_kernel",
        "gdn_gate_bwd_kernel",
        "gdn_gate_chunk_cumsum_scalar_kernel",
        "gdn_gate_fwd_kernel",
    )
)
