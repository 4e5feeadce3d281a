"""How vLLM lays the states of a Gated Delta Net layer out in its cache, computed by vLLM's own code.

A layer's states live in the pages of the cache that attention layers use too, so both kinds of page must have one
size. vLLM takes so many tokens for a page of attention that the states fit, rounds to what the attention kernels take,
and pads the states' page to the result. The size of the page is the stride from one state to the next, which is a
constant of the kernels that read states.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from vllm.model_executor.layers.mamba import abstract
from vllm.model_executor.layers.mamba.mamba_utils import MambaStateDtypeCalculator, MambaStateShapeCalculator
from vllm.v1.kv_cache_interface import MambaSpec

from gdn_aot.catalogue.models import KDA
from gdn_aot.providers.layer_names import ALICE, GLM
from gdn_aot.providers.vllm import packed as vllm_packed
from gdn_aot.providers.vllm import versions as vllm_versions
from gdn_aot.providers.vllm.steps import Deployment

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

STATE_DTYPES = ("auto", "float32")
"""Values of ``--mamba-ssm-cache-dtype`` that are covered; ``auto`` is the model's dtype."""
KDA_STATE_DTYPES = ("float32", "bfloat16")
"""The same of layers of Kimi Delta Attention that have the dtype that is asked for; ``auto`` is the first."""

DRAFTS = (0, 1, 2, 3)
"""Speculative tokens of a step that are covered."""

KERNEL_BLOCK = 16
"""Tokens that blocks of the attention kernels are a multiple of: vLLM's default block size, and the smallest that the
attention backends which it takes by itself have (``get_supported_kernel_block_sizes``). Others, as FlashAttention 4 on
Blackwell with heads of 256 dimensions, have larger ones, and other pages."""

MLA_BLOCKS = (16, 32, 64, 128)
"""The same of the backends for multi-head latent attention: FlashAttention and Triton, FlashInfer, FlashMLA, CUTLASS.
vLLM takes one by the card, or by ``--attention-backend``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made(Deployment):
    """A deployment whose cache an engine has made: nothing of it is computed here."""

    made: MambaSpec

    @property
    def states(self) -> tuple[tuple[tuple[int, ...], torch.dtype], tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of the convolution's window, and of the recurrent state."""
        window, state = zip(map(tuple, self.made.shapes), self.made.dtypes, strict=True)
        return window, state


@cache
def deployments(shape: ModelShape) -> tuple[Deployment, ...]:
    """Return those that are covered: every number of drafts with every dtype of the state, the checkpoint's own first.

    Each comes with the pages of prefix caching too where these are others, and with the fused decode of drafts where
    this version has it. The state of most layers of Kimi Delta Attention is float32 whatever is asked for: their
    deployments differ in drafts, if they take any, and in the pages that the backends of the attention ask for.
    """
    if shape.family == KDA:
        by_page: dict[tuple[str, int, int], Deployment] = {}
        drafted = DRAFTS if vllm_versions.takes_drafts(shape.layer) else (0,)
        stored = KDA_STATE_DTYPES if vllm_versions.asks_state_dtype(shape.layer) else KDA_STATE_DTYPES[:1]
        for state, drafts, block in itertools.product(stored, drafted, MLA_BLOCKS if _is_latent(shape) else (1,)):
            one = Deployment(state=state, drafts=drafts, aligned=block)
            by_page.setdefault((state, drafts, page_size(shape, one)), one)
        return tuple(by_page.values())
    states = sorted(STATE_DTYPES, key=lambda state: state != shape.state_dtype)
    found = [Deployment(state=state, drafts=drafts) for state in states for drafts in DRAFTS]
    alignment = vllm_versions.checkpoint_alignment(shape)
    if alignment > 1 and shape.kv_heads:
        cached = [replace(one, aligned=alignment) for one in found]
        found += [one for one in cached if page_size(shape, one) != page_size(shape, replace(one, aligned=1))]
    dtype = DTYPES[shape.dtype]
    found += [
        replace(one, fused=True)
        for one in found
        if vllm_versions.fuses_decode(shape, dtype, state_dtypes(shape, one), drafts=one.drafts > 0)
    ]
    return tuple(found)


def _is_latent(shape: ModelShape) -> bool:
    """Say whether a model's other layers have multi-head latent attention."""
    return shape.family == KDA and shape.layer != ALICE


class UnknownPageError(ValueError):
    """The catalogue does not say what decides a model's page."""


def state_dtypes(shape: ModelShape, deployment: Deployment) -> tuple[torch.dtype, torch.dtype]:
    """Return the dtypes of the convolution's window and of the recurrent state."""
    if isinstance(deployment, Made):
        (_, conv), (_, state) = deployment.states
        return conv, state
    if shape.family == KDA:
        asked = (deployment.state,) if vllm_versions.asks_state_dtype(shape.layer) else ()
        conv, state = MambaStateDtypeCalculator.kda_state_dtype(DTYPES[shape.dtype], "auto", *asked)
        return conv, state
    conv, state = MambaStateDtypeCalculator.gated_delta_net_state_dtype(DTYPES[shape.dtype], "auto", deployment.state)
    return conv, state


