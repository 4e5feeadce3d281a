"""SGLang's layers of Kimi Delta Attention, those of `LAYERS` in `versions`: what `layer` runs of such models.

Importing this module imports SGLang: call `gdn_aot.providers.sglang.platform.prepare` before.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gdn_aot.providers.engine_layer import conv_dim
from gdn_aot.providers.layer_names import BAILING, GLM, K3
from gdn_aot.providers.sglang import versions as sglang_versions
from gdn_aot.providers.sglang.steps import BUDGET, GATES, class_of
from gdn_aot.providers.sglang.versions import DTYPES
from gdn_aot.providers.workload import there

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.draw import Draw
    from gdn_aot.reference import Tensors

_PROJECTIONS = ("qkv_proj", "b_proj", "f_a_proj", "f_b_proj", "g_a_proj", "g_b_proj")
"""Those of quantized weights; of others, one has what is read of the layer's input, and one the gates."""
_MADE = ("fused_qkvbfg_proj", "fused_qkvbfg_a_proj", "fused_fg_b_proj", "fused_qkvg_proj", *_PROJECTIONS, "o_proj")
"""Those that constructors make for weights that are not quantized."""
_ALIGNED = 8
"""Elements of which a row of Kimi-K3's merged small projections is a multiple (``_merge_bfa_weights``)."""

CAPTURES = hasattr(getattr(sglang_versions.kda_backend, "KDAAttnBackend", None), "init_prefill_graph_metadata")
"""Whether this version has a way of prompts for CUDA graphs, whose launches follow from their size alone."""


@cache
def config(shape: ModelShape, state: str) -> Any:
    """Return SGLang's configuration of a model that has one layer. It does not say the dtype of the state."""
    del state
    if shape.layer == BAILING:
        return sglang_versions.configs[shape.layer](
            hidden_size=shape.hidden,
            num_attention_heads=shape.heads,
            num_hidden_layers=1,
            layer_group_size=2,  # the last layer of a group has attention
            head_dim=shape.k_dim,
            v_head_dim=shape.v_dim,
            short_conv_kernel_size=shape.conv_width,
            no_kda_lora=True,
            kda_safe_gate=shape.gate_bound < 0,
            kda_lower_bound=shape.gate_bound or None,
            dtype=DTYPES[shape.dtype],
        )
    return sglang_versions.configs[shape.layer](
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        num_hidden_layers=1,
        head_dim=shape.k_dim,
        linear_attn_config={
            "kda_layers": [0 if shape.layer == GLM else 1],
            "full_attn_layers": [],
            "num_heads": shape.heads,
            "head_dim": shape.k_dim,
            "short_conv_kernel_size": shape.conv_width,
            "gate_lower_bound": shape.gate_bound or None,
            "use_full_rank_gate": shape.layer == K3,
        },
        dtype=DTYPES[shape.dtype],
    )


def make_backend(runner: Any) -> Any:
    """Return SGLang's backend of such layers."""
    return sglang_versions.kda_backend.KDAAttnBackend(runner)


def make_layer(shape: ModelShape) -> Any:
    """Return a layer whose projections are to be put in their places.

    Once the weights of Kimi-K3 are loaded, SGLang launches a kernel of prompts on some cards, so that it is compiled.
    """
    if shape.layer == K3:
        sglang_versions.delta.precompile_k3_recompute_w_u_kernel(
            num_heads=shape.heads, dtype=DTYPES[shape.dtype], device="cuda"
        )
    return _constructed(shape)


@cache
def _constructed(shape: ModelShape) -> Any:
    """Return a layer, made by its own constructor."""
    made = config(shape, "float32")
    with sglang_versions.constructing(DTYPES[shape.dtype]):
        layer = sglang_versions.LAYERS[shape.layer](0, shape.hidden, made)
    for name in _MADE:
        layer._modules.pop(name, None)  # noqa: SLF001 - a module gives way to nothing but a module
    layer.o_proj = lambda core: (core, None)
    return layer


def most_merged(shape: ModelShape) -> int:
    """Return the most tokens of a step: the projections are merged unless their weights are quantized."""
    del shape
    return BUDGET


def layouts(shape: ModelShape) -> tuple[bool | str, ...]:
    """Return how a layer may have its projections, as `Step.merged` says it.

    GLM-5.3-Flash merges beta and both gates too where queries, keys and values are quantized and these are not.
    """
    return (False, True, GATES) if shape.layer == GLM else (False, True)


