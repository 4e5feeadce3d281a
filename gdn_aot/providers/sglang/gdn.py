"""SGLang's Gated Delta Net layers: what `layer` runs of a model that has them, and the norm by itself.

Importing this module imports SGLang: call `gdn_aot.providers.sglang.platform.prepare` before.
"""

from __future__ import annotations

import contextlib
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from gdn_aot.providers.engine_layer import conv_dim
from gdn_aot.providers.layer_names import INTERLEAVED
from gdn_aot.providers.sglang import versions as sglang_versions
from gdn_aot.providers.sglang.steps import MERGED as MERGED_TOKENS
from gdn_aot.providers.sglang.versions import DTYPES
from gdn_aot.providers.workload import there

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.draw import Draw
    from gdn_aot.reference import Tensors

PLAIN, VIEW, MERGED = "plain", "view", "merged"
"""The gate of the norm: a tensor of its own, or a part of a projection, or of both that are multiplied at once."""


@cache
def config(shape: ModelShape, state: str) -> Any:
    """Return SGLang's configuration of a model that has one layer."""
    return sglang_versions.configs[shape.layer](
        hidden_size=shape.hidden,
        linear_num_key_heads=shape.heads,
        linear_num_value_heads=shape.v_heads,
        linear_key_head_dim=shape.k_dim,
        linear_value_head_dim=shape.v_dim,
        linear_conv_kernel_dim=shape.conv_width,
        rms_norm_eps=shape.norm_eps,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        full_attention_interval=2,
        dtype=DTYPES[shape.dtype],
        mamba_ssm_dtype=state,
    )


def make_backend(runner: Any) -> Any:
    """Return SGLang's backend of such layers."""
    return sglang_versions.gdn_backend.GDNAttnBackend(runner)


@cache
def make_layer(shape: ModelShape, prefill: str | None = None) -> Any:
    """Return a layer, made by its own constructor, whose projections are to be put in their places.

    ``prefill`` is the backend of CUDA graphs for prompts, as it is by default if none is given.
    """
    with sglang_versions.constructing(DTYPES[shape.dtype], **_graphs(prefill)):
        layer = sglang_versions.LAYERS[shape.layer](config(shape, "float32"), 0)
    del layer.in_proj_qkvz, layer.in_proj_ba, layer.out_proj
    layer.out_proj = lambda core: (core, None)
    return layer


def _graphs(prefill: str | None) -> dict[str, Any]:
    if prefill is None:
        return {}
    if sglang_versions.graphs is None:
        return {"disable_piecewise_cuda_graph": prefill != _PIECEWISE}
    return {"cuda_graph_config": sglang_versions.graphs.CudaGraphConfig.from_dict({"prefill": {"backend": prefill}})}


def inputs(shape: ModelShape, tokens: int, draw: Draw) -> Tensors:
    """Return the projections of so many tokens, and the layer's parameters."""
    dtype, heads = DTYPES[shape.dtype], shape.v_heads
    width, gate = conv_dim(shape), heads * shape.v_dim
    return {
        "projected": draw.normal(1, tokens, width + gate, dtype=dtype),
        "ba": draw.normal(1, tokens, 2 * heads, dtype=dtype),
        "A_log": draw.log_a(heads, torch.float32),
        "dt_bias": draw.dt_bias(heads, dtype),
        "weight": draw.normal(width, shape.conv_width, dtype=dtype),
        "norm_weight": draw.weight(shape.v_dim, dtype=dtype),
    }


def put(layer: Any, tensors: Tensors, *, merged: bool) -> None:
    """Put results in the places of projections, and parameters in theirs."""
    projected, ba = there(tensors, "projected")[0], there(tensors, "ba")[0]
    if merged:
        projected, ba = torch.cat([projected, ba], -1).split([projected.shape[-1], ba.shape[-1]], -1)
    layer.in_proj_qkvz = lambda _hidden: (projected, None)
    layer.in_proj_ba = lambda _hidden: (ba, None)
    layer.attn.conv_weights, layer.attn.bias = there(tensors, "weight"), None
    for module, name, tensor in (
        (layer.attn, "A_log", "A_log"),
        (layer.attn, "dt_bias", "dt_bias"),
        (layer.norm, "weight", "norm_weight"),
    ):
        setattr(module, name, torch.nn.Parameter(there(tensors, tensor), requires_grad=False))


def forward(layer: Any, hidden: torch.Tensor, batch: Any) -> torch.Tensor:
    """Run a layer on SGLang's batch. Returns ``[tokens, v_heads * v_dim]``."""
    out: torch.Tensor = layer(hidden, batch)
    return out


def windows(kept: torch.Tensor) -> torch.Tensor:
    """Return the pool's windows as ``[layers, slots, width, taps - 1]``: so they are."""
    return kept


_PIECEWISE = "tc_piecewise"
"""Of backends of CUDA graphs, the one whose graphs of prompts are compiled piecewise; the default up to 0.5.13."""
_OTHER = "disabled" if sglang_versions.graphs is None else None
PIECEWISE = (
    (False, True) if sglang_versions.graphs is None or _PIECEWISE in sglang_versions.graphs.Backend.ALL else (False,)
)
"""Whether graphs of prompts may be compiled piecewise in this version."""


def merges(shape: ModelShape) -> bool:
    """Say whether this version multiplies a small input with both projections of a layer at once."""
    return shape.dtype == "bf16" and hasattr(sglang_versions.LAYERS[shape.layer], "finalize_fused_in_proj")


def most_merged(shape: ModelShape) -> int:
    """Return the most tokens of an input that is small for `merges`, 0 if this version does not."""
    return MERGED_TOKENS if merges(shape) else 0


def gates(shape: ModelShape) -> tuple[str, ...]:
    """Return what gates the norm has: in prompts it is a view of a projection where this version leaves it there."""
    views = hasattr(sglang_versions.qwen3_5, "qwen3_5_gdn_prefill_projection_views")
    if not views or shape.layer == INTERLEAVED or shape.v_heads // shape.heads not in _UNPACKED:
        return (PLAIN,)
    return (PLAIN, VIEW, MERGED) if merges(shape) else (PLAIN, VIEW)


_UNPACKED = getattr(sglang_versions.qwen3_5, "_GDN_FUSED_QKVZBA_RATIOS", (1, 2, 4))
"""Value heads to a key head for which a kernel unpacks the projections."""


def gate_width(shape: ModelShape, kind: str) -> int:
    """Return the numbers of a token in what a gate is a part of."""
    width = shape.v_heads * shape.v_dim
    before = {PLAIN: 0, VIEW: conv_dim(shape), MERGED: conv_dim(shape)}[kind]
    return before + width + (2 * shape.v_heads if kind == MERGED else 0)


def gate(shape: ModelShape, kind: str, projected: torch.Tensor) -> torch.Tensor:
    """Return the gate as the layer hands it to the norm, from ``[tokens, gate_width]``."""
    width = shape.v_heads * shape.v_dim
    if kind == PLAIN:
        return projected.view(-1, shape.v_dim)
    start = conv_dim(shape)
    return projected[:, start : start + width].view(len(projected), shape.v_heads, shape.v_dim)


@contextlib.contextmanager
def norm(shape: ModelShape, weight: torch.Tensor, *, piecewise: bool) -> Iterator[Any]:
    """Give the layer's norm, in a server whose graphs of prompts are compiled piecewise or not."""
    prefill = _PIECEWISE if piecewise else _OTHER
    made = make_layer(shape, prefill).norm
    made.weight = torch.nn.Parameter(weight, requires_grad=False)
    with sglang_versions.published(**_graphs(prefill)):
        yield made
