"""Workloads of provider ``fla``: the operators of the gated delta rule.

`operators` says how they are called and by whom. Importing this module imports fla: do it under the stub driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule

from gdn_aot.catalogue.providers import SMALL, Limits
from gdn_aot.providers import traffic
from gdn_aot.providers.fla.modules import BUCKET_ROWS, DECODE_BATCH, INDEX_DTYPES
from gdn_aot.providers.fla.operators import CHUNK_SIZES, DEFAULT_CHUNK, Operator, head_forms, key_heads
from gdn_aot.providers.workload import Call

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from gdn_aot.catalogue.models import ModelShape

MANY_CHUNKS = 20
"""More than the 16 indices up to which ``index_select`` of PyTorch takes its kernel for small indices."""

RECURRENT_TOKENS = 64
"""FLA's layer takes the recurrent operator up to this many tokens (``q_len <= 64``)."""


STATES = ((False, False), (False, True), (True, True), (True, False))
"""Whether a call begins with a state, and whether it returns one."""

PLAIN: dict[str, object] = {"h0": False, "ht": True, "index": "int64", "packed": None, "parameters": "fp32"}
"""A first prompt whose state is wanted."""


def _states(*, repeated: bool, packed: bool) -> tuple[tuple[bool, bool], ...]:
    """Return what of `STATES` prompts have.

    Where key heads are repeated only transformers before 5.23 calls: it returns a state wherever it has one, and its
    cache has one state for a row, so that packs begin without.
    """
    return STATES[: 4 - repeated - (repeated and packed)]


