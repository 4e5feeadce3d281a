"""The float64 reference against itself: two forms of one function, and formulas written out."""

from pathlib import Path

import pytest
import torch
from helpers import WITH_SUPPORT, python

from gdn_aot.providers.draw import Random
from gdn_aot.reference import formulas as reference


def drawn(
    batch: int, tokens: int, heads: int = 2, v_heads: int = 4, beta: float = 1.0, bound: float | None = None
) -> list[torch.Tensor]:
    """Return inputs and a state; those of KDA if ``bound`` is a bound of the gate, or 0."""
    draw = Random(tokens, "cpu")
    decay = (
        draw.log_decay(batch, tokens, v_heads)
        if bound is None
        else draw.log_decays(batch, tokens, v_heads, 16, bound=bound, dtype=torch.float32)
    )
    return [
        reference.normalized(draw.normal(batch, tokens, heads, 16, dtype=torch.float32)),
        reference.normalized(draw.normal(batch, tokens, heads, 16, dtype=torch.float32)),
        draw.normal(batch, tokens, v_heads, 24, dtype=torch.float32),
        decay,
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


@pytest.mark.parametrize("bound", [0.0, -5.0])
@pytest.mark.parametrize("tokens", [1, 17, 64, 200])
def test_chunked_is_the_recurrence_with_a_decay_for_each_channel(tokens: int, bound: float) -> None:
    *inputs, state = drawn(2, tokens, bound=bound)
    assert float(inputs[3].min()) >= (bound or -torch.inf)
    out, last = reference.recurrence(*inputs, state=state)
    chunked_out, chunked_last = reference.chunked(*inputs, state=state)
    assert distance(chunked_out, out) < 1e-12
    assert distance(chunked_last, last) < 1e-12


@pytest.mark.parametrize("bound", [None, 0.0, -5.0])
def test_gradients_of_chunks_are_those_of_the_recurrence(bound: float | None) -> None:
    """Those of the definition, step by step, are PyTorch's own."""
    found = []
    for form in (reference.recurrence, reference.chunked, reference.delta_rule):
        leaves = [x.detach().double().requires_grad_() for x in drawn(2, 150, bound=bound)]
        draw = Random(7, "cpu")
        outs = form(*leaves)
        upstream = [draw.normal(*one.shape, dtype=torch.float64) for one in outs]
        found.append(torch.autograd.grad(outs, leaves, upstream))
    for others in found[1:]:
        assert all(distance(other, exact) < 1e-12 for other, exact in zip(others, found[0], strict=True))


def test_gradients_pass_from_segment_to_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients() -> tuple[torch.Tensor, ...]:
        leaves = [x.detach().double().requires_grad_() for x in drawn(1, 200, bound=0.0)]
        return torch.autograd.grad([one.square().sum() for one in reference.delta_rule(*leaves)], leaves)

    whole = gradients()
    monkeypatch.setattr(reference, "SEGMENT", reference.CHUNK)
    assert all(distance(one, other) < 1e-12 for one, other in zip(gradients(), whole, strict=True))


def test_zeros_are_zeros_where_the_interpreter_runs_under_the_stand_in(tmp_path: Path) -> None:
    """The stand-in leaves large ones unfilled. With what PyTorch has not filled as NaN, the reference shows it."""
    code = """
import json, torch
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target("sm_90"))
from interpreting import fill
from gdn_aot.reference import formulas
torch.use_deterministic_algorithms(True)
g = torch.randn(1, 70, 16, 64)
def finite():
    out, _ = formulas.chunked(g, g / 8, g, -g.abs(), g[..., 0].sigmoid(), None)
    return [bool(one.isfinite().all()) for one in (out, torch.zeros(1 << 17), torch.zeros_like(g))]
before = finite()
fill()
print(json.dumps([before, finite()]))
"""
    assert python(WITH_SUPPORT + code, home=tmp_path) == [[False, False, False], [True, True, True]]


def test_equal_decays_of_all_channels_are_one_decay() -> None:
    *inputs, state = drawn(2, 100)
    out, last = reference.chunked(*inputs, state=state)
    inputs[3] = inputs[3][..., None].expand(-1, -1, -1, 16)
    of_channels, of_channels_last = reference.chunked(*inputs, state=state)
    assert distance(of_channels, out) < 1e-12
    assert distance(of_channels_last, last) < 1e-12


def test_a_channel_that_forgets_at_once_overflows_nowhere() -> None:
    """Decays by e^-1000 at each token: their product over a chunk is 0, its inverse would be infinite."""
    *inputs, state = drawn(1, 130, bound=0.0)
    inputs[3][..., ::2] = -1000.0
    out, last = reference.recurrence(*inputs, state=state)
    chunked_out, chunked_last = reference.chunked(*inputs, state=state)
    assert distance(chunked_out, out) < 1e-12
    assert distance(chunked_last, last) < 1e-12


@pytest.mark.parametrize("bound", [None, -5.0])
@pytest.mark.parametrize("lengths", [(1, 70, 29), (50, 50)])
def test_packed_sequences_are_single_ones(lengths: tuple[int, ...], bound: float | None) -> None:
    *inputs, _ = drawn(1, sum(lengths), bound=bound)
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


def test_gate_of_channels_is_the_formula() -> None:
    raw = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(4))
    a_log, bias = torch.tensor([0.1, -2.0]), torch.arange(8) / 8
    for head in range(2):
        a, x = torch.exp(a_log[head].double()), raw[:, :, head].double() + bias.view(2, 4)[head].double()
        plain = reference.gate(raw, a_log, bias)[:, :, head]
        assert distance(plain, -a * torch.log1p(torch.exp(x))) < 1e-14
        bounded = reference.gate(raw, a_log, bias, -5.0)[:, :, head]
        assert distance(bounded, -5.0 / (1 + torch.exp(-a * x))) < 1e-14