def shifts(shape: ModelShape) -> bool:
    """Say whether launches of every step follow from whether projections are merged, with all that a batch decides.

    Ling-3.0's gates lie behind beta then, where they are not aligned as results of their own are. Of others the number
    of elements from one token's beta to the next one's may be of another class.
    """
    row = conv_dim(shape) + shape.heads + 2 * shape.k_dim
    if shape.layer == K3:
        row = -(-(shape.k_dim + shape.heads) // _ALIGNED) * _ALIGNED
    return shape.layer == BAILING or class_of(shape.heads) != class_of(row)


def inputs(shape: ModelShape, tokens: int, draw: Draw) -> Tensors:
    """Return the projections of so many tokens, and the layer's parameters.

    ``projected`` has queries, keys and values side by side, ``b`` the raw gates of beta, ``decay`` those of the
    channels of keys, ``gate`` that of the norm. The convolution's weight and both parameters of the decay are float32,
    as the layer's constructor says.
    """
    dtype, heads, width = DTYPES[shape.dtype], shape.heads, shape.heads * shape.k_dim
    return {
        "projected": draw.normal(1, tokens, conv_dim(shape), dtype=dtype),
        "b": draw.normal(1, tokens, heads, dtype=dtype),
        "decay": draw.normal(1, tokens, width, dtype=dtype),
        "gate": draw.normal(1, tokens, width, dtype=dtype),
        "A_log": draw.log_a(heads, torch.float32, bounded=shape.gate_bound < 0),
        "dt_bias": draw.dt_bias(width, torch.float32),
        "weight": draw.normal(conv_dim(shape), shape.conv_width, dtype=torch.float32),
        "norm_weight": draw.weight(shape.v_dim, dtype=dtype),
    }


def put(layer: Any, tensors: Tensors, *, merged: bool | str) -> None:
    """Put results in the places of projections, and parameters in theirs.

    ``merged`` is how a layer without quantized weights has them: queries, keys, values and beta are views of one
    result, which has the inputs of the projections of both gates too. Of Ling-3.0 it has both gates themselves, and if
    weights are quantized it lacks beta alone. With `GATES`, of GLM-5.3-Flash, it has no queries, keys and values. Of
    Kimi-K3 these are always views of one result with the norm's gate, and beta is one with the input of the decay.
    """
    projected, b, decay, gate = (there(tensors, name)[0] for name in ("projected", "b", "decay", "gate"))
    if getattr(layer, "no_kda_lora", False):  # Ling-3.0's
        parts = (projected, b, decay, gate) if merged else (projected, decay, gate)
        at_once = torch.cat(parts, -1)
        layer.fuse_no_lora_beta, layer.split_sizes = merged, [part.shape[-1] for part in parts]
        layer.fused_qkvbfg_proj, layer.b_proj = _projection(at_once), _projection(b)
    elif getattr(layer, "use_full_rank_gate", False):  # Kimi-K3's
        at_once = torch.cat([projected, gate], -1)
        few = torch.cat([b.new_empty(len(b), layer.head_dim), b], -1)
        few = torch.nn.functional.pad(few, (0, -few.shape[-1] % _ALIGNED))
        layer.fused_qkvg_proj = _projection(at_once)
        layer._bfa_w, layer._bfa_f_b_w = (few, decay) if merged else (None, None)  # noqa: SLF001
        layer._bfa_fa_size, layer._bfa_b_size = layer.head_dim, b.shape[-1]  # noqa: SLF001
        layer.b_proj, layer.f_a_proj, layer.f_b_proj = map(_projection, (b, decay, decay))
    elif merged:
        inner = projected.new_empty(len(projected), 2 * layer.head_dim)
        at_once = torch.cat([b, inner] if merged == GATES else [projected, b, inner], -1)
        gates = torch.stack([decay, gate])
        layer.do_fuse_qkvbfg, layer.fuse_bfg = merged != GATES, merged == GATES
        layer.bfg_split_sizes = [b.shape[-1], inner.shape[-1]]
        layer.fused_qkvbfg_a_proj = layer.fused_bfg_a_proj = lambda _hidden: at_once
        layer.qkv_proj, layer.fused_fg_b_proj = _projection(projected), lambda _inner: gates
    else:
        layer.do_fuse_qkvbfg = layer.fuse_bfg = False
        for name, result in zip(_PROJECTIONS, (projected, b, decay, decay, gate, gate), strict=True):
            setattr(layer, name, _projection(result))
    layer.attn.conv_weights, layer.attn.bias = there(tensors, "weight"), None
    for module, name, tensor in (
        (layer.attn, "A_log", there(tensors, "A_log").view(1, 1, -1, 1)),
        (layer.attn, "dt_bias", there(tensors, "dt_bias")),
        (layer.o_norm, "weight", there(tensors, "norm_weight")),
    ):
        setattr(module, name, torch.nn.Parameter(tensor, requires_grad=False))


def _projection(result: torch.Tensor) -> Any:
    return lambda _hidden: (result, None)


def forward(layer: Any, hidden: torch.Tensor, batch: Any) -> torch.Tensor:
    """Run a layer on SGLang's batch. Returns ``[tokens, v_heads * v_dim]``.

    Of 8 requests or more with states in float32, SGLang has a CUDA kernel make a decode step, which it compiles itself;
    here the Triton kernel does that it takes for fewer, so that no compiler of CUDA is needed. Its launches have the
    same key for every batch. So does Kimi-K3's decode at TP 8, as nothing here prepares SGLang's for it, and the CUDA
    kernel that multiplies its few small projections gives what stands in place of their weights.
    """
    covered = mock.patch.object(sglang_versions.packed_decode, "covered", return_value=False)
    with covered, sglang_versions.multiplying(lambda _hidden, result: result):
        out: torch.Tensor = layer(
            hidden_states=hidden, positions=batch.positions, forward_batch=batch, zero_allocator=None
        )
    return out


def windows(kept: torch.Tensor) -> torch.Tensor:
    """Return the pool's windows, which it has the other way round, as ``[layers, slots, width, taps - 1]``."""
    return kept.mT
