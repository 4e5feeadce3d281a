"""Runs vLLM's layer of Kimi Delta Attention in Triton's interpreter and compares with float64; given ``tests/support``.

The interpreter has no bf16, and what it cannot run of the kernels is put right here: functions of ``tl`` that a module
has under a name of its own, a loop whose index is asked for its dtype, a grid that replaces an argument. Of candidates
one is enough.
"""

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
stub.activate(get_target("sm_90"))

import torch  # noqa: E402
import triton.language as tl  # noqa: E402
from interpreting import compared  # noqa: E402
from triton.runtime.autotuner import Autotuner, Heuristics  # noqa: E402

from gdn_aot.catalogue.models import find_model  # noqa: E402
from gdn_aot.providers.vllm import workloads as provider  # noqa: E402
from gdn_aot.providers.vllm.steps import Deployment, Group, Step  # noqa: E402
from gdn_aot.providers.workload import Call  # noqa: E402

torch.zeros, torch.zeros_like = torch.zeros.__wrapped__, torch.zeros_like.__wrapped__  # here they are read

OPERATORS = "vllm.model_executor.layers.fla.ops."
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

    def called(x: Any) -> Any:
        return getattr(tl, name)(x)

    return called


def counted(*bounds: Any) -> Iterator[Index]:
    return map(Index, range(*map(int, bounds)))


for module in [module for name, module in sys.modules.items() if name.startswith(OPERATORS)]:
    for name, value in list(vars(module).items()):
        if name in ("exp", "exp2", "log"):
            setattr(module, name, through(name))
        while isinstance(value, (Autotuner, Heuristics)):
            if isinstance(value, Autotuner):
                value.configs = value.configs[:1]
            value = value.fn  # noqa: PLW2901
sys.modules[f"{OPERATORS}chunk_delta_h"].range = counted  # type: ignore[attr-defined]
CONVOLUTION._causal_conv1d_fwd_kernel = OnCopies(CONVOLUTION._causal_conv1d_fwd_kernel)  # type: ignore[attr-defined]

PLAIN = Deployment(state="float32", drafts=0, aligned=16)
STEPS = (
    ("decode", Step(groups=(Group(2, 5, 1),), deployment=PLAIN)),
    ("decode", Step(groups=(Group(1, 5, 1),), deployment=PLAIN, graph=True)),
    ("prefill", Step(groups=(Group(1, 0, 9),), deployment=PLAIN)),
    ("prefill", Step(groups=(Group(1, 0, 70), Group(1, 64, 5)), deployment=PLAIN)),
    ("mixed", Step(groups=(Group(2, 9, 1), Group(1, 0, 20)), deployment=PLAIN)),
)
SIZES: dict[str, Any] = {"heads": 2, "v_heads": 2, "k_dim": 64, "v_dim": 64, "dtype": "fp16"}

shape = replace(find_model("kimi-linear-48b-a3b").shape(1), **SIZES)
calls = [step.call(kind) for kind, step in STEPS] + [Call.of("gated-norm", tokens=5, sm_count=132)]
print(json.dumps([compared(provider, shape, call) for call in calls]))
