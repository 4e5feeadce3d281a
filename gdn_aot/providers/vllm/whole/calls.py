"""Which calls of an engine together cause every launch that it can cause: layers at every size, and steps of requests.

A layer's launches follow from how many tokens a step has: every number from 1 to ``max_num_batched_tokens`` is called,
so nothing need be known of where vLLM's tables of tiles change, nor of which sizes Triton tells apart.
"""

from __future__ import annotations

import contextlib
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
from gdn_aot.providers.vllm.whole import adapters, layers, quantized, refused, releases
from gdn_aot.providers.vllm.whole.drafts import accepting
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
        drafts = engine.config.speculative_config
        self._drafts: int = drafts.num_speculative_tokens if drafts else 0
        self._output = _OUTPUT * (1 + self._drafts)
        self._layers = {name: (layer, engine.config.model_config) for name, layer in _distinct(engine.model)}
        cache = engine.config.cache_config
        first = not engine.config.use_v2_model_runner  # whose metadata `Layers` knows
        own = bool(self._drafts or (first and cache.enable_prefix_caching) or cache.user_specified_block_size)
        shape = layers.shape_of(engine)
        usual = not own and layers.is_known(engine, shape)
        if not own and not usual and (not first or engine.config.lora_config is not None):
            raise refused("states or pages of its own with LoRA or the V2 model runner")
        self._own = None if usual else layers.Layers(engine, shape)
        if engine.drafter is not None:
            found, config = _distinct(engine.drafter), drafts.draft_model_config
            self._layers |= {f"drafter's {name}": (layer, config) for name, layer in found}
        self._more = releases.sampling(engine.config)

    def calls(self) -> Iterator[Named]:
        """Yield every layer at every number of tokens, and steps of every kind of request."""
        yield from self._sized()
        yield from self._served()
        if self._own:
            yield from self._own.calls()
        if self._drafts:
            yield from self._drafted()

    def _sized(self) -> Iterator[Named]:
        for name in self._layers:
            for tokens in range(1, self._tokens + 1):
                yield f"{name}({tokens})", partial(self._forward, name, tokens)
        for batch, filters in itertools.product(range(1, self._rows + 1), _FILTERS):
            yield f"filter({batch}, {filters})", partial(self._filter, batch, filters)

    def _served(self) -> Iterator[Named]:
        batches = [batch for batch in _BATCHES if batch <= self._requests]
        for batch, sampling in itertools.product(batches, _SAMPLING):
            yield f"steps({batch}, {sampling})", partial(self._steps, [(batch, sampling)] * batch)
        for sampling in self._more:
            yield f"steps(2, {sampling})", partial(self._steps, [(2, sampling)] * min(2, self._requests))
        for pages in _BATCHES:
            length = min(pages * self._page, self._context - self._output)
            yield f"steps of {length} tokens", partial(self._steps, [(length, _SAMPLING[0])])
        if self._engine.config.cache_config.enable_prefix_caching:
            length = min(2 * self._page + 1, self._context - self._output)
            for batch in batches:
                yield f"steps({batch}, cached)", partial(self._steps, [(length, _SAMPLING[0])] * batch, alike=True)

    def _drafted(self) -> Iterator[Named]:
        """Yield steps in which only some requests are greedy, from the start or later, and with every number of drafts.

        Before them comes vLLM's own call of the sampler while it measures memory: its top-k are of another type. Fewer
        drafts than asked for are where a request ends, or the tokens of a step do. One request has them, beside prompts
        of one token: so few tokens fit into a step of any deployment.
        """
        yield "sampler before there is a cache", self._profiled
        for late in (0, 1) if self._requests > 1 else ():
            requests = [(2, sampling) for sampling in _SAMPLING[:2]]
            yield f"steps(2, greedy and not, {late} late)", partial(self._steps, requests, late=late)
        for batch, drafts in itertools.product(_BATCHES, range(self._drafts + 1)):
            if batch <= self._requests:
                requests = [(2, _SAMPLING[0]), *[(1, _SAMPLING[0])] * (batch - 1)]
                run = partial(self._steps, requests, end=4 + drafts, late=batch - 1)
                yield f"steps({batch}, {drafts} drafts)", run

    def samples(self, rng: random.Random) -> Iterator[Named]:
        """Yield random numbers of tokens, and random requests."""
        names = list(self._layers)
        while True:
            if self._own and traffic.chance(rng, 0.3):
                yield self._own.sample(rng)
                continue
            if traffic.chance(rng, 0.7):
                name, tokens = rng.choice(names), traffic.random_length(rng, self._tokens)
                yield f"{name}({tokens})", partial(self._forward, name, tokens)
                continue
            if traffic.chance(rng, 0.5):
                batch, filters = rng.randint(1, self._rows), rng.choice(_FILTERS)
                yield f"filter({batch}, {filters})", partial(self._filter, batch, filters)
                continue
            count = traffic.random_length(rng, min(self._requests, 64 // (1 + self._drafts)))
            longest = self._longest(count)
            named = "logprob_token_ids" if traffic.chance(rng, 0.8) else "logprobs"  # not both in one batch
            kinds = [one for one in (*_SAMPLING, *self._more) if named not in one]
            requests = [(traffic.random_length(rng, longest), rng.choice(kinds)) for _ in range(count)]
            end = longest + rng.randint(2, 2 + self._drafts) if self._drafts and traffic.chance(rng, 0.3) else None
            alike, late = traffic.chance(rng, 0.3), rng.randint(0, count - 1)
            run = partial(self._steps, requests, end=end, alike=alike, late=late, accepted=partial(rng.randint, 0))
            yield f"steps({requests}, {late} of them late, alike={alike}, end={end})", run

    @property
    def _rows(self) -> int:
        """Rows of logits that a step has at most: one for each request, or for each of its drafts."""
        return min(self._requests * max(1, self._drafts), self._tokens)

    @property
    def _page(self) -> int:
        return int(self._engine.config.cache_config.block_size)

    def _longest(self, requests: int) -> int:
        """Return how long prompts may be for all of these requests to be in the cache at once."""
        pages = PAGES // (4 * requests)
        return max(1, min(self._context - self._output, pages * self._page))

    def _forward(self, name: str, tokens: int) -> None:
        layer, model = self._layers[name]
        hidden = torch.empty(tokens, model.get_hidden_size(), dtype=model.dtype, device="meta")
        adapters.activate(self._engine.runner)
        with set_forward_context(None, self._engine.config, num_tokens=tokens), Launching():
            if name.endswith("self_attn"):
                output = releases.arguments(layer, hidden)
                layer(positions=_positions(model, tokens), hidden_states=hidden, **output)
            elif name.endswith("mlp"):
                layer(hidden)
            else:
                layer(hidden.new_empty(tokens, getattr(layer, "base_layer", layer).input_size_per_partition))

    def _steps(
        self,
        requests: Sequence[tuple[int, dict[str, Any]]],
        *,
        end: int | None = None,
        alike: bool = False,
        late: int = 0,
        accepted: Callable[[int], int] = lambda drafts: drafts // 2,
    ) -> None:
        """Have the engine serve requests, each a prompt's length and parameters of sampling, to their end.

        All end at ``end`` tokens if it is given; prompts that are ``alike`` have what the cache knows. The last
        ``late`` come a step after the others. Of so many drafts so many are ``accepted``.
        """
        core = self._engine.core
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: core.abort_requests([*core.scheduler.requests]))
            stack.enter_context(releases.stepping(core))
            waiting = [self._request(length, sampling, alike=alike) for length, sampling in requests]
            # Noise of the sampler, which no launch follows from, is most of a step's time here.
            stack.enter_context(mock.patch.object(torch.Tensor, "exponential_", lambda noise, **_: noise))
            if self._drafts:
                stack.enter_context(accepting(accepted))
            if end is not None:
                stack.enter_context(mock.patch.object(core.scheduler, "max_model_len", end))
            for step in itertools.count():
                while len(waiting) > (0 if step else late):
                    core.add_request(waiting.pop(0))
                if not waiting and not core.scheduler.has_requests():
                    break
                _, executed = core.step_fn()
                core.post_step(executed)

    def _profiled(self) -> None:
        model = self._engine.config.model_config
        hidden = torch.empty(self._requests, model.get_hidden_size(), dtype=model.dtype)
        with releases.stepping(self._engine.core):
            self._engine.runner._dummy_sampler_run(hidden)  # noqa: SLF001

    def _request(self, length: int, sampling: dict[str, Any], *, alike: bool) -> Request:
        number = next(self._number)
        vocabulary = self._engine.config.model_config.get_vocab_size()
        return Request(
            request_id=f"request-{number}",
            prompt_token_ids=[0 if alike else 1 + number % (vocabulary - 1)] + [1] * (length - 1),
            sampling_params=SamplingParams(max_tokens=self._output, ignore_eos=True, **sampling),
            pooling_params=None,
            block_hasher=self._engine.core.request_block_hasher,
        )

    def _filter(self, batch: int, filters: tuple[bool, bool]) -> None:
        """Mask logits of so many requests by top-k, by top-p or by both, as the sampler does."""
        device, block = releases.filtered()
        logits = torch.empty(batch, self._engine.config.model_config.get_vocab_size(), device=device)
        least, most = (
            torch.empty(batch, dtype=dtype, device=device) if on else None
            for on, dtype in zip(filters, (torch.int32, torch.float32), strict=True)
        )
        with block:
            topk_topp_sampler.apply_top_k_top_p(logits, least, most)


def _positions(model: Any, tokens: int) -> torch.Tensor:
    size = (3, tokens) if model.uses_mrope else (tokens,)
    return torch.zeros(size, dtype=torch.int64, device="meta")


def _distinct(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield one part of decoder layers of each kind, by its name: those of one class have one shape on a rank.

    Products by quantized weights, or with adapters, that are in none of these parts are parts of their own.
    """
    found: set[tuple[object, ...]] = set()
    products = {*adapters.wrapped(model), *(path for path, _ in quantized.projections(model))}
    products -= {f"{path}.base_layer" for path in products}
    single = {path for path in products if not {*_LAYERS} & {*path.split(".")}}
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        kind = name, str(module), *quantized.kinds(module)
        if (name in _LAYERS or path in single) and kind not in found:
            found.add(kind)
            yield (name if len([one for one, *_ in found if one == name]) == 1 else path), module
