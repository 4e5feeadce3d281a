"""Runs FLA's operators of KDA in Triton's interpreter and compares with float64: a program of its own.

It is given ``tests/support``.

The interpreter has no bf16, does not tune, and cannot run some of what FLA's kernels do, which is put in other words.
"""

import builtins
import json
import logging
import operator
import sys
from collections.abc import Iterator
from typing import Any

from gdn_aot.catalogue.targets import get_target
from gdn_aot.tracing import stub

sys.path.insert(0, sys.argv[1])
logging.disable(logging.INFO)
stub.activate(get_target("sm_90"))

import numpy as np  # noqa: E402
import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from fla.ops.common import chunk_delta_h  # noqa: E402
from interpreting import fill  # noqa: E402
from triton.runtime import interpreter  # noqa: E402
from triton.runtime.autotuner import Autotuner  # noqa: E402

from gdn_aot.catalogue.models import parse_shape  # noqa: E402
from gdn_aot.providers.draw import Random  # noqa: E402
from gdn_aot.providers.fla import workloads as provider  # noqa: E402
from gdn_aot.providers.workload import Call  # noqa: E402
from gdn_aot.reference.tolerance import compare  # noqa: E402

fill()


def run_first(tuner: Any, *args: Any, **kwargs: Any) -> Any:
    """Launch with the first configuration."""
    return tuner.fn.run(*args, **kwargs, **tuner.configs[0].all_kwargs())


def patched(tensor: Any, scope: Any, own: Any = interpreter._patch_lang_tensor) -> None:
    """Let a tensor of one number be an index with newer versions of NumPy too."""
    own(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


def tensors(*ends: Any) -> Iterator[Any]:
    """Count in tensors, which have ``to``."""
    for number in builtins.range(*map(operator.index, ends)):
        yield tl.tensor(interpreter.TensorHandle(np.array([number], np.int32), tl.int32), tl.int32)


@triton.jit
def softplus(x):  # noqa: ANN001, ANN201
    return tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(x)))


@triton.jit
def gather(source, index, axis: tl.constexpr):  # noqa: ANN001, ANN201
    return tl.gather(source, index, axis)


for kind in (Autotuner, *Autotuner.__subclasses__()):
    kind.run = run_first
interpreter._patch_lang_tensor = patched
chunk_delta_h.range = tensors
for module in ("fla.ops.kda.gate", "fla.ops.kda.fused_recurrent"):
    sys.modules[module].softplus = softplus  # in assembly there
sys.modules["fla.ops.kda.chunk_intra"].gather = gather
sys.modules["fla.ops.kda.chunk_intra"].SAFE_GATE_DOT_PRECISION = tl.constexpr("ieee")

PLAIN = {"l2norm": True, "chunk": 64, "repeated": False, "parameters": "fp32", "other": (), "h0": True, "ht": True}
PROMPT = {**PLAIN, "batch": 1, "tokens": 70, "packed": None, "index": "int64"}
STEP = {"batch": 2, "tokens": 1, "index": None, "h0": True, "ht": True, "parameters": "fp32", "repeated": False}
CALLS = {
    "transformers-kda-prefill": [PROMPT, {**PROMPT, "tokens": 0, "packed": (5, 20), "other": ("gate", "scale")}],
    "layer-kda-prefill": [PROMPT],
    "transformers-kda-decode": [{**STEP, "other": ()}, {**STEP, "other": ("gate",), "index": "int32"}],
    "layer-kda-recurrent": [{**STEP, "tokens": 3, "other": ()}],
    "kda-gate": [{"tokens": 70, "parameters": "fp32"}],
    "transformers-kda-train": [{**PROMPT, "tokens": 0, "packed": (5, 20)}],
    "layer-kda-train": [PROMPT],
    "kda-gate-train": [{"tokens": 70, "parameters": "fp32"}],
}
rows = []
for bound in ("", ",gate_bound=-5"):
    heads = "heads=1,v_heads=1" if bound else "heads=1,v_heads=2"
    shape = parse_shape(f"family=kda,{heads},k_dim=64,v_dim=64,dtype=fp16{bound}").shape(1)
    for name, calls in CALLS.items():
        for arguments in calls if name.startswith("layer") or not bound else calls[:1]:
            workload, call = provider.WORKLOADS[name](), Call.of(name, **arguments)
            inputs = workload.inputs(shape, call, Random(5, "cpu"))
            expected = workload.expect(shape, call, inputs)
            kept = {key: None if value is None else value.clone() for key, value in inputs.items()}
            found = workload.apply(shape, call, inputs)
            made = compare(workload.kind, kept, found, expected)
            others = {}
            for key in found:
                another = {**found, key: found[key] + 0.1 * found[key].abs().mean()}
                others[key] = compare(workload.kind, kept, another, expected).wrong
            rows.append([str(call), bound, made.wrong, len(made.deviations), others])
print(json.dumps(rows))
