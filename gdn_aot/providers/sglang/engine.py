"""Which of SGLang's GDN kernels it does not always launch on a card: where it takes others by its own choice.

Kimi Delta Attention without a bounded gate, as Kimi-Linear has it, takes Triton's by its own choice everywhere, but
for decode of several requests, which is CUDA of its own; with a bounded one, as Ling-3.0 has it, FlashInfer's for
prompts on two kinds of cards.

Read in SGLang's sources (``_handle_linear_attn_backend``, ``flashinfer_gdn_prefill_default``,
``GDNKernelDispatcher``) of 0.5.11 to 0.5.23, ``flashinfer_kda_prefill_default`` of 0.5.23, ``kda_packed_decode.py`` of
0.5.17 to 0.5.23, in all of which it is the same; nothing of SGLang is imported.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gdn_aot.catalogue.kernel_names import family_of
from gdn_aot.catalogue.models import KDA
from gdn_aot.providers.layer_names import BAILING, GLM, INTERLEAVED, K3, KIMI, QWEN
from gdn_aot.providers.vllm.engine import Condition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.catalogue.models import Model

_LAYERS = (INTERLEAVED, QWEN)
"""`Model.layer` of layers with Gated Delta Net, which every release has."""
KDA_RELEASES = {KIMI: ("0.5.17", "0.5.23"), BAILING: ("0.5.23",), GLM: ("0.5.23",), K3: ("0.5.23",)}
"""`Model.layer` -> the releases whose layer of Kimi Delta Attention is run here."""
_PREFILL = "chunk_delta_h|chunk_fwd|chunk_intra|chunk_o|chunk_scaled_dot_kkt|cumsum|solve_tril|wy_fast"
"""Last parts of the modules whose kernels make the chunked prefill. What comes before and after them (convolution,
splitting, gates, L2 norm, gated norm) is Triton's whatever the prefill is."""
_UPDATE = "fused_sigmoid_gating_recurrent"
"""Of verification of drafts."""
_DECODE = "fused_recurrent"
_OF_BOTH = f"chunk_delta_h|{_UPDATE}"
"""Of layers with Gated Delta Net and of those with Kimi Delta Attention."""
_BOUNDED, _UNBOUNDED = "chunk_kda_fwd_kernel_intra_sub_chunk", "chunk_kda_fwd_kernel_intra_token_parallel"
"""Kernels of prompts that only a bounded gate takes, and that only another one does."""
_PACKED = re.compile(r"sglang\..+:fused_recurrent_kda_packed_decode_kernel$")
"""Of decode without a bounded gate."""
_TOKENS = re.compile(r"sglang\..+:(?:_causal_conv1d_update|fused_sigmoid_gating_delta_rule_update)_kernel$")
"""Of decode with a bounded gate, and of drafts."""
_FIRST_WITH_CUDA_DECODE = (0, 5, 17)
_WITH_FLASHINFER_KDA = ((10, 0), (10, 3))
"""Compute capabilities on which SGLang takes FlashInfer for prompts of layers with a bounded gate."""
_WITH_BF16 = 10
"""Major compute capability on which SGLang takes FlashInfer for states in bfloat16."""
_FIRST_WITH_PREFILL = {9: (0, 5, 19), _WITH_BF16: (0, 5, 16)}
"""Major compute capability -> the first release that takes FlashInfer for prefill there."""
_STATES = {9: "float32", _WITH_BF16: "bfloat16 (by the argument or the checkpoint), CUDA is 13 or later"}
"""Major compute capability -> which states, of the pool itself, FlashInfer's prefill is taken for, and with what."""
_WITHOUT_COPIES = (0, 5, 16)
"""The release that takes FlashInfer for prefill only where the radix cache keeps no copies of states."""
_FIRST_WITH_DRAFTS = (0, 5, 13)
"""Of releases that take FlashInfer for decode with states in bfloat16 if there are drafts, and then for these too."""
_FIRST_WITH_VERIFY_OPTION = (0, 5, 18)
"""Whose layers with Gated Delta Net heed ``--linear-attn-verify-backend``."""


def conditions(
    distribution: str, version: str, capability: tuple[int, int], kernels: tuple[str, ...]
) -> tuple[Condition, ...]:
    """Return which kernels of an artifact, as ``module:qualname``, SGLang does not always launch on a card."""
    if distribution != "sglang":
        return ()
    bounded, packed, tokens = _bounded(capability, kernels), _packed(version, kernels), _tokens(capability, kernels)
    delta = {name for name in kernels if family_of(name.partition(":")[2]) == KDA}
    if delta:  # always launched then
        delta.update(_of(_OF_BOTH, kernels))
    kernels = tuple(name for name in kernels if name not in delta)
    return (*bounded, *_gdn(release(version), capability[0], kernels), *packed, *tokens)


