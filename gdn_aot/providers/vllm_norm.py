"""The gated norm after vLLM's Gated Delta Net layers."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from vllm.model_executor.layers.layernorm import RMSNormGated

from gdn_aot.numerics import reference
from gdn_aot.providers import traffic
from gdn_aot.providers.base import Call
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.vllm_cache import DTYPES

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from gdn_aot.models import ModelShape
    from gdn_aot.providers.base import Draw, Limits, Tensors

MOST_ROWS = 4
"""Most rows of a block (``calc_rows_per_block``): 1, 2 or 4, the power of 2 from half the rows of each SM on."""


def token_counts(v_heads: int, sm_count: int) -> tuple[int, ...]:
    """Return token counts that have every number of rows a block can take with every class of the row count.

    Which tokens have which number of rows follows the SM count of the card; which pairs there are does not. So the
    counts for one card give the launch keys of every card, however few tokens it takes to get there.

    Args:
        v_heads: Rows of each token.
        sm_count: Of any card.
    """
    counts: dict[tuple[int, int], int] = {}
    most = (MOST_ROWS * sm_count + 16) // v_heads + 16
    for tokens in range(1, most + 1):
        rows = tokens * v_heads
        block = min(MOST_ROWS, _power_of_2(-(-rows // (2 * sm_count))))
        kind = 1 if rows == 1 else 16 if rows % 16 == 0 else 0
        counts.setdefault((block, kind), tokens)
    return tuple(counts.values())


def _power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


class GatedNorm:
    """``RMSNormGated`` on the output of a layer, as it is where Inductor does not take its place."""

    kind = "norm"

    def __init__(self, name: str) -> None:
        self.name = name

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every number of rows in a block, on whatever card, and every class of the row count."""
        del limits
        sm_count = torch.cuda.get_device_properties(0).multi_processor_count
        for tokens in token_counts(shape.v_heads, sm_count):
            yield Call.of(self.name, tokens=tokens)

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield nothing: a start of vLLM makes these calls itself if it makes any."""
        del shape, tokens
        return iter(())

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a call of random length."""
        del shape
        return Call.of(self.name, tokens=traffic.random_length(rng, limits.max_tokens))

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield nothing: the kernel is not autotuned."""
        del shape, tokens, limits
        return iter(())

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Draw the layer's output, the gate and the weight."""
        args: dict[str, Any] = dict(call.arguments)
        size, dtype = (1, args["tokens"], shape.v_heads, shape.v_dim), DTYPES[shape.dtype]
        return {
            "x": draw.normal(*size, dtype=dtype),
            "g": draw.normal(*size, dtype=dtype),
            "norm_weight": draw.weight(shape.v_dim, dtype=dtype),
        }

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Call the norm as the layer does. Returns ``out``."""
        del call
        x, gate, weight = (inputs[name] for name in ("x", "g", "norm_weight"))
        assert x is not None and gate is not None and weight is not None  # noqa: S101, PT018
        norm = _norm(shape.norm_eps, shape.activation)
        norm.weight = torch.nn.Parameter(weight, requires_grad=False)
        with torch.no_grad():
            return {"out": norm.forward_cuda(x.flatten(0, 2), gate.flatten(0, 2)).view(x.shape)}

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the gated norm."""
        del call
        x, gate, weight = (inputs[name] for name in ("x", "g", "norm_weight"))
        assert x is not None and gate is not None and weight is not None  # noqa: S101, PT018
        return {"out": reference.gated_norm(x, gate, weight, shape.norm_eps, shape.activation)}

    def run(self, shape: ModelShape, call: Call) -> None:
        """Make the call on tensors without content."""
        self.apply(shape, call, self.inputs(shape, call, EMPTY))


@cache
def _norm(eps: float, activation: str) -> Any:
    """Return the layer's norm without its weight, made without the configuration that its constructor asks for."""
    norm = RMSNormGated.__new__(RMSNormGated)
    torch.nn.Module.__init__(norm)
    norm.eps, norm.activation = eps, activation
    norm.group_size, norm.norm_before_gate = None, True
    norm.register_parameter("bias", None)
    return norm
