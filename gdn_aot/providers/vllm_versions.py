"""Where each supported version of vLLM has the parts of its Gated Delta Net layers.

Importing this module imports vLLM: call `gdn_aot.providers.vllm_platform.prepare` before.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch

OLMO = "olmo-hybrid"
INTERLEAVED = "qwen3-next"
QWEN = "qwen3.5"


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"vllm.model_executor.{name}")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("vllm"):
            return None
        raise


def _classes() -> tuple[dict[str, Any], Any]:
    """Return the layer class of each `ModelShape.layer`, and the operator of chunks."""
    current = _module("layers.mamba.gdn.qwen_gdn_linear_attn")  # from 0.24 on
    if current is not None:
        qwen = current.QwenGatedDeltaNetAttention
        olmo = _module("layers.mamba.gdn.olmo_gdn_linear_attn").OlmoHybridGatedDeltaNetAttention
        return {INTERLEAVED: qwen, QWEN: qwen, OLMO: olmo}, current.ChunkGatedDeltaRule
    shared = _module("layers.mamba.gdn_linear_attn")  # 0.18 to 0.23
    if shared is not None:
        qwen = shared.GatedDeltaNetAttention
        found = {INTERLEAVED: qwen, QWEN: qwen, OLMO: _module("models.olmo_hybrid").OlmoHybridGatedDeltaNet}
        return found, shared.ChunkGatedDeltaRule
    first = _module("models.qwen3_next")
    found = {INTERLEAVED: first.Qwen3NextGatedDeltaNet, QWEN: _module("models.qwen3_5").Qwen3_5GatedDeltaNet}
    return found, first.ChunkGatedDeltaRule


LAYERS, CHUNKS = _classes()


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
