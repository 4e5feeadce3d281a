"""How far apart the states of GLM-5.3-Flash are in vLLM's cache: a block has pages of all layers side by side.

Its attention layers keep an index beside the latent, and the keys of the pool that is not full yet. Pages of so many
sizes share a block, so a state's stride is a whole block, and follows from how many layers of each kind there are.
vLLM's own code makes the specifications of the layers, groups them and says how large a block is.

Importing this module imports vLLM: call `gdn_aot.providers.vllm.platform.prepare` before.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from gdn_aot.providers.absent import without_images
from gdn_aot.providers.vllm.engine import CARD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm.v1.kv_cache_interface import MambaSpec

MTP_LAYERS = 1
"""Layers of the model that drafts, as far as no ``config.json`` was seen."""


def lacks() -> str:
    """Return why a state's stride is not known on this card, or nothing."""
    if torch.cuda.get_device_capability() == CARD:
        return ""
    return (
        "its states lie between pages of its attention layers, which are known here on sm_90 alone: on sm_10x and "
        "sm_12x vLLM keeps these in FP8, and it has no sparse attention for older cards"
    )


def kernel_block() -> int:
    """Return the tokens that every block of the cache is a multiple of, for the kernels of the index."""
    deep_gemm = importlib.import_module("vllm.utils.deep_gemm")
    return int(_model().index_kpool) * min(map(int, deep_gemm.get_paged_mqa_page_sizes()))


def stride(state: MambaSpec, tokens: int, drafts: int) -> int:
    """Return the bytes from one state to the next.

    Args:
        state: What vLLM makes of a layer's states, padded to the page of the latent.
        tokens: Of a block.
        drafts: Tokens that are drafted in a step, by the model's own layer for that.
    """
    planning = importlib.import_module("vllm.v1.core.kv_cache_planning")
    layout = importlib.import_module("vllm.v1.kv_cache_layout").KVCacheLayout.BLHNC
    cache = SimpleNamespace(block_size=tokens, get_resolved_kv_cache_layout=lambda: layout)
    config = SimpleNamespace(cache_config=cache, num_speculative_tokens=drafts)
    attention = list(_attention(config))
    layers: dict[str, Any] = {}
    for number, kind in enumerate([*_model().layer_types, *["draft"] * (MTP_LAYERS if drafts else 0)]):
        own = [state] if kind == "linear_attention" else attention
        layers.update({f"{number}.{part}": spec for part, spec in enumerate(own)})
    groups = planning._get_packed_kv_cache_groups(config, layers)  # noqa: SLF001
    return int(planning._get_kv_cache_bytes_per_block(groups, layout))  # noqa: SLF001


def _attention(config: Any) -> Iterator[Any]:
    """Yield the specifications of one attention layer: its latent, its index and the tail of that."""
    customized = importlib.import_module("vllm.v1.worker.utils").customize_attention_spec
    latents = importlib.import_module("vllm.v1.attention.backends.mla.flashmla_sparse").FlashMLASparseBackend
    interface = importlib.import_module("vllm.v1.kv_cache_interface")
    block, model = config.cache_config.block_size, _model()
    latent = {"num_kv_heads": 1, "max_tp_shards": 1, "head_size": model.kv_lora_rank, "dtype": torch.bfloat16}
    yield customized(latents, interface.MLAAttentionSpec(block_size=block, cache_dtype_str="auto", **latent))
    size: int = model.index_head_dim
    scaled = size + size // _SCALED * torch.float32.itemsize
    for name, width, dtype in (
        ("Glm5NextIndexerCache", scaled, torch.uint8),
        ("Glm5NextTailCache", size, torch.bfloat16),
    ):
        kind = getattr(_module(), name)
        layer = kind.__new__(kind)
        torch.nn.Module.__init__(layer)
        layer.head_dim, layer.dtype, layer.cache_config = width, dtype, config.cache_config
        layer._index_kpool = model.index_kpool  # noqa: SLF001
        yield customized(layer.get_attn_backend(), layer.get_kv_cache_spec(config))


_SCALED = 128
"""Numbers of an index's key that have a scale of their own."""


def _module() -> Any:
    with without_images():
        return importlib.import_module("vllm.models.glm5next.common.attention")


def _model() -> Any:
    """Return the model's configuration; the defaults of its class are the checkpoint's."""
    return _module().Glm5NextTextConfig()
