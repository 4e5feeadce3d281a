"""vLLM's layer of Kimi Delta Attention itself, with one batch of requests to work on: what `layer` is for the others.

The layer's own ``forward`` runs, and in it its operator. In place of the projections of its input stand their results,
in place of the norm and of the projection of its output stands nothing.

Importing this module imports vLLM: call `gdn_aot.providers.vllm.platform.prepare` before.
"""

from __future__ import annotations

import contextlib
import inspect
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from gdn_aot.providers.engine_layer import KIMI
from gdn_aot.providers.vllm import layer as vllm_layer
from gdn_aot.providers.vllm import versions as vllm_versions
from gdn_aot.providers.vllm.cache import DTYPES
from gdn_aot.providers.workload import there

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.draw import Draw
    from gdn_aot.providers.vllm.steps import Step
    from gdn_aot.reference import Tensors

PARTS = ("q", "k", "v")
"""What the layer has a projection and a convolution of its own for."""


@cache
def make_layer(shape: ModelShape) -> Any:
    """Return a layer without parameters and projections."""
    kind = vllm_versions.LAYERS[KIMI]
    layer = kind.__new__(kind)
    torch.nn.Module.__init__(layer)
    layer.prefix = vllm_layer.PREFIX
    layer.tp_size, layer.tp_rank = 1, 0  # the shape is divided already
    layer.num_heads = layer.local_num_heads = shape.heads
    layer.head_dim, layer.conv_size = shape.k_dim, shape.conv_width
    layer.f_a_proj = layer.g_a_proj = lambda hidden: (hidden, None)
    layer.o_norm = lambda core, _gate: core
    layer.o_proj = lambda core: (core, None)
    return layer


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
        "A_log": draw.log_a(shape.heads, torch.float32),
        "dt_bias": draw.dt_bias(width, torch.float32),
        "weight": draw.normal(len(PARTS) * width, shape.conv_width, dtype=torch.float32),
        "cu_seqlens": torch.tensor(step.ends, dtype=torch.int32),
        "cache": vllm_layer.pages(shape, step, draw),
    }


def apply(shape: ModelShape, step: Step, tensors: Tensors) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Run the layer. Returns its output before the norm, and the views of the windows and states of all pages."""
    layer = make_layer(shape)
    hidden = there(tensors, "projected").new_empty(step.tokens, 1)
    output = hidden.new_empty(step.tokens, shape.heads * shape.k_dim)
    with torch.device("cpu"), _with(layer, tensors, shape), vllm_layer.on_pages(layer, tensors, shape, step):
        layer.forward(hidden, torch.empty(0), output)
        return output.view(1, step.tokens, shape.heads, shape.k_dim), vllm_layer.states(shape, step, tensors)


@contextlib.contextmanager
def _with(layer: Any, tensors: Tensors, shape: ModelShape) -> Iterator[None]:
    """Give a layer its parameters, and the results of its projections in their place."""
    width = shape.heads * shape.k_dim
    named: dict[str, Any] = {
        "A_log": there(tensors, "A_log").view(1, 1, -1, 1),
        "dt_bias": tensors["dt_bias"],
        "b_proj": _projection(there(tensors, "b")[0]),
        "f_b_proj": _projection(there(tensors, "decay")[0]),
    }
    named["g_b_proj"] = named["f_b_proj"]  # nothing reads it, without the norm
    projected = there(tensors, "projected")[0].split(width, -1)
    weights = there(tensors, "weight").unsqueeze(1).split(width)
    for part, result, weight in zip(PARTS, projected, weights, strict=True):
        # The convolution of a decode step works in place, and takes a stride of one token for what it says.
        named[f"{part}_proj"] = _projection(result.clone(memory_format=torch.contiguous_format))
        named[f"{part}_conv1d"] = SimpleNamespace(weight=weight, bias=None)
    try:
        for name, value in named.items():
            setattr(layer, name, value)
        yield
    finally:
        for name in named:
            delattr(layer, name)


def _projection(result: torch.Tensor) -> Any:
    return lambda _hidden: (result, None)


def make_norm(shape: ModelShape) -> Any:
    """Return the layer's norm without its weight, made without the configuration that its constructor asks for.

    Its epsilon is what the layer leaves it at, whatever the model's is.
    """
    module: Any = inspect.getmodule(vllm_versions.LAYERS[KIMI])
    kind = module.FusedRMSNormGated
    norm = kind.__new__(kind)
    torch.nn.Module.__init__(norm)
    norm.eps, norm.activation = inspect.signature(kind.__init__).parameters["eps"].default, shape.norm_activation
    norm.register_parameter("bias", None)
    return norm
