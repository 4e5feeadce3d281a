"""Where each supported version of SGLang has the parts of its Gated Delta Net layers.

Importing this module imports SGLang: call `gdn_aot.providers.sglang.platform.prepare` before.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import msgspec
import torch

from gdn_aot.providers.layer_names import BAILING, GLM, INTERLEAVED, K3, KIMI, QWEN
from gdn_aot.providers.sglang.engine import KDA_RELEASES, release
from gdn_aot.providers.sglang.steps import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def _module(*names: str) -> Any:
    """Return the first of modules of ``sglang`` that this version has."""
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return importlib.import_module(f"sglang.{name}")
        except ModuleNotFoundError as error:
            if error.name is None or not f"sglang.{name}.".startswith(f"{error.name}."):
                raise
    raise ModuleNotFoundError(f"this version of SGLang has none of {', '.join(names)}")


def _optional(name: str) -> Any:
    """Return a module of ``sglang``, or None in a version that is from before it."""
    return _module(name) if importlib.util.find_spec(f"sglang.{name}") else None


qwen3_5 = _module("srt.models.qwen3_5")
qwen3_next = _module("srt.models.qwen3_next")
configs: dict[str, Any] = {
    INTERLEAVED: _module("srt.configs.qwen3_next").Qwen3NextConfig,
    QWEN: _module("srt.configs.qwen3_5").Qwen3_5TextConfig,
}
LAYERS: dict[str, Any] = {INTERLEAVED: qwen3_next.Qwen3GatedDeltaNet, QWEN: qwen3_5.Qwen3_5GatedDeltaNet}
gdn_backend = _module("srt.layers.attention.linear.gdn_backend")
hybrid = _module("srt.layers.attention.hybrid_linear_attn_backend")
memory_pool = _module("srt.mem_cache.memory_pool")
batches = _module("srt.model_executor.forward_batch_info")
contexts = _optional("srt.model_executor.forward_context")
runtime = _optional("srt.runtime_context")
server_args = _module("srt.server_args")
graphs = _optional("srt.model_executor.cuda_graph_config")
kda_backend: Any = None
delta: Any = None
packed_decode: Any = None
_RELEASE = importlib.metadata.version("sglang").partition("+")[0]
if _RELEASE in KDA_RELEASES[KIMI]:
    configs[KIMI] = _module("srt.configs.kimi_linear").KimiLinearConfig
    LAYERS[KIMI] = _module("srt.models.kimi_linear").KimiDeltaAttention
    kda_backend = _module("srt.layers.attention.linear.kda_backend")
    packed_decode = _module("kernels.ops.attention.kda_packed_decode")
if _RELEASE in KDA_RELEASES[BAILING]:
    configs[BAILING] = _module("srt.configs.bailing_hybrid").BailingHybridConfig
    LAYERS[BAILING] = _module("srt.models.bailing_moe_v3").BailingKDA
if _RELEASE in KDA_RELEASES[GLM]:
    configs[GLM] = _module("srt.configs.glm5_next").Glm5NextTextConfig
    LAYERS[GLM] = _module("srt.models.glm5_next").Glm5NextLinearAttention
if _RELEASE in KDA_RELEASES[K3]:
    configs[K3] = configs[KIMI]
    LAYERS[K3] = _module("srt.models.kimi_k3").KimiK3DeltaAttention
    delta = _module("kernels.ops.attention.fla.kda")
_FIRST_WITH_STEPS, _FIRST_WITH_COMMIT = (0, 5, 20), (0, 5, 22)
"""Of releases with a kernel that says which states are kept after drafts, and with one that says more with it."""
_NUMBER = release(_RELEASE)
_steps = _module("kernels.ops.mamba.mamba_state_scatter_triton") if _NUMBER >= _FIRST_WITH_STEPS else None
_commit = _module("kernels.ops.speculative.eagle") if _NUMBER >= _FIRST_WITH_COMMIT else None
_MODULES = {KIMI: "kimi_linear", BAILING: "bailing_moe_v3", K3: "kimi_k3", GLM: "glm5_next"}
"""`ModelShape.layer` of layers of Kimi Delta Attention -> the module of SGLang's models that has it."""
gated = _module("kernels.ops.attention.fla.layernorm_gated", "srt.layers.attention.fla.layernorm_gated")
convolution = _module("srt.layers.attention.mamba.causal_conv1d")


def lacks(layer: str) -> str:
    """Return why a layer, as `ModelShape.layer` names it, cannot be run, or nothing."""
    if layer in LAYERS:
        return ""
    if layer in _MODULES and importlib.util.find_spec(f"sglang.srt.models.{_MODULES[layer]}"):
        return f"its layer is covered in SGLang {' and '.join(KDA_RELEASES[layer])} alone"
    return "this version of SGLang has no layer for it that is known"


def backends() -> Any:
    """Return the kernels of linear attention that a server takes by itself, or nothing where backends ask for them."""
    resolve = getattr(_module("srt.layers.attention.linear.utils"), "resolve_linear_attn_backends", None)
    return resolve() if resolve else None


