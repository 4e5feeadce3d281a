"""SGLang's own Gated Delta Net layer in a server that has started: prompts of new requests, on its pool of states."""

from __future__ import annotations

import atexit
import contextlib
from functools import cache
from typing import TYPE_CHECKING, Any

from cold_start.shapes import PACKS, TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable

SLOTS, LAYERS = 64, 24
"""Slots of the pool, and layers whose states it holds: those of Qwen3.5-9B, 3 GiB in all."""
_open = contextlib.ExitStack()
"""Servers that have started; they run as long as the process."""
atexit.register(_open.close)


def load() -> None:
    """Import what the calls need."""
    import gdn_aot.providers.sglang.workloads  # noqa: F401


def _step(call: str) -> Any:
    from gdn_aot.providers.sglang.steps import Deployment, Group, Step

    prompts = tuple(Group(1, 0, tokens) for tokens in PACKS[call] or (TOKENS[call],))
    deployment = Deployment(state="float32", drafts=0)
    return Step(kind="extend", groups=prompts, deployment=deployment, slots=SLOTS, scratch=SLOTS, layers=LAYERS)


@cache
def _shape() -> Any:
    from gdn_aot.catalogue.models import find_model

    return find_model("qwen3.5-9b").shape(1)


def host_inputs(call: str) -> dict[str, Any]:
    """Return the results of a layer's projections and its parameters on the host, from a fixed seed."""
    from gdn_aot.providers.draw import Random
    from gdn_aot.providers.sglang import layer

    made = dict(layer.inputs(_shape(), _step(call), Random(0, "cpu")))
    for states in ("windows", "states"):  # the requests are new
        del made[states]
    return {**made, "call": call}


def prepare(inputs: dict[str, Any], device: str) -> Callable[[], tuple[Any, Any]]:
    """Start a server with the inputs on the device, wait for it, and return a call that makes the step.

    The call does what SGLang does for a step of new requests: it clears their slots, makes the backend's metadata, and
    runs the layer.
    """
    import torch

    from gdn_aot.providers.sglang import layer

    there = {name: tensor.to(device) for name, tensor in inputs.items() if name != "call"}
    run = _open.enter_context(layer.serving(_shape(), _step(inputs["call"]), there))
    torch.cuda.synchronize()

    def call() -> tuple[Any, Any]:
        made = run()
        return made["out"], made["state"]

    return call