class Prefill(Operator):
    """The operator of prompts: dense and packed, with and without state, at one chunk size."""

    kind = "chunk"
    operator = staticmethod(chunk_gated_delta_rule)
    chunk = DEFAULT_CHUNK

    def __init__(self, name: str, *, layer: bool, backward: bool = False) -> None:
        self.name, self.layer, self.backward = name, layer, backward

    def _lengths(self, args: dict[str, Any]) -> tuple[int, ...] | None:
        return cast("tuple[int, ...] | None", args["packed"])

    def _forms(self, shape: ModelShape) -> tuple[bool, ...]:
        return (False,) if self.layer else head_forms(shape)

    def _unusual_packed(self, shape: ModelShape) -> tuple[str, ...]:
        """Return what packs may have otherwise than transformers: not beta, which costs most and which nobody does."""
        return tuple(what for what in self.unusual(shape) if what != "beta")

    def _patterns(self, shape: ModelShape, dense: int, packed: tuple[int, ...]) -> Iterator[Call]:
        for repeated in self._forms(shape):
            for parameters in self.parameter_dtypes(shape):
                common = {"parameters": parameters, "repeated": repeated}
                for h0, ht in _states(repeated=repeated, packed=False):
                    yield self._call(batch=1, tokens=dense, packed=None, index="int64", h0=h0, ht=ht, **common)
                for h0, ht in _states(repeated=repeated, packed=True):
                    for index in INDEX_DTYPES:
                        yield self._call(batch=1, tokens=0, packed=packed, index=index, h0=h0, ht=ht, **common)
        if not self.layer and not self.backward:  # all at once, for each is seen by a kernel of its own
            call: dict[str, Any] = {"batch": 1, "h0": True, "ht": True, "index": "int64", "parameters": "fp32"}
            yield self._call(tokens=dense, packed=None, other=self.unusual(shape), **call)
            yield self._call(tokens=0, packed=packed, other=self._unusual_packed(shape), **call)

    def _batches(self, shape: ModelShape, limits: Limits, tokens: int) -> Iterator[Call]:
        """Yield dense batches of ``tokens`` tokens in all.

        Of what is unusual only the gate is where the batch is. Forwards no kernel has both the batch and key heads.
        """
        forms: list[dict[str, object]] = [{}]
        if self.backward:
            forms = [{"repeated": repeated} for repeated in self._forms(shape)]
        if not self.layer and not self.backward:
            forms.append({"other": ("gate",)})
        for batch in traffic.powers(min(limits.max_batch, limits.max_tokens)):
            for form in forms if batch > 1 else ():
                yield self._call(batch=batch, tokens=max(1, tokens // batch), **PLAIN, **form)

    def _most_heads(self, shape: ModelShape) -> int:
        """Return the most rows that one token has in the L2 norm of queries or keys."""
        return max(key_heads(shape, repeated=repeated) for repeated in self._forms(shape))

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every pattern of state, packing, types and heads, every dense batch and every row bucket."""
        yield from self._patterns(shape, 128, (60, 70))
        yield from self._batches(shape, limits, 1)
        for tokens in traffic.bucket_tokens(self._most_heads(shape), BUCKET_ROWS, limits.max_tokens):
            yield self._call(batch=1, tokens=tokens, **PLAIN, repeated=self._forms(shape)[-1])
        yield self._call(batch=1, tokens=128, l2norm=False, **PLAIN)

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield every pattern at ``tokens`` tokens, every dense batch of as many, and the row buckets below."""
        if tokens <= limits.max_tokens:
            yield from self._patterns(shape, tokens, traffic.uneven(tokens, self.chunk))
            yield self._call(batch=1, tokens=tokens, l2norm=False, **PLAIN)
            yield from self._batches(shape, limits, tokens)
        for bucket in traffic.buckets_near(self._most_heads(shape), BUCKET_ROWS, tokens, limits):
            yield self._call(batch=1, tokens=bucket, **PLAIN, repeated=self._forms(shape)[-1])

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield the small cases, and packs of so many chunks that PyTorch indexes them by its other kernel."""
        yield from self.cases(shape, SMALL)
        common: dict[str, object] = {"batch": 1, "h0": True, "ht": True, "parameters": "fp32"}
        for index in INDEX_DTYPES:
            yield self._call(tokens=0, packed=(1,) * MANY_CHUNKS, index=index, **common)
        if tokens > 1:
            yield self._call(tokens=tokens, packed=None, index="int64", **common)
            yield self._call(tokens=0, packed=(tokens // 2, tokens - tokens // 2), index="int64", **common)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random dense batch or pack."""
        packed, batch, tokens = traffic.random_prompts(rng, limits)
        repeated = rng.choice(self._forms(shape))
        others = self.unusual(shape) if packed is None else self._unusual_packed(shape)
        if repeated or self.layer or self.backward:
            others = ()
        other = tuple(what for what in others if traffic.chance(rng, 0.1))
        h0, ht = (True, True) if "state" in other else rng.choice(_states(repeated=repeated, packed=packed is not None))
        return self._call(
            batch=batch,
            tokens=tokens,
            packed=packed,
            index="int64" if other else rng.choice(list(INDEX_DTYPES)),
            h0=h0,
            ht=ht,
            parameters=rng.choice(self.parameter_dtypes(shape)),
            l2norm=traffic.chance(rng, 0.9),
            repeated=repeated,
            other=other,
        )

    def _call(self, **arguments: object) -> Call:
        return Call.of(self.name, **{"l2norm": True, "chunk": self.chunk, "repeated": False, "other": (), **arguments})


class SmallChunks(Prefill):
    """``chunk_gated_delta_rule`` with ``chunk_size`` 16 or 32, for callers that ask for it. No caller known does.

    Dense prompts that want a final state; packs at these sizes are left to the JIT.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, layer=False)

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield prompts with and without initial state, at each chunk size, and every row bucket."""
        for chunk in CHUNK_SIZES[1:]:
            for h0 in (False, True):
                yield self._at(chunk, tokens=128, h0=h0)
        for tokens in traffic.bucket_tokens(shape.heads, BUCKET_ROWS, limits.max_tokens):
            yield self._at(CHUNK_SIZES[1], tokens=tokens, h0=False)

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield prompts of ``tokens`` tokens at each chunk size, and the row buckets below."""
        if tokens <= limits.max_tokens:
            for chunk in CHUNK_SIZES[1:]:
                for h0 in (False, True):
                    yield self._at(chunk, tokens=tokens, h0=h0)
        for bucket in traffic.buckets_near(shape.heads, BUCKET_ROWS, tokens, limits):
            yield self._at(CHUNK_SIZES[1], tokens=bucket, h0=False)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random prompt."""
        del shape
        tokens = traffic.random_length(rng, limits.max_tokens)
        return self._at(rng.choice(CHUNK_SIZES[1:]), tokens=tokens, h0=traffic.chance(rng, 0.5))

    def _at(self, chunk: int, *, tokens: int, h0: bool) -> Call:
        return self._call(**{**PLAIN, "h0": h0}, batch=1, tokens=tokens, chunk=chunk)


class Recurrent(Operator):
    """The operator of steps: decode, and FLA's layer up to 64 tokens."""

    kind = "recurrent"
    operator = staticmethod(fused_recurrent_gated_delta_rule)

    def __init__(self, name: str, *, layer: bool) -> None:
        self.name, self.layer = name, layer

    def _lengths(self, args: dict[str, Any]) -> tuple[int, ...] | None:
        return (args["tokens"],) * args["batch"] if args["index"] else None

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every pattern of state, packing, types and heads; batch and length are in no key of this kernel."""
        del limits
        return self._patterns(shape, 2)

    def _forms(self, shape: ModelShape) -> Iterator[dict[str, Any]]:
        step: dict[str, Any] = {"h0": True, "ht": True, "parameters": "fp32", "repeated": False}
        for parameters in self.parameter_dtypes(shape):
            for h0, ht in STATES:
                yield {**step, "h0": h0, "ht": ht, "parameters": parameters}
        if not self.layer:
            yield from ({**step, "other": (what,)} for what in self.unusual(shape))
            yield from ({**step, "repeated": True} for repeated in head_forms(shape) if repeated)

    def _is_unusual(self, shape: ModelShape, form: dict[str, Any]) -> bool:
        """Say whether calls of a form are covered in dense steps alone."""
        del shape
        return "other" in form

    def _patterns(self, shape: ModelShape, batch: int) -> Iterator[Call]:
        for form in self._forms(shape):
            for index in (None,) if self._is_unusual(shape, form) else (None, *INDEX_DTYPES):
                yield self._call(batch=batch, tokens=1, index=index, **form)

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield every pattern in a decode step of ``tokens`` sequences, 256 at most."""
        if tokens <= limits.max_tokens:
            yield from self._patterns(shape, min(tokens, DECODE_BATCH))

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random decode batch of 1 to 256 sequences."""
        del limits
        usual = {"h0": True, "ht": True, "repeated": False}
        form = rng.choice(list(self._forms(shape))) if traffic.chance(rng, 0.5) else usual
        return self._call(
            batch=rng.randint(1, DECODE_BATCH),
            tokens=rng.randint(1, RECURRENT_TOKENS) if self.layer and traffic.chance(rng, 0.3) else 1,
            index=None if self._is_unusual(shape, form) else rng.choice([None, None, *INDEX_DTYPES]),
            **{**form, "parameters": rng.choice(self.parameter_dtypes(shape))},
        )

    def _call(self, **arguments: object) -> Call:
        return Call.of(self.name, **{"other": (), **arguments})
