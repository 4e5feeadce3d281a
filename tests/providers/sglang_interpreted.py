"""Runs SGLang's layer in Triton's interpreter and compares with float64; a program of its own, given ``tests/support``.

The interpreter has no bf16, and does not know the ``exp`` that kernels import under a name of their own.
"""

import logging
import sys
from functools import partial

from gdn_aot.catalogue.targets import get_target
from gdn_aot.tracing import stub

sys.path.insert(0, sys.argv[1])
logging.disable(logging.INFO)
stub.activate(get_target("sm_80"))

import torch  # noqa: E402
import triton.language as tl  # noqa: E402

torch.zeros, torch.zeros_like = torch.zeros.__wrapped__, torch.zeros_like.__wrapped__  # here they are read

from interpreting import judge  # noqa: E402

from gdn_aot.providers.sglang import workloads as provider  # noqa: E402
from gdn_aot.providers.sglang.steps import Deployment, Group, Step  # noqa: E402

for module in [module for name, module in sys.modules.items() if name.startswith("sglang.")]:
    for name, value in list(vars(module).items()):
        if name in ("exp", "exp2", "log", "log2") and getattr(value, "__module__", "").startswith("triton."):
            vars(module)[name] = partial(lambda called, x: getattr(tl, called)(x), name)
        for tuner in (value, getattr(value, "fn", None)):
            if type(tuner).__name__ == "Autotuner":
                tuner.configs = tuner.configs[:1]  # nothing is measured here

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

judge(provider, SIZES, STEPS)
