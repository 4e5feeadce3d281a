"""A call of the measuring process that is compared with float64, with gradients and without."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gdn_aot.catalogue.models import ModelShape, find_model
from gdn_aot.measuring.worker import TuneServer
from gdn_aot.providers.draw import Draw
from gdn_aot.providers.gradients import exactly, through
from gdn_aot.providers.workload import Call, Workload
from gdn_aot.reference import GRADIENT, Tensors


class Squared(Workload):
    """Squares of what it gets, which it then fills with zeros; ``slope`` is that of the gradient, 2 if right."""

    name, kind = "squared", "gate"

    def __init__(self, *, backward: bool, slope: float) -> None:
        self.backward, self.slope = backward, slope

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        del shape, call
        made: Tensors = {"x": draw.normal(1, 8, 2, 4, dtype=torch.float32, grad=self.backward)}
        return made | ({f"{GRADIENT}out": draw.normal(1, 8, 2, 4, dtype=torch.float32)} if self.backward else {})

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        del shape, call
        results = through(lambda given: self._square(given, self.slope), inputs)
        for value in inputs.values():
            assert value is not None
            value.data.zero_()
        return results

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        del shape, call
        return exactly(lambda given: self._square(given, 2.0), inputs)

    @staticmethod
    def _square(given: Tensors, slope: float) -> Tensors:
        x = given["x"]
        assert x is not None
        return {"out": x.detach() ** 2 + slope * x.detach() * (x - x.detach())}


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("slope", [2.0, 2.5])
def test_a_call_is_compared_with_float64_of_what_it_got(slope: float, *, backward: bool) -> None:
    notes: list[str] = []
    server: Any = TuneServer.__new__(TuneServer)
    server.card = SimpleNamespace(device="cpu", synchronize=lambda: None)
    server.channel = SimpleNamespace(notes=SimpleNamespace(write=notes.append))
    server._confirmed = set()
    work: Any = SimpleNamespace(at=lambda *_, **__: nullcontext(), combination=set(), call_note="")
    shape, call = find_model("kimi-linear-48b-a3b").shape(1), Call.of("squared")
    workload = Squared(backward=backward, slope=slope)
    answer = server._call(work, workload, shape, call, [8, "squared", 0], timed=False, chosen=None)
    assert list(answer) == ["wrong"]
    assert (answer["wrong"] is None) == (slope == 2.0 or not backward), answer
    assert notes
