"""What SGLang's layer comes to in float64, from PyTorch's operators alone. Imports no SGLang.

Between its kernels the layer keeps tensors in the model's dtype: the output of the convolution, queries and keys after
the norm of a prompt, and beta but for drafts. They are rounded here as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gdn_aot.providers import engine_layer
from gdn_aot.providers.sglang.steps import CHUNK
from gdn_aot.providers.workload import there
from gdn_aot.reference import formulas as reference

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.sglang.steps import Group, Step
    from gdn_aot.reference import Tensors


def expect(shape: ModelShape, step: Step, inputs: Tensors) -> Tensors:
    """Return ``out``, and ``window`` and ``state`` of the slots: those of requests, then those of tracked copies."""
    x, gate, b, a = engine_layer.split(shape, inputs)
    outs, kept, copies = [], [], []
    start = 0
    for number, request in enumerate(step.requests):
        span = slice(start, start + request.query)
        start += request.query
        before = there(inputs, "windows")[number].mT, there(inputs, "states")[number].double()
        if step.kind == "extend" and not request.computed:
            before = torch.zeros_like(before[0]), torch.zeros_like(before[1])
        out, after, copy = _request(shape, step, request, inputs, (x[span], b[span], a[span]), before)
        outs.append(out)
        kept.append(after)
        copies += [copy] * request.tracked
    z = gate[None, :start]
    out = reference.gated_norm(
        torch.cat(outs, 1), z, there(inputs, "norm_weight"), shape.norm_eps, shape.norm_activation
    )
    windows, states = zip(*kept, *copies, strict=True)
    return {"out": out.flatten(-2), "window": torch.stack([one.mT for one in windows]), "state": torch.stack(states)}


def _request(
    shape: ModelShape,
    step: Step,
    request: Group,
    inputs: Tensors,
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    before: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Return a request's output, the window and state that its slot holds afterwards, and those of its copy.

    A window is ``[taps - 1, width]`` and a state ``[v_heads, v_dim, k_dim]``.
    """
    x, b, a = parts
    window, state = before
    inputs_so_far = torch.cat([window, x])
    rows = len(window)
    q, k, v = engine_layer.heads(shape, engine_layer.convolution(inputs, x, window))
    g = reference.gate(a, there(inputs, "A_log"), there(inputs, "dt_bias"))[None]
    beta = b.double().sigmoid()[None]
    if step.kind != "verify":
        beta = beta.to(b.dtype)  # as kernels that make it, or read it packed, do
    if step.kind == "extend":
        q, k = q.to(x.dtype), k.to(x.dtype)  # a kernel of its own normalizes

    def after(tokens: int) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        span = slice(0, tokens)
        run = reference.delta_rule if step.kind == "extend" else reference.recurrence
        out, last = run(q[:, span], k[:, span], v[:, span], g[:, span], beta[:, span], state.mT[None])
        return out, (inputs_so_far[tokens : tokens + rows], last[0].mT)

    out, ends = after(request.query)
    if step.kind != "extend":
        _, ends = after(1 + request.accepted)
        return out, ends, ends
    whole = request.query // CHUNK * CHUNK
    if whole == request.query or not request.tracked:
        return out, ends, ends
    _, (kept, at) = after(whole)
    return out, ends, (kept, at.to(x.dtype).double())
