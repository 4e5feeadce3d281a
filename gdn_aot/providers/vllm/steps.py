"""Steps of vLLM's scheduler: which requests are in a batch, and how many tokens of each. Imports no vLLM.

Requests come in vLLM's order: those that decode, later parts of prompts, first parts of prompts. A later part of one
token is decoded, ahead of longer ones. So is a first part up to 0.30, from whatever its page has; behind longer ones it
is a prompt in every release.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from gdn_aot.providers import traffic
from gdn_aot.providers.workload import Call

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from gdn_aot.catalogue.providers import Limits

DECODE_BATCH = 256
"""Most requests in one decode step of random traffic; ``max_num_seqs`` of vLLM's server by default."""
BUDGET = 16384
"""Most tokens of a step of random traffic: the largest default of ``max_num_batched_tokens``."""
FEW = 8
"""Decode steps in a mixed batch after which alignments repeat: 8 bf16 numbers are 16 bytes."""
BATCHES = (1, 16, 3)
"""One batch of each class that Triton tells apart: 1, a multiple of 16, any other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """What a start of the engine decides about states, beside the model."""

    state: str
    """``--mamba-ssm-cache-dtype``."""
    drafts: int
    """Tokens that are speculated in a step, 0 for none."""
    aligned: int = 1
    """Tokens that blocks are a multiple of for the checkpoints of prefix caching, or for an attention backend that asks
    for more than others; 1 where nothing does."""
    fused: bool = False
    """A CUDA operator takes steps in which all requests have drafts, and the layer's operator makes the gated norm."""


class Group(NamedTuple):
    """Requests that are alike."""

    number: int
    computed: int
    """Tokens that each has in its state already."""
    query: int
    """Tokens of each in this step."""
    drafts: int = -1
    """Those of them that are drafted, or -1 for a request that is not speculated for."""
    accepted: int = 1
    """Tokens of the step before that were accepted."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the scheduler, in one deployment."""

    groups: tuple[Group, ...]
    deployment: Deployment
    graph: bool = False
    """Full CUDA graphs are in use: indices of a decode step are copied to buffers that stay."""
    compiled: bool = False
    """What is around the layer's core is compiled by Inductor; of Kimi-K3, what is around it is a captured graph."""
    packed: bool = True
    """``VLLM_ENABLE_FLA_PACKED_RECURRENT_DECODE``, which is on by default."""

    @cached_property
    def requests(self) -> tuple[Group, ...]:
        """One group for each request."""
        return tuple(group._replace(number=1) for group in self.groups for _ in range(group.number))

    @property
    def tokens(self) -> int:
        """Tokens of all requests."""
        return sum(group.number * group.query for group in self.groups)

    @property
    def ends(self) -> list[int]:
        """Where requests end in the batch, with a 0 before."""
        return [0, *itertools.accumulate(request.query for request in self.requests)]

    @property
    def table(self) -> list[list[int]]:
        """Pages of each request: one, and one more for each token that may be drafted. Page 0 is nobody's."""
        width = 1 + self.deployment.drafts
        return [[1 + number * width + column for column in range(width)] for number in range(len(self.requests))]

    @property
    def speculated(self) -> bool:
        """Whether a token is drafted for any request; drafts of the others are then as good as prompts."""
        return any(group.drafts > 0 for group in self.groups)

    def call(self, workload: str) -> Call:
        """Return the step as a call of a workload."""
        return Call.of(
            workload,
            groups=tuple(map(tuple, self.groups)),
            **asdict(self.deployment),
            graph=self.graph,
            compiled=self.compiled,
            packed=self.packed,
        )

    @classmethod
    def of(cls, call: Call) -> Step:
        """Return the step that a call is."""
        args: dict[str, Any] = dict(call.arguments)
        return cls(
            groups=tuple(Group(*group) for group in args["groups"]),
            deployment=Deployment(**{name: args[name] for name in ("state", "drafts", "aligned", "fused")}),
            **{name: args[name] for name in ("graph", "compiled", "packed")},
        )


def _speculated(count: int, drafts: int) -> Group:
    return Group(count, 100, 1 + drafts, drafts)


PROMPTS = (
    (Group(1, 0, 32),),
    (Group(1, 0, 9),),
    (Group(1, 64, 25),),
    (Group(1, 0, 50),),
    (Group(1, 0, 64), Group(1, 128, 67)),
    (Group(1, 0, 16),),
)
"""Prompts below 16, 32 and 64 tokens and above, multiples of 16 and others, with and without a state before."""


