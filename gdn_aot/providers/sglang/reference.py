"""What SGLang's layers come to in float64, from PyTorch's operators alone. Imports no SGLang.

Between its kernels a layer keeps tensors in the model's dtype: the output of the convolution, queries and keys after
the norm of a prompt, and beta but for drafts and for Kimi Delta Attention. They are rounded here as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gdn_aot.catalogue.models import KDA
from gdn_aot.providers import engine_layer
from gdn_aot.providers.layer_names import GLM
from gdn_aot.providers.sglang.steps import CHUNK
from gdn_aot.providers.workload import there
from gdn_aot.reference import formulas as reference

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.sglang.steps import Group, Step
    from gdn_aot.reference import Tensors

AT_ONCE = 64
"""Requests of a step without prompts that are computed at once: 256 MiB of states in float64 for Qwen3.5-9B."""

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""What a step works on: inputs of the convolution ``[tokens, width]``, the raw gates ``b`` and ``a``, both
``[tokens, v_heads]``; of Kimi Delta Attention the second has one for each channel of the keys. Or what it comes to:
outputs ``[1, tokens, v_heads, v_dim]``, windows ``[slots, taps - 1, width]`` and states
``[slots, v_heads, v_dim, k_dim]``."""


def expect(shape: ModelShape, step: Step, inputs: Tensors) -> Tensors:
    """Return ``out``, and ``window`` and ``state`` of the slots: those of requests, then those of tracked copies."""
    x, gate, b, a = engine_layer.split(shape, inputs)
    run = _prompts if step.kind == "extend" else _tokens
    out, windows, states = run(shape, step, inputs, (x[: step.tokens], b[: step.tokens], a[: step.tokens]))
    z = gate[None, : step.tokens]
    out = reference.gated_norm(out, z, there(inputs, "norm_weight"), shape.norm_eps, shape.norm_activation)
    return {"out": out.flatten(-2), "window": windows.mT, "state": states}


def _gates(
    shape: ModelShape, step: Step, inputs: Tensors, b: torch.Tensor, a: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logarithm of the decay, and beta.

    0.5.23 makes no sigmoid of beta in a breakable CUDA graph of prompts (the gate's dimensions decide in its
    ``kda_extend_in_graph``) but for GLM-5.3-Flash, which looks like a fault of it. That is what comes out.
    """
    g = reference.gate(a, there(inputs, "A_log"), there(inputs, "dt_bias"), shape.gate_bound)
    beta = b.double() if step.bucket and shape.layer != GLM else b.double().sigmoid()
    rounded = shape.family != KDA and step.kind != "verify"  # as the kernel that makes it, or reads it packed, does
    return g, beta.to(b.dtype) if rounded else beta


def _prompts(shape: ModelShape, step: Step, inputs: Tensors, parts: Three) -> Three:
    """Return what a step of prompts comes to, one after the other."""
    outs, kept, copies = [], [], []
    start = 0
    for number, request in enumerate(step.requests):
        span = slice(start, start + request.query)
        start += request.query
        x, b, a = (part[span] for part in parts)
        before = there(inputs, "windows")[number].mT, there(inputs, "states")[number].double()
        if not request.computed:
            before = torch.zeros_like(before[0]), torch.zeros_like(before[1])
        out, after, copy = _prompt(shape, step, request, inputs, (x, b, a), before)
        outs.append(out)
        kept.append(after)
        copies += [copy] * request.tracked
    windows, states = zip(*kept, *copies, strict=True)
    return torch.cat(outs, 1), torch.stack(windows), torch.stack(states)


def _tokens(shape: ModelShape, step: Step, inputs: Tensors, parts: Three) -> Three:
    """Return what a step comes to in which all requests have equally many tokens: one, and drafts."""
    requests, made = step.requests, []
    query = requests[0].query
    x, b, a = (part.unflatten(0, (len(requests), query)) for part in parts)
    accepted = torch.tensor([request.accepted for request in requests], device=x.device)
    for start in range(0, len(requests), AT_ONCE):
        span = slice(start, start + AT_ONCE)
        made.append(_few(shape, step, inputs, (x[span], b[span], a[span]), span, accepted[span]))
    outs, windows, states = (torch.cat(part) for part in zip(*made, strict=True))
    tracked = torch.tensor([request.tracked for request in requests], device=x.device)
    return outs.flatten(0, 1)[None], torch.cat([windows, windows[tracked]]), torch.cat([states, states[tracked]])


def _few(
    shape: ModelShape, step: Step, inputs: Tensors, parts: Three, span: slice, accepted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what some requests come to, each ``[requests, ...]``: outputs of all tokens, and what is kept of each.

    Kept is the window and the state after the first token and the ``accepted`` drafts after it.
    """
    x, b, a = parts
    window, state = there(inputs, "windows")[span].mT, there(inputs, "states")[span].double().mT
    rows, so_far = window.shape[1], torch.cat([window, x], 1)
    before = torch.cat([torch.zeros_like(window[:, :1]), window], 1).mT
    mixed, _ = reference.short_convolution(x, there(inputs, "weight"), before, None)
    q, k, v = (part[0] for part in engine_layer.heads(shape, mixed.to(x.dtype)))
    g, beta = _gates(shape, step, inputs, b, a)
    outs, windows, states = [], torch.empty_like(window), torch.empty_like(state)
    for token in range(x.shape[1]):
        now = slice(token, token + 1)
        out, state = reference.recurrence(q[:, now], k[:, now], v[:, now], g[:, now], beta[:, now], state)
        outs.append(out)
        last = accepted == token
        windows[last], states[last] = so_far[last, token + 1 : token + 1 + rows], state[last]
    return torch.cat(outs, 1), windows, states.mT


def _prompt(
    shape: ModelShape,
    step: Step,
    request: Group,
    inputs: Tensors,
    parts: Three,
    before: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Return a prompt's output, the window and state that its slot holds afterwards, and those of its copy.

    A window is ``[taps - 1, width]`` and a state ``[v_heads, v_dim, k_dim]``.
    """
    x, b, a = parts
    window, state = before
    inputs_so_far = torch.cat([window, x])
    rows = len(window)
    q, k, v = engine_layer.heads(shape, engine_layer.convolution(inputs, x, window))
    g, beta = _gates(shape, step, inputs, b[None], a[None])
    q, k = q.to(x.dtype), k.to(x.dtype)  # a kernel of its own normalizes

    def after(tokens: int) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        span = slice(0, tokens)
        out, last = reference.delta_rule(q[:, span], k[:, span], v[:, span], g[:, span], beta[:, span], state.mT[None])
        return out, (inputs_so_far[tokens : tokens + rows], last[0].mT)

    out, ends = after(request.query)
    whole = request.query // CHUNK * CHUNK
    if whole == request.query or not request.tracked:
        return out, ends, ends
    _, (kept, at) = after(whole)
    return out, ends, (kept, at.to(x.dtype).double())
