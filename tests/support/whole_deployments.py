"""Whole deployments of vLLM in a process of their own: what vLLM resolved, which keys it launched, what was missed."""

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import python

from gdn_aot.catalogue.providers import PROVIDERS

_REFERENCE = next(known.version for known in PROVIDERS["vllm"].versions if known.status == "reference")
_THERE = importlib.util.find_spec("vllm") is not None and importlib.metadata.version("vllm") == _REFERENCE
NEEDS_VLLM = pytest.mark.skipif(
    not _THERE, reason=f"vLLM {_REFERENCE} is not installed here; make vllm runs this where it is"
)

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "dtype": "bfloat16", "vocab_size": 32768,
    "num_hidden_layers": 4, "num_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 5632,
    "mlp_only_layers": [0, 1, 2],
}  # fmt: skip
"""The model of the engine of ``benchmarks/vllm_gdn.py``."""
_WHOLE = ("linear_attn.in_proj_ba", "linear_attn.conv1d", "mlp.gate", "mlp.shared_expert_gate")
BLOCKS = {
    "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
    "modules_to_not_convert": ["lm_head", *(f"model.layers.{layer}.{name}" for layer in range(4) for name in _WHOLE)],
}  # fmt: skip
"""How checkpoints with blocks of scales describe themselves; what is left whole cannot be divided into blocks."""
LINEAR = "vllm.model_executor.layers.quantization.utils.fp8_utils:_w8a8_triton_block_scaled_mm"
EXPERTS = "vllm.model_executor.layers.fused_moe.fused_moe:fused_moe_kernel"

_TRACE = """
import itertools, json, logging, random, sys
logging.disable(logging.WARNING)
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target(ARCH))
from gdn_aot.deployment import complete, read
from gdn_aot.providers.vllm import workloads
from gdn_aot.triton_internals import Launch, interception, kernel_name
found = []
for config, text in ASKED:
    text += ",max_model_len=4096,max_num_batched_tokens=80,max_num_seqs=16"
    def keys(calls):
        made = {}
        for name, run in calls:
            if name.startswith("filter("):
                continue
            add = lambda jit, *args: made.setdefault(kernel_name(jit), set()).add(Launch(jit, *args).key)
            with interception.intercept(lambda *_: None, add):
                run()
        return made
    with workloads.deployed(complete(read(text), "qwen3-next-80b-a3b", config)) as engine:
        made = keys(engine.calls())
        missed = [name for name, more in keys(itertools.islice(engine.samples(random.Random(3)), 40)).items()
                  if more - made.get(name, set())]
        found.append([engine.resolved, {name: sorted(some) for name, some in made.items()}, missed])
print(json.dumps(found))
"""


def traced(arch: str, home: Path, *asked: tuple[dict[str, Any], str]) -> list[Any]:
    """Return for each deployment, a ``config.json`` and options, what vLLM resolved and the keys of its kernels.

    Random calls must have missed none.
    """
    found: list[Any] = python(f"ARCH, ASKED = {arch!r}, {asked!r}\n{_TRACE}", home=home)
    assert all(missed == [] for _, _, missed in found)
    return found


def words(home: Path, arch: str, config: dict[str, Any], options: str) -> list[object]:
    """Return the command that builds a deployment into ``out`` below ``home``."""
    (home / "config.json").write_text(json.dumps(config))
    start = ["build", "--provider", "vllm", "--arch", arch, "--model", "qwen3-next-80b-a3b", "--workload", "decode"]
    options += f",config={home / 'config.json'},max_model_len=4096,max_num_batched_tokens=32,max_num_seqs=4"
    return [*start, "-o", home / "out", "-j", 1, "--deployment", options]
