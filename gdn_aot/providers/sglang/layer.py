"""SGLang's linear-attention layer itself, with one batch of requests to work on.

The layer's own ``forward`` runs, through ``HybridLinearAttnBackend`` and the backend of its family with Triton's
kernels, on states in SGLang's own pool, with the metadata that its backend makes of a ``ForwardBatch``. In place of the
projections of its input stand their results, in place of the projection of its output stands nothing. `gdn` and `kda`
have what is a family's own.

Importing this module imports SGLang: call `gdn_aot.providers.sglang.platform.prepare` before.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gdn_aot.catalogue.models import GDN, KDA
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.engine_layer import conv_dim
from gdn_aot.providers.sglang import gdn as sglang_gdn
from gdn_aot.providers.sglang import kda as sglang_kda
from gdn_aot.providers.sglang import versions as sglang_versions
from gdn_aot.providers.sglang.platform import on_target
from gdn_aot.providers.workload import there

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.draw import Draw
    from gdn_aot.providers.sglang.steps import Deployment, Step
    from gdn_aot.reference import Tensors

DEVICE = "cuda"
_FAMILIES: dict[str, Any] = {GDN: sglang_gdn, KDA: sglang_kda}
_WINDOWS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""dtype of a model -> of the convolution's windows, as the environment of a server names it."""


class _NoAttention:
    """Stands for the backend of the layers with attention, of which there are none."""

    needs_cpu_seq_lens = False
    max_context_len = None

    def __init__(self, pool: Any) -> None:
        self.req_to_token_pool, self.token_to_kv_pool, self.kv_index_translator = pool, None, None

    def init_forward_metadata(self, _batch: Any) -> None:
        """Have nothing to prepare."""

    def init_forward_metadata_out_graph(self, _batch: Any, in_capture: bool = False) -> None:
        """Have nothing to prepare."""

    def init_cuda_graph_state(self, *_sizes: int) -> None:
        """Have no buffers."""

    def init_forward_metadata_capture_cuda_graph(self, *_batch: Any) -> None:
        """Have nothing to prepare; so with the next, both up to 0.5.12."""

    init_forward_metadata_replay_cuda_graph = init_forward_metadata_capture_cuda_graph


def _pool(shape: ModelShape, step: Step, *, filled: bool) -> Any:
    """Return SGLang's pool, with a slot for each request and each tracked copy if states are to be in it.

    Without content requests share slots, so that a pool with many layers and requests fits in any memory.
    """
    deployment, requests = step.deployment, step.batch
    return sglang_versions.memory_pool.HybridReqToTokenPool(
        size=max(step.scratch, requests),
        mamba_size=max(step.slots, 1 + 2 * requests) if filled else step.slots,
        mamba_spec_state_size=max(step.scratch, requests) if filled else step.scratch,
        max_context_len=1,
        device=DEVICE,
        enable_memory_saver=False,
        cache_params=_parameters(shape, deployment),
        mamba_layer_ids=list(range(step.layers)),
        enable_mamba_extra_buffer=step.radix,
        speculative_num_draft_tokens=deployment.drafts + 1 if deployment.drafts else None,
    )


def most_merged(shape: ModelShape) -> int:
    """Return the most tokens whose input is multiplied with several projections of a layer at once, 0 for none."""
    most: int = _FAMILIES[shape.family].most_merged(shape)
    return most


def shifts(shape: ModelShape) -> bool:
    """Say whether launches of every step follow from whether its projections are merged."""
    return shape.family == KDA and sglang_kda.shifts(shape)


def layouts(shape: ModelShape) -> tuple[bool | str, ...]:
    """Return how a layer may have its projections, as `Step.merged` says it."""
    if shape.family == KDA:
        return sglang_kda.layouts(shape)
    return (False, True) if most_merged(shape) else (False,)


def captures(shape: ModelShape) -> bool:
    """Say whether this version captures the layer of a model in breakable CUDA graphs of prompts."""
    return shape.family == KDA and sglang_kda.CAPTURES


def inputs(shape: ModelShape, step: Step, draw: Draw) -> Tensors:
    """Return what a step works on: projections, parameters, and the states of its requests before."""
    made: Tensors = _FAMILIES[shape.family].inputs(shape, step.padded, draw)
    made["cu_seqlens"] = torch.tensor(step.ends, dtype=torch.int32)
    if draw is not EMPTY:
        requests = len(step.requests)
        conv, state = state_dtypes(shape, step.deployment)
        made["windows"] = draw.normal(requests, conv_dim(shape), shape.conv_width - 1, dtype=conv)
        made["states"] = draw.normal(requests, shape.v_heads, shape.v_dim, shape.k_dim, dtype=state)
    return made


