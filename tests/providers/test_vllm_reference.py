"""The float64 form of vLLM's layer, checked against itself: one step of many tokens, or many of one."""

from dataclasses import replace

import pytest
import torch

from gdn_aot.catalogue.models import ModelShape, find_model
from gdn_aot.providers.draw import Random
from gdn_aot.providers.vllm import reference as vllm_reference
from gdn_aot.providers.vllm.steps import Deployment, Group, Step
from gdn_aot.reference import Tensors

SMALL = {"heads": 2, "v_heads": 4, "k_dim": 8, "v_dim": 6}
LAYERS = ("qwen3-next", "qwen3.5", "olmo-hybrid")
PLAIN = Deployment(state="float32", drafts=0)
DRAFTED = Deployment(state="float32", drafts=2)


def shape(layer: str) -> ModelShape:
    return replace(find_model("qwen3.5-9b").shape(1), **SMALL, layer=layer, allow_neg_eigval=layer == "olmo-hybrid")


def tensors(of: ModelShape, tokens: int, seed: int = 1) -> Tensors:
    """Inputs in float64, so that rounding between kernels is none."""
    draw, wide = Random(seed, "cpu"), torch.float64
    width = 2 * of.heads * of.k_dim + of.v_heads * of.v_dim
    return {
        "projected": draw.normal(1, tokens, width + of.v_heads * of.v_dim, dtype=wide),
        "ba": draw.normal(1, tokens, 2 * of.v_heads, dtype=wide),
        "A_log": draw.log_a(of.v_heads, wide),
        "dt_bias": draw.dt_bias(of.v_heads, wide),
        "weight": draw.normal(width, of.conv_width, dtype=wide),
    }


def pages(of: ModelShape, count: int, deployment: Deployment) -> tuple[torch.Tensor, torch.Tensor]:
    draw = Random(9, "cpu")
    width = 2 * of.heads * of.k_dim + of.v_heads * of.v_dim
    windows = draw.normal(1 + count, 3 + deployment.drafts, width, dtype=torch.float64)
    return windows, draw.normal(1 + count, of.v_heads, of.v_dim, of.k_dim, dtype=torch.float64)


def part(inputs: Tensors, first: int, last: int) -> Tensors:
    cut = {}
    for name, value in inputs.items():
        assert value is not None
        cut[name] = value[:, first:last] if name in ("projected", "ba") else value
    return cut


def one_by_one(
    of: ModelShape, inputs: Tensors, tokens: int, windows: torch.Tensor, states: torch.Tensor, *, computed: int
) -> tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    """Decode ``tokens`` tokens of one request a step each; return outputs, the last window and all states."""
    outs, kept = [], []
    windows, states = windows.clone(), states.clone()
    for token in range(tokens):
        step = Step(groups=(Group(1, computed + token, 1),), deployment=PLAIN)
        found = vllm_reference.expect(of, step, part(inputs, token, token + 1), windows, states)
        windows[1, :3], states[1] = found["window"], found["state"][0]
        outs.append(found["out"])
        kept.append(found["state"][0])
    return outs, windows[1, :3], kept


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("computed", [0, 5])
def test_a_prompt_is_its_tokens_one_by_one(layer: str, computed: int) -> None:
    of, inputs = shape(layer), tensors(shape(layer), 7)
    windows, states = pages(of, 1, PLAIN)
    step = Step(groups=(Group(1, computed, 7),), deployment=PLAIN)
    whole = vllm_reference.expect(of, step, inputs, windows, states)
    outs, window, kept = one_by_one(of, inputs, 7, windows, states, computed=computed)
    torch.testing.assert_close(whole["out"], torch.cat(outs, 1))
    torch.testing.assert_close(whole["window"], window)
    torch.testing.assert_close(whole["state"][0], kept[-1])


@pytest.mark.parametrize("layer", LAYERS)
def test_requests_do_not_touch_each_other(layer: str) -> None:
    of, inputs = shape(layer), tensors(shape(layer), 12)
    windows, states = pages(of, 3, PLAIN)
    step = Step(groups=(Group(2, 4, 1), Group(1, 3, 10)), deployment=PLAIN)
    whole = vllm_reference.expect(of, step, inputs, windows, states)
    for number, (first, last) in enumerate(((0, 1), (1, 2), (2, 12))):
        alone = Step(groups=(step.requests[number],), deployment=PLAIN)
        chosen = torch.tensor([0, number + 1])
        found = vllm_reference.expect(of, alone, part(inputs, first, last), windows[chosen], states[chosen])
        torch.testing.assert_close(whole["out"][:, first:last], found["out"])
        torch.testing.assert_close(whole["state"][number], found["state"][0])
    assert whole["window"].shape == (9, windows.shape[-1])


@pytest.mark.parametrize("accepted", [1, 2, 3])
def test_drafts_go_on_from_the_token_that_was_accepted(accepted: int) -> None:
    of, inputs = shape("qwen3.5"), tensors(shape("qwen3.5"), 3)
    windows, states = pages(of, 3, DRAFTED)
    step = Step(groups=(Group(1, 50, 3, 2, accepted),), deployment=DRAFTED)
    found = vllm_reference.expect(of, step, inputs, windows, states)
    # The same as plain decode steps from the state after that token, and from the inputs up to it.
    start_windows, start_states = pages(of, 1, PLAIN)
    start_windows[1] = windows[1, accepted - 1 : accepted + 2]
    start_states[1] = states[accepted]
    outs, window, kept = one_by_one(of, inputs, 3, start_windows, start_states, computed=50)
    torch.testing.assert_close(found["out"], torch.cat(outs, 1))
    torch.testing.assert_close(found["state"], torch.stack(kept))
    torch.testing.assert_close(found["window"][-3:], window)
    assert len(found["window"]) == 5


def test_what_is_compared_is_what_requests_leave() -> None:
    of = shape("qwen3.5")
    windows, states = pages(of, 6, DRAFTED)
    out = torch.zeros(1, 5, of.v_heads, of.v_dim)
    step = Step(groups=(Group(1, 50, 2, 1), Group(1, 0, 3)), deployment=DRAFTED)
    found = vllm_reference.results(step, out, windows, states)
    assert found["window"] is not None
    assert found["state"] is not None
    assert torch.equal(found["window"], torch.cat([windows[1, :4], windows[4, :3]]))
    assert torch.equal(found["state"], states[torch.tensor([1, 2, 4])])
