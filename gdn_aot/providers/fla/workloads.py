"""Provider ``fla``: flash-linear-attention's GDN operator. Its gated norm and convolution are in `fla_modules`.

The calls are those of two callers, read from their sources: the model code of transformers 5
(``modeling_qwen3_5.py``, ``modeling_qwen3_next.py``, ``modeling_olmo_hybrid.py``) and FLA's own layer
(``fla/layers/gated_deltanet.py``). Importing this module imports fla: do it under the stub driver.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule

from gdn_aot.catalogue.providers import SMALL, Limits
from gdn_aot.providers import traffic
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.fla.modules import (
    BUCKET_ROWS,
    DECODE_BATCH,
    DTYPES,
    INDEX_DTYPES,
    GatedNorm,
    ShortConv,
    cu_seqlens,
)
from gdn_aot.providers.workload import Call, Workload, there
from gdn_aot.reference import formulas as reference

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.draw import Draw
    from gdn_aot.reference import Tensors

DEFAULT_CHUNK = 64
"""What ``chunk_gated_delta_rule`` takes when nothing is said."""

MANY_CHUNKS = 20
"""More than the 16 indices up to which ``index_select`` of PyTorch takes its kernel for small indices."""

RECURRENT_TOKENS = 64
"""FLA's layer takes the recurrent operator up to this many tokens (``q_len <= 64``)."""


@cache
def _source_mentions(function: Callable[..., Any], word: str) -> bool:
    return word in inspect.getsource(inspect.unwrap(function))


STATE_FLAG = "state_v_first" if _source_mentions(chunk_gated_delta_rule, "state_v_first") else "transpose_state_layout"
GATE_IN_KERNEL = _source_mentions(chunk_gated_delta_rule, "use_gate_in_kernel")
BETA_SIGMOID = _source_mentions(chunk_gated_delta_rule, "use_beta_sigmoid_in_kernel")
GROUPED_VALUES = _source_mentions(chunk_gated_delta_rule, "GVA")
CHUNK_SIZES: tuple[int, ...] = (64, 16, 32) if _source_mentions(chunk_gated_delta_rule, "chunk_size not in") else (64,)


PLAIN: dict[str, object] = {"h0": False, "ht": True, "index": "int64", "packed": None, "parameters": "fp32"}
"""A first prompt whose state is wanted."""


def _normalized_heads(shape: ModelShape) -> int:
    """Return the heads that queries and keys have where the operator normalizes them."""
    return shape.heads if GROUPED_VALUES else shape.v_heads


