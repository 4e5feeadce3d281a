"""The gated norm after vLLM's Gated Delta Net layers."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from vllm.model_executor.layers.layernorm import RMSNormGated

from gdn_aot.providers import traffic
from gdn_aot.providers.vllm.cache import DTYPES
from gdn_aot.providers.vllm.steps import SM_COUNTS, norm_rows
from gdn_aot.providers.workload import Call, Workload, there
from gdn_aot.reference import formulas as reference

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.providers.draw import Draw
    from gdn_aot.reference import Tensors

try:
    from vllm.model_executor.layers.fla.ops.layernorm_guard import rmsnorm_fn
except ModuleNotFoundError:  # from 0.33 on
    from vllm.third_party.flash_linear_attention.ops.layernorm_guard import rmsnorm_fn

_GUARD = inspect.getmodule(inspect.unwrap(rmsnorm_fn))
"""The module that asks for the SM count."""


class GatedRMSNorm(Workload):
    """``RMSNormGated`` on the output of a layer, as it is where Inductor does not take its place. Not autotuned."""

    kind = "norm"

    def __init__(self, name: str) -> None:
        self.name = name

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every number of rows in a block, on whatever card, and every class of the row count."""
        del limits
        for tokens, sm_count in norm_rows(shape.v_heads):
            yield Call.of(self.name, tokens=tokens, sm_count=sm_count)

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield nothing: a start of vLLM makes these calls itself if it makes any."""
        del shape, tokens
        return iter(())

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a call of random length, on some card."""
        del shape
        return Call.of(
            self.name, tokens=traffic.random_length(rng, limits.max_tokens), sm_count=rng.choice(list(SM_COUNTS))
        )

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
        """Call the norm as the layer does, on a card with so many SMs. Returns ``out``."""
        sm_count: Any = dict(call.arguments)["sm_count"]
        x, gate, weight = (there(inputs, name) for name in ("x", "g", "norm_weight"))
        norm = _norm(shape.norm_eps, shape.activation)
        norm.weight = torch.nn.Parameter(weight, requires_grad=False)
        with torch.no_grad(), mock.patch.object(_GUARD, "num_compute_units", return_value=sm_count):
            return {"out": norm.forward_cuda(x.flatten(0, 2), gate.flatten(0, 2)).view(x.shape)}

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the gated norm."""
        del call
        x, gate, weight = (there(inputs, name) for name in ("x", "g", "norm_weight"))
        return {"out": reference.gated_norm(x, gate, weight, shape.norm_eps, shape.activation)}


@cache
def _norm(eps: float, activation: str) -> Any:
    """Return the layer's norm without its weight, made without the configuration that its constructor asks for."""
    norm = RMSNormGated.__new__(RMSNormGated)
    torch.nn.Module.__init__(norm)
    norm.eps, norm.activation = eps, activation
    norm.group_size, norm.norm_before_gate = None, True
    norm.register_parameter("bias", None)
    return norm
