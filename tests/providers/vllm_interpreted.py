"""Runs vLLM's layer in Triton's interpreter and compares with float64; a program of its own.

The interpreter has no bf16 and does not know the ``exp`` that other kernels import under a name of their own.
"""

import json
import logging
from dataclasses import replace

from gdn_aot.catalogue.targets import get_target
from gdn_aot.tracing import stub

logging.disable(logging.INFO)
stub.activate(get_target("sm_90"))

import torch  # noqa: E402

from gdn_aot.catalogue.models import find_model  # noqa: E402
from gdn_aot.providers.draw import Random  # noqa: E402
from gdn_aot.providers.vllm import workloads as provider  # noqa: E402
from gdn_aot.providers.vllm.steps import Deployment, Group, Step  # noqa: E402
from gdn_aot.reference.tolerance import compare  # noqa: E402

torch.zeros, torch.zeros_like = torch.zeros.__wrapped__, torch.zeros_like.__wrapped__  # here they are read

SIZES = {"heads": 1, "v_heads": 2, "k_dim": 64, "v_dim": 64, "dtype": "fp16", "kv_heads": 1, "head_dim": 16}
PLAIN, DRAFTED = Deployment(state="float32", drafts=0), Deployment(state="float32", drafts=2)
STEPS = (
    ("decode", Step(groups=(Group(2, 5, 1),), deployment=PLAIN, packed=False)),
    ("decode", Step(groups=(Group(1, 5, 1),), deployment=PLAIN, packed=False, compiled=True)),
    ("speculative", Step(groups=(Group(1, 50, 3, 2, 2), Group(1, 50, 2, 1, 3)), deployment=DRAFTED)),
    ("speculative", Step(groups=(Group(1, 50, 3, 2, 1),), deployment=DRAFTED, graph=True)),
)

rows = []
for layer in ("qwen3-next", "qwen3.5"):
    shape = replace(find_model("qwen3.5-9b").shape(1), **SIZES, layer=layer)
    for kind, step in STEPS:
        workload, call = provider.WORKLOADS[kind](), step.call(kind)
        inputs = workload.inputs(shape, call, Random(5, "cpu"))
        expected = workload.expect(shape, call, inputs)
        kept = {name: None if value is None else value.clone() for name, value in inputs.items()}
        found = workload.apply(shape, call, inputs)
        made = compare(workload.kind, kept, found, expected)
        state = found["state"]
        assert state is not None
        other = compare(workload.kind, kept, {**found, "state": state + 0.1 * state.abs().mean()}, expected)
        rows.append(
            {
                "layer": layer,
                "kind": kind,
                "wrong": made.wrong,
                "compared": len(made.deviations),
                "with another state": other.wrong,
            }
        )
print(json.dumps(rows))
