"""The gated delta rule, Kimi Delta Attention, the gated norm and the short convolution in float64.

They are made of PyTorch's operators alone. Heads as in the operator: ``heads`` key heads serve ``v_heads`` value heads,
each a run of neighbours. Shapes: q, k ``[batch, tokens, heads, k_dim]``; v ``[batch, tokens, v_heads, v_dim]``; beta
``[batch, tokens, v_heads]``; state ``[batch, v_heads, k_dim, v_dim]``; g, the log of the decay,
``[batch, tokens, v_heads]``. Kimi Delta Attention is the same with a decay for each channel of the keys, g
``[batch, tokens, v_heads, k_dim]``.

Two forms of one function. `recurrence` is the definition, a step for each token:

    S <- exp(g) S;  S <- S + k (beta (v - k^T S))^T;  o = S^T q / sqrt(k_dim)

`chunked` is the same in exact arithmetic, with a step for each chunk of tokens (the WY form of Yang et al.,
arXiv:2412.06464, equations 10 to 12; with a decay for each channel that of the Kimi team, arXiv:2510.26692), so that
32768 tokens take a fraction of a second on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad, silu, softplus
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK = 64
BLOCK = 16
"""Tokens of a chunk whose decays of channels are compared one by one."""
SEGMENT = 256 * CHUNK
"""Tokens that are computed at once: memory is for as many, however long a sequence is."""
EPSILON = 1e-6
"""What the operator adds to the squared norm of queries and keys."""


def normalized(x: torch.Tensor) -> torch.Tensor:
    """Return vectors divided by their norm, in float64."""
    x = x.double()
    return x / (x.square().sum(-1, keepdim=True) + EPSILON).sqrt()


def gate(raw: torch.Tensor, a_log: torch.Tensor, dt_bias: torch.Tensor, bound: float = 0.0) -> torch.Tensor:
    """Return the logarithm of the decay that a raw gate stands for, in float64.

    Args:
        raw: ``[..., v_heads]``, or with a gate for each channel ``[..., v_heads, k_dim]``.
        a_log: ``[v_heads]``.
        dt_bias: As many numbers as ``raw`` has for a token.
        bound: Least logarithm, which makes it another function; 0 for none.
    """
    shape = raw.shape[-1:] if dt_bias.shape == a_log.shape else raw.shape[-2:]
    a, x = a_log.double().exp().view(-1, *[1] * (len(shape) - 1)), raw.double() + dt_bias.double().view(shape)
    return bound * (a * x).sigmoid() if bound else -a * softplus(x)


def _heads_first(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Return everything in float64 as ``[batch, v_heads, tokens, ...]``, queries scaled, key heads repeated.

    The last dimension of g is 1 or ``k_dim``.
    """
    g = g if g.dim() == q.dim() else g[..., None]
    group = v.shape[2] // k.shape[2]
    q = q.double() * q.shape[-1] ** -0.5
    q, k = (x.double().repeat_interleave(group, dim=2) for x in (q, k))
    return tuple(x.double().transpose(1, 2) for x in (q, k, v, g, beta))


def recurrence(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor, state: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the outputs ``[batch, tokens, v_heads, v_dim]`` and the last state, step by step."""
    q, k, v, g, beta = _heads_first(q, k, v, g, beta)
    s = v.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]) if state is None else state.double()
    outs = []
    for t in range(v.shape[2]):
        s = s * g[:, :, t, :, None].exp()
        key = k[:, :, t, :, None]
        change = beta[:, :, t, None] * (v[:, :, t] - (s * key).sum(-2))
        s = s + key * change[:, :, None]
        outs.append((s * q[:, :, t, :, None]).sum(-2)[:, :, None])
    return torch.cat([v[:, :, :0], *outs], 2).transpose(1, 2), s


def chunked(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor, state: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `recurrence` returns, chunk by chunk."""
    q, k, v, g, beta = _heads_first(q, k, v, g, beta)
    batch, heads, tokens, v_dim = v.shape
    s = v.new_zeros(batch, heads, k.shape[-1], v_dim) if state is None else state.double()
    padding = -tokens % CHUNK  # tokens with beta 0 and decay 1 change nothing
    q, k, v, g = (pad(x, (0, 0, 0, padding)).unflatten(2, (-1, CHUNK)) for x in (q, k, v, g))
    beta = pad(beta, (0, padding)).unflatten(2, (-1, CHUNK))
    decay = g.cumsum(-2)
    weighted = k * beta[..., None]
    system = _products(weighted, k, decay).tril(-1)
    wanted = torch.cat([v * beta[..., None], weighted * decay.exp()], -1)
    u, w = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True).split(
        [v_dim, k.shape[-1]], -1
    )
    inner = _products(q, k, decay)
    q = q * decay.exp()
    last = decay[..., -1:, :]
    k = k * (last - decay).exp()
    last = last.exp().mT
    outs = []
    for chunk in range(v.shape[2]):
        change = u[:, :, chunk] - w[:, :, chunk] @ s
        outs.append(q[:, :, chunk] @ s + inner[:, :, chunk] @ change)
        s = s * last[:, :, chunk] + k[:, :, chunk].mT @ change
    return torch.cat(outs, 2)[:, :, :tokens].transpose(1, 2), s


def _products(x: torch.Tensor, y: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    """Return ``[..., CHUNK, CHUNK]``: token i of x times token j of y, decayed from j to i, for j <= i; 0 elsewhere.

    No logarithm that is exponentiated is above 0, so that nothing overflows. With a decay for each channel, tokens of
    earlier blocks decay to the first token of a block, and from there on; those of one block are compared in pairs.
    """
    if decay.shape[-1] == 1:
        return (x @ y.mT) * (decay - decay.mT).tril().exp().tril()
    made = x.new_zeros(*x.shape[:-1], CHUNK)
    for start in range(0, CHUNK, BLOCK):
        span, before = slice(start, start + BLOCK), slice(0, start)
        first, own, rows = decay[..., start : start + 1, :], decay[..., span, :], x[..., span, :]
        made[..., span, before] = (rows * (own - first).exp()) @ (
            y[..., before, :] * (first - decay[..., before, :]).exp()
        ).mT
        for j in range(start, start + BLOCK):
            since = (decay[..., j : start + BLOCK, :] - decay[..., j : j + 1, :]).exp()
            made[..., j : start + BLOCK, j] = (x[..., j : start + BLOCK, :] * y[..., j : j + 1, :] * since).sum(-1)
    return made


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
        outs, last = [], states
        for sq, sk, sv, sg, sb in zip(*(x.split(SEGMENT, 1) for x in (q, k, v, g, beta)), strict=True):
            if torch.is_grad_enabled():  # computed again backwards: of all segments, what is between takes too much
                out, last = checkpoint(chunked, sq, sk, sv, sg, sb, last, use_reentrant=False)
            else:
                out, last = chunked(sq, sk, sv, sg, sb, last)
            outs.append(out)
        assert last is not None  # noqa: S101
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
