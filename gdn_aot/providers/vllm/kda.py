"""vLLM's layers of Kimi Delta Attention themselves, with one batch of requests to work on: `layer` for the others.

A layer's own ``forward`` runs, and in it its core. In place of the projections of its input stand their results, in
place of the norm and of the projection of its output stands nothing. Every projection that a layer of some release has
is there under its name, so that each finds its own.

Importing this module imports vLLM: call `gdn_aot.providers.vllm.platform.prepare` before.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.layer_names import K3
from gdn_aot.providers.vllm import kimi_k3
from gdn_aot.providers.vllm import layer as vllm_layer
from gdn_aot.providers.vllm import platform as vllm_platform
from gdn_aot.providers.vllm import versions as vllm_versions
from gdn_aot.providers.vllm.cache import DTYPES, deployments
from gdn_aot.providers.vllm.steps import Group, Step
from gdn_aot.providers.workload import there

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.draw import Draw
    from gdn_aot.reference import Tensors

PARTS = ("q", "k", "v")
"""What a layer has a projection and a convolution of its own for, or has side by side in one."""
_READ = re.compile(r"\bself\.(\w+)")


def unknown(shape: ModelShape) -> list[str]:
    """Return what the model's layer reads of itself that is not known here, by name: then it is another layer.

    The model's pages have to be known.
    """
    step = Step(groups=(Group(1, 0, 2),), deployment=deployments(shape)[0])
    layer = _make(shape, inputs(shape, step, EMPTY))
    read = _READ.findall(inspect.getsource(type(layer).forward) + inspect.getsource(type(layer)._forward))  # noqa: SLF001
    return sorted(name for name in {*read} - {"kv_cache"} if not hasattr(layer, name))


def inputs(shape: ModelShape, step: Step, draw: Draw) -> Tensors:
    """Return what a step works on: projections, parameters, and the pages of its requests.

    ``projected`` has queries, keys and values side by side, ``decay`` the raw gates of the channels of keys, ``b``
    those of beta. The convolutions' weights and both parameters of the decay are float32, as the layer's constructor
    says.
    """
    dtype, tokens, width = DTYPES[shape.dtype], step.tokens, shape.heads * shape.k_dim
    return {
        "projected": draw.normal(1, tokens, len(PARTS) * width, dtype=dtype),
        "decay": draw.normal(1, tokens, width, dtype=dtype),
        "b": draw.normal(1, tokens, shape.heads, dtype=dtype),
        "A_log": draw.log_a(shape.heads, torch.float32, bounded=shape.gate_bound < 0),
        "dt_bias": draw.dt_bias(width, torch.float32),
        "weight": draw.normal(len(PARTS) * width, shape.conv_width, dtype=torch.float32),
        "cu_seqlens": torch.tensor(step.ends, dtype=torch.int32),
        "cache": vllm_layer.pages(shape, step, draw),
    }


def apply(shape: ModelShape, step: Step, tensors: Tensors) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Run the layer. Returns its output before the norm, and the views of the windows and states of all pages."""
    hidden = there(tensors, "projected").new_empty(step.tokens, 1)
    output = hidden.new_empty(step.tokens, shape.heads * shape.k_dim)
    # What a layer has compiled by Inductor runs as it is: of its kernels none is the layer's.
    with torch.device("cpu"), vllm_platform.on_card(), torch.compiler.set_stance("force_eager"):
        layer = _make(shape, tensors)
        graph: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if step.compiled and kimi_k3.overlaps(shape, step.tokens):
            graph = kimi_k3.captured(layer, _rows(shape, tensors), there(tensors, "decay")[0])
        with vllm_layer.on_pages(layer, tensors, shape, step), graph:
            vllm_versions.forward(layer, shape.layer, hidden, output)
        return output.view(1, step.tokens, shape.heads, shape.k_dim), vllm_layer.states(shape, step, tensors)


def _make(shape: ModelShape, tensors: Tensors) -> Any:
    """Return a layer with its parameters, and the results of its projections in their place."""
    kind = vllm_versions.layer_class(shape.layer)
    layer = kind.__new__(kind)
    torch.nn.Module.__init__(layer)
    for name, value in {**_sizes(shape), **_projections(shape, tensors), **_parameters(tensors)}.items():
        setattr(layer, name, value)
    return layer


