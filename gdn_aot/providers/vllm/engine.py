"""What serving engines launch on a card by their own choice: which of their GDN kernels they use only if told to.

Read in vLLM's sources (``_resolve_gdn_prefill_backend``, ``ChunkGatedDeltaRule``,
``_fused_gdn_decode_unsupported_reason``) of 0.17.1, 0.19.1, 0.20.2, 0.24.0 and
0.33.0; nothing of an engine is imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_VLLM_PREFILL = ("chunk_delta_h", "chunk_o", "chunk_scaled_dot_kkt", "cumsum", "solve_tril", "wy_fast")
"""Last parts of the modules whose kernels make vLLM's chunked prefill. What comes before and after them (convolution,
preparation, gated norm) and decode are Triton's whatever the prefill is."""
_FIRST_WITH_OPTION = (0, 19)
"""``--gdn-prefill-backend``: 0.19.1 has it, 0.17.1 does not."""
_FIRST_WITH_FUSED_DECODE = (0, 33)
_VLLM_UPDATE = re.compile(r"vllm\..+\.ops\.fused_sigmoid_gating:")
_VLLM = re.compile(rf"vllm\.(?:.+\.)?(?:fla|flash_linear_attention)\.ops\.(?:{'|'.join(_VLLM_PREFILL)}):")


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
    """Return which kernels of an artifact, as ``module:qualname``, an engine launches on a card only if told to."""
    if distribution != "vllm":
        return ()
    number = _number(version)
    return (*_vllm_chunks(number, capability, kernels), *_vllm_update(number, capability, kernels))


def _vllm_chunks(
    version: tuple[int, int], capability: tuple[int, int], kernels: tuple[str, ...]
) -> tuple[Condition, ...]:
    prefill = tuple(name for name in kernels if _VLLM.match(name))
    other = _vllm_prefill(version, capability)
    if not prefill or other is None:
        return ()
    how = "with --gdn-prefill-backend triton, and for OLMo-Hybrid, it launches these"
    if version < _FIRST_WITH_OPTION:
        how = "this version has no option for these instead"
    reason = f"vLLM takes FlashInfer for prefill on this card{other}; {how}"
    return (Condition(kernels=prefill, reason=reason),)


def _vllm_update(
    version: tuple[int, int], capability: tuple[int, int], kernels: tuple[str, ...]
) -> tuple[Condition, ...]:
    update = tuple(name for name in kernels if _VLLM_UPDATE.match(name))
    if not update or version < _FIRST_WITH_FUSED_DECODE or capability < (8, 0):
        return ()
    reason = (
        "vLLM takes a CUDA operator of its own for steps in which every request has drafts, for bf16 models with heads "
        "of 128 dimensions that are not interleaved as Qwen3-Next's are; with VLLM_GDN_DECODE_KERNEL=triton, and for "
        "other steps and models, it launches these"
    )
    return (Condition(kernels=update, reason=reason),)


def _vllm_prefill(version: tuple[int, int], capability: tuple[int, int]) -> str | None:
    """Return under which further condition vLLM takes FlashInfer for prefill, or None where it takes Triton."""
    bounded = " if key heads have 128 dimensions and CUDA is 13 or later"
    match capability:
        case (9, 0):
            return ""
        case (10, _) if version >= (0, 24):
            return bounded
        case (12, _) if version >= (0, 33):
            return bounded
        case _:
            return None


def _number(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
