"""vLLM's Gated Delta Net layer itself, with one batch of requests to work on.

The layer's own ``forward`` and ``_forward_core`` run, with the metadata that its own builder makes of a scheduler's
step and with states in a cache as vLLM lays it out. Of the layer nothing is here but its small parameters; in place of
the projections of its input stand their results, in place of the norm and of the projection of its output stands
nothing, except where the norm is inside of the layer's operator.

Importing this module imports vLLM: call `gdn_aot.providers.vllm.platform.prepare` before.
"""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import fields
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from vllm.forward_context import ForwardContext, override_forward_context
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.attention.backends.gdn_attn import GDNAttentionMetadataBuilder

from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.layer_names import INTERLEAVED
from gdn_aot.providers.vllm import cache as vllm_cache
from gdn_aot.providers.vllm import versions as vllm_versions
from gdn_aot.providers.vllm.cache import DTYPES
from gdn_aot.providers.workload import there

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.draw import Draw
    from gdn_aot.providers.vllm.steps import Deployment, Step
    from gdn_aot.reference import Tensors

PREFIX = "model.layers.0.linear_attn"

_ENGINES = any(field.name == "virtual_engine" for field in fields(ForwardContext))
"""Layers have a cache for each of several engines, as up to 0.18."""
_BOUNDED = any(field.name == "seq_lens_cpu_upper_bound" for field in fields(CommonAttentionMetadata))
"""Builders read lengths of requests on the CPU."""
FIRST_TOKENS = "is_prefilling" in inspect.getsource(GDNAttentionMetadataBuilder)
"""Builders tell the first token of a prompt, where it comes alone, from one that is decoded, as from 0.31 on."""


class UnknownLayerError(ValueError):
    """This version of vLLM has no layer for a model."""


def _conv_dim(shape: ModelShape) -> int:
    return 2 * shape.heads * shape.k_dim + shape.v_heads * shape.v_dim


@cache
def make_layer(shape: ModelShape) -> Any:
    """Return a layer without parameters and projections.

    Raises:
        UnknownLayerError: This version has none for the model.
    """
    kind = vllm_versions.layer_class(shape.layer)
    if kind is None:
        raise UnknownLayerError(f"this version of vLLM has no layer for {shape.name} that is known here")
    layer = kind.__new__(kind)
    torch.nn.Module.__init__(layer)
    layer.prefix = PREFIX
    layer.tp_size, layer.tp_rank = 1, 0  # the shape is divided already
    layer.hidden_size = shape.hidden
    layer.activation = "silu"
    layer.layer_norm_epsilon = shape.norm_eps
    layer.num_k_heads, layer.num_v_heads = shape.heads, shape.v_heads
    layer.head_k_dim, layer.head_v_dim = shape.k_dim, shape.v_dim
    layer.key_dim, layer.value_dim = shape.heads * shape.k_dim, shape.v_heads * shape.v_dim
    layer.conv_kernel_size, layer.conv_dim = shape.conv_width, _conv_dim(shape)
    layer.gqa_interleaved_layout = shape.layer == INTERLEAVED
    layer.disable_tp_for_ba_proj = False
    layer.allow_neg_eigval = shape.allow_neg_eigval
    layer.enable_packed_recurrent_decode = True
    layer.chunk_gated_delta_rule = partial(vllm_versions.CHUNKS.forward_native, None)
    layer.gdn_prefill_backend = "triton"
    layer._checkpoint_alignment = None  # noqa: SLF001 - Triton's prefill exports no checkpoints
    layer.o_norm = lambda core, _gate: core
    layer.out_proj = layer.o_proj = lambda core: (core, None)
    return layer


@cache
def _builder(shape: ModelShape, deployment: Deployment, device: str, *, graph: bool) -> Any:
    drafts = deployment.drafts
    speculative = SimpleNamespace(
        num_speculative_tokens=drafts, parallel_drafting=False, use_eagle_block_drop=lambda: False
    )
    heads = SimpleNamespace(linear_key_head_dim=shape.k_dim)
    config = SimpleNamespace(
        compilation_config=SimpleNamespace(
            cudagraph_mode=SimpleNamespace(has_full_cudagraphs=lambda: graph), max_cudagraph_capture_size=None
        ),
        speculative_config=speculative if drafts else None,
        scheduler_config=SimpleNamespace(max_num_seqs=1024),
        parallel_config=SimpleNamespace(decode_context_parallel_size=1),
        cache_config=SimpleNamespace(mamba_cache_mode="none", use_kda_recoverssm=False),
        model_config=SimpleNamespace(hf_text_config=heads, hf_config=heads),  # 0.22 reads the second
        additional_config={"gdn_prefill_backend": "triton"},
        use_v2_model_runner=False,
        num_hash_lookahead_tokens=0,
    )
    cache_spec = vllm_cache.spec(shape, deployment)
    return vllm_versions.metadata_builder(shape.layer)(cache_spec, [PREFIX], config, torch.device(device))