def prefill(deployment: Deployment) -> Iterator[Step]:
    """Yield steps of prompts, or of parts of prompts, alone."""
    for groups in PROMPTS:
        yield Step(groups=groups, deployment=deployment)
    yield Step(groups=PROMPTS[0], deployment=deployment, compiled=True)
    yield Step(groups=PROMPTS[1], deployment=deployment, compiled=True)


def first_tokens(deployment: Deployment) -> Iterator[Step]:
    """Yield steps with one token of a prompt, alone and beside requests that decode."""
    for compiled in (False, True):
        yield Step(groups=(Group(1, 0, 1),), deployment=deployment, compiled=compiled)
    yield Step(groups=(Group(3, 100, 1), Group(1, 0, 1)), deployment=deployment)


def decode(deployment: Deployment) -> Iterator[Step]:
    """Yield steps in which every request gets one token and nothing is drafted."""
    for count, graph, compiled, packed in itertools.product(BATCHES, (False, True), (False, True), (True, False)):
        groups = (Group(count, 100, 1),)
        yield Step(groups=groups, deployment=deployment, graph=graph, compiled=compiled, packed=packed)


def mixed(deployment: Deployment) -> Iterator[Step]:
    """Yield steps in which some requests decode and others have prompts."""
    for count in (*range(1, FEW + 1), 16):
        for query in (32, 37):
            groups = (Group(count, 100, 1), Group(1, 0, query))
            yield Step(groups=groups, deployment=deployment)
    yield Step(groups=(Group(3, 100, 1), Group(1, 0, 5), Group(1, 64, 140)), deployment=deployment, compiled=True)


def speculative(deployment: Deployment) -> Iterator[Step]:
    """Yield steps in which tokens are drafted, alone and beside prompts and plain decode steps."""
    drafts = deployment.drafts
    if not drafts:
        return
    for count, graph, compiled in itertools.product(BATCHES, (False, True), (False, True)):
        yield Step(groups=(_speculated(count, drafts),), deployment=deployment, graph=graph, compiled=compiled)
    for others in ((Group(1, 0, 32),), (Group(1, 0, 9),), (Group(1, 80, 40),), (Group(1, 0, 70),)):
        for count in BATCHES:
            yield Step(groups=(_speculated(count, drafts), *others), deployment=deployment)
    # A request without drafts beside others with: one token that goes through the prefill kernels.
    plain = Group(1, 100, 1)
    yield Step(groups=(_speculated(2, drafts), plain), deployment=deployment)
    yield Step(groups=(_speculated(2, drafts), plain._replace(number=3)), deployment=deployment)
    yield Step(groups=(_speculated(2, drafts), Group(1, 100, 1, 0)), deployment=deployment)


def kda_decode(deployment: Deployment) -> Iterator[Step]:
    """Yield `decode` for a layer whose launches do not follow from what is compiled around it, nor from packing."""
    for count, graph in itertools.product(BATCHES, (False, True)):
        yield Step(groups=(Group(count, 100, 1),), deployment=deployment, graph=graph)


def kda_mixed(deployment: Deployment) -> Iterator[Step]:
    """Yield `mixed` for a layer whose prefill takes requests that decode, too."""
    for count, query in itertools.product(BATCHES, (32, 37)):
        yield Step(groups=(Group(count, 100, 1), Group(1, 0, query)), deployment=deployment)
    yield Step(groups=(Group(3, 100, 1), Group(1, 0, 5), Group(1, 64, 140)), deployment=deployment)


def kda_speculative(deployment: Deployment) -> Iterator[Step]:
    """Yield `speculative` for the same layer, and more numbers of requests.

    Its kernel takes another block and other stages from 48, 96 and 192 heads of requests on: twice a number crosses
    one of these at a time, whatever the heads of a layer.
    """
    if not deployment.drafts:
        return
    yield from (step for step in speculative(deployment) if not step.compiled)
    for count, others in itertools.product((2, 4, 8, 32, 64, 128), ((), (Group(1, 0, 32),))):
        yield Step(groups=(_speculated(count, deployment.drafts), *others), deployment=deployment)


_SHORT = (Group(1, 0, 5), Group(1, 64, 8))
"""Prompts as a captured graph has them."""


def kimi_k3(deployment: Deployment, kind: str) -> Iterator[Step]:
    """Yield further steps of a kind for Kimi-K3: of few tokens in a graph, and with drafts apart from each other.

    Tokens of requests with drafts that are side by side are views of the projection's rows, and else copies.
    """
    drafted, plain = _speculated(1, deployment.drafts), Group(1, 100, 1)
    few: dict[str, tuple[tuple[Group, ...], ...]] = {
        "prefill": (_SHORT[:1], _SHORT[1:], _SHORT),
        "decode": ((plain,), (plain._replace(number=3),)),
        "mixed": tuple((plain._replace(number=count), one) for count in (1, 3) for one in _SHORT),
        "speculative": ((drafted,), (drafted._replace(number=2),), (drafted, plain), (drafted, _SHORT[0])),
    }
    if kind == "speculative" and not deployment.drafts:
        return
    for groups, graph in itertools.product(few[kind], (False, True)):
        yield Step(groups=groups, deployment=deployment, graph=graph, compiled=True)
    if kind == "speculative":
        for groups in _apart(drafted, plain):
            yield Step(groups=groups, deployment=deployment)