def _sizes(shape: ModelShape) -> dict[str, Any]:
    width, bound = shape.heads * shape.k_dim, shape.gate_bound or None
    unused = (
        "gemm_rs_ar",
        "_projection_events",
        "_projection_aux_stream",
        "decode_conv1d_weight",
        "decode_norm_weight",
    )
    return {
        "prefix": vllm_layer.PREFIX,
        "tp_size": 1,  # the shape is divided already
        "tp_rank": 0,
        **dict.fromkeys(("num_heads", "local_num_heads"), shape.heads),
        "head_dim": shape.k_dim,
        "conv_size": shape.conv_width,
        **dict.fromkeys(("local_projection_size", "projection_size_per_partition"), width),
        "hidden_size": 1,  # of what stands for the residual stream
        **dict.fromkeys(("gate_lower_bound", "lower_bound", "kda_lower_bound"), bound),
        **dict.fromkeys(("safe_gate", "kda_safe_gate"), bound is not None),
        **dict.fromkeys(("use_full_rank_gate", "separate_b_proj", "use_recoverssm", "_conv_state_dim_first"), False),
        "in_proj_padding": kimi_k3.row(shape)[-1] if shape.layer == K3 else 0,
        **dict.fromkeys(("kda_prefill_backend", "kda_decode_backend", "kda_spec_decode_backend"), "triton"),
        **dict.fromkeys(("_flashkda_buffer_specs", "_flashinfer_kda_output_spec", "_checkpoint_exporter"), None),
        **dict.fromkeys((*unused, "_merged_conv_weight"), None),
        "_projection_overlap_max_tokens": 0,
        "o_norm": lambda core, _gate: core,
        "o_proj": lambda core: (core, None),
    }


def _projections(shape: ModelShape, tensors: Tensors) -> dict[str, Any]:
    mixed, decay, b = (there(tensors, name)[0] for name in ("projected", "decay", "b"))
    rank = mixed.new_zeros(len(mixed), shape.k_dim)
    whole = _rows(shape, tensors) if shape.layer == K3 else [mixed, b, rank]
    named: dict[str, Any] = {
        "b_proj": lambda _hidden: (b, None),
        **dict.fromkeys(("f_a_proj", "g_a_proj"), lambda hidden: (hidden, None)),
        # Nothing reads the gate of the norm, without the norm.
        **dict.fromkeys(("f_b_proj", "g_b_proj", "f_proj", "g_proj"), lambda _hidden: (decay, None)),
        "qkvb_proj": lambda _hidden: (torch.cat([mixed, b], -1), None),
        "in_proj_qkvgfab": lambda _hidden: (torch.cat(whole, -1), None),
        "in_proj_qkvbfg_a": lambda _hidden: (torch.cat([mixed, b, rank, rank], -1), None),
        "qkv_proj": None,
    }
    for part, result in zip(PARTS, mixed.chunk(len(PARTS), -1), strict=True):
        # The convolution of a decode step works in place, and takes a stride of one token for what it says.
        own = result.clone(memory_format=torch.contiguous_format)
        named[f"{part}_proj"] = lambda _hidden, own=own: (own, None)
    return named


def _rows(shape: ModelShape, tensors: Tensors) -> list[torch.Tensor]:
    """Return the parts of what Kimi-K3 projects at once; nothing reads its gate of the norm, without the norm."""
    mixed, decay, b = (there(tensors, name)[0] for name in ("projected", "decay", "b"))
    _, rank, _, padding = (mixed.new_zeros(len(mixed), width) for width in kimi_k3.row(shape))
    return [torch.cat([mixed, torch.zeros_like(decay)], -1), rank, b, padding]


def _parameters(tensors: Tensors) -> dict[str, Any]:
    weight = there(tensors, "weight").unsqueeze(1)
    convolutions = {f"{part}_conv1d": own for part, own in zip(PARTS, weight.chunk(len(PARTS)), strict=True)}
    return {
        "A_log": tensors["A_log"],
        "dt_bias": tensors["dt_bias"],
        **{name: SimpleNamespace(weight=own, bias=None) for name, own in {**convolutions, "conv1d": weight}.items()},
    }


def make_norm(shape: ModelShape) -> Any:
    """Return the layer's norm without its weight, made without the configuration that its constructor asks for."""
    module: Any = inspect.getmodule(vllm_versions.layer_class(shape.layer))
    kind = module.FusedRMSNormGated
    norm = kind.__new__(kind)
    torch.nn.Module.__init__(norm)
    norm.eps, norm.activation = shape.norm_eps, shape.norm_activation
    norm.register_parameter("bias", None)
    return norm
