"""LoRA adapters without their files: vLLM's own manager puts its layers in place, and every token has an adapter.

The weights of adapters are on the meta device, as those of the model; which adapter a token has is on the CPU. Launches
follow from the sizes that the deployment allows for, not from adapters that are loaded.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from vllm import envs
from vllm.lora.layers import BaseLayerWithLoRA, FusedMoEWithLoRA, LoRAMapping
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.ops.triton_ops import fused_moe_lora_op, utils
from vllm.platforms import current_platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm.config import VllmConfig

_HOST = torch.device("cpu")
_MATRIX = 2
"""Dimensions of the weight of a product; that of a convolution has more, and its layer is not called."""


class _Once(dict[Any, Any]):
    """What vLLM keeps by the addresses of weights, for the one call that asks: without content all have one address."""

    def get(self, key: Any, default: Any = None) -> Any:
        return self.pop(key, default)


def beyond(config: VllmConfig) -> list[str]:
    """Return what of a deployment's adapters is not enumerated."""
    given = config.lora_config
    if given is None:
        return []
    pages = config.cache_config
    found = {
        "LoRA with drafts": config.speculative_config is not None,
        "LoRA with prefix caching or a block size of its own": pages.enable_prefix_caching
        or pages.user_specified_block_size,
        "fully sharded LoRA": given.fully_sharded_loras,
        "LoRA kernels for each number of active adapters": given.specialize_active_lora,
        "LoRA on a second stream": envs.VLLM_LORA_ENABLE_DUAL_STREAM,
    }
    return [what for what, there in found.items() if there]


def unknown(model: Any) -> list[str]:
    """Return the layers of vLLM that have adapters and whose kernels are not enumerated."""
    known = BaseLinearLayerWithLoRA, FusedMoEWithLoRA
    layers = {
        type(part).__name__
        for part in model.modules()
        if isinstance(part, BaseLayerWithLoRA) and not isinstance(part, known)
    }
    return [f"LoRA of {name}" for name in sorted(layers)]


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """Have vLLM look at the weights of adapters, and at the card, anew at each call."""
    with contextlib.ExitStack() as stack:
        for place, name in (
            (utils, "_LORA_A_PTR_DICT"),
            (utils, "_LORA_B_PTR_DICT"),
            (fused_moe_lora_op, "_LORA_PTR_DICT"),
        ):
            stack.enter_context(mock.patch.object(place, name, _Once()))
        for found in (utils.load_lora_op_config, utils.get_lora_op_configs, utils.supports_pdl, utils.supports_tma):
            found.cache_clear()
            stack.callback(found.cache_clear)
        yield


def wrap(runner: Any, model: Any) -> Any:
    """Return the model as a runner has it that serves adapters, if it does."""
    return runner.load_lora_model(model, runner.vllm_config, _HOST) if runner.lora_config else model


def activate(runner: Any) -> None:
    """Let every token and every request have an adapter, until the runner says what its requests have."""
    if not runner.lora_config:
        return
    manager = runner.lora_manager._adapter_manager  # noqa: SLF001
    if all(one.token_mapping_meta.no_lora_flag_cpu for one in manager.punica_wrapper_mapping.values()):
        manager.lora_index_to_id[0] = 1
        tokens, requests = (1,) * runner.max_num_tokens, (1,) * runner.max_num_reqs
        manager._set_adapter_mapping(LoRAMapping(tokens, requests, is_prefill=True))  # noqa: SLF001


def wrapped(model: Any) -> Iterator[str]:
    """Yield the paths of products that an adapter may change."""
    for path, module in model.named_modules():
        if isinstance(module, BaseLinearLayerWithLoRA) and module.weight.ndim == _MATRIX:
            yield path


def resolved(runner: Any) -> dict[str, int]:
    """Return what vLLM made of the options of adapters; tiles of experts' adapters follow from the number of SMs."""
    given = runner.lora_config
    if not given:
        return {}
    sms = current_platform.num_compute_units(0)
    return {"max_loras": given.max_loras, "max_lora_rank": given.max_lora_rank, "sm_count": sms}