class _Operator(Workload):
    layer: bool
    """Called as FLA's layer does (gate and beta sigmoid in the kernel, state V first) or as transformers does."""
    backward = False
    operator: Callable[..., Any]
    """The provider's function."""

    def _lengths(self, args: dict[str, Any]) -> tuple[int, ...] | None:
        """Return the lengths of packed sequences, or None for a dense batch."""
        raise NotImplementedError

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Draw queries, keys, values, gates, and what else the call has: state, parameters, ends of sequences."""
        args: dict[str, Any] = dict(call.arguments)
        lengths = self._lengths(args)
        batch, tokens = (1, sum(lengths)) if lengths else (args["batch"], args["tokens"])
        dtype, grad = DTYPES[shape.dtype], self.backward
        heads = _normalized_heads(shape)
        vectors = draw.normal if args.get("l2norm", True) else draw.unit
        made: Tensors = {
            "q": vectors(batch, tokens, heads, shape.k_dim, dtype=dtype, grad=grad),
            "k": vectors(batch, tokens, heads, shape.k_dim, dtype=dtype, grad=grad),
            "v": draw.normal(batch, tokens, shape.v_heads, shape.v_dim, dtype=dtype, grad=grad),
        }
        size = (batch, tokens, shape.v_heads)
        if self.layer and GATE_IN_KERNEL:
            made["g"] = draw.normal(*size, dtype=dtype, grad=grad)
        else:
            made["g"] = draw.log_decay(*size, grad=grad)
        if self.layer and BETA_SIGMOID:
            made["beta"] = draw.normal(*size, dtype=dtype, grad=grad)
        else:
            made["beta"] = draw.sigmoid(*size, dtype=dtype, scale=_beta_scale(shape), grad=grad)
        dims = (shape.v_dim, shape.k_dim) if self.layer else (shape.k_dim, shape.v_dim)
        sequences = len(lengths) if lengths else batch
        made["initial_state"] = (
            draw.normal(sequences, shape.v_heads, *dims, dtype=torch.float32) if args["h0"] else None
        )
        made["cu_seqlens"] = cu_seqlens(lengths, args["index"]) if lengths else None
        if self.layer and GATE_IN_KERNEL:
            parameters = DTYPES[args["parameters"]]
            made["A_log"] = draw.log_a(shape.v_heads, parameters)
            made["dt_bias"] = draw.dt_bias(shape.v_heads, parameters)
        return made

    def _flags(self, shape: ModelShape, args: dict[str, Any]) -> dict[str, Any]:
        flags: dict[str, Any] = {}
        if self.layer:
            flags[STATE_FLAG] = True
        if self.layer and BETA_SIGMOID:
            flags["use_beta_sigmoid_in_kernel"] = True
            flags["allow_neg_eigval"] = shape.allow_neg_eigval
        if self.layer and GATE_IN_KERNEL:
            flags["use_gate_in_kernel"] = True
        if args.get("chunk", DEFAULT_CHUNK) != DEFAULT_CHUNK:
            flags["chunk_size"] = args["chunk"]
        return flags

    def _call_operator(self, shape: ModelShape, call: Call, inputs: Tensors) -> tuple[Any, Any]:
        args: dict[str, Any] = dict(call.arguments)
        with torch.set_grad_enabled(self.backward):
            out, final = self.operator(
                **inputs,
                output_final_state=args["ht"],
                use_qk_l2norm_in_kernel=args.get("l2norm", True),
                **self._flags(shape, args),
            )
        return out, final

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Call the operator. Returns ``out``, and ``state`` if one came back."""
        out, final = self._call_operator(shape, call, inputs)
        return {"out": out, **({} if final is None else {"state": final})}

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the delta rule of the same inputs, with the gates that the kernel makes of raw ones."""
        args: dict[str, Any] = dict(call.arguments)
        q, k, v, g, beta = (there(inputs, name).double() for name in ("q", "k", "v", "g", "beta"))
        if args.get("l2norm", True):
            q, k = reference.normalized(q), reference.normalized(k)
        if inputs.get("A_log") is not None:
            g = reference.gate(g, there(inputs, "A_log"), there(inputs, "dt_bias"))
        if self.layer and BETA_SIGMOID:
            beta = beta.sigmoid() * _beta_scale(shape)
        initial = inputs["initial_state"]
        if initial is not None and self.layer:
            initial = initial.mT
        out, state = reference.delta_rule(q, k, v, g, beta, initial, self._lengths(args))
        return {"out": out, **({"state": state.mT if self.layer else state} if args["ht"] else {})}

    def run(self, shape: ModelShape, call: Call) -> None:
        """Make the call; with ``backward``, also its backward pass."""
        out, final = self._call_operator(shape, call, self.inputs(shape, call, EMPTY))
        if self.backward:
            with torch.enable_grad():
                results = [out] if final is None else [out, final]
                torch.autograd.backward(results, [torch.empty_like(result) for result in results])

    def _parameter_dtypes(self, shape: ModelShape) -> tuple[str, ...]:
        """Return dtypes of ``A_log``: float32 as created, the model's after ``model.to(dtype)``."""
        return ("fp32", shape.dtype) if self.layer and GATE_IN_KERNEL else ("fp32",)


def _beta_scale(shape: ModelShape) -> float:
    """Return the factor on beta's sigmoid: models with negative eigenvalues double it."""
    return 2.0 if shape.allow_neg_eigval else 1.0


