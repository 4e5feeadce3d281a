"""Names of Triton kernels that nothing but the gated delta rule or Kimi Delta Attention has, in whatever package.

A loader that serves something takes a kernel of one of these names for one that its user believes to be served. Kernels
that other operators have too (cumulative sums, norms, convolutions) are left out: those of artifacts in use count.

Sources: fla/ops/gated_delta_rule, fla/ops/kda, fla/ops/common/chunk_delta_h.py and fla/ops/common/gate.py of fla-core
0.4.2 to 0.6.0, and of kernels-community/fla; vllm/model_executor/layers/fla/ops of vLLM, and of 0.33.0
vllm/third_party/flash_linear_attention/ops and the folders nvidia/ops of vllm/models/kimi_k3 and glm5next; and
sglang/srt/layers/attention/fla, sglang/kernels/ops/attention/fla and sglang/kernels/ops/mamba of SGLang.
"""

from __future__ import annotations

from gdn_aot.catalogue.models import GDN, KDA

BY_FAMILY = {
    GDN: frozenset(
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
    ),
    KDA: frozenset(
        (
            "_commit_kda_state_kernel",
            "_kda_gate_beta_fwd_kernel",
            "_kda_recoverssm_verify_kernel",
            "_kda_track_conv_window_kernel",
            "_kda_track_ssm_kernel",
            "chunk_kda_bwd_kernel_dAv",
            "chunk_kda_bwd_kernel_intra",
            "chunk_kda_bwd_kernel_wy_dqkg_fused",
            "chunk_kda_fwd_kernel_inter_solve_fused",
            "chunk_kda_fwd_kernel_intra_sub_chunk",
            "chunk_kda_fwd_kernel_intra_token_parallel",
            "chunk_kda_scaled_dot_kkt_fwd_kernel_intra_sub_inter",
            "chunk_kda_scaled_dot_kkt_fwd_kernel_intra_sub_intra",
            "fused_recurrent_kda_fwd_kernel",
            "fused_recurrent_kda_packed_decode_kernel",
            "kda_gate_bwd_kernel",
            "kda_gate_chunk_cumsum_vector_kernel",
            "kda_gate_cumsum_fwd_kernel",
            "kda_gate_fwd_kernel",
            "prepare_wy_repr_bwd_kda_kernel",
            "recompute_w_u_fwd_kda_kernel",
        )
    ),
}
"""Of each family of models; those of `_OF_BOTH` are GDN's."""
_OF_BOTH = (
    "chunk_gated_delta_rule_bwd_kernel_dhu_blockdim64",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
)
"""They go from chunk to chunk."""
KERNEL_NAMES = frozenset[str]().union(*BY_FAMILY.values())


def family_of(name: str) -> str:
    """Return the family whose kernel this is; empty if several have it, or none is known."""
    return next((family for family, names in BY_FAMILY.items() if name in names and name not in _OF_BOTH), "")
