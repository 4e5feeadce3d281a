"""Which calls of an engine together cause every launch that it can cause: layers at every size, and steps of requests.

A layer's launches follow from how many tokens a step has: every number from 1 to ``max_num_batched_tokens`` is called,
so nothing need be known of where vLLM's tables of tiles change, nor of which sizes Triton tells apart.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from vllm import SamplingParams
from vllm.forward_context import set_forward_context
from vllm.v1.request import Request
from vllm.v1.sample.ops import topk_topp_sampler

from gdn_aot.providers import traffic
from gdn_aot.providers.vllm.whole import quantized
from gdn_aot.providers.vllm.whole.engine import PAGES
from gdn_aot.providers.vllm.whole.stand_ins import Launching

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

    from gdn_aot.providers.vllm.whole.engine import Engine

    Named = tuple[str, Callable[[], object]]

_LAYERS = ("mlp", "self_attn")
"""Parts of a decoder layer that launch Triton kernels of vLLM's own; `gdn_aot.providers.vllm.layer` has the third."""
_BATCHES = (1, 2, 16)
"""One batch of each class that Triton tells apart; 1, any other, a multiple of 16."""
_OUTPUT = 3
"""Tokens that a request is answered with: steps that prefill, and steps that decode."""
_SAMPLING: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"temperature": 0.7, "top_k": 20},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.9},
    {"temperature": 0.7, "min_p": 0.1, "presence_penalty": 1.0, "repetition_penalty": 1.1, "logprobs": 5},
)
"""One set of parameters for each way through the sampler."""

_FILTERS = ((True, False), (False, True), (True, True))
"""Whether any request of a batch has a top-k, and whether any has a top-p."""


class Calls:
    """The calls of one engine; see `gdn_aot.providers.workload.Deployed`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._number = itertools.count()
        self._tokens: int = engine.config.scheduler_config.max_num_batched_tokens
        self._requests: int = engine.config.scheduler_config.max_num_seqs
        self._context: int = engine.config.model_config.max_model_len
        self.resolved = engine.resolved
        self._layers = dict(_distinct(engine.model))

    def calls(self) -> Iterator[Named]:
        """Yield every layer at every number of tokens, and steps of every kind of request."""
        for name, layer in self._layers.items():
            for tokens in range(1, self._tokens + 1):
                yield f"{name}({tokens})", partial(self._forward, name, layer, tokens)
        for batch, filters in itertools.product(range(1, self._requests + 1), _FILTERS):
            yield f"filter({batch}, {filters})", partial(self._filter, batch, filters)
        for batch, sampling in itertools.product(_BATCHES, _SAMPLING):
            if batch <= self._requests:
                yield f"steps({batch}, {sampling})", partial(self._steps, [(batch, sampling)] * batch)
        for pages in _BATCHES:
            length = min(pages * self._page, self._context - _OUTPUT)
            yield f"steps of {length} tokens", partial(self._steps, [(length, _SAMPLING[0])])

    def samples(self, rng: random.Random) -> Iterator[Named]:
        """Yield random numbers of tokens, and random requests."""
        names = list(self._layers)
        while True:
            if traffic.chance(rng, 0.7):
                name, tokens = rng.choice(names), traffic.random_length(rng, self._tokens)
                yield f"{name}({tokens})", partial(self._forward, name, self._layers[name], tokens)
                continue
            if traffic.chance(rng, 0.5):
                batch, filters = rng.randint(1, self._requests), rng.choice(_FILTERS)
                yield f"filter({batch}, {filters})", partial(self._filter, batch, filters)
                continue
            count = traffic.random_length(rng, min(self._requests, 64))
            longest = self._longest(count)
            requests = [(traffic.random_length(rng, longest), rng.choice(_SAMPLING)) for _ in range(count)]
            yield f"steps({requests})", partial(self._steps, requests)

    @property
    def _page(self) -> int:
        return int(self._engine.config.cache_config.block_size)

    def _longest(self, requests: int) -> int:
        """Return how long prompts may be for all of these requests to be in the cache at once."""
        pages = PAGES // (4 * requests)
        return max(1, min(self._context - _OUTPUT, pages * self._page))

    def _forward(self, name: str, layer: Any, tokens: int) -> None:
        config = self._engine.config
        hidden = torch.empty(
            tokens, config.model_config.get_hidden_size(), dtype=config.model_config.dtype, device="meta"
        )
        with set_forward_context(None, config, num_tokens=tokens), Launching():
            if name.endswith("self_attn"):
                layer(positions=_positions(config, tokens), output=torch.empty_like(hidden), hidden_states=hidden)
            elif name.endswith("mlp"):
                layer(hidden)
            else:
                layer(hidden.new_empty(tokens, layer.input_size_per_partition))

    def _steps(self, requests: Sequence[tuple[int, dict[str, Any]]]) -> None:
        """Have the engine serve requests, each a prompt's length and parameters of sampling, to their end."""
        core = self._engine.core
        for length, sampling in requests:
            parameters = SamplingParams(max_tokens=_OUTPUT, ignore_eos=True, **sampling)
            prompt = [1] * length
            name = f"request-{next(self._number)}"
            core.add_request(
                Request(request_id=name, prompt_token_ids=prompt, sampling_params=parameters, pooling_params=None)
            )
        try:
            with mock.patch.object(topk_topp_sampler, "apply_top_k_top_p", lambda logits, _k, _p: logits):
                while core.scheduler.has_requests():
                    _, executed = core.step_fn()
                    core.post_step(executed)
        finally:
            core.abort_requests([*core.scheduler.requests])

    def _filter(self, batch: int, filters: tuple[bool, bool]) -> None:
        """Mask logits of so many requests by top-k, by top-p or by both, as the sampler does."""
        logits = torch.empty(batch, self._engine.config.model_config.get_vocab_size(), device="meta")
        least, most = (
            torch.empty(batch, dtype=dtype, device="meta") if on else None
            for on, dtype in zip(filters, (torch.int32, torch.float32), strict=True)
        )
        topk_topp_sampler.apply_top_k_top_p(logits, least, most)


def _positions(config: Any, tokens: int) -> torch.Tensor:
    size = (3, tokens) if config.model_config.uses_mrope else (tokens,)
    return torch.zeros(size, dtype=torch.int64, device="meta")


def _distinct(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield one part of decoder layers of each kind, by its name: those of one class have one shape on a rank.

    Multiplications by quantized weights that are in none of these parts are parts of their own.
    """
    found: set[tuple[object, ...]] = set()
    single = {path for path, _ in quantized.projections(model) if not {*_LAYERS} & {*path.split(".")}}
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        kind = name, str(module), *quantized.kinds(module)
        if (name in _LAYERS or path in single) and kind not in found:
            found.add(kind)
            yield (name if len([one for one, *_ in found if one == name]) == 1 else path), module
