"""The artifact's keys against those that plain provider calls ask Triton for.

Triton itself computes every key here: ``knobs.runtime.jit_cache_hook`` sees each launch key and says that it is
cached, and each autotuner's ``cache`` is a mapping that notes what is looked up in it. `gdn_aot.triton_internals` has
no part in it.
"""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builds import PREFILL_AND_DECODE, Built
from helpers import python
from msgspec.structs import asdict

from gdn_aot.artifact.manifest import PackedKernel

_PLAIN = """
import json, sys
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
choices, target, dtype_name = json.loads(open(sys.argv[1]).read()), sys.argv[2], sys.argv[3]
built_for = {name.partition(":")[2] for name in choices}
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
    jit = fn.jit_function
    launched.append([f"{jit.fn.__module__}:{jit.fn.__qualname__}", jit.arg_names, key])
    return True

class Noting(dict):
    def __init__(self, tuner):
        function = tuner.fn
        while not isinstance(function, triton.runtime.JITFunction):
            function = function.fn
        self.name = f"{function.fn.__module__}:{function.fn.__qualname__}"
        rows, self.places = choices.get(self.name, [[], []])
        self.known = {self.shown(key): config for key, config in rows}
        self.first = tuner.configs[0]

    def shown(self, key):  # a relaxed size: the choice of the nearest serves, and any of one key is as good here
        return tuple("any" if place in self.places else part for place, part in enumerate(key))

    def __contains__(self, key):
        looked_up.append([self.name, list(key)])
        if self.shown(key) not in self.known:
            missing.append([self.name, list(key)])
        return True

    def __getitem__(self, key):
        config = self.known.get(self.shown(key))
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
    if "causal_conv1d_fwd_kernel" in built_for:  # the layer without state joins q, k and v
        weight = torch.zeros(8192, 4, dtype=dtype)
        for batch, tokens in ((1, 1), (3, 1), (16, 1), (1, 7), (2, 64)):
            causal_conv1d(x=torch.zeros(batch, tokens, 8192, dtype=dtype), weight=weight, activation="silu")
    norm = FusedRMSNormGated(128, eps=1e-6, activation="silu", dtype=dtype)
    norm(torch.zeros(100 * 32, 128, dtype=dtype), torch.zeros(100 * 32, 128, dtype=dtype))

print(json.dumps({"launched": launched, "looked_up": looked_up, "missing": missing}))
"""


def _served(kernel: PackedKernel, names: list[str], key: str) -> bool:
    """Whether the manifest has a binary for a launch, by what the artifact format says of relaxations."""
    keys = {binary.launch_key for binary in kernel.binaries}
    end = key.rindex("]{") + 1
    parts = ast.literal_eval(key[:end])
    for relaxed in kernel.relaxations:
        place = names.index(relaxed.argument)
        kind, value = parts[place]
        assert kind == "constexpr"
        if relaxed.value is not None:
            parts[place] = ("constexpr", relaxed.value)
        elif value != 1:
            parts[place] = ("i32", None)
    return key in keys or f"{parts}{key[end:]}" in keys


def test_plain_calls_ask_for_what_is_in_the_artifact(built: Built, tmp_path: Path) -> None:
    asked = _ask(built, tmp_path)
    # The check is worth something only if it saw the autotuned kernels and many launches.
    assert len({json.dumps(launch) for launch in asked["launched"]}) >= 20
    assert len({kernel for kernel, _ in asked["looked_up"]}) >= 5


def test_plain_calls_of_the_convolution_are_served(build: Callable[..., Built], tmp_path: Path) -> None:
    """Built with the workload that only FLA's own layer needs, beside what is built anyway."""
    made = build("--arch", "sm_120", "--model", "qwen3.5-9b", *PREFILL_AND_DECODE, "--workload", "short-conv")
    asked = _ask(made, tmp_path)
    assert sum("causal_conv1d" in kernel for kernel, _, _ in asked["launched"]) >= 5


def _ask(built: Built, folder: Path) -> Any:
    kernels = {kernel.name: kernel for kernel in built.manifest.kernels}
    choices = {
        name: [
            [
                [list(choice.key), {**asdict(choice.config), "kwargs": dict(choice.config.kwargs)}]
                for choice in kernel.choices
            ],
            [relaxed.place for relaxed in kernel.relaxations if relaxed.place is not None],
        ]
        for name, kernel in kernels.items()
    }
    (folder / "choices.json").write_text(json.dumps(choices))
    (dtype,) = {model.dtype for model in built.manifest.models}
    asked = python(_PLAIN, folder / "choices.json", built.manifest.target.name, dtype, home=folder)
    assert [
        (name, key)
        for name, names, key in asked["launched"]
        if name not in kernels or not _served(kernels[name], names, key)
    ] == []
    assert asked["missing"] == []
    return asked