def multiplying(function: Callable[[Any, Any], Any]) -> contextlib.AbstractContextManager[Any]:
    """Return a block in which Kimi-K3's layer multiplies its small projections by a function, where one is known."""
    if K3 not in LAYERS:
        return contextlib.nullcontext()
    return mock.patch.object(_module("kernels.ops.gemm"), "kimi_k3_tiny_gemm", function)


def forwarding(backend: Any, batch: Any) -> contextlib.AbstractContextManager[Any]:
    """Return a block in which layers find the backend of a batch; up to 0.5.12 the batch has it."""
    if contexts is None:
        batch.attn_backend = backend
        return contextlib.nullcontext()
    block: contextlib.AbstractContextManager[Any] = contexts.forward_context(
        contexts.ForwardContext(attn_backend=backend)
    )
    return block


def prepare_graph(backend: Any, batch: Any, query: int) -> None:
    """Have a backend prepare what a CUDA graph works on, as when it is captured and then replayed."""
    backend.init_cuda_graph_state(batch.batch_size, batch.batch_size * query)
    if hasattr(backend, "init_forward_metadata_out_graph"):
        backend.init_forward_metadata_out_graph(batch, in_capture=True)
        backend.init_forward_metadata_out_graph(batch)
        return
    size, slots, lengths = batch.batch_size, batch.req_pool_indices, batch.seq_lens  # up to 0.5.12
    mode = None, batch.forward_mode, batch.spec_info
    backend.init_forward_metadata_capture_cuda_graph(size, size * query, slots, lengths, *mode)
    backend.init_forward_metadata_replay_cuda_graph(size, slots, lengths, batch.seq_lens_sum, *mode, batch.seq_lens_cpu)


def kept(accepted: torch.Tensor, tracked: torch.Tensor | None, width: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return after which of its tokens a request's state is kept, and after which it is copied, -1 for after none.

    EAGLE's worker says so of chains of drafts: by PyTorch's operators up to 0.5.19, then by
    ``fused_commit_track_indices``, and from 0.5.22 on by ``prepare_verify_commit_outputs``. They copy the state of a
    request that comes to a multiple of ``mamba_track_grid`` tokens: tracked ones come to the first with the last draft
    that was right.

    Args:
        accepted: [requests], int64, how many drafts were right.
        tracked: [requests], bool, whose states are copied; None if there are no copies.
        width: Tokens of each request in the step.
    """
    if _steps is None:
        return accepted, None if tracked is None else torch.where(tracked, accepted, -1)
    lengths = (accepted + 1).int()
    rows = torch.arange(len(accepted) * width, device=accepted.device).view(-1, width)
    index = torch.where(rows % width <= accepted[:, None], rows, -1).int()
    interval, before = 0, torch.zeros_like(accepted)
    if tracked is not None:
        interval = runtime.mamba_track_grid(1)
        before = torch.where(tracked, interval - accepted - 1, before)
    if _commit is None:
        fused: tuple[Any, Any] = _steps.fused_commit_track_indices(
            index, lengths, before if interval else None, width, interval
        )
        return fused
    tokens = torch.zeros(len(accepted) * width, dtype=torch.int32, device=accepted.device)
    made = _commit.prepare_verify_commit_outputs(
        tokens, index, lengths, before, num_draft_tokens=width, mamba_track_interval=interval
    )
    steps: tuple[Any, Any] = made[2]
    return steps


def clear(pool: Any, slots: Any) -> None:
    """Have a pool of states clear slots, as it does for new requests; up to 0.5.12 when it gives them out."""
    if hasattr(pool, "clear_slots"):
        pool.clear_slots(slots)
        return
    pool.free_slots = slots
    pool.alloc(len(slots))


@contextlib.contextmanager
def published(**fields: Any) -> Iterator[Any]:
    """Give SGLang arguments of a server, those of no model, in a process that is the only rank."""
    override, ranks = _overridden, contextlib.nullcontext()
    if runtime:
        override = getattr(runtime.get_context(), "override_server_args", None) or _overridden
        ranks = runtime.get_parallel().override(attn_tp_size=1, attn_tp_rank=0, tp_size=1, tp_rank=0)
    with ranks, override(**fields) as args:
        kind: Any = msgspec.Struct if isinstance(args, msgspec.Struct) else object  # both may be sealed
        kind.__setattr__(args, "_mamba_cache_chunk_size", CHUNK)  # else the model's configuration is fetched
        yield args


@contextlib.contextmanager
def constructing(dtype: torch.dtype, **fields: Any) -> Iterator[None]:
    """Have a layer's constructor make parameters without content, of a dtype where it names none; as `published`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with published(**fields), torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _overridden(**fields: Any) -> Iterator[Any]:
    """Do what later versions have themselves, up to 0.5.15."""
    args = server_args.ServerArgs(model_path="dummy", page_size=1)
    for name, value in fields.items():
        setattr(args, name, value)
    try:
        before = server_args.get_global_server_args()
    except ValueError:
        before = None
    server_args.set_global_server_args_for_scheduler(args)
    alone, ranks = SimpleNamespace(world_size=1, rank_in_group=0), _module("srt.distributed.parallel_state")
    try:
        with mock.patch.multiple(ranks, _TP=alone, _ATTN_TP=alone):
            yield args
    finally:
        server_args.set_global_server_args_for_scheduler(before)
