"""Where each supported version of vLLM has the parts of its Gated Delta Net layers.

Importing this module imports vLLM: call `gdn_aot.providers.vllm.platform.prepare` before.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from gdn_aot.providers.absent import without_images
from gdn_aot.providers.engine_layer import INTERLEAVED, KIMI
from gdn_aot.providers.vllm.reference import OLMO

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape

QWEN = "qwen3.5"
KIMI_RELEASES = ("0.24.0",)
"""Those whose layer of Kimi Delta Attention `kda` runs; from 0.27 on it calls other kernels."""
_LATER = {"kimi-k3": "0.27", "bailing-v3": "0.28", "glm5-next": "0.30", "alice-ai": "0.33"}
"""`ModelShape.layer` of other layers of Kimi Delta Attention, and the first releases that have them."""


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"vllm.model_executor.{name}")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("vllm"):
            return None
        raise


def _classes() -> tuple[dict[str, Any], Any]:
    """Return the layer class of each `ModelShape.layer`, and the operator of chunks."""
    current = _module("layers.mamba.gdn.qwen_gdn_linear_attn")  # from 0.22 on
    if current is not None:
        qwen = current.QwenGatedDeltaNetAttention
        olmo = _module("layers.mamba.gdn.olmo_gdn_linear_attn").OlmoHybridGatedDeltaNetAttention
        return {INTERLEAVED: qwen, QWEN: qwen, OLMO: olmo, **_kimi()}, current.ChunkGatedDeltaRule
    shared = _module("layers.mamba.gdn_linear_attn")  # 0.19 to 0.21
    if shared is not None:
        qwen = shared.GatedDeltaNetAttention
        return {INTERLEAVED: qwen, QWEN: qwen, **_olmo()}, shared.ChunkGatedDeltaRule
    with without_images():  # which models import up to here
        first = _module("models.qwen3_next")
        qwen = _module("models.qwen3_5").Qwen3_5GatedDeltaNet
        return {INTERLEAVED: first.Qwen3NextGatedDeltaNet, QWEN: qwen, **_olmo()}, first.ChunkGatedDeltaRule


def _olmo() -> dict[str, Any]:
    hybrid = _module("models.olmo_hybrid")  # 0.18 to 0.21
    return {OLMO: hybrid.OlmoHybridGatedDeltaNet} if hybrid else {}


def _kimi() -> dict[str, Any]:
    if importlib.metadata.version("vllm").partition("+")[0] not in KIMI_RELEASES:
        return {}
    return {KIMI: _module("layers.mamba.gdn.kimi_gdn_linear_attn").KimiGatedDeltaNetAttention}


LAYERS, CHUNKS = _classes()


def lacks(layer: str) -> str:
    """Return why a layer, as `ModelShape.layer` names it, cannot be run, or nothing."""
    if layer in LAYERS:
        return ""
    if layer in _LATER:
        return f"vLLM has a layer for it from {_LATER[layer]} on, and that is not covered"
    if layer == KIMI:
        return f"its layer is covered in vLLM {', '.join(KIMI_RELEASES)} alone"
    return "this version of vLLM has no layer for it"


def forward(layer: Any, name: str, hidden: torch.Tensor, output: torch.Tensor) -> None:
    """Run a layer from the projections of its input to that of its output, into ``output``."""
    run = layer._full_forward if name == OLMO else getattr(layer, "forward_cuda", layer.forward)  # noqa: SLF001
    if "output" in inspect.signature(run).parameters:
        run(hidden, output)
    else:
        output.copy_(run(hidden))


def a_log_dtype(name: str, model: torch.dtype) -> torch.dtype:
    """Return the dtype of a layer's ``A_log``: float32 where its constructor says so, else the model's."""
    text = inspect.getsource(LAYERS[name].__init__)
    said = text[text.index("self.A_log = ") :].partition("set_weight_attrs")[0]
    return torch.float32 if "torch.float32" in said else model


def checkpoint_alignment(shape: ModelShape) -> int:
    """Return what the checkpoints of prefix caching ask blocks to be a multiple of, in tokens, or 1.

    From 0.33 on, FlashInfer's prefill asks for it where vLLM takes that by itself; prefix caching is on there unless it
    is switched off.
    """
    layer = LAYERS.get(shape.layer)
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
    layer_class: Any = LAYERS.get(shape.layer)
    why_not = getattr(layer_class, "_fused_gdn_decode_unsupported_reason", None)  # from 0.28 on
    if why_not is None or (not drafts and "enable_fused_gdn_decode" not in inspect.getsource(layer_class.__init__)):
        return False
    layer = SimpleNamespace(
        get_state_dtype=lambda: states,
        gqa_interleaved_layout=shape.layer == INTERLEAVED,
        head_k_dim=shape.k_dim,
        head_v_dim=shape.v_dim,
        norm=SimpleNamespace(activation=shape.norm_activation),
    )
    return why_not(layer, SimpleNamespace(model_config=SimpleNamespace(dtype=model))) is None
