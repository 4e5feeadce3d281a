"""A whole deployment with FP8 weights: vLLM chooses the backends and the tiles of the card, and random traffic misses
nothing.

Needs the reference version of vLLM, as tests/providers/test_vllm_deployment.py does.
"""

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import gdn_aot, python

from gdn_aot.catalogue.providers import PROVIDERS

_REFERENCE = next(known.version for known in PROVIDERS["vllm"].versions if known.status == "reference")
_THERE = importlib.util.find_spec("vllm") is not None and importlib.metadata.version("vllm") == _REFERENCE
pytestmark = pytest.mark.skipif(
    not _THERE, reason=f"vLLM {_REFERENCE} is not installed here; make vllm runs this where it is"
)

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "dtype": "bfloat16", "vocab_size": 32768,
    "num_hidden_layers": 4, "num_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 5632,
    "mlp_only_layers": [0, 1, 2],
}  # fmt: skip
_WHOLE = ("linear_attn.in_proj_ba", "linear_attn.conv1d", "mlp.gate", "mlp.shared_expert_gate")
BLOCKS = {
    "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
    "modules_to_not_convert": ["lm_head", *(f"model.layers.{layer}.{name}" for layer in range(4) for name in _WHOLE)],
}  # fmt: skip
"""How checkpoints with blocks of scales describe themselves; what is left whole cannot be divided into blocks."""
TENSORS = {"activation_scheme": "static", "quant_method": "fp8"}
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
    text += ",max_model_len=4096,max_num_batched_tokens=96,max_num_seqs=16"
    def keys(calls):
        made = {}
        for name, run in calls:
            if name.startswith("filter("):
                continue
            add = lambda jit, *args: made.setdefault(kernel_name(jit), set()).add(Launch(jit, *args).key)
            with interception.intercept(lambda *_: None, add):
                run()
        return made
    with workloads.deployed(complete(read(text), "m", config)) as engine:
        made = keys(engine.calls())
        missed = [name for name, more in keys(itertools.islice(engine.samples(random.Random(3)), 40)).items()
                  if more - made.get(name, set())]
        found.append([engine.resolved, {name: sorted(some) for name, some in made.items()}, missed])
print(json.dumps(found))
"""


def _traced(arch: str, home: Path, *asked: tuple[dict[str, Any], str]) -> list[Any]:
    """Return for each deployment what vLLM resolved, the keys of its kernels, and kernels that random calls missed."""
    found: list[Any] = python(f"ARCH, ASKED = {arch!r}, {asked!r}\n{_TRACE}", home=home)
    assert all(missed == [] for _, _, missed in found)
    return found


def test_blocks_where_triton_multiplies(tmp_path: Path) -> None:
    """On sm_89 CUTLASS has no blocks. vLLM has tiles of a product of 5120 by 25600 for an L40S, and none for an L4."""
    wide = {**CONFIG, "hidden_size": 5120, "intermediate_size": 25600, "quantization_config": BLOCKS}
    found = _traced("sm_89", tmp_path, (wide, "card=NVIDIA L4"), (wide, "card=NVIDIA L40S"))
    for resolved, keys, _ in found:
        assert resolved["quantization"] == "fp8"
        assert (resolved["fp8_linear"], resolved["fp8_experts"]) == ("TritonFp8BlockScaledMMKernel", "TRITON")
        assert all("*fp8e4nv" in key for key in keys[LINEAR] + keys[EXPERTS])
    (_, small, _), (_, large, _) = found
    assert small[LINEAR] != large[LINEAR]
    assert small[EXPERTS] == large[EXPERTS], "it has no table for either"


def test_blocks_on_hopper_need_no_knowledge_of_packages(tmp_path: Path) -> None:
    """DeepGEMM and CUTLASS both multiply without Triton; the experts are Triton's, with blocks as without."""
    blocks = {**CONFIG, "quantization_config": BLOCKS}
    there, without, online = _traced(
        "sm_90",
        tmp_path,
        (blocks, "card=NVIDIA H200"),
        (blocks, "card=NVIDIA H200,VLLM_USE_DEEP_GEMM=0"),
        (CONFIG, "card=NVIDIA H200,quantization=fp8"),
    )
    assert [found[0]["fp8_linear"] for found in (there, without, online)] == [
        "DeepGemmFp8BlockScaledMMKernel",
        "CutlassFp8BlockScaledMMKernel",
        "CutlassFP8ScaledMMLinearKernel",
    ]
    assert there[1] == without[1]
    assert LINEAR not in there[1]
    assert not {*there[1][EXPERTS]} & {*online[1][EXPERTS]}, "one has a scale for each block, one for each tensor"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def _words(home: Path, arch: str, config: dict[str, Any], options: str) -> list[object]:
    (home / "config.json").write_text(json.dumps(config))
    words = ["build", "--provider", "vllm", "--arch", arch, "--model", "qwen3-next-80b-a3b", "--workload", "decode"]
    options = f"{options},config={home / 'config.json'},max_model_len=4096,max_num_batched_tokens=128,max_num_seqs=16"
    return [*words, "-o", home / "out", "-j", 1, "--deployment", options]


def test_random_traffic_misses_nothing(home: Path) -> None:
    gdn_aot(*_words(home, "sm_89", {**CONFIG, "quantization_config": BLOCKS}, "card=NVIDIA L4"), home=home)
    (path,) = (home / "out").glob("*-deployment-*.tar.zst")
    assert "fp8_experts=TRITON, fp8_linear=TritonFp8BlockScaledMMKernel" in gdn_aot("inspect", path, home=home).out
    result = gdn_aot("coverage", path, "--calls", 200, "--seed", 5, "--json", home=home, code=None).json
    assert result["launches"] > 300
    assert result["refused"] == []
    assert [miss for miss in result["misses"] if ".fla." not in miss["kernel"]] == []


@pytest.mark.parametrize(
    ("arch", "quantization", "options", "said"),
    [
        ("sm_80", None, "card=NVIDIA A100-SXM4-80GB,quantization=fp8", "FP8 weights by MarlinFP8ScaledMMLinearKernel"),
        ("sm_100", BLOCKS, "card=NVIDIA B200", "FP8 experts by DEEPGEMM"),
        ("sm_90", TENSORS, "card=NVIDIA H200", "FP8 checkpoints without blocks of scales"),
        ("sm_90", None, "card=NVIDIA H200,quantization=mxfp8", "weights quantized by"),
        ("sm_90", BLOCKS, "card=NVIDIA H200,moe_backend=flashinfer_cutlass", "vLLM refuses the deployment: ValueError"),
    ],
)
def test_what_is_not_enumerated_ends_the_build(
    arch: str, quantization: dict[str, Any] | None, options: str, said: str, home: Path
) -> None:
    config = {**CONFIG, "quantization_config": quantization} if quantization else CONFIG
    assert said in gdn_aot(*_words(home, arch, config, options), home=home, code=2).err