def row_bytes(shape: ModelShape, deployment: Deployment) -> int:
    """Return the bytes of one state in the pool, and of its window, in one layer."""
    conv, state = state_dtypes(shape, deployment)
    window = conv_dim(shape) * (shape.conv_width - 1) * conv.itemsize
    size: int = window + shape.v_heads * shape.v_dim * shape.k_dim * state.itemsize
    return size


def state_dtypes(shape: ModelShape, deployment: Deployment) -> tuple[torch.dtype, torch.dtype]:
    """Return the dtypes of the convolution's window and of the recurrent state."""
    with sglang_versions.published():
        dtypes = _parameters(shape, deployment).dtype
    return dtypes.conv, dtypes.temporal


def _parameters(shape: ModelShape, deployment: Deployment) -> Any:
    """Return SGLang's shapes and dtypes of states, as a server of the model needs them.

    Its environment has both dtypes, that of the state from ``--mamba-ssm-dtype``. Windows are bf16 whatever the model
    is unless it says other, and a fp16 model does not run with those.
    """
    named = {"SGLANG_MAMBA_CONV_DTYPE": _WINDOWS[shape.dtype], "SGLANG_MAMBA_SSM_DTYPE": deployment.state}
    with mock.patch.dict(os.environ, named):
        return _FAMILIES[shape.family].config(shape, deployment.state).mamba2_cache_params


def apply(shape: ModelShape, step: Step, tensors: Tensors) -> Tensors:
    """Run the layer, and what follows the verification of drafts, in a server of its own. Returns as `serving` says."""
    with serving(shape, step, tensors) as run:
        return run()


@contextlib.contextmanager
def serving(shape: ModelShape, step: Step, tensors: Tensors) -> Iterator[Callable[[], Tensors]]:
    """Give what makes a step in a server that has started: its pool, its backend and its layer are there.

    Each call returns ``out``, ``window`` and ``state``. Windows and states are those that the slots of the requests
    hold afterwards, then those of tracked copies. Whatever device tensors are made on by default, for SGLang it is the
    CPU, as in its schedulers: there it keeps lengths that it reads.
    """
    fields: dict[str, Any] = {"speculative_eagle_topk": 1} if step.deployment.drafts else {}
    if step.bucket and step.radix:
        fields["mamba_radix_cache_strategy"] = "extra_buffer"
    with on_target(), _on_host(), sglang_versions.published(**fields) as args, torch.no_grad():
        pool = _pool(shape, step, filled="states" in tensors)
        last = step.layers - 1
        family = _FAMILIES[shape.family]
        model = family.config(shape, step.deployment.state)
        runner = SimpleNamespace(
            model_config=SimpleNamespace(hf_config=model, hf_text_config=model),
            device=DEVICE,
            server_args=args,
            is_draft_worker=False,
            req_to_token_pool=pool,
            token_to_kv_pool=None,
            linear_attn_backends=sglang_versions.backends(),
        )
        backend = sglang_versions.hybrid.HybridLinearAttnBackend(_NoAttention(pool), family.make_backend(runner), [])
        layer, states = family.make_layer(shape), pool.mamba_pool.mamba_cache
        windows = family.windows(states.conv[0])
        projected = there(tensors, "projected")[0]

        def run() -> Tensors:
            slots = _fill(pool, windows, step, tensors)
            batch = _batch(step, pool.mamba_pool.size)
            _prepare(backend, step, batch)
            layer.attn.layer_id = last
            family.put(layer, tensors, merged=step.merged)
            with sglang_versions.forwarding(backend, batch):
                out = family.forward(layer, projected.new_empty(len(projected), 1), batch)
            if step.kind == "verify":
                _accept(backend, step, batch, pool.mamba_pool.size)
            return {"out": out[None], "window": windows[last, slots], "state": states.temporal[last, slots]}

        yield run


def _on_host() -> contextlib.AbstractContextManager[Any]:
    """Return a block in which tensors are made on the CPU: none where they are anyway, as it costs every call."""
    return contextlib.nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def _fill(pool: Any, windows: torch.Tensor, step: Step, tensors: Tensors) -> torch.Tensor:
    """Give each request its slot and its state, and return the slots: of requests, then of tracked copies.

    Slot 0 is nobody's. A new request's slot is cleared, and one whose prefix the radix cache has is copied from there,
    both by the pool as before a step of SGLang's.
    """
    requests, states = step.requests, pool.mamba_pool
    most = states.size  # without content, requests share slots
    slots = torch.arange(len(requests), device=DEVICE) % most + 1
    pool.req_index_to_mamba_index_mapping[1 : 1 + len(requests)] = slots.to(torch.int32)
    found = torch.tensor([step.kind != "extend" or request.computed > 0 for request in requests], device=DEVICE)
    copied = step.radix and step.kind == "extend"
    before = (slots + len(requests) - 1) % most + 1 if copied else slots
    if "states" in tensors:
        windows[-1, before] = there(tensors, "windows")
        states.mamba_cache.temporal[-1, before] = there(tensors, "states")
    if copied and found.any():
        states.copy_from(before[found], slots[found])
    if not found.all():
        sglang_versions.clear(states, slots[~found])
    tracked = [place for place, request in zip(_copies(step, most), requests, strict=True) if request.tracked]
    return torch.cat([slots, torch.tensor(tracked, device=DEVICE, dtype=torch.int64)])