def _gdn(number: tuple[int, ...], major: int, kernels: tuple[str, ...]) -> Iterator[Condition]:
    """Yield the conditions of kernels that no layer but those with Gated Delta Net launches."""
    first = _FIRST_WITH_PREFILL.get(major)
    steps = ["prefill"] if first is not None and number >= first else []
    if major == _WITH_BF16 and number >= _FIRST_WITH_DRAFTS:
        steps.append("decode")
    prefill, update, decode = (_of(modules, kernels) for modules in (_PREFILL, _UPDATE, _DECODE))
    if prefill and "prefill" in steps:
        copies = ", the radix cache keeps no copies of states" if number == _WITHOUT_COPIES else ""
        reason = (
            "SGLang takes FlashInfer for prefill on this card if heads have 128 dimensions, states are "
            f"{_STATES[major]}{copies} and --chunked-prefill-size is no larger than FlashInfer takes; with "
            "--linear-attn-prefill-backend triton, and else, it launches these"
        )
        yield Condition(kernels=prefill, reason=reason)
    if update and steps:
        option = "--linear-attn-verify-backend triton"
        if number < _FIRST_WITH_VERIFY_OPTION:
            option = " and ".join(f"--linear-attn-{step}-backend triton" for step in steps)
        reason = (
            f"Where SGLang takes FlashInfer for {' or '.join(steps)} it takes it for verification of drafts too; with "
            f"{option}, and else, it launches these"
        )
        yield Condition(kernels=update, reason=reason)
    if decode and major == _WITH_BF16:
        drafts = "" if number >= _FIRST_WITH_DRAFTS else " if there are no drafts"
        reason = (
            f"SGLang takes FlashInfer for decode on this card with --mamba-ssm-dtype bfloat16{drafts}; with "
            "--linear-attn-decode-backend triton, and without that argument, whatever states the checkpoint asks for, "
            "it launches these"
        )
        yield Condition(kernels=decode, reason=reason)


def builds(model: Model, version: str, capability: tuple[int, int]) -> bool:
    """Say whether a build for a release takes a model of the catalogue; as `workloads.lacks`, which imports SGLang."""
    del capability
    return model.layer in _LAYERS or version.partition("+")[0] in KDA_RELEASES.get(model.layer, ())


def _packed(version: str, kernels: tuple[str, ...]) -> list[Condition]:
    """Return the condition of the kernel that makes decode steps of few requests, if it is there."""
    packed = tuple(filter(_PACKED.match, kernels))
    if not packed or release(version) < _FIRST_WITH_CUDA_DECODE:
        return []
    reason = (
        "SGLang makes decode steps of 8 requests or more of Kimi Delta Attention by a CUDA kernel that it compiles "
        "itself with nvcc, if states are float32, its default, the model bfloat16, and heads have 128 dimensions; for "
        "fewer requests, with --mamba-ssm-dtype bfloat16, and else, it launches this"
    )
    return [Condition(kernels=packed, reason=reason)]


def _tokens(capability: tuple[int, int], kernels: tuple[str, ...]) -> list[Condition]:
    """Return the condition of the kernels that make decode steps with a bounded gate, if they are there."""
    tokens = tuple(filter(_TOKENS.match, kernels))
    if not tokens or not any(name.endswith(f":{_BOUNDED}") for name in kernels):
        return []
    cutedsl = capability[0] == _WITH_BF16
    drafts = ", and drafts on this card by CuTe DSL unless --linear-attn-verify-backend triton is given"
    reason = (
        "SGLang makes decode steps of Kimi-K3 at TP 8 by a CUDA kernel that it compiles itself with nvcc"
        f"{drafts if cutedsl else ''}, if states are float32, its default, and the model bfloat16; "
        f"{'' if cutedsl else 'for drafts, '}with --mamba-ssm-dtype bfloat16, at other TP and for other models, it "
        "launches these"
    )
    return [Condition(kernels=tokens, reason=reason)]


def _bounded(capability: tuple[int, int], kernels: tuple[str, ...]) -> list[Condition]:
    """Return the condition of prompts' kernels that no layer but one of a bounded gate launches, if there are any."""
    names = {name.partition(":")[2] for name in kernels}
    if capability not in _WITH_FLASHINFER_KDA or _BOUNDED not in names:
        return []
    shared = _UNBOUNDED in names  # a layer without a bound launches the others always
    of_prompts = tuple(name for name in kernels if name.endswith(f":{_BOUNDED}") or (not shared and _of_prompts(name)))
    reason = (
        "SGLang takes FlashInfer for prompts of Kimi Delta Attention with a bounded gate on this card, but for batches "
        "in which every prompt has one token; with --linear-attn-prefill-backend triton, and else, it launches these"
    )
    return [Condition(kernels=of_prompts, reason=reason)]


def _of_prompts(name: str) -> bool:
    return re.search(r"\.fla\.(?:kda|chunk_intra\w*):", name) is not None


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a release, without what follows them: ``0.5.15.post1`` is 0.5.15."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else (0,)


def _of(modules: str, kernels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(filter(re.compile(rf"sglang\.(?:.+\.)?(?:fla|linear)\.(?:{modules}):").match, kernels))
