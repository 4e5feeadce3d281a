"""FP8 weights without their content: which of vLLM's backends serves them on a card, and what it asks of them.

Where vLLM's answer depends on what is installed, a build takes what needs Triton most: DeepGEMM is there, as in vLLM's
own wheel, and FlashInfer is not. What FlashInfer does in place of another backend launches no Triton kernel.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.quantization import kv_cache
from vllm.model_executor.layers.quantization.utils import fp8_utils
from vllm.utils import deep_gemm, flashinfer
from vllm.v1.attention.ops.triton_reshape_and_cache_flash import is_quantized_kv_cache  # which moved, in 0.33

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vllm.config import VllmConfig

_Cached: Any = type(functools.cache(len))
_METHOD = "fp8"
_FOUND = [name for name in vars(deep_gemm) if name.endswith("_impl")]
"""Where vLLM keeps what it found in DeepGEMM."""
_LINEAR = ("Cutlass", "DeepGemm", "Triton")
_EXPERTS = ("TRITON",)
"""Backends that are enumerated: by the beginnings of their names, and by their names."""


class _DeepGemm:
    """DeepGEMM as vLLM's wheel has it: its kernels do nothing, and scales keep their layout."""

    @staticmethod
    def transform_sf_into_required_layout(sf: torch.Tensor, **_: object) -> torch.Tensor:
        return sf

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def beyond(config: VllmConfig) -> list[str]:
    """Return what of a model's quantization is not enumerated."""
    method, given = config.model_config.quantization, config.quant_config
    known = method == _METHOD
    found = {
        f"weights quantized by {method}": method is not None and not known,
        # vLLM decides by the content of their scales
        "FP8 checkpoints without blocks of scales": known
        and given.is_checkpoint_fp8_serialized
        and given.weight_block_size is None,
        "a quantized KV cache": is_quantized_kv_cache(config.cache_config.cache_dtype),
    }
    return [what for what, there in found.items() if there]


def unknown(model: Any) -> list[str]:
    """Return the backends of a model whose kernels are not enumerated."""
    return [
        *(f"FP8 weights by {name}" for name in _linear(model) if not name.startswith(_LINEAR)),
        *(f"FP8 experts by {name}" for name in _experts(model) if name not in _EXPERTS),
    ]


def resolved(model: Any) -> dict[str, str]:
    """Return by which backends vLLM multiplies, if weights are quantized."""
    found = {"fp8_linear": _linear(model), "fp8_experts": _experts(model)}
    return {name: ", ".join(names) for name, names in found.items() if names}


def projections(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the layers of a model that multiply by quantized weights, by their paths."""
    for path, module in model.named_modules():
        if isinstance(module, LinearBase) and hasattr(module.quant_method, "fp8_linear"):
            yield path, module


def kinds(module: Any) -> tuple[str, ...]:
    """Return how each part of a module multiplies, which its text does not say."""
    methods = (getattr(part, "quant_method", None) for part in module.modules())
    return tuple(
        f"{type(method).__name__} {type(getattr(method, 'fp8_linear', None)).__name__}" for method in methods if method
    )


def _linear(model: Any) -> list[str]:
    return sorted({type(module.quant_method.fp8_linear).__name__ for _, module in projections(model)})


def _experts(model: Any) -> list[str]:
    methods: Iterator[Any] = (getattr(module, "quant_method", None) for module in model.modules())
    own = [getattr(method, "old_quant_method", method) for method in methods]  # LoRA puts another in its place
    return sorted({method.fp8_backend.value for method in own if hasattr(method, "fp8_backend")})


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """Have vLLM choose anew for the card that it finds, among the backends that are taken to be there."""
    usual = importlib.util.find_spec
    scale = kv_cache.KVCacheScaleParameter

    def find(name: str, package: str | None = None) -> Any:
        return None if name.partition(".")[0] == "flashinfer" else usual(name, package)

    def absent() -> Any:
        with torch.device("cpu"):
            return scale()  # with content, which says that no checkpoint gave it

    with contextlib.ExitStack() as stack:
        stack.callback(_forget)
        for place, name, value in (
            (importlib.util, "find_spec", find),
            (kv_cache, "KVCacheScaleParameter", absent),
            (deep_gemm, "has_deep_gemm", lambda: True),
            (deep_gemm, "_import_deep_gemm", _DeepGemm),
            *((deep_gemm, name, None) for name in _FOUND),
        ):
            stack.enter_context(mock.patch.object(place, name, value))
        _forget()
        yield


def _forget() -> None:
    """Forget what vLLM found out about another card, or about packages."""
    for module in (deep_gemm, flashinfer, fp8_utils):
        for found in vars(module).values():
            if isinstance(found, _Cached):
                found.cache_clear()
    deep_gemm.DeepGemmQuantScaleFMT._oracle_cache = None  # noqa: SLF001
