"""Steps of SGLang's scheduler: which requests are in a batch, and how many tokens of each. Imports no SGLang."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from gdn_aot.providers import traffic
from gdn_aot.providers.workload import Call

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from gdn_aot.catalogue.providers import Limits

STATES = ("float32", "bfloat16")
"""Values of ``--mamba-ssm-dtype`` that are covered; float32 where neither it nor the checkpoint says."""
DRAFTS = (0, 1, 2, 3)
"""Speculative tokens of a step that are covered: a chain, ``--speculative-eagle-topk 1``."""
DECODE_BATCH = 512
"""Most requests in one decode step: the largest that SGLang makes CUDA graphs for by default."""
BUDGET = 16384
"""Most tokens of a step of random traffic: the largest default of ``--chunked-prefill-size``."""
BATCHES = (1, 16, 3)
"""One batch of each class that Triton tells apart: 1, a multiple of 16, any other."""
NARROW = 64
"""Most requests whose drafts are verified in narrow tiles (``_select_recurrent_launch_config``, from 0.5.23 on)."""
CHUNKS = (0, 32, 128)
"""Chunks of 64 tokens in a step above which the kernel of states has another ``NT_BUCKET``."""
CHUNK = 64
"""Tokens from one state that the radix cache may keep to the next, within a prompt (``FLA_CHUNK_SIZE``)."""
SMALL_GRID = 256
"""Most blocks of a step of Kimi Delta Attention, one for each chunk of a head, for which one kernel makes what two or
three do for more (``chunk_kda_fwd``)."""
GRAPH_REQUESTS = 128
"""Most requests of a breakable CUDA graph of prompts (``SGLANG_KDA_PREFILL_GRAPH_MAX_SEQS``)."""
CONVOLVED = 8
"""Tokens of a block of the prompts' convolution (``CAUSAL_CONV1D_FWD_BLOCK_M``)."""
LENGTHS = (1, 9, 16, 25, 32, 50, 64, 131)
"""Tokens of one prompt: below 16, 32 and 64 and above, multiples of 16 and others."""
SLOTS = (15, 14)
"""Slots of a pool for which Triton tells its sizes apart: SGLang allocates one more."""
LAYERS = (2, 16)
"""Layers of a pool that Triton tells apart: a multiple of 16, and any other number but 1."""
MERGED = 1024
"""Most tokens whose input is multiplied with both projections at once (``Qwen3_5GatedDeltaNet``)."""
GATES = "gates"
"""`Step.merged` of GLM-5.3-Flash where beta and both gates are views of one result, and nothing else is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """What a start of the engine decides about states, beside the model."""

    state: str
    """``--mamba-ssm-dtype``."""
    drafts: int
    """Tokens that are speculated in a step, 0 for none; a verify step has one more."""


class Group(NamedTuple):
    """Requests that are alike."""

    number: int
    computed: int
    """Tokens that each has in its state already."""
    query: int
    """Tokens of each in this step."""
    accepted: int = 0
    """Of a step with drafts, those that were right."""
    tracked: bool = False
    """The state is copied to a slot of its own in this step, for the radix cache."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the scheduler, in one deployment."""

    kind: str
    """``extend``, ``decode`` or ``verify``; a mixed batch is an ``extend`` for SGLang."""
    groups: tuple[Group, ...]
    deployment: Deployment
    merged: bool | str = False
    """The projections of the input are views of one result, in releases that multiply them at once; or `GATES`."""
    radix: bool = False
    """The radix cache keeps copies of states (``--mamba-radix-cache-strategy extra_buffer``)."""
    graph: int = 0
    """The batch that the CUDA graph of a decode or verify step was captured for, 0 without one."""
    bucket: int = 0
    """Tokens that the breakable CUDA graph of a step of prompts was captured for, 0 without one that has the layer."""
    slots: int = SLOTS[0]
    """Slots of the pool, if there are enough for the states of the requests."""
    scratch: int = SLOTS[0]
    """Requests that may run at once, of which each has room for its drafts, if these are enough."""
    layers: int = LAYERS[0]
    """Layers whose states are in the pool."""

    @property
    def requests(self) -> tuple[Group, ...]:
        """One group for each request."""
        ones = ((group._replace(number=1),) * group.number for group in self.groups)
        return tuple(itertools.chain.from_iterable(ones))

    @property
    def tokens(self) -> int:
        """Tokens of all requests."""
        return sum(group.number * group.query for group in self.groups)

    @property
    def ends(self) -> list[int]:
        """Where requests end in the batch, with a 0 before."""
        return [0, *itertools.accumulate(request.query for request in self.requests)]

    @property
    def padded(self) -> int:
        """Number of tokens, those that a graph is padded with included."""
        return self.bucket or (self.batch * self.requests[0].query if self.graph else self.tokens)

    @property
    def batch(self) -> int:
        """Number of requests, those that a graph is padded with included."""
        return max(self.graph, sum(group.number for group in self.groups))

    @property
    def rows(self) -> int:
        """Number of states in the pool that the step says, of all layers, with those after each token of drafts."""
        drafts = self.deployment.drafts
        return self.layers * (self.slots + 1 + ((drafts + 1) * (self.scratch + 1) if drafts else 0))

    def call(self, workload: str) -> Call:
        """Return the step as a call of a workload."""
        names = ("kind", "merged", "radix", "graph", "bucket", "slots", "scratch", "layers")
        own = {name: getattr(self, name) for name in names}
        return Call.of(workload, groups=tuple(map(tuple, self.groups)), **asdict(self.deployment), **own)

    @classmethod
    def of(cls, call: Call) -> Step:
        """Return the step that a call is."""
        args: dict[str, Any] = dict(call.arguments)
        groups = tuple(Group(*group) for group in args.pop("groups"))
        deployment = Deployment(state=args.pop("state"), drafts=args.pop("drafts"))
        return cls(groups=groups, deployment=deployment, **args)