def inputs(shape: ModelShape, step: Step, draw: Draw) -> Tensors:
    """Return what a step works on: projections, parameters, and the pages of its requests."""
    dtype, tokens = DTYPES[shape.dtype], step.tokens
    width = _conv_dim(shape)
    gate = shape.v_heads * shape.v_dim
    heads = shape.v_heads
    make_layer(shape)  # raises if there is none
    a_log = vllm_versions.a_log_dtype(shape.layer, dtype)
    made: Tensors = {
        "projected": draw.normal(1, tokens, width + gate, dtype=dtype),
        "ba": draw.normal(1, tokens, 2 * heads, dtype=dtype),
        "A_log": draw.log_a(heads, a_log),
        "dt_bias": draw.dt_bias(heads, dtype),
        "weight": draw.normal(width, shape.conv_width, dtype=dtype),
        "norm_weight": draw.weight(shape.v_dim, dtype=dtype),
        "cu_seqlens": torch.tensor(step.ends, dtype=torch.int32),
    }
    made["cache"] = pages(shape, step, draw)
    return made


def pages(shape: ModelShape, step: Step, draw: Draw) -> torch.Tensor:
    """Return raw pages ``[pages, bytes]`` with states of all requests, behind one that is nobody's."""
    deployment = step.deployment
    (window, state), dtypes = vllm_cache.state_shapes(shape, deployment), vllm_cache.state_dtypes(shape, deployment)
    filled = draw is not EMPTY
    count = len(step.requests) * (1 + deployment.drafts if filled else 1)
    made = torch.zeros(count + 1, vllm_cache.page_size(shape, deployment), dtype=torch.int8)
    if filled:
        windows, states = _views(made, (window, state), dtypes)
        windows[1:] = draw.normal(count, *window, dtype=dtypes[0])
        states[1:] = draw.normal(count, *state, dtype=dtypes[1])
    return made