class Prefill(_Operator):
    """``chunk_gated_delta_rule``: dense and packed prompts, with and without state, at one chunk size.

    Both callers that go on from a state also want the next one; only dense prompts cover a state that ends there.
    """

    kind = "chunk"
    operator = staticmethod(chunk_gated_delta_rule)
    chunk = DEFAULT_CHUNK

    def __init__(self, name: str, *, layer: bool, backward: bool = False) -> None:
        self.name, self.layer, self.backward = name, layer, backward

    def _lengths(self, args: dict[str, Any]) -> tuple[int, ...] | None:
        return cast("tuple[int, ...] | None", args["packed"])

    def _patterns(self, shape: ModelShape, dense: int, packed: tuple[int, ...]) -> Iterator[Call]:
        for parameters in self._parameter_dtypes(shape):
            for h0, ht in ((False, False), (False, True), (True, True), (True, False)):
                common = {"h0": h0, "ht": ht, "parameters": parameters}
                yield self._call(batch=1, tokens=dense, packed=None, index="int64", **common)
                for index in INDEX_DTYPES if ht or not h0 else ():
                    yield self._call(batch=1, tokens=0, packed=packed, index=index, **common)

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every pattern of state, packing and index dtype, every dense batch and every row bucket."""
        yield from self._patterns(shape, 128, (60, 70))
        for batch in traffic.powers(min(limits.max_batch, limits.max_tokens)):
            if batch > 1:
                yield self._call(batch=batch, tokens=1, **PLAIN)
        for tokens in traffic.bucket_tokens(_normalized_heads(shape), BUCKET_ROWS, limits.max_tokens):
            yield self._call(batch=1, tokens=tokens, **PLAIN)
        yield self._call(batch=1, tokens=128, l2norm=False, **PLAIN)

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield every pattern at ``tokens`` tokens, every dense batch of as many, and the row buckets below."""
        if self.backward:
            return
        if tokens <= limits.max_tokens:
            yield from self._patterns(shape, tokens, traffic.uneven(tokens, self.chunk))
            yield self._call(batch=1, tokens=tokens, l2norm=False, **PLAIN)
            for batch in traffic.powers(min(limits.max_batch, limits.max_tokens)):
                if batch > 1:
                    yield self._call(batch=batch, tokens=max(1, tokens // batch), **PLAIN)
        for bucket in traffic.buckets_near(_normalized_heads(shape), BUCKET_ROWS, tokens, limits):
            yield self._call(batch=1, tokens=bucket, **PLAIN)

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
        h0 = traffic.chance(rng, 0.5)
        return self._call(
            batch=batch,
            tokens=tokens,
            packed=packed,
            index=rng.choice(list(INDEX_DTYPES)),
            h0=h0,
            ht=bool(h0 and packed) or traffic.chance(rng, 0.8),
            parameters=rng.choice(self._parameter_dtypes(shape)),
            l2norm=traffic.chance(rng, 0.9),
        )

    def _call(self, **arguments: object) -> Call:
        return Call.of(self.name, **{"l2norm": True, "chunk": self.chunk, **arguments})


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
        common = {"batch": 1, "packed": None, "ht": True, "index": "int64", "parameters": "fp32"}
        return Call.of(self.name, tokens=tokens, h0=h0, **common, l2norm=True, chunk=chunk)


class Recurrent(_Operator):
    """``fused_recurrent_gated_delta_rule``: decode, and FLA's layer up to 64 tokens."""

    kind = "recurrent"
    operator = staticmethod(fused_recurrent_gated_delta_rule)

    def __init__(self, name: str, *, layer: bool) -> None:
        self.name, self.layer = name, layer

    def _lengths(self, args: dict[str, Any]) -> tuple[int, ...] | None:
        return (args["tokens"],) * args["batch"] if args["index"] else None

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every pattern of state and packing; batch and length are in no key of this kernel."""
        del limits
        return self._patterns(shape, 2)

    def _patterns(self, shape: ModelShape, batch: int) -> Iterator[Call]:
        states = ((False, False), (False, True), (True, True), (True, False)) if self.layer else ((True, True),)
        for parameters in self._parameter_dtypes(shape):
            for h0, ht in states:
                for index in (None, *INDEX_DTYPES):
                    yield Call.of(self.name, batch=batch, tokens=1, h0=h0, ht=ht, index=index, parameters=parameters)

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield every pattern in a decode step of ``tokens`` sequences, 256 at most."""
        if tokens <= limits.max_tokens:
            yield from self._patterns(shape, min(tokens, DECODE_BATCH))

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random decode batch of 1 to 256 sequences."""
        del limits
        tokens = rng.randint(1, RECURRENT_TOKENS) if self.layer and traffic.chance(rng, 0.3) else 1
        h0 = not self.layer or traffic.chance(rng, 0.8)
        return Call.of(
            self.name,
            batch=rng.randint(1, DECODE_BATCH),
            tokens=tokens,
            h0=h0,
            ht=not self.layer or traffic.chance(rng, 0.9),
            index=rng.choice([None, None, *INDEX_DTYPES]),
            parameters=rng.choice(self._parameter_dtypes(shape)),
        )


ARGUMENTS = {"B": "the dense batch: kernels compute positions with it, and do so with an argument as well"}
"""Constexprs that kernels are to take as arguments; see `gdn_aot.tracing.relax`."""

WORKLOADS: dict[str, Callable[[], Workload]] = {
    "transformers-prefill": lambda: Prefill("transformers-prefill", layer=False),
    "transformers-decode": lambda: Recurrent("transformers-decode", layer=False),
    "layer-prefill": lambda: Prefill("layer-prefill", layer=True),
    "layer-recurrent": lambda: Recurrent("layer-recurrent", layer=True),
    **({"small-chunks": lambda: SmallChunks("small-chunks")} if CHUNK_SIZES[1:] else {}),
    "gated-norm": lambda: GatedNorm("gated-norm"),
    "short-conv": lambda: ShortConv("short-conv"),
    "transformers-train": lambda: Prefill("transformers-train", layer=False, backward=True),
    "layer-train": lambda: Prefill("layer-train", layer=True, backward=True),
    "gated-norm-train": lambda: GatedNorm("gated-norm-train", backward=True),
    "short-conv-train": lambda: ShortConv("short-conv-train", backward=True),
}
