"""SGLang's own linear-attention layer in a server that has started: prompts of new requests, on its pool of states."""

from __future__ import annotations

import atexit
import contextlib
import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from cold_start.shapes import GDN_MODEL, KDA_MODEL, PACKS, TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable

SLOTS = 64
"""Slots of the pool."""
LAYERS = {GDN_MODEL: 24, KDA_MODEL: 20}
"""Layers whose states the pool holds: all of a model's, 2.5 to 3 GiB."""
_open = contextlib.ExitStack()
"""Servers that have started; they run as long as the process."""
atexit.register(_open.close)


def load() -> None:
    """Import what the calls need.

    A server imports the kernels that clear slots in its first step. The floor has to have them imported before, and so
    do the other states, which would wait for that import else.
    """
    import gdn_aot.providers.sglang.workloads  # noqa: F401

    with contextlib.suppress(ModuleNotFoundError):  # of a release that has none
        importlib.import_module("sglang.srt.mem_cache.mamba_slot_fused")


def _step(call: str, model: str) -> Any:
    from gdn_aot.providers.sglang.steps import Deployment, Group, Step

    prompts = tuple(Group(1, 0, tokens) for tokens in PACKS[call] or (TOKENS[call],))
    deployment = Deployment(state="float32", drafts=0)
    merged = model == KDA_MODEL  # weights that are not quantized
    return Step(
        kind="extend",
        groups=prompts,
        merged=merged,
        deployment=deployment,
        slots=SLOTS,
        scratch=SLOTS,
        layers=LAYERS[model],
    )


@cache
def _shape(model: str) -> Any:
    from gdn_aot.catalogue.models import find_model

    return find_model(model).shape(1)


def host_inputs(call: str, model: str = GDN_MODEL) -> dict[str, Any]:
    """Return the results of a layer's projections and its parameters on the host, from a fixed seed."""
    from gdn_aot.providers.draw import Random
    from gdn_aot.providers.sglang import layer

    made = dict(layer.inputs(_shape(model), _step(call, model), Random(0, "cpu")))
    for states in ("windows", "states"):  # the requests are new
        del made[states]
    return {**made, "call": call, "model": model}


def prepare(inputs: dict[str, Any], device: str) -> Callable[[], tuple[Any, Any]]:
    """Start a server with the inputs on the device, wait for it, and return a call that makes the step.

    The call does what SGLang does for a step of new requests: it clears their slots, makes the backend's metadata, and
    runs the layer.
    """
    import torch

    from gdn_aot.providers.sglang import layer

    call_name, model = inputs["call"], inputs["model"]
    there = {name: tensor.to(device) for name, tensor in inputs.items() if name not in ("call", "model")}
    run = _open.enter_context(layer.serving(_shape(model), _step(call_name, model), there))
    torch.cuda.synchronize()

    def call() -> tuple[Any, Any]:
        made = run()
        return made["out"], made["state"]

    return call
