"""The float64 reference against itself: two forms of one function, and formulas written out."""

import pytest
import torch

from gdn_aot.providers.draw import Random
from gdn_aot.reference import formulas as reference


def drawn(batch: int, tokens: int, heads: int = 2, v_heads: int = 4, beta: float = 1.0) -> list[torch.Tensor]:
    draw = Random(tokens, "cpu")
    return [
        reference.normalized(draw.normal(batch, tokens, heads, 16, dtype=torch.float32)),
        reference.normalized(draw.normal(batch, tokens, heads, 16, dtype=torch.float32)),
        draw.normal(batch, tokens, v_heads, 24, dtype=torch.float32),
        draw.log_decay(batch, tokens, v_heads),
        draw.sigmoid(batch, tokens, v_heads, dtype=torch.float32, scale=beta),
        draw.normal(batch, v_heads, 16, 24, dtype=torch.float32),
    ]


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("tokens", "start", "beta"), [(1, True, 1.0), (65, False, 2.0), (200, True, 1.0)])
def test_chunked_is_the_recurrence(tokens: int, start: bool, beta: float) -> None:
    *inputs, state = drawn(2, tokens, beta=beta)
    initial = state if start else None
    out, last = reference.recurrence(*inputs, state=initial)
    chunked_out, chunked_last = reference.chunked(*inputs, state=initial)
    assert distance(chunked_out, out) < 1e-12
    assert distance(chunked_last, last) < 1e-12


@pytest.mark.parametrize("lengths", [(1, 70, 29), (50, 50)])
def test_packed_sequences_are_single_ones(lengths: tuple[int, ...]) -> None:
    *inputs, _ = drawn(1, sum(lengths))
    states = torch.randn(len(lengths), 4, 16, 24, generator=torch.Generator().manual_seed(0))
    out, last = reference.delta_rule(*inputs, states, lengths)
    start = 0
    for number, length in enumerate(lengths):
        part = [x[:, start : start + length] for x in inputs]
        alone, state = reference.recurrence(*part, state=states[number : number + 1])
        assert distance(out[:, start : start + length], alone) < 1e-12
        assert distance(last[number : number + 1], state) < 1e-12
        start += length


def test_gate_is_the_formula() -> None:
    raw, a_log, bias = torch.tensor([[0.5, -1.0]]), torch.tensor([0.1, 2.0]), torch.tensor([0.3, -0.2])
    expected = -torch.exp(a_log.double()) * torch.log1p(torch.exp(raw.double() + bias.double()))
    assert distance(reference.gate(raw, a_log, bias), expected) < 1e-14


def test_convolution_is_pytorchs() -> None:
    x = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    before = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(3))
    out, state = reference.short_convolution(x, weight, before, None)
    whole = torch.cat([before[..., 1:], x.mT], -1).double()
    expected = torch.nn.functional.conv1d(whole, weight.double()[:, None], groups=6)
    assert out.dtype == torch.float64
    assert distance(out, torch.nn.functional.silu(expected).mT) < 1e-12
    assert torch.equal(state, x.mT[..., -4:])
