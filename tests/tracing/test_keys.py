"""The artifact's keys against those that plain provider calls ask Triton for.

Triton itself computes every key here: ``knobs.runtime.jit_cache_hook`` sees each launch key and says that it is
cached, and each autotuner's ``cache`` is a mapping that notes what is looked up in it. `gdn_aot.triton_internals` has
no part in it.
"""

import json
from pathlib import Path

from builds import Built
from helpers import python
from msgspec.structs import asdict

_PLAIN = """
import json, sys
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
choices, target, dtype_name = json.loads(open(sys.argv[1]).read()), sys.argv[2], sys.argv[3]
stub.activate(get_target(target))
import torch, triton
from triton import knobs
from triton.runtime.autotuner import Autotuner
import fla
from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule
from fla.modules import FusedRMSNormGated
from fla.modules.causal_conv1d import causal_conv1d

launched, looked_up, missing = [], [], []

def hook(*, key, fn, **_):
    launched.append([f"{fn.jit_function.fn.__module__}:{fn.jit_function.fn.__qualname__}", key])
    return True

class Noting(dict):
    def __init__(self, tuner):
        function = tuner.fn
        while not isinstance(function, triton.runtime.JITFunction):
            function = function.fn
        self.name = f"{function.fn.__module__}:{function.fn.__qualname__}"
        self.known = {tuple(key): config for key, config in choices.get(self.name, [])}
        self.first = tuner.configs[0]

    def __contains__(self, key):
        looked_up.append([self.name, list(key)])
        if key not in self.known:
            missing.append([self.name, list(key)])
        return True

    def __getitem__(self, key):
        config = self.known.get(key)
        if config is None:
            return self.first
        return triton.Config(**config)

import gc
for tuner in [item for item in gc.get_objects() if isinstance(item, Autotuner)]:
    tuner.cache = Noting(tuner)
knobs.runtime.jit_cache_hook = hook

dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype_name]
def inputs(batch, tokens):
    make = lambda heads, *dim: torch.zeros(batch, tokens, heads, *dim, dtype=dtype)
    return dict(
        q=make(16, 128), k=make(16, 128), v=make(32, 128), beta=make(32),
        g=torch.zeros(batch, tokens, 32, dtype=torch.float32),
    )

def state(count):
    return torch.zeros(count, 32, 128, 128, dtype=torch.float32)

with torch.no_grad():
    for tokens in (1, 63, 64, 100, 512, 5000):
        chunk_gated_delta_rule(
            **inputs(1, tokens), initial_state=None, output_final_state=True, use_qk_l2norm_in_kernel=True
        )
    chunk_gated_delta_rule(**inputs(3, 200), output_final_state=False, use_qk_l2norm_in_kernel=True)
    chunk_gated_delta_rule(
        **inputs(1, 300), initial_state=state(1), output_final_state=True, use_qk_l2norm_in_kernel=True
    )
    for kind in (torch.int32, torch.int64):
        chunk_gated_delta_rule(
            **inputs(1, 300), initial_state=state(3), output_final_state=True, use_qk_l2norm_in_kernel=True,
            cu_seqlens=torch.tensor([0, 17, 130, 300], dtype=kind),
        )
    for batch in (1, 2, 16, 77):
        fused_recurrent_gated_delta_rule(
            **inputs(batch, 1), initial_state=state(batch), output_final_state=True, use_qk_l2norm_in_kernel=True
        )
    if target == "sm_120":  # built with every workload: the layer without state joins q, k and v
        weight = torch.zeros(8192, 4, dtype=dtype)
        for batch, tokens in ((1, 1), (3, 1), (16, 1), (1, 7), (2, 64)):
            causal_conv1d(x=torch.zeros(batch, tokens, 8192, dtype=dtype), weight=weight, activation="silu")
    norm = FusedRMSNormGated(128, eps=1e-6, activation="silu", dtype=dtype)
    norm(torch.zeros(100 * 32, 128, dtype=dtype), torch.zeros(100 * 32, 128, dtype=dtype))

print(json.dumps({"launched": launched, "looked_up": looked_up, "missing": missing}))
"""


def test_plain_calls_ask_for_what_is_in_the_artifact(built: Built, tmp_path: Path) -> None:
    choices = {
        kernel.name: [
            [list(choice.key), {**asdict(choice.config), "kwargs": dict(choice.config.kwargs)}]
            for choice in kernel.choices
        ]
        for kernel in built.manifest.kernels
    }
    (tmp_path / "choices.json").write_text(json.dumps(choices))
    (dtype,) = {model.dtype for model in built.manifest.models}
    asked = python(_PLAIN, tmp_path / "choices.json", built.manifest.target.name, dtype, home=tmp_path)
    binaries = {(kernel.name, binary.launch_key) for kernel in built.manifest.kernels for binary in kernel.binaries}
    launched = {(kernel, key) for kernel, key in asked["launched"]}
    assert launched - binaries == set()
    assert asked["missing"] == []
    # The check is worth something only if it saw the autotuned kernels and many launches.
    assert len(launched) >= 20
    assert len({kernel for kernel, _ in asked["looked_up"]}) >= 5
