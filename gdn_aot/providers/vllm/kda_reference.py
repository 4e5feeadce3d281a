"""What vLLM's layer of Kimi Delta Attention comes to in float64, from PyTorch's operators alone. Imports no vLLM.

Rounded between kernels as the layer does: `reference` says where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gdn_aot.providers import engine_layer
from gdn_aot.providers.workload import there
from gdn_aot.reference import formulas as reference

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.vllm.steps import Step
    from gdn_aot.reference import Tensors


def expect(shape: ModelShape, step: Step, inputs: Tensors, windows: torch.Tensor, states: torch.Tensor) -> Tensors:
    """Return what `gdn_aot.providers.vllm.reference.results` should."""
    x, decay, b = (there(inputs, name)[0] for name in ("projected", "decay", "b"))
    raw = decay.unflatten(-1, (shape.heads, -1))[None]
    g = reference.gate(raw, there(inputs, "A_log"), there(inputs, "dt_bias"))
    beta = b.double().sigmoid()[None]
    chunked = any(request.query > 1 for request in step.requests)  # then those that decode go that way, too
    outs, kept_rows, kept_states = [], [], []
    start = 0
    for request, (page,) in zip(step.requests, step.table, strict=True):
        span = slice(start, start + request.query)
        start += request.query
        taken = 1.0 if request.computed else 0.0
        before, state = windows[page] * taken, states[page].double() * taken
        mixed = engine_layer.convolution(inputs, x[span], before)
        q, k, v = engine_layer.heads(shape, mixed)
        if chunked:  # a kernel of its own normalizes
            q, k = q.to(mixed.dtype), k.to(mixed.dtype)
        out, last = reference.delta_rule(q, k, v, g[:, span], beta[:, span], state.mT[None])
        outs.append(out)
        kept_rows.append(torch.cat([before, x[span]])[-len(before) :])
        kept_states.append(last.mT)
    return {"out": torch.cat(outs, 1), "window": torch.cat(kept_rows), "state": torch.cat(kept_states)}