def states(shape: ModelShape, step: Step, tensors: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the views of the windows and of the recurrent states of all pages."""
    page, deployment = there(tensors, "cache"), step.deployment
    shapes, dtypes = vllm_cache.state_shapes(shape, deployment), vllm_cache.state_dtypes(shape, deployment)
    windows, recurrent = _views(page, shapes, dtypes)
    return windows, recurrent


def _views(
    page: torch.Tensor, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[torch.dtype]
) -> tuple[torch.Tensor, ...]:
    """Return the views of states in raw pages, as ``GPUModelRunner._reshape_kv_cache_tensors`` makes them."""
    views, offset = [], 0
    for shape, dtype in zip(shapes, dtypes, strict=True):
        whole = page.view(-1).view(dtype)
        size = torch.empty(0, dtype=dtype).element_size()
        inner = torch.empty(shape, device="meta").stride()
        views.append(whole.as_strided((len(page), *shape), (page.shape[1] // size, *inner), offset // size))
        offset += size * torch.Size(shape).numel()
    return tuple(views)


def _metadata(shape: ModelShape, step: Step, pages: int, device: torch.device) -> Any:
    """Return what vLLM's builder makes of the step, with this many pages in the cache."""
    builder = _builder(shape, step.deployment, str(device), graph=step.graph)
    queries = [request.query for request in step.requests]
    ends = torch.tensor(step.ends, dtype=torch.int32)
    ended = [request.computed + request.query for request in step.requests]
    lengths = torch.tensor(ended, dtype=torch.int32)
    named = {"seq_lens_cpu_upper_bound": lengths} if _BOUNDED else {}
    if FIRST_TOKENS or type(builder) is not GDNAttentionMetadataBuilder:  # that of Kimi-K3 always asks
        named["is_prefilling"] = torch.tensor([not request.computed for request in step.requests])
    common = CommonAttentionMetadata(
        query_start_loc=ends.to(device),
        query_start_loc_cpu=ends,
        seq_lens=lengths.to(device),
        num_reqs=len(queries),
        num_actual_tokens=step.tokens,
        max_query_len=max(queries),
        max_seq_len=max(ended),
        block_table_tensor=torch.tensor(step.table, dtype=torch.int32).to(device) % pages,
        slot_mapping=torch.empty(0, dtype=torch.int64, device=device),
        **named,
    )
    if not step.deployment.drafts:
        return builder.build(0, common)
    drafts = torch.tensor([request.drafts for request in step.requests], dtype=torch.int32)
    accepted = torch.tensor([request.accepted for request in step.requests], dtype=torch.int32, device=device)
    return builder.build(0, common, num_accepted_tokens=accepted, num_decode_draft_tokens_cpu=drafts)


@contextlib.contextmanager
def on_pages(layer: Any, tensors: Tensors, shape: ModelShape, step: Step) -> Iterator[None]:
    """Give a layer its pages, and in the block the metadata of the step."""
    page = there(tensors, "cache")
    views = states(shape, step, tensors)
    layer.kv_cache = [views] if _ENGINES else views
    context = ForwardContext(
        no_compile_layers={PREFIX: layer},
        attn_metadata={PREFIX: _metadata(shape, step, len(page), page.device)},
        slot_mapping={},
        **({"virtual_engine": 0} if _ENGINES else {}),
    )
    try:
        with override_forward_context(context), torch.no_grad():
            yield
    finally:
        del layer.kv_cache


@contextlib.contextmanager
def _with(layer: Any, tensors: Tensors, shape: ModelShape, step: Step) -> Iterator[None]:
    weight = there(tensors, "weight")
    layer.conv1d = SimpleNamespace(weight=weight.unsqueeze(1), bias=None)
    layer.A_log, layer.dt_bias = tensors["A_log"], tensors["dt_bias"]
    layer.norm = _norm(shape, tensors["norm_weight"]) if step.deployment.fused else lambda core, _gate: core
    layer.enable_packed_recurrent_decode = step.packed
    layer.enable_fused_gdn_spec_decode = layer.enable_fused_gdn_decode = step.deployment.fused  # the second: up to 0.31
    layer.gdn_decode_kernel = "cuda" if step.deployment.fused else "triton"
    try:
        with on_pages(layer, tensors, shape, step):
            yield
    finally:
        del layer.conv1d, layer.A_log, layer.dt_bias, layer.norm


def _norm(shape: ModelShape, weight: torch.Tensor | None) -> Any:
    """Return what the layer's operator reads of the norm that it makes itself."""
    named = {"eps": shape.norm_eps, "activation": shape.norm_activation, "group_size": None, "norm_before_gate": True}
    return SimpleNamespace(weight=weight, bias=None, **named)


def apply(shape: ModelShape, step: Step, tensors: Tensors) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Run the layer. Returns its output and the views of the windows and states of all pages.

    The output is that before the norm, but for deployments whose norm is in the layer's operator. Whatever device
    tensors are made on by default, for vLLM it is the CPU, as in its workers: of what it makes without naming a device
    it takes for granted that it is there.
    """
    layer = make_layer(shape)
    projected, ba = there(tensors, "projected"), there(tensors, "ba")
    tokens, gate = step.tokens, shape.v_heads * shape.v_dim
    output = projected.new_empty(tokens, gate)
    with torch.device("cpu"), _with(layer, tensors, shape, step):
        project(layer, shape, projected[0], ba[0])
        hidden = projected.new_empty(tokens, 1)
        if step.compiled and not step.deployment.fused:  # else all that could be compiled is in the operator
            _compiled(layer, shape, projected[0], ba[0], output)
        else:
            vllm_versions.forward(layer, shape.layer, hidden, output)
        return output.view(1, tokens, shape.v_heads, shape.v_dim), states(shape, step, tensors)


def project(layer: Any, shape: ModelShape, projected: torch.Tensor, ba: torch.Tensor) -> None:
    """Put the results of the input projections where the projections are."""
    heads = shape.v_heads
    layer.in_proj_qkvz = layer.in_proj_qkvg = lambda _hidden: (projected, None)
    layer.in_proj_ba = lambda _hidden: (ba, None)
    layer.b_proj = lambda _hidden: (ba[:, :heads].contiguous(), None)
    layer.a_proj = lambda _hidden: (ba[:, heads:].clone(memory_format=torch.contiguous_format), None)


def _compiled(layer: Any, shape: ModelShape, projected: torch.Tensor, ba: torch.Tensor, output: torch.Tensor) -> None:
    """Call the layer's core as a graph compiled by Inductor does: with copies of ``b`` and ``a``.

    Eager mode has views of one token where copies of more are: Inductor always copies, to memory that is aligned.
    """
    width, heads = _conv_dim(shape), shape.v_heads
    core = projected.new_zeros(len(projected), heads, shape.v_dim)
    if shape.layer == INTERLEAVED:
        query, key, value, _, b, a = layer.fix_query_key_value_ordering(projected, ba)
        mixed = torch.cat([part.reshape(len(projected), -1) for part in (query, key, value)], dim=-1)
    else:
        mixed, (b, a) = projected[:, :width], ba.chunk(2, dim=-1)
    layer._forward_core(  # noqa: SLF001
        mixed_qkv=mixed, b=torch.empty_like(b).copy_(b), a=torch.empty_like(a).copy_(a), core_attn_out=core
    )
    output.copy_(core.flatten(1))
