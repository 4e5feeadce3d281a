"""Runs vLLM's layer in Triton's interpreter and compares with float64; a program of its own, given ``tests/support``.

The interpreter has no bf16 and does not know the ``exp`` that other kernels import under a name of their own.
"""

import logging
import sys

from gdn_aot.catalogue.targets import get_target
from gdn_aot.tracing import stub

sys.path.insert(0, sys.argv[1])
logging.disable(logging.INFO)
stub.activate(get_target("sm_90"))

from interpreting import fill, judge  # noqa: E402

from gdn_aot.providers.vllm import workloads as provider  # noqa: E402
from gdn_aot.providers.vllm.steps import Deployment, Group, Step  # noqa: E402

fill()

SIZES = {"heads": 1, "v_heads": 2, "k_dim": 64, "v_dim": 64, "dtype": "fp16", "kv_heads": 1, "head_dim": 16}
PLAIN, DRAFTED = Deployment(state="float32", drafts=0), Deployment(state="float32", drafts=2)
STEPS = (
    ("decode", Step(groups=(Group(2, 5, 1),), deployment=PLAIN, packed=False)),
    ("decode", Step(groups=(Group(1, 5, 1),), deployment=PLAIN, packed=False, compiled=True)),
    ("speculative", Step(groups=(Group(1, 50, 3, 2, 2), Group(1, 50, 2, 1, 3)), deployment=DRAFTED)),
    ("speculative", Step(groups=(Group(1, 50, 3, 2, 1),), deployment=DRAFTED, graph=True)),
)

judge(provider, SIZES, STEPS)
