"""Workloads of provider ``fla``: the gated norm and the short convolution around the operator.

Importing this module imports fla: do it under the stub driver.
"""

from __future__ import annotations

import itertools
import sys
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from fla.modules import FusedRMSNormGated, ShortConvolution

from gdn_aot.catalogue.models import GDN
from gdn_aot.catalogue.providers import SMALL, Limits
from gdn_aot.providers import traffic
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.layer_names import OLMO
from gdn_aot.providers.norm_rows import SM_COUNTS, bucket_rows
from gdn_aot.providers.workload import Call, Workload, there
from gdn_aot.reference import formulas as reference

try:
    from fla.modules.causal_conv1d import causal_conv1d
except ImportError:  # before 0.6
    from fla.modules.conv import causal_conv1d

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.draw import Draw
    from gdn_aot.reference import Tensors

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
INDEX_DTYPES = {"int32": torch.int32, "int64": torch.int64}

BUCKET_ROWS = 65536
"""Rows per step of the constexpr ``NB`` in the L2 norm and the gated norm (``2048 * 32`` in fla)."""

DECODE_BATCH = 256
"""Most sequences in one decode step of random traffic."""

_NORM = sys.modules[FusedRMSNormGated.__module__]
"""Where the gated norm asks how many SMs the card has."""

_CONV_BLOCK = 64
"""Tokens that one block of the convolution takes at most."""

_INT32_LIMIT = 1 << 31
"""Integers from here on are ``i64`` in a launch key."""


def cu_seqlens(lengths: tuple[int, ...], index: str) -> torch.Tensor:
    """Return the ends of packed sequences, as ``cu_seqlens`` wants them."""
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=INDEX_DTYPES[index])


def _weight_dtypes(shape: ModelShape, *, backward: bool) -> tuple[str, ...]:
    """Return dtypes of parameters: the model's, and for training also the float32 of mixed precision."""
    return ("fp32", shape.dtype) if backward else (shape.dtype,)


class _Module(Workload):
    def __init__(self, name: str, *, backward: bool = False) -> None:
        self.name, self.backward = name, backward

    def run(self, shape: ModelShape, call: Call) -> None:
        """Make the call; with ``backward``, also its backward pass."""
        out = there(self.apply(shape, call, self.inputs(shape, call, EMPTY)), "out")
        if self.backward:
            out.backward(torch.empty_like(out))


class GatedNorm(_Module):
    """``FusedRMSNormGated`` on the operator's output, of GDN or KDA.

    Its backward pass shares the rows among the SMs, and a share is in its launch key. Calls with ``backward`` say of
    how many SMs the card is, so that they are those of every card of a target.
    """

    kind = "norm"

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every activation, and in every row bucket each class of the row count and of an SM's share."""
        weights = _weight_dtypes(shape, backward=self.backward)
        cards = SM_COUNTS if self.backward else (1,)
        rows = bucket_rows(shape.v_heads, BUCKET_ROWS, limits.max_tokens, cards)
        for activation, weight, (tokens, sm_count) in itertools.product(_activations(shape), weights, rows):
            yield self._call(sm_count, tokens=tokens, activation=activation, weight=weight)

    def _call(self, sm_count: int, **arguments: object) -> Call:
        return Call.of(self.name, **arguments, **({"sm_count": sm_count} if self.backward else {}))

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield the small cases, and one of ``tokens`` tokens."""
        yield from self.cases(shape, SMALL)
        if tokens:
            yield self._call(SM_COUNTS[-1], tokens=tokens, activation=_activations(shape)[0], weight=shape.dtype)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a call of random length, of training on some card."""
        weights = _weight_dtypes(shape, backward=self.backward)
        return self._call(
            rng.choice(SM_COUNTS) if self.backward else 1,
            tokens=traffic.random_length(rng, limits.max_tokens),
            activation=rng.choice(_activations(shape)),
            weight=rng.choice(weights),
        )

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield ``tokens`` tokens with every activation, and the row buckets below."""
        if self.backward:
            return
        for activation in _activations(shape):
            lengths = [tokens] if tokens <= limits.max_tokens else []
            lengths += traffic.buckets_near(shape.v_heads, BUCKET_ROWS, tokens, limits)
            for length in dict.fromkeys(lengths):
                yield Call.of(self.name, tokens=length, activation=activation, weight=shape.dtype)

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Draw the operator's output, the gate and the weight."""
        args: dict[str, Any] = dict(call.arguments)
        size, dtype = (1, args["tokens"], shape.v_heads, shape.v_dim), DTYPES[shape.dtype]
        return {
            "x": draw.normal(*size, dtype=dtype, grad=self.backward),
            "g": draw.normal(*size, dtype=dtype, grad=self.backward),
            "weight": draw.weight(shape.v_dim, dtype=DTYPES[args["weight"]]),
        }

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Call the norm's module with the weight. Returns ``out``."""
        args: dict[str, Any] = dict(call.arguments)
        norm = _norm(FusedRMSNormGated, shape.v_dim, shape.norm_eps, args["activation"])
        norm.weight = torch.nn.Parameter(inputs["weight"])
        with torch.set_grad_enabled(self.backward):
            return {"out": norm(inputs["x"], inputs["g"])}

    def run(self, shape: ModelShape, call: Call) -> None:
        """Make the call; with ``backward``, also its backward pass as on a card with so many SMs."""
        counted = dict(call.arguments).get("sm_count")
        with mock.patch.object(_NORM, "get_multiprocessor_count", return_value=counted):
            super().run(shape, call)

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the gated norm."""
        activation = str(dict(call.arguments)["activation"])
        x, gate, weight = (there(inputs, name) for name in ("x", "g", "weight"))
        return {"out": reference.gated_norm(x, gate, weight, shape.norm_eps, activation)}


@cache
def _norm(kind: Any, width: int, eps: float, activation: str) -> Any:
    """Return the module without its weight."""
    return kind(width, eps=eps, activation=activation, device="meta")


def _activations(shape: ModelShape) -> tuple[str, ...]:
    """Return the spellings in use: ``swish`` is FLA's default, ``silu`` what configs say; they are equal."""
    return ("sigmoid",) if shape.norm_activation == "sigmoid" else ("swish", "silu")