def prefill(deployment: Deployment) -> Iterator[Step]:
    """Yield steps of prompts, or of chunks of prompts, alone."""
    for length, merged in itertools.product(LENGTHS, (False, True)):
        for computed in (0, CHUNK):
            prompt = (Group(1, computed, length),)
            yield Step(kind="extend", groups=prompt, deployment=deployment, merged=merged)
    for chunks in CHUNKS:
        groups = (Group(1 + chunks, 0, 1), Group(1, CHUNK, 67))
        yield Step(kind="extend", groups=groups, deployment=deployment)
    tracked = (Group(1, 0, 64, tracked=True), Group(1, 64, 131, tracked=True), Group(1, 0, 5))
    yield Step(kind="extend", groups=tracked, deployment=deployment, radix=True)


def kda_prefill(deployment: Deployment, heads: int, *, graphs: bool) -> Iterator[Step]:
    """Yield the same of the layer of Kimi Delta Attention, and a step of more blocks than one kernel makes.

    With ``graphs`` also steps for every launch that a breakable CUDA graph of prompts is captured with.
    """
    yield from prefill(deployment)
    yield Step(kind="extend", groups=(Group(SMALL_GRID // heads + 1, 0, 1),), deployment=deployment)
    if not graphs or deployment.drafts:  # of which prompts know nothing
        return
    for bucket, radix, merged in itertools.product(buckets(heads), (False, True), (False, True)):
        prompt = (Group(1, 0, bucket, tracked=radix and bucket >= CHUNK),)
        yield Step(kind="extend", groups=prompt, deployment=deployment, bucket=bucket, radix=radix, merged=merged)


def buckets(heads: int) -> Iterator[int]:
    """Yield token counts of graphs of prompts, one for each launch key of a kernel that so many heads have.

    The tables that such a graph is replayed with lie one after the other in memory
    (``KDAPrefillGraphMetadata.allocate``), so that which of them are aligned follows from how long they are.
    """
    found: dict[tuple[object, ...], int] = {}
    for tokens in range(1, BUDGET + 1):
        requests = min(tokens, GRAPH_REQUESTS)
        chunks, blocks = -(-tokens // CHUNK) + requests, -(-tokens // CONVOLVED) + requests
        bounds = sum(chunks > most for most in CHUNKS[1:]), chunks * heads > SMALL_GRID
        classes = class_of(tokens), class_of(tokens * heads), requests % 4, chunks % 2, blocks % 2, bounds
        found.setdefault(classes, tokens)
    yield from found.values()


def mixed(deployment: Deployment) -> Iterator[Step]:
    """Yield steps in which some requests decode and others have prompts, one of them much longer than the rest."""
    for count, query, merged in itertools.product(BATCHES, (32, 37, 336, 401), (False, True)):
        groups = (Group(count, 100, 1), Group(1, 0, query))
        yield Step(kind="extend", groups=groups, deployment=deployment, merged=merged)


def decode(deployment: Deployment) -> Iterator[Step]:
    """Yield steps in which every request gets one token and nothing is drafted."""
    for count, merged in itertools.product(BATCHES, (False, True)):
        yield Step(kind="decode", groups=(Group(count, 100, 1),), deployment=deployment, merged=merged)
    for (count, layers), slots in itertools.product(itertools.product(_batches(), LAYERS), SLOTS):
        groups = (Group(count, 100, 1, tracked=True),)
        yield Step(kind="decode", groups=groups, deployment=deployment, radix=True, layers=layers, slots=slots)
    yield from _graphs("decode", 1, deployment)


def speculative(deployment: Deployment) -> Iterator[Step]:
    """Yield steps in which the drafts of a step before are verified."""
    if not deployment.drafts:
        return
    query = 1 + deployment.drafts
    for count, radix in itertools.product(BATCHES, (False, True)):
        groups = (Group(count, 100, query, deployment.drafts, tracked=radix),)
        for slots, scratch, merged in itertools.product(SLOTS, SLOTS, (False, True)):
            named: dict[str, Any] = {"slots": slots, "scratch": scratch, "merged": merged}
            yield Step(kind="verify", groups=groups, deployment=deployment, radix=radix, **named)
    for count in (*_batches(), NARROW + 1):  # constants follow from the tokens of the batch and from its size
        yield Step(kind="verify", groups=(Group(count, 100, query),), deployment=deployment)
    yield from _graphs("verify", query, deployment)


def _batches() -> Iterator[int]:
    """Yield batches with every power of 2 that is the next, one of each class that Triton tells apart with each."""
    found: dict[tuple[int, int], int] = {}
    for count in (*BATCHES, *(size - less for size in traffic.powers(DECODE_BATCH) for less in (0, 1) if size > less)):
        found.setdefault(((count - 1).bit_length(), class_of(count)), count)
    yield from found.values()


def _graphs(kind: str, query: int, deployment: Deployment) -> Iterator[Step]:
    """Yield steps for every launch that a CUDA graph's indices are made with, by batch and padding.

    They follow from nothing else, so one deployment with drafts and one without have them all.
    """
    if (deployment.state, deployment.drafts) not in {(STATES[0], 0), (STATES[0], 1)}:
        return
    for size in traffic.powers(DECODE_BATCH):
        kinds: dict[tuple[int, int], tuple[int, int]] = {}
        for batch in range(size // 2 + 1 if size > 1 else 1, size + 1):
            for count in (1, 16, 3, batch - 1, batch):
                if 0 < count <= batch:
                    kinds.setdefault((class_of(batch), class_of(count)), (batch, count))
        for batch, count in kinds.values():
            yield Step(kind=kind, groups=(Group(count, 100, query),), deployment=deployment, graph=batch)


def with_room(step: Step) -> Step:
    """Return a step with the smallest pool that has a row for each of its states, copies and drafts.

    As it is traced, requests may share rows, or have none for their drafts: on a GPU kernels would write beside the
    pool. Triton does not tell the sizes from those before. Requests that a graph is padded with have no state.
    """
    states = len(step.requests) * (2 if step.radix else 1)
    return replace(step, slots=_like(step.slots, states), scratch=_like(step.scratch, step.batch))


def _like(size: int, least: int) -> int:
    """Return the smallest size of a pool, at least ``least``, that is for Triton what ``size`` is; see `SLOTS`."""
    return next(other for other in itertools.count(least) if class_of(other + 1) == class_of(size + 1))


def class_of(number: int) -> int:
    """Return the class of an integer argument."""
    return 1 if number == 1 else 16 if number % 16 == 0 else 0


def random_step(
    rng: random.Random,
    deployments: Sequence[Deployment],
    kind: str,
    limits: Limits,
    *,
    most_merged: int = MERGED,
    graphs: bool = False,
) -> Step:
    """Return one step of a kind as traffic makes it: ``prefill``, ``decode``, ``mixed`` or ``speculative``.

    Of more tokens than ``most_merged``, no two projections are views of one result. With ``graphs`` some steps of
    prompts are those of a breakable CUDA graph.
    """
    deployment = rng.choice([one for one in deployments if one.drafts or kind != "speculative"])
    radix, merged = traffic.chance(rng, 0.5), traffic.chance(rng, 0.5)
    named: dict[str, Any] = {"deployment": deployment, "radix": radix}
    named |= {"slots": rng.randint(8, 40), "scratch": rng.randint(8, 40), "layers": rng.randint(2, 24)}
    left = min(limits.max_tokens, BUDGET)
    if kind in ("decode", "speculative"):
        query = 1 + deployment.drafts if kind == "speculative" else 1
        count = min(DECODE_BATCH, traffic.random_length(rng, DECODE_BATCH))
        graph = rng.randint(count, DECODE_BATCH) if traffic.chance(rng, 0.5) else 0
        groups = tuple(
            Group(1, _computed(rng), query, rng.randint(0, query - 1), radix and traffic.chance(rng, 0.2))
            for _ in range(count)
        )
        merged = merged and max(count, graph) * query <= most_merged
        kind = "verify" if kind == "speculative" else "decode"
        return Step(kind=kind, groups=groups, graph=graph, merged=merged, **named)
    decoding: tuple[Group, ...] = ()
    if kind == "mixed":
        decoding = (Group(traffic.random_length(rng, min(DECODE_BATCH, left // 2)), _computed(rng), 1),)
        left -= decoding[0].number
    step = Step(kind="extend", groups=(*decoding, *_random_prompts(rng, left, radix=radix)), **named)
    step = replace(step, merged=merged and step.tokens <= most_merged)
    if graphs and step.batch <= GRAPH_REQUESTS and traffic.chance(rng, 0.5):
        return replace(step, bucket=rng.randint(step.tokens, min(BUDGET, 4 * step.tokens)))
    return step


def _computed(rng: random.Random) -> int:
    return rng.randint(1, 30000)


def _random_prompts(rng: random.Random, left: int, *, radix: bool) -> Iterator[Group]:
    for number in range(rng.randint(1, 16)):
        query = traffic.random_length(rng, left)
        if number and query > left:
            return
        tracked = radix and query >= CHUNK and traffic.chance(rng, 0.5)
        yield Group(1, rng.choice([0, CHUNK * rng.randint(1, 400)]), query, tracked=tracked)
        left -= query
        if not left:
            return
