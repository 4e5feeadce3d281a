"""What vLLM's layers come to in float64, from PyTorch's operators alone. Imports no vLLM.

Between its kernels a layer keeps tensors in the model's dtype: the output of the convolution, and queries and keys
after their norm where a kernel of its own makes it. They are rounded here as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gdn_aot.catalogue.models import KDA
from gdn_aot.providers import engine_layer
from gdn_aot.providers.layer_names import OLMO
from gdn_aot.providers.workload import there
from gdn_aot.reference import formulas as reference

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.vllm.steps import Group, Step
    from gdn_aot.reference import Tensors


def results(step: Step, out: torch.Tensor, windows: torch.Tensor, states: torch.Tensor) -> Tensors:
    """Return what is compared: the output, and the windows and states that each request leaves in its pages.

    ``out`` is ``[1, tokens, v_heads, v_dim]``; of all pages the windows are ``[pages, length, width]`` and the states
    ``[pages, v_heads, v_dim, k_dim]``.
    """
    ends = [(request, table) for request, table in zip(step.requests, step.table, strict=True)]
    rows = [windows[table[0], : _window_rows(step, request)] for request, table in ends]
    kept = [page for request, table in ends for page in table[: _states_kept(step, request)]]
    return {"out": out, "window": torch.cat(rows), "state": states[torch.tensor(kept)]}


def _is_speculated(step: Step, request: Group) -> bool:
    return step.speculated and request.drafts >= 0


def _is_prompt(request: Group) -> bool:
    """Say whether a request's tokens are of a prompt; one token with a state before is decoded."""
    return request.query > 1 or not request.computed


def _window_rows(step: Step, request: Group) -> int:
    """Return how many inputs of the convolution a request's page holds: those of drafts may yet be refused."""
    return 2 + request.query if _is_speculated(step, request) else 3


def _states_kept(step: Step, request: Group) -> int:
    return request.query if _is_speculated(step, request) else 1


def expect(shape: ModelShape, step: Step, inputs: Tensors, windows: torch.Tensor, states: torch.Tensor) -> Tensors:
    """Return what `results` should."""
    x, gate, b, a = engine_layer.split(shape, inputs)
    outs, kept_rows, kept_states = [], [], []
    start = 0
    for request, table in zip(step.requests, step.table, strict=True):
        span = slice(start, start + request.query)
        start += request.query
        before, rows = _window(step, request, windows[table[0]], x[span])
        mixed = engine_layer.convolution(inputs, x[span], before)
        first = table[request.accepted - 1 if _is_speculated(step, request) else 0]
        state = states[first].double() if request.computed else torch.zeros_like(states[first]).double()
        out, after = _delta_rule(shape, step, request, inputs, (mixed, b[span], a[span]), state)
        outs.append(out)
        kept_rows.append(rows)
        kept_states.append(after)
    out = torch.cat(outs, 1)
    if step.deployment.fused:
        out = reference.gated_norm(out, gate[None], there(inputs, "norm_weight"), shape.norm_eps, shape.norm_activation)
    return {"out": out, "window": torch.cat(kept_rows), "state": torch.cat(kept_states)}


def _window(step: Step, request: Group, page: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs before a request's tokens, and what its page holds afterwards; both ``[rows, width]``."""
    if _is_speculated(step, request):
        skipped = request.accepted - 1
        before = page[skipped : skipped + 3]
        return before, torch.cat([before[1:], x])
    before = page[:3] if request.computed else torch.zeros_like(page[:3])
    return before, torch.cat([before, x])[-3:]


def _delta_rule(
    shape: ModelShape,
    step: Step,
    request: Group,
    inputs: Tensors,
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a request's output ``[1, tokens, v_heads, v_dim]`` and states ``[kept, v_heads, v_dim, k_dim]``."""
    mixed, b, a = parts
    q, k, v = engine_layer.heads(shape, mixed)
    # The prefill of KDA takes requests that decode, too.
    beside = step.requests if shape.family == KDA else (request,)
    prompt = any(map(_is_prompt, beside)) or (step.speculated and request.drafts < 0)
    if prompt and not _is_speculated(step, request):  # a kernel of its own normalizes
        q, k = q.to(mixed.dtype), k.to(mixed.dtype)
    g = reference.gate(a[None], there(inputs, "A_log"), there(inputs, "dt_bias"), shape.gate_bound)
    beta = b.double().sigmoid()[None] * (2.0 if shape.allow_neg_eigval else 1.0)
    packed = shape.family != KDA and shape.layer != OLMO and step.packed and not step.speculated
    if packed and not any(map(_is_prompt, step.requests)):
        beta = beta.to(b.dtype)  # as the packed kernel does
    last = state.mT[None]
    if not _is_speculated(step, request):
        out, last = reference.delta_rule(q, k, v, g, beta, last)
        return out, last.mT
    outs, kept = [], []
    for token in range(request.query):
        one = slice(token, token + 1)
        out, last = reference.recurrence(q[:, one], k[:, one], v[:, one], g[:, one], beta[:, one], last)
        outs.append(out)
        kept.append(last.mT)
    return torch.cat(outs, 1), torch.cat(kept)
