"""Workloads of every provider: their inputs, what they expect, and the calls to tune with."""

from pathlib import Path

import pytest
from helpers import python

_START = """
import json, sys
import torch
from gdn_aot.compiling.worker import start
from gdn_aot.catalogue.models import find_model
from gdn_aot.catalogue.providers import Limits, PROVIDERS
from gdn_aot.providers import makes
zeros = torch.Tensor.new_zeros
module = start({"provider": "fla", "target": sys.argv[1]})
fla = PROVIDERS["fla"]
inference, training = fla.inference, (*fla.training, *fla.training_on_request)
names = (("qwen3.5-9b", 1), ("olmo-hybrid-7b", 1), ("qwen3.5-27b", 4), ("kimi-linear-48b-a3b", 1), ("kimi-k3", 8))
shapes = [find_model(name).shape(tp) for name, tp in names]

def of(workload, shapes=shapes):
    return [shape for shape in shapes if makes("fla", workload, shape)]
"""

_KEYS = """
from gdn_aot import triton_internals
from gdn_aot.triton_internals import interception

def keys(calls, workload, shape):
    found = set()

    def on_autotune(tuner, args, kwargs):
        if len(tuner.configs) > 1:
            plain = {name: value for name, value in kwargs.items() if name not in ("grid", "warmup")}
            jit = triton_internals.layers(tuner)[0]
            found.add((jit.fn.__qualname__, triton_internals.autotune_key(tuner, args, plain)))

    for call in calls:
        with interception.intercept(on_autotune, lambda *_: None):
            workload.run(shape, call)
    return found

limits, tokens = Limits(max_tokens=32768), (64, 512, 2048, 8192, 32768)
report = {"missing": [], "keys": 0, "untuned": [], "long": []}
tuned = [name for name in training if "kda" in name]
for name in (*inference, *tuned):
    workload = module.WORKLOADS[name]()
    for shape in of(workload)[: 1 + ("prefill" in name)]:
        calls = [call for length in tokens for call in workload.tune(shape, length, limits)]
        wanted = keys(workload.cases(shape, limits), workload, shape)
        report["keys"] += len(wanted)
        report["missing"] += [[name, str(key)] for key in sorted(wanted - keys(calls, workload, shape), key=str)]
for name in (*inference, *training):
    workload = module.WORKLOADS[name]()
    shape = of(workload)[0]
    report["untuned"] += [] if any(workload.tune(shape, 64, limits)) else [name]
    for length in (1, 2, 300, 4096, 8192):
        for call in workload.tune(shape, length, Limits(max_tokens=4096, max_batch=4)):
            inputs = workload.inputs(shape, call, module.EMPTY)
            made = inputs.get("q", inputs.get("x"))
            if made.shape[0] * made.shape[1] > 4096:
                report["long"].append(str(call))
print(json.dumps(report))
"""

_EXPECT = """
import random
from dataclasses import replace
from gdn_aot.providers.draw import Random

torch.Tensor.new_zeros = zeros  # tracing leaves large ones unfilled

def digest(tensors):
    return {name: None if value is None else value.double().sum().item() for name, value in tensors.items()}

report = {"made": 0, "wrong": []}
untuned = ("transformers-conv-train", "gated-norm-train", "short-conv-train")  # compared forwards alone
limits = Limits(max_tokens=160, max_batch=3)
for name in (*inference, *(name for name in training if name not in untuned)):
    workload = module.WORKLOADS[name]()
    for shape in of(workload, [replace(shape, heads=2, v_heads=4, k_dim=32, v_dim=64) for shape in shapes[1:]]):
        rng = random.Random(name)
        calls = list(workload.tune(shape, 130, limits))[::3]
        calls += [workload.sample(shape, limits, rng) for _ in range(3)]
        for call in calls:
            empty = workload.inputs(shape, call, module.EMPTY)
            inputs = workload.inputs(shape, call, Random(5, "cpu"))
            again = workload.inputs(shape, call, Random(5, "cpu"))
            other = workload.inputs(shape, call, Random(6, "cpu"))
            expected = workload.expect(shape, call, inputs)
            first = inputs.get("q", inputs.get("x"))
            wide = inputs.get("v", inputs.get("x"))
            arguments = dict(call.arguments)
            wanted = {"out"} | ({"state"} if arguments.get("ht") or arguments.get("final") else set())
            leaves = {key for key, value in inputs.items() if value is not None and value.requires_grad}
            wanted |= {f"d.{key}" for key in leaves}
            checks = {
                "form": {k: v is not None and (v.shape, v.dtype) for k, v in inputs.items()}
                == {k: v is not None and (v.shape, v.dtype) for k, v in empty.items()},
                "same": digest(inputs) == digest(again),
                "fresh": digest(inputs) != digest(other),
                "names": set(expected) == wanted,
                "gradients": all(expected[f"d.{key}"].shape == inputs[key].shape for key in leaves),
                "backwards": bool(leaves) == (name in training),
                "float64": all(value.dtype == torch.float64 for value in expected.values()),
                "finite": all(bool(torch.isfinite(value).all()) for value in expected.values()),
                "size": expected["out"].shape == wide.shape,
                "moderate": float(expected["out"].abs().max()) < 1e3,
            }
            if "state" in expected:
                before = inputs.get("initial_state", inputs.get("cache"))
                checks["state"] = before is None or before.shape == expected["state"].shape
            report["wrong"] += [f"{call}: {what}" for what, good in checks.items() if not good]
            report["made"] += 1
print(json.dumps(report))
"""


_FAMILIES = """
found = {
    name: [shape.name for shape in shapes if makes("fla", make(), shape)] for name, make in module.WORKLOADS.items()
}
print(json.dumps([found, sorted({*inference, *training} ^ {*module.WORKLOADS})]))
"""


def test_models_make_calls_of_the_workloads_of_their_family_and_some_of_no_other_model(tmp_path: Path) -> None:
    found, different = python(_START + _FAMILIES, "sm_90", home=tmp_path)
    assert different == []
    gdn, kda = ["qwen3.5-9b", "olmo-hybrid-7b", "qwen3.5-27b"], ["kimi-linear-48b-a3b", "kimi-k3"]
    assert found["gated-norm"] == gdn + kda
    assert (found["transformers-prefill"], found["transformers-kda-prefill"]) == (gdn, kda)
    assert found["transformers-conv"] == ["olmo-hybrid-7b"]


@pytest.mark.parametrize("target", ["sm_90", "sm_75"])
def test_tuning_lengths_together_have_every_autotune_key(tmp_path: Path, target: str) -> None:
    report = python(_START + _KEYS, target, home=tmp_path)
    assert report["missing"] == []
    assert report["keys"] > 300
    assert report["long"] == [], "longer than the limits"
    norms_and_convolutions = ["gated-norm-train", "short-conv-train", "transformers-conv-train"]
    assert sorted(report["untuned"]) == norms_and_convolutions, "of these, backward passes are not tuned"


def test_inputs_are_the_same_for_a_seed_and_have_an_expectation(tmp_path: Path) -> None:
    report = python(_START + _EXPECT, "sm_90", home=tmp_path)
    assert report["wrong"] == []
    assert report["made"] > 100
