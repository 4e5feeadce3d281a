"""Where each supported version of vLLM has the parts of its Gated Delta Net layers.

Importing this module imports vLLM: call `gdn_aot.providers.vllm.platform.prepare` before.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.attention.backends.gdn_attn import GDNAttentionMetadataBuilder

from gdn_aot.providers.absent import without_images
from gdn_aot.providers.layer_names import ALICE, BAILING, GLM, INTERLEAVED, K3, KIMI, OLMO, QWEN
from gdn_aot.providers.vllm.engine import SINCE

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape

_KDA = {
    KIMI: ("model_executor.layers.mamba.gdn.kimi_gdn_linear_attn", "KimiGatedDeltaNetAttention"),
    K3: ("models.kimi_k3.nvidia.kda", "KimiK3DeltaAttention"),
    ALICE: ("model_executor.models.alice_ai", "KimiGatedDeltaNetAttention"),
    BAILING: ("model_executor.models.bailing_moe_v3", "BailingMoeV3KimiDeltaAttention"),
    GLM: ("models.glm5next.common.kda", "Glm5NextLinearAttention"),
}
"""Modules of vLLM and classes of layers of Kimi Delta Attention that `kda` runs, by `ModelShape.layer`."""


def _module(name: str) -> Any:
    """Return a module of vLLM, or None where this version has none."""
    try:
        return importlib.import_module(f"vllm.{name}")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("vllm"):
            return None
        raise


def _classes() -> tuple[dict[str, Any], Any]:
    """Return the layer class of each `ModelShape.layer`, and the operator of chunks."""
    current = _module("model_executor.layers.mamba.gdn.qwen_gdn_linear_attn")  # from 0.22 on
    if current is not None:
        qwen = current.QwenGatedDeltaNetAttention
        olmo = _module("model_executor.layers.mamba.gdn.olmo_gdn_linear_attn").OlmoHybridGatedDeltaNetAttention
        return {INTERLEAVED: qwen, QWEN: qwen, OLMO: olmo}, current.ChunkGatedDeltaRule
    shared = _module("model_executor.layers.mamba.gdn_linear_attn")  # 0.19 to 0.21
    if shared is not None:
        qwen = shared.GatedDeltaNetAttention
        return {INTERLEAVED: qwen, QWEN: qwen, **_olmo()}, shared.ChunkGatedDeltaRule
    with without_images():  # which models import up to here
        first = _module("model_executor.models.qwen3_next")
        qwen = _module("model_executor.models.qwen3_5").Qwen3_5GatedDeltaNet
        return {INTERLEAVED: first.Qwen3NextGatedDeltaNet, QWEN: qwen, **_olmo()}, first.ChunkGatedDeltaRule


def _olmo() -> dict[str, Any]:
    hybrid = _module("model_executor.models.olmo_hybrid")  # 0.18 to 0.21
    return {OLMO: hybrid.OlmoHybridGatedDeltaNet} if hybrid else {}


_LAYERS, CHUNKS = _classes()


@cache
def layer_class(layer: str) -> Any:
    """Return the class of a layer, as `ModelShape.layer` names it, or None where this version has none that is known.

    Modules of models are imported when they are asked for.
    """
    if layer not in _KDA:
        return _LAYERS.get(layer)
    module, name = _KDA[layer]
    states = _module("model_executor.layers.mamba.mamba_utils").MambaStateShapeCalculator.kda_state_shape(1, 1, 16)
    one_window = len(states) == len(("window", "state"))  # up to 0.22 each convolution has a window of its own
    if not one_window:
        return None
    with without_images():
        return getattr(_module(module), name, None)


def lacks(layer: str) -> str:
    """Return why a layer, as `ModelShape.layer` names it, cannot be run, or nothing."""
    if layer_class(layer) is not None:
        return ""
    if layer in _KDA:
        return f"vLLM has a layer for it that is known here from {SINCE[layer]} on"
    return "this version of vLLM has no layer for it"


def takes_drafts(layer: str) -> bool:
    """Say whether a layer has a path for steps in which tokens are drafted."""
    return layer not in _KDA or "num_accepted_tokens" in inspect.getsource(layer_class(layer))


def metadata_builder(layer: str) -> Any:
    """Return the class that makes the metadata of a layer's steps; Kimi-K3 has one of its own."""
    kind = layer_class(layer)
    if "get_attn_backend" in vars(kind):
        return kind.get_attn_backend(kind).get_builder_cls()
    return GDNAttentionMetadataBuilder


@cache
def asks_state_dtype(layer: str) -> bool:
    """Say whether a layer of Kimi Delta Attention has its state in the dtype that is asked for."""
    return "mamba_ssm_cache_dtype" in inspect.getsource(layer_class(layer).get_state_dtype)


def forward(layer: Any, name: str, hidden: torch.Tensor, output: torch.Tensor) -> None:
    """Run a layer from the projections of its input to that of its output, into ``output``."""
    run = layer._full_forward if name == OLMO else getattr(layer, "forward_cuda", layer.forward)  # noqa: SLF001
    known = {"positions": torch.empty(0), "output": output}  # no layer reads positions
    made = run(hidden, **{name: known[name] for name in inspect.signature(run).parameters if name in known})
    if made is not None:
        output.copy_(made)


def a_log_dtype(name: str, model: torch.dtype) -> torch.dtype:
    """Return the dtype of a layer's ``A_log``: float32 where its constructor says so, else the model's."""
    text = inspect.getsource(layer_class(name).__init__)
    said = text[text.index("self.A_log = ") :].partition("set_weight_attrs")[0]
    return torch.float32 if "torch.float32" in said else model


def checkpoint_alignment(shape: ModelShape) -> int:
    """Return what the checkpoints of prefix caching ask blocks to be a multiple of, in tokens, or 1.

    From 0.33 on, FlashInfer's prefill asks for it where vLLM takes that by itself; prefix caching is on there unless it
    is switched off.
    """
    layer = layer_class(shape.layer)
    if not hasattr(layer, "_exports_checkpoints"):
        return 1
    module: Any = inspect.getmodule(layer)
    heads = SimpleNamespace(linear_key_head_dim=shape.k_dim, linear_value_head_dim=shape.v_dim)
    config = SimpleNamespace(additional_config={}, model_config=SimpleNamespace(hf_text_config=heads))
    _, backend = module._resolve_gdn_prefill_backend(config)  # noqa: SLF001
    return int(module.FLASHINFER_GDN_CHECKPOINT_ALIGNMENT) if backend == "flashinfer" else 1


def fuses_decode(
    shape: ModelShape, model: torch.dtype, states: tuple[torch.dtype, torch.dtype], *, drafts: bool
) -> bool:
    """Say whether a layer has a CUDA operator for steps of drafts, which it then takes unless it is told not to.

    What makes the norm, too, is then the operator that runs the layer's core: up to 0.31 also in deployments without
    drafts. ``states`` are the dtypes of the convolution's window and of the recurrent state.
    """
    kind = layer_class(shape.layer)
    why_not = getattr(kind, "_fused_gdn_decode_unsupported_reason", None)  # from 0.28 on
    if why_not is None or (not drafts and "enable_fused_gdn_decode" not in inspect.getsource(kind.__init__)):
        return False
    layer = SimpleNamespace(
        get_state_dtype=lambda: states,
        gqa_interleaved_layout=shape.layer == INTERLEAVED,
        head_k_dim=shape.k_dim,
        head_v_dim=shape.v_dim,
        norm=SimpleNamespace(activation=shape.norm_activation),
    )
    return why_not(layer, SimpleNamespace(model_config=SimpleNamespace(dtype=model))) is None
