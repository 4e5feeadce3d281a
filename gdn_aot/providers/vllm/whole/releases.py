"""What differs between vLLM's two model runners, and between its releases, of an engine without a card.

Names are looked for where releases have them, so that a release is not asked for its number.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import inspect
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1 import request
from vllm.v1.core.sched.output import GrammarOutput
from vllm.v1.sample.ops import topk_topp_triton

from gdn_aot.providers.vllm.whole import CACHED, WHOLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm.config import VllmConfig

_SECOND = "vllm.v1.worker.gpu"
_FILTER = "apply_top_k_top_p"
_FILTERING = (
    "vllm.v1.sample.ops.topk_topp_sampler",
    "vllm.v1.sample.rejection_sampler",
    f"{_SECOND}.sample.sampler",
    f"{_SECOND}.sample.states",
)
"""Modules that call the sampler's filter by a name of their own."""
_TOKEN_IDS = 128
"""Token ids that a request may ask the logprobs of (``MAX_LOGPROB_TOKEN_IDS``)."""


def second_runner(config: VllmConfig, model: Any) -> Any:
    """Return vLLM's second model runner on the host, with a model that is there already."""
    module = importlib.import_module(f"{_SECOND}.model_runner")
    loader = SimpleNamespace(load_model=lambda **_: model)
    measured = SimpleNamespace(consumed_memory=0)
    with (
        mock.patch.object(module, "get_model_loader", return_value=loader),
        mock.patch.object(module, "DeviceMemoryProfiler", return_value=contextlib.nullcontext(measured)),
    ):
        runner = module.GPUModelRunner(config, torch.device("cpu"))
        runner.load_model()
    sample = runner.sample

    def counted(hidden: Any, batch: Any, *rest: Any) -> Any:
        """Sample, and say of parts of prompts what a kernel says on a card: no token came of them."""
        made = sample(hidden, batch, *rest)
        states, at = runner.req_states, batch.idx_mapping_np
        ends = states.num_computed_prefill_tokens[at] + batch.num_scheduled_tokens
        made[1][torch.from_numpy(ends < states.prefill_len.np[at])] = 0
        return made

    runner.sample = counted
    return runner


def beyond(config: VllmConfig) -> dict[str, bool]:
    """Return what is enumerated of some releases alone, or of none of them, and whether a deployment has it."""
    model = config.model_config
    cache, first = config.cache_config, not config.use_v2_model_runner
    release = importlib.metadata.version("vllm").partition("+")[0]
    whole = release in WHOLE
    return {
        "quantized weights in this release of vLLM": model.quantization is not None and not whole,
        "drafts in this release or runner of vLLM": config.speculative_config is not None and not (whole and first),
        "LoRA in this release or runner of vLLM": config.lora_config is not None and not (whole and first),
        "prefix caching in this release or runner of vLLM": cache.enable_prefix_caching
        and release not in (WHOLE if first else CACHED),
        "a block size in this release or runner of vLLM": cache.user_specified_block_size and not (whole and first),
        "logits processors of its own": bool(model.logits_processors),
        "watermarks": getattr(config, "watermark_config", None) is not None,
        "trace replay": getattr(model, "enable_trace_replay", False),
        "sampling masks": getattr(model, "return_sampling_mask", False),
    }


def warm_ups(config: VllmConfig) -> Any:
    """Return vLLM's registry of what it compiles before it serves, from 0.30 on, or None.

    Parts of a model register with it while they are made in its ``activate()``; a runner has one of its own.
    """
    name = "vllm.model_executor.warmup.jit_warmup"
    kind = getattr(importlib.import_module(name), "JitWarmupRegistry", None) if importlib.util.find_spec(name) else None
    return kind(config) if kind else None


def arguments(layer: Any, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what a layer of attention takes beside positions and its input: where its output goes, up to 0.26."""
    if "output" not in inspect.signature(layer.forward).parameters:
        return {}
    return {"output": torch.empty_like(hidden)}


def sampling(config: VllmConfig) -> list[dict[str, Any]]:
    """Return parameters of requests for which the second runner's sampler has kernels of its own, or keys of them."""
    if not config.use_v2_model_runner:
        return []
    most = config.model_config.max_logprobs
    most = config.model_config.get_vocab_size() if most < 0 else most
    grammar = {"structured_outputs": StructuredOutputsParams(json_object=True)}
    found: list[dict[str, Any]] = [
        _warm_up(),
        {"temperature": 0.0, **grammar},
        {"temperature": 0.7, "min_tokens": 1, "stop_token_ids": [1], **grammar},
        {"temperature": 0.7, "allowed_token_ids": [1, 2]},
    ]
    for temperature in (0.0, 0.7):
        found += ({"temperature": temperature, "logprobs": columns - 1} for columns in _widths(most + 1))
    if "logprob_token_ids" in SamplingParams.__struct_fields__:
        found += (
            {"temperature": temperature, "logprob_token_ids": [1] * count}
            for count in range(1, _TOKEN_IDS + 1)
            for temperature in (0.0, 0.7)
        )
    return found


def _warm_up() -> dict[str, Any]:
    """Return the parameters that vLLM's own warm-up of its sampler has."""
    own, usual = SamplingParams.for_sampler_warmup(), SamplingParams()
    values = {name: getattr(own, name) for name in own.__struct_fields__}
    return {name: value for name, value in values.items() if value != getattr(usual, name)}


def _widths(most: int) -> list[int]:
    """Return one number of columns of each kind: the next power of two, and whether it is a multiple of 16."""
    found = {1}
    half = 1
    while half < most:
        found |= {half + 1, half // 16 * 16 + 16}
        half *= 2
    return sorted(width for width in found if width <= most)


@contextlib.contextmanager
def stepping(core: Any) -> Iterator[None]:
    """In its block an engine core's steps leave out the sampler's filter; requests for a grammar are masked by none."""

    def masks(scheduled: Any) -> Any:
        names = [
            name
            for name in scheduled.num_scheduled_tokens
            if core.scheduler.requests[name].sampling_params.structured_outputs is not None
        ]
        words = -(-core.vllm_config.model_config.get_vocab_size() // 32)
        return GrammarOutput(names, np.full((len(names), words), -1, dtype=np.int32)) if names else None

    with contextlib.ExitStack() as stack:
        for module in filter(importlib.util.find_spec, _FILTERING):
            if hasattr(importlib.import_module(module), _FILTER):
                stack.enter_context(mock.patch(f"{module}.{_FILTER}", lambda logits, *_, **__: logits))
        stack.enter_context(mock.patch.object(core.scheduler, "get_grammar_bitmask", masks))
        stack.enter_context(
            mock.patch.object(request.StructuredOutputRequest, "from_sampling_params", return_value=None)
        )
        for place, name, made in (
            (torch, "empty", torch.zeros),
            (torch, "empty_like", torch.zeros_like),
            (torch.Tensor, "new_empty", torch.Tensor.new_zeros),
        ):  # kernels that do not run leave in them what the runner takes for indices
            stack.enter_context(mock.patch.object(place, name, made))
        yield


def filtered() -> tuple[str, contextlib.AbstractContextManager[Any]]:
    """Return the device of logits on which to call the sampler's filter, and in which block.

    Where it asks whether they are on a card (from 0.33 on) they say so, and else they have no content.
    """
    if not hasattr(topk_topp_triton, "_apply_topp_split"):
        return "meta", contextlib.nullcontext()
    return "cpu", mock.patch.object(torch.Tensor, "device", torch.device("cuda", 0))
