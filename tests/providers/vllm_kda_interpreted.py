"""Runs a model's layer of Kimi Delta Attention in Triton's interpreter and compares with float64.

Given ``tests/support`` and the model. The interpreter has no bf16 and no dependent launches, and what it cannot run of
the kernels is put right here: functions of ``tl`` that a module has under a name of its own, a loop whose index is
asked for its dtype, a grid that replaces an argument. Of candidates one is enough.
"""

import contextlib
import importlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from gdn_aot.catalogue.targets import get_target
from gdn_aot.tracing import stub

sys.path.insert(0, sys.argv[1])
logging.disable(logging.INFO)
stub.activate(get_target("sm_80"))

import triton.language as tl  # noqa: E402
from interpreting import compared, fill  # noqa: E402
from triton.runtime.autotuner import Autotuner, Heuristics  # noqa: E402

from gdn_aot.catalogue.models import find_model  # noqa: E402
from gdn_aot.providers.vllm import workloads as provider  # noqa: E402
from gdn_aot.providers.vllm.steps import Deployment, Group, Step  # noqa: E402
from gdn_aot.providers.workload import Call  # noqa: E402

fill()

OPERATORS = ("vllm.model_executor.layers.fla.ops.", "vllm.third_party.flash_linear_attention.ops.", "vllm.models.")
"""Where modules of kernels are: up to 0.25, from 0.26 on, and with a model from 0.27 on."""
CONVOLUTION = sys.modules["vllm.model_executor.layers.mamba.ops.causal_conv1d"]


class Index(int):
    """The index of a loop, which is as wide as it is."""

    def to(self, _dtype: object) -> "Index":
        return self


class OnCopies:
    """A kernel whose grid works on a copy of the arguments."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: Callable[[dict[str, Any]], tuple[int, ...]]) -> Any:
        return self.kernel[lambda arguments: grid(dict(arguments))]


def through(name: str) -> Callable[[Any], Any]:
    """Return what asks ``tl`` for a function when it is called: the interpreter replaces those of ``tl`` itself."""

    def called(*args: Any, **named: Any) -> Any:
        return getattr(tl, name)(*args, **named)

    return called


def counted(*bounds: Any) -> Iterator[Index]:
    return map(Index, range(*map(int, bounds)))


SIZES: dict[str, Any] = {"heads": 2, "v_heads": 2, "k_dim": 64, "v_dim": 64, "dtype": "fp16"}
shape = replace(find_model(sys.argv[2]).shape(1), **SIZES)
provider.vllm_packed.lacks = lambda: ""  # the interpreter has no dependent launches, and sm_90 would have them
lacking = provider.lacks(shape)
assert not lacking, lacking
with contextlib.suppress(ModuleNotFoundError):  # up to 0.26; else a layer imports it when it runs
    importlib.import_module("vllm.models.kimi_k3.nvidia.ops.third_party.kda")
for name, module in [(name, module) for name, module in sys.modules.items() if name.startswith(OPERATORS)]:
    for own, value in list(vars(module).items()):
        if own in ("exp", "exp2", "log", "gather"):
            setattr(module, own, through(own))
        while isinstance(value, (Autotuner, Heuristics)):
            if isinstance(value, Autotuner):
                value.configs = value.configs[:1]
            value = value.fn  # noqa: PLW2901
    if name.endswith(".chunk_delta_h"):
        module.range = counted  # type: ignore[attr-defined]
CONVOLUTION._causal_conv1d_fwd_kernel = OnCopies(CONVOLUTION._causal_conv1d_fwd_kernel)  # type: ignore[attr-defined]

PLAIN, DRAFTING = (Deployment(state="float32", drafts=drafts, aligned=16) for drafts in (0, 2))
STEPS = [
    ("decode", Step(groups=(Group(2, 5, 1),), deployment=PLAIN)),
    ("decode", Step(groups=(Group(1, 5, 1),), deployment=PLAIN, graph=True)),
    ("prefill", Step(groups=(Group(1, 0, 9),), deployment=PLAIN)),
    ("prefill", Step(groups=(Group(1, 0, 70), Group(1, 64, 5)), deployment=PLAIN)),
    ("mixed", Step(groups=(Group(2, 9, 1), Group(1, 0, 20)), deployment=PLAIN)),
]
if provider.WORKLOADS["speculative"]().applies(shape):
    STEPS += [
        ("speculative", Step(groups=(Group(1, 9, 3, 2, 2), Group(1, 5, 2, 1, 3)), deployment=DRAFTING)),
        ("speculative", Step(groups=(Group(2, 9, 3, 2), Group(1, 0, 20)), deployment=DRAFTING)),
    ]
if provider.vllm_layer.FIRST_TOKENS:
    STEPS.append(("prefill", Step(groups=(Group(2, 9, 1), Group(1, 0, 1)), deployment=PLAIN)))
calls = [step.call(kind) for kind, step in STEPS] + [Call.of("gated-norm", tokens=5, sm_count=132)]
print(json.dumps([compared(provider, shape, call) for call in calls]))
