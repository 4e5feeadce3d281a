"""Have code that torch.compile compiles with Inductor call FLA's decode kernel as it is, so that gdn-aot serves it.

Import this after ``gdn_aot.install()`` and before anything is compiled. FLA's own function becomes an operator that
the compiler does not look into: no break of the graph, so that ``fullgraph=True`` and CUDA graphs (``mode=
"reduce-overhead"``, what transformers takes with a static cache) go on as before. Needs fla-core 0.6.0.
"""

from typing import Any

import torch
from fla.ops.gated_delta_rule import fused_recurrent
from torch import Tensor

_plain = fused_recurrent.fused_recurrent_gated_delta_rule_fwd


@torch.library.custom_op("gdn_aot_example::fused_recurrent", mutates_args=())
def operator(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    gk: Tensor | None,
    gv: Tensor | None,
    beta: Tensor | None,
    A_log: Tensor | None,  # noqa: N803 - FLA's name
    dt_bias: Tensor | None,
    scale: float,
    initial_state: Tensor | None,
    output_final_state: bool,
    use_qk_l2norm_in_kernel: bool,
    use_beta_sigmoid_in_kernel: bool,
    allow_neg_eigval: bool,
    state_v_first: bool,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the output and the final state, an empty tensor if none is asked for: an operator returns no None."""
    given = dict(locals())
    out, state = _plain(**given)
    return out, q.new_empty(0) if state is None else state


@operator.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Return tensors of the shapes that `operator` returns."""
    output_final_state, *_, state_v_first, cu_seqlens = rest[8:]
    heads, k_dim, v_dim = v.shape[2], k.shape[3], v.shape[3]
    sequences = k.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    sizes = (v_dim, k_dim) if state_v_first else (k_dim, v_dim)
    state = q.new_empty(sequences, heads, *sizes, dtype=torch.float32) if output_final_state else q.new_empty(0)
    return torch.empty_like(v), state


def forward(**given: Any) -> tuple[Tensor, Tensor | None]:
    """Call the operator as FLA calls its function."""
    out, state = operator(**given)
    return out, state if given["output_final_state"] else None


fused_recurrent.fused_recurrent_gated_delta_rule_fwd = forward
