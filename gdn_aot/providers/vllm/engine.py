"""What serving engines launch on a card by their own choice: which of their GDN kernels they do not always use.

Read in vLLM's sources (``_resolve_gdn_prefill_backend``, ``ChunkGatedDeltaRule``,
``_fused_gdn_decode_unsupported_reason``) of every minor release from 0.17 to 0.33; nothing of an engine is imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot.providers.layer_names import ALICE, BAILING, GLM, INTERLEAVED, K3, KIMI, OLMO, QWEN

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import Model

SINCE = {
    INTERLEAVED: "0.17",
    QWEN: "0.17",
    OLMO: "0.18",
    KIMI: "0.23",
    K3: "0.27",
    BAILING: "0.28",
    GLM: "0.30",
    ALICE: "0.33",
}
"""`Model.layer` -> the first release that has such a layer as it is run here."""
CARD = (9, 0)
"""The capability of cards on which the pages of GLM-5.3-Flash's states are known here."""
_VLLM_PREFILL = ("chunk_delta_h", "chunk_o", "chunk_scaled_dot_kkt", "cumsum", "solve_tril", "wy_fast")
"""Last parts of the modules whose kernels make vLLM's chunked prefill. What comes before and after them (convolution,
preparation, gated norm) and decode are Triton's whatever the prefill is."""
_FIRST_WITH_OPTION = (0, 18)
"""Of ``--gdn-prefill-backend``."""
_FIRST_WITH_FUSED_DECODE = (0, 28)
_WITH_FLASHKDA = (9, 10, 12)
_VLLM_UPDATE = re.compile(r"vllm\..+\.ops\.fused_sigmoid_gating:")
_VLLM = re.compile(rf"vllm\.(?:.+\.)?(?:fla|flash_linear_attention)\.ops\.(?:{'|'.join(_VLLM_PREFILL)}):")


_FLASHKDA = re.compile(r"vllm\.models\.(?:glm5next|kimi_k3)\.nvidia\.ops\.third_party\.kda\.(?:kernels|chunk\w*):")
"""Kernels of prompts that Kimi-K3 and GLM-5.3-Flash launch themselves."""
_VLLM_LAYER = re.compile(
    r"vllm\.(?:.+\.)?(?:(?:fla|flash_linear_attention)\.ops\.|causal_conv1d$|gdn(?:_linear_attn)?(?:\.|$)"
    r"|third_party\.kda\.|kda_metadata$|(?:gather_initial|scatter)_states$)"
)


def is_of_layer(module: str) -> bool:
    """Say whether a module of vLLM has kernels of its Gated Delta Net layers; Mamba's have the convolution, too."""
    return _VLLM_LAYER.match(module) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """Kernels that an engine launches only under a condition."""

    kernels: tuple[str, ...]
    """``module:qualname``."""
    reason: str
    """What the engine does instead, and when it does launch them."""


def conditions(
    distribution: str, version: str, capability: tuple[int, int], kernels: tuple[str, ...]
) -> tuple[Condition, ...]:
    """Return which kernels of an artifact, as ``module:qualname``, an engine does not always launch on a card."""
    if distribution != "vllm":
        return ()
    number, found = _number(version), []
    prefill, other = tuple(filter(_VLLM.match, kernels)), _vllm_prefill(number, capability)
    if prefill and other is not None:
        how = "with --gdn-prefill-backend triton, and for OLMo-Hybrid, it launches these"
        if number < _FIRST_WITH_OPTION:
            how = "this version has no option for these instead"
        reason = f"vLLM takes FlashInfer for prefill on this card{other}; {how}"
        found.append(Condition(kernels=prefill, reason=reason))
    bounded = tuple(filter(_FLASHKDA.match, kernels))
    if bounded and capability[0] in _WITH_FLASHKDA:
        how = """--additional-config '{"kda_prefill_backend": "triton"}'"""
        reason = (
            "vLLM takes FlashKDA for prompts of Kimi-K3 and GLM-5.3-Flash in bf16 on this card; with "
            f"{how}, and for Kimi-Linear and AliceAI, it launches these"
        )
        found.append(Condition(kernels=bounded, reason=reason))
    update = tuple(filter(_VLLM_UPDATE.match, kernels))
    if update and number >= _FIRST_WITH_FUSED_DECODE and capability >= (8, 0):
        reason = (
            "vLLM takes a CUDA operator of its own for steps in which every request has drafts, for bf16 models with "
            "heads of 128 dimensions that are not interleaved as Qwen3-Next's are (0.28: with eight value heads to a "
            "key head); with VLLM_GDN_DECODE_KERNEL=triton, and for other steps and models, it launches these"
        )
        found.append(Condition(kernels=update, reason=reason))
    return tuple(found)


def builds(model: Model, version: str, capability: tuple[int, int]) -> bool:
    """Say whether a build for a release takes a model of the catalogue; as `workloads.lacks`, which imports vLLM."""
    since = SINCE.get(model.layer)
    if since is None or not model.kv_heads or (model.layer == GLM and capability != CARD):
        return False
    return _number(version) >= _number(since)


def _vllm_prefill(version: tuple[int, int], capability: tuple[int, int]) -> str | None:
    """Return under which further condition vLLM takes FlashInfer for prefill, or None where it takes Triton."""
    bounded = " if key heads have 128 dimensions and CUDA is 13 or later"
    match capability:
        case (9, 0):
            return ""
        case (10, _) if version >= (0, 22):
            return bounded
        case (12, _) if version >= (0, 30):
            return bounded
        case _:
            return None


def _number(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
