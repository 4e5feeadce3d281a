"""Provider ``fla``: flash-linear-attention's GDN operator. Its gated norm and convolution are in `fla_modules`.

The calls are those of two callers, read from their sources: the model code of transformers 5
(``modeling_qwen3_5.py``, ``modeling_qwen3_next.py``, ``modeling_olmo_hybrid.py``) and FLA's own layer
(``fla/layers/gated_deltanet.py``). Importing this module imports fla: do it under the stub driver.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule

from gdn_aot.providers import traffic
from gdn_aot.providers.base import SMALL, Call, Limits
from gdn_aot.providers.fla_modules import BUCKET_ROWS, DTYPES, INDEX_DTYPES, GatedNorm, ShortConv, cu_seqlens

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from gdn_aot.models import ModelShape
    from gdn_aot.providers.base import Workload

DEFAULT_CHUNK = 64
"""What ``chunk_gated_delta_rule`` takes when nothing is said."""

MANY_CHUNKS = 20
"""More than the 16 indices up to which ``index_select`` of PyTorch takes its kernel for small indices."""

RECURRENT_TOKENS = 64
"""FLA's layer takes the recurrent operator up to this many tokens (``q_len <= 64``)."""


def _accepts(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(inspect.unwrap(function)).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


@cache
def _source_mentions(function: Callable[..., Any], word: str) -> bool:
    return word in inspect.getsource(inspect.unwrap(function))


STATE_FLAG = "state_v_first" if _source_mentions(chunk_gated_delta_rule, "state_v_first") else "transpose_state_layout"
GATE_IN_KERNEL = _source_mentions(chunk_gated_delta_rule, "use_gate_in_kernel")
BETA_SIGMOID = _source_mentions(chunk_gated_delta_rule, "use_beta_sigmoid_in_kernel")
GROUPED_VALUES = _source_mentions(chunk_gated_delta_rule, "GVA")
CHUNK_SIZES: tuple[int, ...] = (64, 16, 32) if _source_mentions(chunk_gated_delta_rule, "chunk_size not in") else (64,)


class _Operator:
    """Tensors and arguments that both operators share."""

    name: str
    layer: bool
    """Called as FLA's layer does (gate and beta sigmoid in the kernel, state V first) or as transformers does."""

    def _inputs(self, shape: ModelShape, batch: int, tokens: int, *, grad: bool) -> dict[str, torch.Tensor]:
        dtype = DTYPES[shape.dtype]
        heads = shape.heads if GROUPED_VALUES else shape.v_heads
        gate_dtype = dtype if self.layer and GATE_IN_KERNEL else torch.float32
        return {
            "q": torch.empty(batch, tokens, heads, shape.k_dim, dtype=dtype, requires_grad=grad),
            "k": torch.empty(batch, tokens, heads, shape.k_dim, dtype=dtype, requires_grad=grad),
            "v": torch.empty(batch, tokens, shape.v_heads, shape.v_dim, dtype=dtype, requires_grad=grad),
            "g": torch.empty(batch, tokens, shape.v_heads, dtype=gate_dtype, requires_grad=grad),
            "beta": torch.empty(batch, tokens, shape.v_heads, dtype=dtype, requires_grad=grad),
        }

    def _state(self, shape: ModelShape, sequences: int) -> torch.Tensor:
        dims = (shape.v_dim, shape.k_dim) if self.layer else (shape.k_dim, shape.v_dim)
        return torch.empty(sequences, shape.v_heads, *dims, dtype=torch.float32)

    def _flags(self, shape: ModelShape, parameters: str) -> dict[str, Any]:
        flags: dict[str, Any] = {}
        if not self.layer:
            return flags
        flags[STATE_FLAG] = True
        if BETA_SIGMOID:
            flags["use_beta_sigmoid_in_kernel"] = True
            flags["allow_neg_eigval"] = shape.allow_neg_eigval
        if GATE_IN_KERNEL:
            flags["use_gate_in_kernel"] = True
            flags["A_log"] = torch.empty(shape.v_heads, dtype=DTYPES[parameters])
            flags["dt_bias"] = torch.empty(shape.v_heads, dtype=DTYPES[parameters])
        return flags

    def _parameter_dtypes(self, shape: ModelShape) -> tuple[str, ...]:
        """Return dtypes of ``A_log``: float32 as created, the model's after ``model.to(dtype)``."""
        return ("fp32", shape.dtype) if self.layer and GATE_IN_KERNEL else ("fp32",)


class Prefill(_Operator):
    """``chunk_gated_delta_rule``: dense and packed prompts, with and without state, at one chunk size.

    Both callers that go on from a state also want the next one; only dense prompts cover a state that ends there.
    """

    chunk = DEFAULT_CHUNK

    def __init__(self, name: str, *, layer: bool, backward: bool = False) -> None:
        self.name, self.layer, self.backward = name, layer, backward

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every pattern of state, packing and index dtype, every dense batch and every row bucket."""
        for parameters in self._parameter_dtypes(shape):
            for h0, ht in ((False, False), (False, True), (True, True), (True, False)):
                common = {"h0": h0, "ht": ht, "parameters": parameters}
                yield self._call(batch=1, tokens=128, packed=None, index="int64", **common)
                for index in INDEX_DTYPES if ht or not h0 else ():
                    yield self._call(batch=1, tokens=0, packed=(60, 70), index=index, **common)
        common = {"h0": False, "ht": True, "index": "int64", "packed": None, "parameters": "fp32"}
        for batch in range(2, min(limits.max_batch, limits.max_tokens) + 1):
            yield self._call(batch=batch, tokens=1, **common)
        heads = shape.heads if GROUPED_VALUES else shape.v_heads
        for tokens in traffic.bucket_tokens(heads, BUCKET_ROWS, limits.max_tokens):
            yield self._call(batch=1, tokens=tokens, **common)
        yield self._call(batch=1, tokens=128, l2norm=False, **common)

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

    def run(self, shape: ModelShape, call: Call) -> None:
        """Make the call; with ``backward``, also its backward pass."""
        args: dict[str, Any] = dict(call.arguments)
        packed = args["packed"]
        batch, tokens = (1, sum(packed)) if packed else (args["batch"], args["tokens"])
        flags = self._flags(shape, args["parameters"])
        if args["chunk"] != DEFAULT_CHUNK:
            flags["chunk_size"] = args["chunk"]
        with torch.set_grad_enabled(self.backward):
            out, final = chunk_gated_delta_rule(
                **self._inputs(shape, batch, tokens, grad=self.backward),
                initial_state=self._state(shape, len(packed) if packed else batch) if args["h0"] else None,
                output_final_state=args["ht"],
                use_qk_l2norm_in_kernel=args["l2norm"],
                cu_seqlens=cu_seqlens(packed, args["index"]) if packed else None,
                **flags,
            )
            if self.backward:
                grads = [torch.empty_like(out)] + ([torch.empty_like(final)] if args["ht"] else [])
                torch.autograd.backward([out, final][: len(grads)], grads)


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

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield the small cases."""
        del tokens
        return self.cases(shape, SMALL)

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

    def __init__(self, name: str, *, layer: bool) -> None:
        self.name, self.layer = name, layer

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every pattern of state and packing; batch and length are in no key of this kernel."""
        del limits
        states = ((False, False), (False, True), (True, True), (True, False)) if self.layer else ((True, True),)
        for parameters in self._parameter_dtypes(shape):
            for h0, ht in states:
                for index in (None, *INDEX_DTYPES):
                    yield Call.of(self.name, batch=2, tokens=1, h0=h0, ht=ht, index=index, parameters=parameters)

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield the small cases."""
        del tokens
        return self.cases(shape, SMALL)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random decode batch of 1 to 256 sequences."""
        del limits
        tokens = rng.randint(1, RECURRENT_TOKENS) if self.layer and traffic.chance(rng, 0.3) else 1
        h0 = not self.layer or traffic.chance(rng, 0.8)
        return Call.of(
            self.name,
            batch=rng.randint(1, 256),
            tokens=tokens,
            h0=h0,
            ht=not self.layer or traffic.chance(rng, 0.9),
            index=rng.choice([None, None, *INDEX_DTYPES]),
            parameters=rng.choice(self._parameter_dtypes(shape)),
        )

    def run(self, shape: ModelShape, call: Call) -> None:
        """Make the call."""
        args: dict[str, Any] = dict(call.arguments)
        batch, tokens, index = args["batch"], args["tokens"], args["index"]
        lengths = (tokens,) * batch
        with torch.no_grad():
            inputs = self._inputs(shape, *((1, batch * tokens) if index else (batch, tokens)), grad=False)
            flags = self._flags(shape, args["parameters"])
            fused_recurrent_gated_delta_rule(
                **inputs,
                initial_state=self._state(shape, batch) if args["h0"] else None,
                output_final_state=args["ht"],
                use_qk_l2norm_in_kernel=True,
                cu_seqlens=cu_seqlens(lengths, index) if index else None,
                **flags,
            )


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