_NAIVE = """
import json, sys
import torch
from fla.ops.kda.gate import naive_kda_gate, naive_kda_lowerbound_gate
from fla.ops.kda.naive import naive_chunk_kda, naive_recurrent_kda
from gdn_aot.providers.draw import Random
from gdn_aot.reference import formulas

draw, rows = Random(3, "cpu"), []
q, k = (formulas.normalized(draw.normal(2, 128, 2, 16, dtype=torch.float32)) for _ in range(2))
v, beta = draw.normal(2, 128, 4, 24, dtype=torch.float32), draw.sigmoid(2, 128, 4, dtype=torch.float32)
state = draw.normal(2, 4, 16, 24, dtype=torch.float32)
raw = draw.normal(2, 128, 4, 16, dtype=torch.float32)
a_log, bias = draw.log_a(4, torch.float32), draw.dt_bias(64, torch.float32)
for bound in (0.0, -5.0):
    theirs = naive_kda_lowerbound_gate(raw, a_log, bias, bound) if bound else naive_kda_gate(raw, a_log, bias)
    g = formulas.gate(raw, a_log, bias, bound)
    rows.append([float((theirs - g).norm() / g.norm())])
    out, last = formulas.delta_rule(q, k, v, g, beta, state)
    for naive in (naive_recurrent_kda, naive_chunk_kda):
        found = naive(q, k, v, g.float(), beta, initial_state=state, output_final_state=True)
        rows[-1] += [float((a - b).norm() / b.norm()) for a, b in zip(found, (out, last))]
print(json.dumps(rows))
"""


def test_flas_own_forms_of_kda_are_the_same(tmp_path: Path) -> None:
    rows = python(_NAIVE, home=tmp_path, extra={"PYTHONWARNINGS": "ignore"})
    assert [len(row) for row in rows] == [5, 5]
    assert max(map(max, rows)) < 1e-6, "they are in float32"


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