def _apart(drafted: Group, plain: Group) -> Iterator[tuple[Group, ...]]:
    """Yield requests with drafts and without that do not stay together, as many of both as each class has."""
    for count, others in itertools.product(BATCHES, BATCHES):
        if count > 1:
            yield drafted, plain._replace(number=others), drafted._replace(number=count - 1)
        elif others > 1:
            yield plain, drafted, plain._replace(number=others - 1)
    for prompt in (_SHORT[1], Group(1, 0, 31)):
        yield drafted, plain, drafted, prompt
        yield plain, drafted, prompt


def few_or_apart(rng: random.Random, step: Step) -> Step:
    """Return a random step of Kimi-K3 as a captured graph has it, of fewer requests, or with its decodes shuffled."""
    first = [group for group in step.requests if group.computed and group.query <= 1 + step.deployment.drafts]
    later = [group for group in step.requests if group not in first]
    rng.shuffle(first)
    if traffic.chance(rng, 0.5):
        return replace(step, groups=(*first, *later))
    least = next((group for group in first if group.drafts > 0), None)
    fewer = (*([least] if least else first[:2]), *(group._replace(query=min(group.query, 4)) for group in later[:2]))
    return replace(step, groups=fewer, compiled=True)


def random_step(
    rng: random.Random, deployments: Sequence[Deployment], kind: str, limits: Limits, *, first_tokens: bool
) -> Step:
    """Return one step of a kind as traffic makes it: ``prefill``, ``decode``, ``mixed`` or ``speculative``.

    ``first_tokens`` says that the release tells the first token of a prompt from one that is decoded. Where it does
    not, a step of nothing longer is one of ``decode``.
    """
    deployment = rng.choice([one for one in deployments if one.drafts or kind != "speculative"])
    compiled, graph = traffic.chance(rng, 0.5), traffic.chance(rng, 0.5)
    packed, left = traffic.chance(rng, 0.9), min(limits.max_tokens, BUDGET)
    decoding: tuple[Group, ...] = ()
    if kind == "speculative":
        decoding = tuple(_random_drafts(rng, deployment.drafts, rng.randint(1, DECODE_BATCH // 4)))
        if traffic.chance(rng, 0.3):
            decoding = (*decoding, Group(rng.randint(1, 3), _computed(rng), 1))
    elif kind != "prefill":
        batch = min(DECODE_BATCH, traffic.random_length(rng, DECODE_BATCH))
        decoding = (Group(batch, _computed(rng), 1),)
    left -= sum(group.number * group.query for group in decoding)
    prompts: tuple[Group, ...] = ()
    if kind in ("prefill", "mixed") or (kind == "speculative" and traffic.chance(rng, 0.5)):
        made = _random_prompts(rng, max(2, left), 1 if first_tokens else 2)
        prompts = tuple(sorted(made, key=partial(_place, short=1 + deployment.drafts)))
    return Step(groups=(*decoding, *prompts), deployment=deployment, compiled=compiled, graph=graph, packed=packed)


def _place(group: Group, short: int) -> int:
    """Return where vLLM puts a part of a prompt in a batch; ``short`` is the longest that it takes for a decode."""
    if not group.computed:
        return 3 + (group.query == 1)
    return (group.query > 1) + (group.query > short)


def _computed(rng: random.Random) -> int:
    return rng.randint(1, 30000)


def _random_drafts(rng: random.Random, drafts: int, count: int) -> Iterator[Group]:
    for number in range(count):
        own = drafts if number == 0 else rng.randint(0, drafts)
        yield Group(1, _computed(rng), 1 + own, own, rng.randint(1, 1 + drafts))


def _random_prompts(rng: random.Random, left: int, least: int) -> Iterator[Group]:
    """Yield parts of prompts, ``left`` tokens at most; one of them at least is no decode."""
    for number in range(rng.randint(1, 8)):
        if number and not left:
            return
        query = traffic.random_length(rng, left)
        computed = rng.choice([0, _computed(rng)])
        if not number:
            query = max(least, query)
            computed = computed if query > 1 else 0
        yield Group(1, computed, query)
        left -= query