class ShortConv(_Module):
    """The layer's ``ShortConvolution`` over queries, keys and values.

    Without any state the layer of GDN joins the three and calls ``causal_conv1d`` itself (``fused`` here), which
    differs from ``ShortConvolution`` for single tokens. That of KDA does not.
    """

    kind = "conv"

    def _widths(self, shape: ModelShape) -> tuple[int, ...]:
        return tuple(dict.fromkeys((shape.heads * shape.k_dim, shape.v_heads * shape.v_dim)))

    def _joined(self, shape: ModelShape) -> tuple[int, ...]:
        """Return the width of all three joined, or nothing for a layer that does not join them."""
        width = 2 * shape.heads * shape.k_dim + shape.v_heads * shape.v_dim
        return (width,) if shape.family == GDN else ()

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every width, state pattern, packing and class of batch and length.

        The classes are 1, multiple of 16 and other, and lengths whose stride ``tokens * width`` needs 64 bits.
        """
        for weight in _weight_dtypes(shape, backward=self.backward):
            for width in self._joined(shape):
                yield from self._dense(limits, width=width, weight=weight, cache=False, final=False, fused=True)
            for width in self._widths(shape):
                for state, final in itertools.product((False, True), (False, True)):
                    common: dict[str, Any] = {"width": width, "weight": weight, "cache": state, "final": final}
                    common["fused"] = False
                    yield from self._dense(limits, **common)
                    packs = [(1, 4), (10, 6), *((length - 1, 1) for length in _long(limits.max_tokens, width))]
                    for index, packed in itertools.product(INDEX_DTYPES, packs):
                        yield Call.of(self.name, batch=1, tokens=0, packed=packed, index=index, **common)

    def _dense(self, limits: Limits, *, width: int, **common: object) -> Iterator[Call]:
        long = _long(limits.max_tokens, width)
        for batch, tokens in itertools.product((1, 16, 3), (1, 16, 5, *long)):
            if tokens in long and batch * tokens > limits.max_tokens:
                continue
            yield Call.of(self.name, batch=batch, tokens=tokens, packed=None, index="int64", width=width, **common)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random prefill or decode step."""
        packed, batch, tokens = traffic.random_prompts(rng, limits)
        joined = self._joined(shape)
        fused = packed is None and traffic.chance(rng, 0.2) and bool(joined)
        if traffic.chance(rng, 0.4):
            packed, batch, tokens = None, rng.randint(1, DECODE_BATCH), 1
        return Call.of(
            self.name,
            batch=batch,
            tokens=tokens,
            packed=packed,
            index=rng.choice(list(INDEX_DTYPES)),
            width=joined[0] if fused else rng.choice(self._widths(shape)),
            weight=rng.choice(_weight_dtypes(shape, backward=self.backward)),
            cache=not fused and traffic.chance(rng, 0.5),
            final=not fused and traffic.chance(rng, 0.7),
            fused=fused,
        )

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield every width, state pattern and packing at ``tokens`` tokens, and as many single ones, 256 at most."""
        if self.backward or tokens > limits.max_tokens:
            return
        single = {"batch": min(tokens, DECODE_BATCH), "tokens": 1, "packed": None, "index": "int64"}
        dense = {"batch": 1, "tokens": tokens, "packed": None, "index": "int64"}
        for width in self._joined(shape):
            common = {"width": width, "weight": shape.dtype, "cache": False, "final": False}
            yield Call.of(self.name, **dense, **common, fused=True)
        for width in self._widths(shape):
            for state, final in itertools.product((False, True), (False, True)):
                common = {"width": width, "weight": shape.dtype, "cache": state, "final": final, "fused": False}
                yield Call.of(self.name, **dense, **common)
                for index in INDEX_DTYPES:
                    packed = traffic.uneven(tokens, _CONV_BLOCK)
                    yield Call.of(self.name, batch=1, tokens=0, packed=packed, index=index, **common)
                yield Call.of(self.name, **single, **common)

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Draw inputs, weight and cache."""
        args: dict[str, Any] = dict(call.arguments)
        dtype, width, packed = DTYPES[shape.dtype], args["width"], args["packed"]
        batch, tokens = (1, sum(packed)) if packed else (args["batch"], args["tokens"])
        sequences = len(packed) if packed else batch
        return {
            "x": draw.normal(batch, tokens, width, dtype=dtype, grad=self.backward),
            "weight": draw.normal(width, 1, shape.conv_width, dtype=DTYPES[args["weight"]]),
            "cache": draw.normal(sequences, width, shape.conv_width, dtype=dtype) if args["cache"] else None,
            "cu_seqlens": cu_seqlens(packed, args["index"]) if packed else None,
        }

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Call the module or the function. Returns ``out``, and ``state`` if one came back."""
        args: dict[str, Any] = dict(call.arguments)
        conv = _convolution(ShortConvolution, args["width"], shape.conv_width)
        conv.weight = torch.nn.Parameter(inputs["weight"])
        x, others = inputs["x"], {name: inputs[name] for name in ("cache", "cu_seqlens")}
        with torch.set_grad_enabled(self.backward):
            if args["fused"]:
                weight = conv.weight.squeeze(1)
                out, state = causal_conv1d(
                    x=x, weight=weight, bias=None, activation=conv.activation, backend=conv.backend
                )
            else:
                out, state = conv(x, output_final_state=args["final"], **others)
        return {"out": out, **({} if state is None else {"state": state})}

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the convolution, and the last inputs as the state."""
        del shape
        args: dict[str, Any] = dict(call.arguments)
        x, weight = there(inputs, "x"), there(inputs, "weight").squeeze(1)
        out, state = reference.short_convolution(x, weight, inputs["cache"], args["packed"])
        return {"out": out, **({"state": state.double()} if args["final"] else {})}


