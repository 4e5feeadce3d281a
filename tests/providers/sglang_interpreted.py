"""Runs SGLang's layers in Triton's interpreter and compares with float64; a program of its own.

It is given ``tests/support`` and a family. The layers of Gated Delta Net are run with the same steps.

The interpreter has no bf16, which one kernel makes whatever the model is, and does not know the ``exp`` and ``gather``
that kernels import under a name of their own.
"""

import json
import logging
import sys
from dataclasses import replace
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

from gdn_aot.catalogue.targets import get_target
from gdn_aot.tracing import stub

sys.path.insert(0, sys.argv[1])
logging.disable(logging.INFO)
stub.activate(get_target("sm_80"))

import triton.language as tl  # noqa: E402
from interpreting import compared, fill, judge  # noqa: E402

from gdn_aot.catalogue.models import find_model  # noqa: E402
from gdn_aot.providers.sglang import workloads as provider  # noqa: E402
from gdn_aot.providers.sglang.layer import captures  # noqa: E402
from gdn_aot.providers.sglang.steps import GATES, Deployment, Group, Step  # noqa: E402

fill()


def through(name: str, *args: Any, **named: Any) -> Any:
    """Call a function of ``tl`` by its name, as the interpreter replaces those that ``tl`` has."""
    return getattr(tl, name)(*args, **named)


for module in [module for name, module in sys.modules.items() if name.startswith("sglang.")]:
    for name, value in list(vars(module).items()):
        if name in ("exp", "exp2", "log", "log2", "gather") and getattr(value, "__module__", "").startswith("triton."):
            vars(module)[name] = partial(through, name)
        for tuner in (value, getattr(value, "fn", None)):
            if type(tuner).__name__ == "Autotuner":
                tuner.configs = tuner.configs[:1]  # nothing is measured here


class Language(ModuleType):
    """``triton.language`` with another type in the place of bf16."""

    bfloat16 = tl.float16

    def __getattr__(self, name: str) -> Any:
        return getattr(tl, name)


if sys.argv[2] == "kda":
    intra, gate = (sys.modules[f"sglang.kernels.ops.attention.fla.{name}"] for name in ("chunk_intra", "kda"))
    vars(intra).update(tl=Language("language"), interpreted=tl)  # the interpreter looks for the true one
    vars(gate)["libdevice"] = SimpleNamespace(exp=partial(through, "exp"))

SIZES = {"heads": 1, "v_heads": 2, "k_dim": 64, "v_dim": 64, "dtype": "fp16"}
PLAIN, DRAFTED = Deployment(state="float32", drafts=0), Deployment(state="float32", drafts=2)
PROMPTS = (Group(1, 0, 70, tracked=True), Group(1, 64, 64, tracked=True), Group(2, 100, 1))
DRAFTS = (Group(1, 50, 3, 0, tracked=True), Group(1, 9, 3, 2))
STEPS = (
    ("prefill", Step(kind="extend", groups=PROMPTS, deployment=PLAIN, radix=True)),
    ("decode", Step(kind="decode", groups=(Group(2, 5, 1),), deployment=PLAIN)),
    ("decode", Step(kind="decode", groups=(Group(1, 5, 1, tracked=True),), deployment=PLAIN, radix=True)),
    ("decode", Step(kind="decode", groups=(Group(2, 5, 1),), deployment=PLAIN, graph=4)),
    (
        "speculative",
        Step(
            kind="verify", groups=(Group(1, 50, 3, 0, tracked=True), Group(1, 9, 3, 2)), deployment=DRAFTED, radix=True
        ),
    ),
    ("speculative", Step(kind="verify", groups=(Group(1, 50, 3, 1),), deployment=DRAFTED, graph=2)),
)


def apart(**named: Any) -> Any:
    """Have several kernels make what one makes of few blocks, as of many."""
    return intra.chunk_kda_fwd_intra(**{**named, "fuse_diagonal": False, "fuse_recompute": False})


if sys.argv[2] == "gdn":
    judge(provider, SIZES, STEPS)
else:
    kimi = replace(find_model("kimi-linear-48b-a3b").shape(1), **{**SIZES, "heads": 2})
    merged = [(kind, replace(step, merged=number % 2 == 1)) for number, (kind, step) in enumerate(STEPS)]
    rows = [compared(provider, kimi, step.call(kind)) for kind, step in merged]
    ling = replace(find_model("ling-3.0-tiny").shape(1), **{**SIZES, "heads": 2})
    glm = replace(find_model("glm-5.3-flash").shape(1), **{**SIZES, "heads": 2})
    models = [kimi]
    k3 = replace(find_model("kimi-k3").shape(1), **{**SIZES, "heads": 2})
    for model, layout in ((ling, False), (glm, GATES), (k3, True)):
        if not provider.lacks(model):  # with a bound of the gate, and one kernel for decode and drafts
            models.append(model)
            steps = [*((kind, replace(step, merged=layout)) for kind, step in STEPS[:1]), merged[1], merged[4]]
            rows += [compared(provider, model, step.call(kind)) for kind, step in steps]
    vars(gate)["chunk_kda_fwd_intra"] = apart
    many = [replace(STEPS[0][1], merged=True)]
    if captures(kimi):
        many.append(replace(STEPS[0][1], bucket=140))
    rows += [compared(provider, model, step.call("prefill")) for model in models for step in many]
    print(json.dumps(rows))
