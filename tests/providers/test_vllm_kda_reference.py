"""The float64 form of vLLM's layer of Kimi Delta Attention: one step of many tokens, or many of one."""

from dataclasses import replace

import pytest
import torch

from gdn_aot.catalogue.models import ModelShape, find_model
from gdn_aot.providers.draw import Random
from gdn_aot.providers.vllm import reference as vllm_reference
from gdn_aot.providers.vllm.steps import Deployment, Group, Step
from gdn_aot.reference import Tensors

PLAIN = Deployment(state="float32", drafts=0, aligned=16)


@pytest.fixture
def of() -> ModelShape:
    small = {"heads": 3, "v_heads": 3, "k_dim": 8, "v_dim": 8}
    return replace(find_model("kimi-linear-48b-a3b").shape(1), **small)


def tensors(of: ModelShape, tokens: int) -> Tensors:
    """Inputs in float64, so that rounding between kernels is none."""
    draw, wide, width = Random(1, "cpu"), torch.float64, of.heads * of.k_dim
    return {
        "projected": draw.normal(1, tokens, 3 * width, dtype=wide),
        "decay": draw.normal(1, tokens, width, dtype=wide),
        "b": draw.normal(1, tokens, of.heads, dtype=wide),
        "A_log": draw.log_a(of.heads, wide),
        "dt_bias": draw.dt_bias(width, wide),
        "weight": draw.normal(3 * width, of.conv_width, dtype=wide),
    }


def pages(of: ModelShape, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw, wide = Random(9, "cpu"), torch.float64
    windows = draw.normal(1 + count, 3, 3 * of.heads * of.k_dim, dtype=wide)
    return windows, draw.normal(1 + count, of.heads, of.v_dim, of.k_dim, dtype=wide)


def part(inputs: Tensors, first: int, last: int) -> Tensors:
    cut = {}
    for name, value in inputs.items():
        assert value is not None
        cut[name] = value[:, first:last] if name in ("projected", "decay", "b") else value
    return cut


@pytest.mark.parametrize("computed", [0, 5])
def test_a_prompt_is_its_tokens_one_by_one(of: ModelShape, computed: int) -> None:
    inputs, (windows, states) = tensors(of, 7), pages(of, 1)
    step = Step(groups=(Group(1, computed, 7),), deployment=PLAIN)
    whole = vllm_reference.expect(of, step, inputs, windows, states)
    outs = []
    for token in range(7):
        step = Step(groups=(Group(1, computed + token, 1),), deployment=PLAIN)
        found = vllm_reference.expect(of, step, part(inputs, token, token + 1), windows, states)
        windows[1], states[1] = found["window"], found["state"]
        outs.append(found["out"])
    torch.testing.assert_close(whole["out"], torch.cat(outs, 1))
    torch.testing.assert_close(whole["window"], windows[1])
    torch.testing.assert_close(whole["state"][0], states[1])


def test_requests_do_not_touch_each_other(of: ModelShape) -> None:
    inputs, (windows, states) = tensors(of, 12), pages(of, 3)
    step = Step(groups=(Group(2, 4, 1), Group(1, 3, 10)), deployment=PLAIN)
    whole = vllm_reference.expect(of, step, inputs, windows, states)
    for number, (first, last) in enumerate(((0, 1), (1, 2), (2, 12))):
        alone = Step(groups=(step.requests[number],), deployment=PLAIN)
        chosen = torch.tensor([0, number + 1])
        found = vllm_reference.expect(of, alone, part(inputs, first, last), windows[chosen], states[chosen])
        torch.testing.assert_close(whole["out"][:, first:last], found["out"])
        torch.testing.assert_close(whole["state"][number], found["state"][0])
    assert whole["window"].shape == (9, windows.shape[-1])


def test_every_channel_of_a_key_has_its_own_decay(of: ModelShape) -> None:
    """With beta near 0 a token only fades the state, by the factor that its channel's gate stands for."""
    inputs, (windows, states) = tensors(of, 1), pages(of, 1)
    inputs["b"] = torch.full_like(inputs["b"], -100.0)
    step = Step(groups=(Group(1, 4, 1),), deployment=PLAIN)
    found = vllm_reference.expect(of, step, inputs, windows, states)
    raw = inputs["decay"].view(of.heads, 1, of.k_dim) + inputs["dt_bias"].view(of.heads, 1, of.k_dim)
    factor = (-inputs["A_log"].exp().view(-1, 1, 1) * torch.nn.functional.softplus(raw)).exp()
    torch.testing.assert_close(found["state"][0], states[1] * factor)
