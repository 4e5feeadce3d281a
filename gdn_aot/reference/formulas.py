"""The gated delta rule, the gated norm and the short convolution in float64, made of PyTorch's operators alone.

Heads as in the operator: ``heads`` key heads serve ``v_heads`` value heads, each a run of neighbours.
Shapes: q, k ``[batch, tokens, heads, k_dim]``; v ``[batch, tokens, v_heads, v_dim]``; g (log of the decay) and beta
``[batch, tokens, v_heads]``; state ``[batch, v_heads, k_dim, v_dim]``.

Two forms of one function. `recurrence` is the definition, a step for each token:

    S <- exp(g) S;  S <- S + k (beta (v - k^T S))^T;  o = S^T q / sqrt(k_dim)

`chunked` is the same in exact arithmetic, with a step for each chunk of tokens (the WY form of Yang et al.,
arXiv:2412.06464, equations 10 to 12), so that 32768 tokens take a fraction of a second on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad, silu, softplus

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK = 64
SEGMENT = 256 * CHUNK
"""Tokens that are computed at once: memory is for as many, however long a sequence is."""
EPSILON = 1e-6
"""What the operator adds to the squared norm of queries and keys."""


def normalized(x: torch.Tensor) -> torch.Tensor:
    """Return vectors divided by their norm, in float64."""
    x = x.double()
    return x / (x.square().sum(-1, keepdim=True) + EPSILON).sqrt()


def gate(raw: torch.Tensor, a_log: torch.Tensor, dt_bias: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the decay that a raw gate stands for, in float64."""
    return -a_log.double().exp() * softplus(raw.double() + dt_bias.double())


def _heads_first(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Return everything in float64 as ``[batch, v_heads, tokens, ...]``, queries scaled, key heads repeated."""
    group = v.shape[2] // k.shape[2]
    q = q.double() * q.shape[-1] ** -0.5
    q, k = (x.double().repeat_interleave(group, dim=2) for x in (q, k))
    return tuple(x.double().transpose(1, 2) for x in (q, k, v, g, beta))


def recurrence(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor, state: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the outputs ``[batch, tokens, v_heads, v_dim]`` and the last state, step by step."""
    q, k, v, g, beta = _heads_first(q, k, v, g, beta)
    s = v.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]) if state is None else state.double().clone()
    out = torch.empty_like(v)
    for t in range(v.shape[2]):
        s *= g[:, :, t, None, None].exp()
        key = k[:, :, t, :, None]
        change = beta[:, :, t, None] * (v[:, :, t] - (s * key).sum(-2))
        s += key * change[:, :, None]
        out[:, :, t] = (s * q[:, :, t, :, None]).sum(-2)
    return out.transpose(1, 2), s


def chunked(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor, state: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `recurrence` returns, chunk by chunk."""
    q, k, v, g, beta = _heads_first(q, k, v, g, beta)
    batch, heads, tokens, v_dim = v.shape
    s = v.new_zeros(batch, heads, k.shape[-1], v_dim) if state is None else state.double()
    padding = -tokens % CHUNK  # tokens with beta 0 and decay 1 change nothing
    q, k, v = (pad(x, (0, 0, 0, padding)).unflatten(2, (-1, CHUNK)) for x in (q, k, v))
    g, beta = (pad(x, (0, padding)).unflatten(2, (-1, CHUNK)) for x in (g, beta))
    decay = g.cumsum(-1)
    since = (decay[..., :, None] - decay[..., None, :]).tril().exp().tril()  # decay from token j to token i >= j
    weighted = k * beta[..., None]
    system = (weighted @ k.mT * since).tril(-1)
    wanted = torch.cat([v * beta[..., None], weighted * decay[..., None].exp()], -1)
    u, w = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True).split(
        [v_dim, k.shape[-1]], -1
    )
    inner = q @ k.mT * since
    q = q * decay[..., None].exp()
    last = decay[..., -1:]
    k = k * (last - decay)[..., None].exp()
    last = last.exp()
    out = torch.empty_like(v)
    for chunk in range(v.shape[2]):
        change = u[:, :, chunk] - w[:, :, chunk] @ s
        out[:, :, chunk] = q[:, :, chunk] @ s + inner[:, :, chunk] @ change
        s = s * last[:, :, chunk, :, None] + k[:, :, chunk].mT @ change
    return out.flatten(2, 3)[:, :, :tokens].transpose(1, 2), s


def delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    states: torch.Tensor | None,
    lengths: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs and last states of a dense batch, or of sequences of these ``lengths`` packed in one row."""
    if lengths is None and v.shape[1] <= 1:
        return recurrence(q, k, v, g, beta, states)
    if lengths is None:
        outs, span = [], slice(0, SEGMENT)
        out, last = chunked(q[:, span], k[:, span], v[:, span], g[:, span], beta[:, span], states)
        outs.append(out)
        for start in range(SEGMENT, v.shape[1], SEGMENT):
            span = slice(start, start + SEGMENT)
            out, last = chunked(q[:, span], k[:, span], v[:, span], g[:, span], beta[:, span], last)
            outs.append(out)
        return torch.cat(outs, 1), last
    if len(set(lengths)) == 1:  # equal lengths are a dense batch
        dq, dk, dv, dg, db = (x[0].unflatten(0, (len(lengths), lengths[0])) for x in (q, k, v, g, beta))
        out, last = delta_rule(dq, dk, dv, dg, db, states)
        return out.flatten(0, 1)[None], last
    outs, lasts, start = [], [], 0
    for number, length in enumerate(lengths):
        span, before = slice(start, start + length), None if states is None else states[number : number + 1]
        out, last = delta_rule(q[:, span], k[:, span], v[:, span], g[:, span], beta[:, span], before)
        outs.append(out)
        lasts.append(last)
        start += length
    return torch.cat(outs, 1), torch.cat(lasts)


def gated_norm(x: torch.Tensor, gate: torch.Tensor, weight: torch.Tensor, eps: float, activation: str) -> torch.Tensor:
    """Return the RMS norm of ``x`` times the activated gate."""
    x, gate = x.double(), gate.double()
    scaled = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.double()
    return scaled * (gate.sigmoid() if activation == "sigmoid" else silu(gate))


def short_convolution(
    x: torch.Tensor, weight: torch.Tensor, states: torch.Tensor | None, lengths: Sequence[int] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the activated causal convolution of ``[batch, tokens, width]`` and the last inputs of each sequence.

    The convolution is in float64, the inputs are as they are.

    Args:
        x: Inputs; one row of packed sequences if ``lengths`` is given.
        weight: ``[width, taps]``.
        states: Inputs before the first one, ``[sequences, width, taps]``, or None for zeros.
        lengths: Of the packed sequences.
    """
    taps = weight.shape[-1]
    parts = [x] if lengths is None else list(x.split(list(lengths), dim=1))
    outs, lasts = [], []
    for number, part in enumerate(parts):
        before = x.new_zeros(part.shape[0], x.shape[-1], taps)
        if states is not None:
            before = states if lengths is None else states[number : number + 1]
        whole = torch.cat([before, part.transpose(1, 2)], -1)
        lasts.append(whole[..., -taps:])
        window = sum(
            whole[..., 1 + tap : 1 + tap + part.shape[1]].double() * weight[:, tap, None].double()
            for tap in range(taps)
        )
        outs.append(silu(window).transpose(1, 2))
    return torch.cat(outs, 1), torch.cat(lasts)
