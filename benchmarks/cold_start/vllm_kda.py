"""vLLM's own layer of Kimi Delta Attention, that of Kimi-Linear-48B: prompts of new requests, on pages of its cache."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from cold_start.shapes import KDA_MODEL, PACKS, TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable


def load() -> None:
    """Import what the calls need."""
    import gdn_aot.providers.vllm.workloads  # noqa: F401


@cache
def _shape() -> Any:
    from gdn_aot.catalogue.models import find_model

    return find_model(KDA_MODEL).shape(1)


def _step(call: str) -> Any:
    from gdn_aot.providers.vllm.cache import deployments
    from gdn_aot.providers.vllm.steps import Group, Step

    prompts = tuple(Group(1, 0, tokens) for tokens in PACKS[call] or (TOKENS[call],))
    return Step(groups=prompts, deployment=deployments(_shape())[0])


def host_inputs(call: str) -> dict[str, Any]:
    """Return the results of a layer's projections, its parameters and pages on the host, from a fixed seed."""
    from gdn_aot.providers.draw import Random
    from gdn_aot.providers.vllm import kda

    return {**kda.inputs(_shape(), _step(call), Random(0, "cpu")), "call": call}


def prepare(inputs: dict[str, Any], device: str) -> Callable[[], tuple[Any, Any]]:
    """Copy inputs to the device, wait for it, and return a call that makes the step.

    The call makes the metadata with vLLM's builder, puts the results of its projections in a layer and runs that.
    """
    import torch

    from gdn_aot.providers.vllm import kda

    step = _step(inputs["call"])
    there = {name: tensor.to(device) for name, tensor in inputs.items() if name != "call"}
    torch.cuda.synchronize()

    def call() -> tuple[Any, Any]:
        out, (_, states) = kda.apply(_shape(), step, there)
        return out, states[1:]

    return call