def _copies(step: Step, most: int) -> list[int]:
    """Return the slot that each request's state is copied to if it is tracked, of ``most`` after the first."""
    count = len(step.requests)
    return [(count + place) % most + 1 for place in range(count)]


def _batch(step: Step, most: int) -> Any:
    """Return SGLang's batch of a step, in a pool of ``most`` slots."""
    modes, requests = sglang_versions.batches.ForwardMode, step.requests
    mode = {"extend": modes.EXTEND, "decode": modes.DECODE, "verify": modes.TARGET_VERIFY}[step.kind]
    padding = step.batch - len(requests)
    lengths = [request.computed + request.query for request in requests] + [1] * padding
    named: dict[str, Any] = {}
    if step.kind == "extend":
        queries = [request.query for request in requests]
        prefixes = [request.computed for request in requests]
        extended = torch.tensor(queries, dtype=torch.int32, device=DEVICE)
        named = {
            "extend_num_tokens": step.padded,
            "extend_seq_lens": extended,
            "extend_prefix_lens": torch.tensor(prefixes, dtype=torch.int32, device=DEVICE),
            "extend_start_loc": (extended.cumsum(0) - extended).to(torch.int32),
            "extend_seq_lens_cpu": queries,
            "extend_prefix_lens_cpu": prefixes,
        }
    if step.kind == "verify":
        named["spec_info"] = _drafts(step)
    if step.radix and (step.kind != "verify"):
        named |= _tracking(step, padding, most)
    return sglang_versions.batches.ForwardBatch(
        forward_mode=mode,
        batch_size=step.batch,
        input_ids=torch.zeros(step.padded, dtype=torch.int64, device=DEVICE),
        req_pool_indices=torch.tensor([*range(1, 1 + len(requests)), *[0] * padding], device=DEVICE),
        seq_lens=torch.tensor(lengths, device=DEVICE),
        out_cache_loc=torch.zeros(step.padded, dtype=torch.int64, device=DEVICE),
        seq_lens_sum=sum(lengths),
        seq_lens_cpu=torch.tensor(lengths),
        **named,
    )


def _tracking(step: Step, padding: int, most: int) -> dict[str, Any]:
    """Return which requests have their state copied, where to, and after how many tokens in all."""
    requests = step.requests
    places = [*_copies(step, most), *[0] * padding]
    ends = [request.computed + request.query for request in requests]
    return {
        "mamba_track_indices": torch.tensor(places, dtype=torch.int64, device=DEVICE),
        "mamba_track_mask": torch.tensor([one.tracked for one in requests] + [False] * padding, device=DEVICE),
        "mamba_track_seqlens": torch.tensor(ends, dtype=torch.int64, device=DEVICE) if step.kind == "extend" else None,
    }


def _drafts(step: Step) -> Any:
    """Return as much of SGLang's ``EagleVerifyInput`` as a chain of drafts has that backends of linear layers read."""
    return SimpleNamespace(draft_token_num=step.deployment.drafts + 1, topk=1, ragged_verify_layout=None)


def _prepare(backend: Any, step: Step, batch: Any) -> None:
    if step.bucket:
        backend.init_forward_metadata_for_breakable_cuda_graph_capture(batch)
        return
    if not step.graph:
        backend.init_forward_metadata(batch)
        return
    batch.num_padding = step.batch - len(step.requests)
    sglang_versions.prepare_graph(backend, batch, step.requests[0].query)


def _accept(backend: Any, step: Step, batch: Any, most: int) -> None:
    """Have SGLang keep the states after the drafts that were right, as its workers do."""
    accepted = torch.tensor([request.accepted for request in step.requests], dtype=torch.int64, device=DEVICE)
    tracking = _tracking(step, 0, most) if step.radix else {}
    kept, copied = sglang_versions.kept(accepted, tracking.get("mamba_track_mask"), step.requests[0].query)
    update = backend.update_mamba_state_after_mtp_verify
    named = {"req_pool_indices": batch.req_pool_indices}  # from 0.5.17 on
    named = {name: named[name] for name in named if name in inspect.signature(update).parameters}
    update(kept, tracking.get("mamba_track_indices"), copied, None, **named)
