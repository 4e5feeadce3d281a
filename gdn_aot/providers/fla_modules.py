"""Workloads of provider ``fla``: the gated norm and the short convolution around the operator.

Importing this module imports fla: do it under the stub driver.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from fla.modules import FusedRMSNormGated, ShortConvolution

from gdn_aot.providers import traffic
from gdn_aot.providers.base import SMALL, Call, Limits

try:
    from fla.modules.causal_conv1d import causal_conv1d
except ImportError:  # before 0.6
    from fla.modules.conv import causal_conv1d

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from gdn_aot.models import ModelShape

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
INDEX_DTYPES = {"int32": torch.int32, "int64": torch.int64}

BUCKET_ROWS = 65536
"""Rows per step of the constexpr ``NB`` in the L2 norm and the gated norm (``2048 * 32`` in fla)."""

_INT32_LIMIT = 1 << 31
"""Integers from here on are ``i64`` in a launch key."""


def cu_seqlens(lengths: tuple[int, ...], index: str) -> torch.Tensor:
    """Return the ends of packed sequences, as ``cu_seqlens`` wants them."""
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=INDEX_DTYPES[index])


def _weight_dtypes(shape: ModelShape, *, backward: bool) -> tuple[str, ...]:
    """Return dtypes of parameters: the model's, and for training also the float32 of mixed precision."""
    return ("fp32", shape.dtype) if backward else (shape.dtype,)


class GatedNorm:
    """``FusedRMSNormGated`` on the operator's output."""

    def __init__(self, name: str, *, backward: bool = False) -> None:
        self.name, self.backward = name, backward

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every activation and row bucket."""
        weights = _weight_dtypes(shape, backward=self.backward)
        for activation in _activations(shape):
            for weight in weights:
                for tokens in traffic.bucket_tokens(shape.v_heads, BUCKET_ROWS, limits.max_tokens):
                    yield Call.of(self.name, tokens=tokens, activation=activation, weight=weight)

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield the small cases, and one of ``tokens`` tokens."""
        yield from self.cases(shape, SMALL)
        if tokens:
            yield Call.of(self.name, tokens=tokens, activation=_activations(shape)[0], weight=shape.dtype)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a call of random length."""
        weights = _weight_dtypes(shape, backward=self.backward)
        return Call.of(
            self.name,
            tokens=traffic.random_length(rng, limits.max_tokens),
            activation=rng.choice(_activations(shape)),
            weight=rng.choice(weights),
        )

    def run(self, shape: ModelShape, call: Call) -> None:
        """Make the call; with ``backward``, also its backward pass."""
        args: dict[str, Any] = dict(call.arguments)
        dtype = DTYPES[shape.dtype]
        norm = FusedRMSNormGated(
            shape.v_dim, eps=shape.norm_eps, activation=args["activation"], dtype=DTYPES[args["weight"]]
        )
        size = (1, args["tokens"], shape.v_heads, shape.v_dim)
        with torch.set_grad_enabled(self.backward):
            x = torch.empty(*size, dtype=dtype, requires_grad=self.backward)
            gate = torch.empty(*size, dtype=dtype, requires_grad=self.backward)
            out = norm(x, gate)
            if self.backward:
                out.backward(torch.empty_like(out))


def _activations(shape: ModelShape) -> tuple[str, ...]:
    """Return the spellings in use: ``swish`` is FLA's default, ``silu`` what configs say; they are equal."""
    return ("sigmoid",) if shape.activation == "sigmoid" else ("swish", "silu")


class ShortConv:
    """The layer's ``ShortConvolution`` over queries, keys and values.

    Without any state the layer joins the three and calls ``causal_conv1d`` itself (``fused`` here), which differs from
    ``ShortConvolution`` for single tokens.
    """

    def __init__(self, name: str, *, backward: bool = False) -> None:
        self.name, self.backward = name, backward

    def _widths(self, shape: ModelShape) -> tuple[int, ...]:
        return tuple(dict.fromkeys((shape.heads * shape.k_dim, shape.v_heads * shape.v_dim)))

    def _fused_width(self, shape: ModelShape) -> int:
        return 2 * shape.heads * shape.k_dim + shape.v_heads * shape.v_dim

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every width, state pattern, packing and class of batch and length.

        The classes are 1, multiple of 16 and other, and lengths whose stride ``tokens * width`` needs 64 bits.
        """
        for weight in _weight_dtypes(shape, backward=self.backward):
            fused = self._fused_width(shape)
            yield from self._dense(limits, width=fused, weight=weight, cache=False, final=False, fused=True)
            for width in self._widths(shape):
                for state, final in itertools.product((False, True), (False, True)):
                    common: dict[str, Any] = {
                        "width": width,
                        "weight": weight,
                        "cache": state,
                        "final": final,
                        "fused": False,
                    }
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

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield the small cases."""
        del tokens
        return self.cases(shape, SMALL)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random prefill or decode step."""
        packed, batch, tokens = traffic.random_prompts(rng, limits)
        fused = packed is None and traffic.chance(rng, 0.2)
        if traffic.chance(rng, 0.4):
            packed, batch, tokens = None, rng.randint(1, 256), 1
        return Call.of(
            self.name,
            batch=batch,
            tokens=tokens,
            packed=packed,
            index=rng.choice(list(INDEX_DTYPES)),
            width=self._fused_width(shape) if fused else rng.choice(self._widths(shape)),
            weight=rng.choice(_weight_dtypes(shape, backward=self.backward)),
            cache=not fused and traffic.chance(rng, 0.5),
            final=not fused and traffic.chance(rng, 0.7),
            fused=fused,
        )

    def run(self, shape: ModelShape, call: Call) -> None:
        """Make the call; with ``backward``, also its backward pass."""
        args: dict[str, Any] = dict(call.arguments)
        dtype, width, packed = DTYPES[shape.dtype], args["width"], args["packed"]
        batch, tokens = (1, sum(packed)) if packed else (args["batch"], args["tokens"])
        sequences = len(packed) if packed else batch
        conv = _convolution(width, shape.conv_width, args["weight"])
        with torch.set_grad_enabled(self.backward):
            x = torch.empty(batch, tokens, width, dtype=dtype, requires_grad=self.backward)
            if args["fused"]:
                out, _ = causal_conv1d(
                    x=x, weight=conv.weight.squeeze(1), bias=None, activation=conv.activation, backend=conv.backend
                )
            else:
                out, _ = conv(
                    x,
                    cache=torch.empty(sequences, width, shape.conv_width, dtype=dtype) if args["cache"] else None,
                    output_final_state=args["final"],
                    cu_seqlens=cu_seqlens(packed, args["index"]) if packed else None,
                )
            if self.backward:
                out.backward(torch.empty_like(out))


def _long(max_tokens: int, width: int) -> tuple[int, ...]:
    """Return a length that is a multiple of 16 and one that is not, both with a 64-bit stride, if they are allowed."""
    first = -(-_INT32_LIMIT // width)
    aligned = -(-first // 16) * 16
    other = first if first % 16 else first + 1
    return tuple(length for length in (aligned, other) if length <= max_tokens)


@cache
def _convolution(width: int, kernel: int, dtype: str) -> ShortConvolution:
    return ShortConvolution(width, kernel, activation="silu", dtype=DTYPES[dtype])