class OlmoConv(ShortConv):
    """``ShortConvolution`` over queries, keys and values as OLMo-Hybrid of transformers 5.3 to 5.14 calls it.

    Dense batches only. Later versions and other models take their convolution from elsewhere.
    """

    _STATES = ((False, False), (False, True), (True, True))
    """Begins with a cache, returns one: without a cache object, in a first prompt, and from then on."""

    def applies(self, shape: ModelShape) -> bool:
        """Say whether the model is OLMo-Hybrid."""
        return shape.layer == OLMO

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every width, state pattern and class of batch and length."""
        for weight in _weight_dtypes(shape, backward=self.backward) if self.applies(shape) else ():
            for width, (state, final) in itertools.product(self._widths(shape), self._STATES):
                yield from self._dense(limits, width=width, weight=weight, cache=state, final=final, fused=False)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random dense prefill or decode step."""
        tokens = 1 if traffic.chance(rng, 0.4) else traffic.random_length(rng, limits.max_tokens)
        state, final = rng.choice(self._STATES)
        return Call.of(
            self.name,
            batch=rng.randint(1, max(1, min(limits.max_batch, limits.max_tokens // tokens))),
            tokens=tokens,
            packed=None,
            index="int64",
            width=rng.choice(self._widths(shape)),
            weight=rng.choice(_weight_dtypes(shape, backward=self.backward)),
            cache=state,
            final=final,
            fused=False,
        )

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield every width and state pattern at ``tokens`` tokens, and as many single ones, 256 at most."""
        if self.backward or tokens > limits.max_tokens or not self.applies(shape):
            return
        for width, (state, final) in itertools.product(self._widths(shape), self._STATES):
            common = {"width": width, "weight": shape.dtype, "cache": state, "final": final, "fused": False}
            for batch, length in ((1, tokens), (min(tokens, DECODE_BATCH), 1)):
                yield Call.of(self.name, batch=batch, tokens=length, packed=None, index="int64", **common)


def _long(max_tokens: int, width: int) -> tuple[int, ...]:
    """Return a length that is a multiple of 16 and one that is not, both with a 64-bit stride, if they are allowed."""
    first = -(-_INT32_LIMIT // width)
    aligned = -(-first // 16) * 16
    other = first if first % 16 else first + 1
    return tuple(length for length in (aligned, other) if length <= max_tokens)


@cache
def _convolution(kind: Any, width: int, kernel: int) -> Any:
    """Return the module without its weight."""
    return kind(width, kernel, activation="silu", device="meta")
