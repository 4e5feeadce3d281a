"""A card that launches nothing, and workloads that return what is expected, or not, for tests of the check.

Calls are made for real as far as the launch, so that choices and binaries are looked up as on a GPU.
``GDN_AOT_STANDIN`` says what is wrong with the results.
"""

import os
from collections.abc import Callable
from typing import Any

import torch

from gdn_aot.catalogue.targets import Target
from gdn_aot.tracing import stub

FAULT = os.environ.get("GDN_AOT_STANDIN", "")


class Card:
    device = "cpu"

    def describe(self) -> dict[str, Any]:
        return {"name": "no card", "sm_count": 1, "memory": 0, "l2": 0}

    def become(self, target: Target) -> None:
        zeros = torch.Tensor.new_zeros
        stub.activate(target)
        torch.Tensor.new_zeros = zeros  # tracing leaves large ones unfilled

    def load(self, jit: Any, _record: Any, code: bytes) -> Callable[..., None]:
        assert b".target" in code or code.startswith(b"\x7fELF")
        if FAULT == "refused" and jit.fn.__name__ == "layer_norm_gated_fwd_kernel":
            raise RuntimeError("Triton Error [CUDA]: a PTX JIT compilation failed")
        if FAULT == "full" and jit.fn.__name__ == "layer_norm_gated_fwd_kernel":
            raise RuntimeError("Triton Error [CUDA]: out of memory")
        return lambda *_: None

    def synchronize(self) -> None:
        pass


class StandIn:
    """A workload of FLA whose results are made up."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def apply(self, shape: Any, call: Any, inputs: Any) -> Any:
        expected = self._real.expect(shape, call, inputs)
        made = self._real.apply(shape, call, inputs)
        assert {name: value.shape for name, value in made.items()} == {
            name: value.shape for name, value in expected.items()
        }
        results = {name: value.to(made[name].dtype) for name, value in expected.items()}
        if FAULT == "crash" and dict(call.arguments).get("tokens") == 300:
            os.abort()
        if FAULT.startswith("raise ") and dict(call.arguments).get("tokens") == 300:
            raise RuntimeError(FAULT.removeprefix("raise "))
        if FAULT == "off":
            results["out"] *= 1.02
        if FAULT == "unwritten":
            results["out"].view(-1)[-1] = made["out"].view(-1)[-1]
        if FAULT == "dirty":
            inputs.get("v", inputs.get("x")).view(-1)[0] += 1
        if FAULT == "missing":
            results.pop("state", None)
        return results


def _workloads() -> dict[str, Any]:
    from gdn_aot.providers.fla import workloads as fla

    return {name: lambda make=make: StandIn(make()) for name, make in fla.WORKLOADS.items()}


def __getattr__(name: str) -> Any:
    if name == "WORKLOADS":
        return _workloads()
    if name == "ARGUMENTS":
        from gdn_aot.providers.fla.workloads import ARGUMENTS

        return ARGUMENTS
    raise AttributeError(name)