def state_shapes(shape: ModelShape, deployment: Deployment) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of the convolution's window and of the recurrent state of one sequence, on one rank."""
    if isinstance(deployment, Made):
        (window, _), (recurrent, _) = deployment.states
        return window, recurrent
    if shape.family == KDA:
        drafted = {"num_spec": deployment.drafts} if deployment.drafts else {}
        conv, state = MambaStateShapeCalculator.kda_state_shape(
            1, shape.heads, shape.k_dim, conv_kernel_size=shape.conv_width, **drafted
        )
        return tuple(conv), tuple(state)
    conv, state = MambaStateShapeCalculator.gated_delta_net_state_shape(
        1,  # the shape is divided already
        shape.heads,
        shape.v_heads,
        shape.k_dim,
        shape.v_dim,
        shape.conv_width,
        deployment.drafts,
    )
    return tuple(conv), tuple(state)


@cache
def spec(shape: ModelShape, deployment: Deployment) -> Any:
    """Return vLLM's ``MambaSpec`` of a layer, padded to its page.

    Raises:
        UnknownPageError: The catalogue does not say what the attention layers are.
    """
    return MambaSpec(
        shapes=state_shapes(shape, deployment),
        dtypes=state_dtypes(shape, deployment),
        block_size=1 << 20,
        page_size_padded=page_size(shape, deployment),
        num_speculative_blocks=deployment.drafts,
    )


@cache
def page_size(shape: ModelShape, deployment: Deployment) -> int:
    """Return the bytes from one state to the next.

    Raises:
        UnknownPageError: The catalogue does not say what the attention layers are.
    """
    if isinstance(deployment, Made):
        return int(deployment.made.page_size_bytes)
    if not shape.kv_heads:
        raise UnknownPageError(f"the catalogue has no attention layers of {shape.name}, on which its cache depends")
    config = _config(shape, deployment)
    _align(config, shape, deployment)
    # None where both pages have one size as they are.
    padded = MambaSpec(
        shapes=state_shapes(shape, deployment),
        dtypes=state_dtypes(shape, deployment),
        block_size=-1,
        page_size_padded=config.cache_config.mamba_page_size_padded,
    )
    if shape.layer == GLM:
        return vllm_packed.stride(padded, config.cache_config.block_size, deployment.drafts)
    return int(padded.page_size_bytes)


def _config(shape: ModelShape, deployment: Deployment) -> Any:
    """Return as much of a ``VllmConfig`` as vLLM's alignment of pages reads."""
    return SimpleNamespace(
        cache_config=SimpleNamespace(
            cache_dtype="auto",
            block_size=vllm_packed.kernel_block() if shape.layer == GLM else KERNEL_BLOCK,
            user_specified_block_size=False,
            mamba_block_size=None,
            user_specified_mamba_block_size=False,
            mamba_cache_mode="align" if deployment.aligned > 1 else "none",
            mamba_cache_dtype="auto",
            mamba_ssm_cache_dtype=deployment.state,
            mamba_page_size_padded=None,
            enable_prefix_caching=deployment.aligned > 1,
            kv_cache_dtype_skip_layers=[],
            calculate_kv_scales=False,
        ),
        attention_config=SimpleNamespace(backend=None),
        model_config=SimpleNamespace(
            dtype=DTYPES[shape.dtype],
            use_mla=_is_latent(shape),
            architecture="Layer",
            is_hybrid=True,
            get_num_kv_heads=lambda _parallel: max(1, shape.kv_heads // shape.tp),
            get_head_size=lambda: shape.head_dim,
        ),
        parallel_config=SimpleNamespace(tensor_parallel_size=shape.tp, decode_context_parallel_size=1),
        speculative_config=SimpleNamespace(num_speculative_tokens=deployment.drafts) if deployment.drafts else None,
    )


def _align(config: Any, shape: ModelShape, deployment: Deployment) -> None:
    from vllm.model_executor.models import ModelRegistry
    from vllm.platforms.interface import Platform

    block = deployment.aligned if _is_latent(shape) else KERNEL_BLOCK

    class Layer:
        """Answers for a model class with this shape."""

        get_mamba_state_shape_from_config = staticmethod(lambda _config: state_shapes(shape, deployment))
        get_mamba_state_dtype_from_config = staticmethod(lambda _config: state_dtypes(shape, deployment))

    from vllm.v1.attention.backend import MultipleOf

    class Backend:
        """Answers for an attention backend."""

        get_supported_kernel_block_sizes = staticmethod(lambda *_: [MultipleOf(block)])
        customize_spec = staticmethod(lambda spec: spec)

    found = mock.patch.object(ModelRegistry, "resolve_model_cls", return_value=(Layer, ""))
    if hasattr(Platform, "_align_hybrid_block_size"):
        current = mock.patch("vllm.config.vllm.set_current_vllm_config", contextlib.nullcontext)
        with found, current, contextlib.ExitStack() as stack:
            if hasattr(Platform, "_find_non_ssm_backends"):  # from 0.31 on
                stack.enter_context(mock.patch.object(Platform, "_find_non_ssm_backends", return_value=[Backend]))
            asked = "get_mamba_prefill_checkpoint_alignment"
            if hasattr(abstract, asked):  # from 0.33 on
                stack.enter_context(mock.patch.object(abstract, asked, return_value=deployment.aligned))
            Platform._align_hybrid_block_size(config, Backend)  # noqa: SLF001
        return
    from vllm.model_executor.models import config as rules  # up to 0.19

    with found, mock.patch.object(rules.MambaModelConfig, "verify_and_update_config"):
        rules.HybridAttentionMambaModelConfig.verify_and_update_config(config)
