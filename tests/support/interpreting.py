"""Judges an engine's layer that Triton's interpreter runs; of `providers/vllm_interpreted.py` and SGLang's."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from gdn_aot.catalogue.models import ModelShape, find_model
from gdn_aot.providers.draw import Random
from gdn_aot.providers.workload import Call
from gdn_aot.reference.tolerance import compare


def fill() -> None:
    """Have zeros be zeros again, which the stand-in leaves as memory is above a size: in the interpreter they are read.

    Kernels read them, and the float64 reference does.
    """
    anything: Any = torch
    for place, name in ((anything, "zeros"), (anything, "zeros_like"), (anything.Tensor, "new_zeros")):
        setattr(place, name, getattr(place, name).__wrapped__)


def judge(provider: Any, sizes: Mapping[str, Any], steps: Iterable[tuple[str, Any]]) -> None:
    """Run steps on both layers of Qwen with small ``sizes`` and print as JSON what differs from float64."""
    rows = []
    for layer in ("qwen3-next", "qwen3.5"):
        shape = replace(find_model("qwen3.5-9b").shape(1), **sizes, layer=layer)
        rows += [compared(provider, shape, step.call(kind)) for kind, step in steps]
    print(json.dumps(rows))


def compared(provider: Any, shape: ModelShape, call: Call) -> dict[str, object]:
    """Make a call and say what differs from float64, and what is found of a result that is a tenth of its mean off.

    That result is the state, or the output of a call that leaves none.
    """
    workload = provider.WORKLOADS[call.workload]()
    inputs = workload.inputs(shape, call, Random(5, "cpu"))
    expected = workload.expect(shape, call, inputs)
    kept = {name: None if value is None else value.clone() for name, value in inputs.items()}
    found = workload.apply(shape, call, inputs)
    made = compare(workload.kind, kept, found, expected)
    name = "state" if "state" in found else "out"
    value = found[name]
    assert value is not None
    other = compare(workload.kind, kept, {**found, name: value + 0.1 * value.abs().mean()}, expected)
    return {
        "layer": shape.layer,
        "kind": call.workload,
        "wrong": made.wrong,
        "compared": len(made.deviations),
        f"with another {name}": other.wrong,
    }
