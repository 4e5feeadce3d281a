"""A whole deployment with FP8 weights: vLLM chooses the backends and the tiles of the card, and random traffic misses
nothing.
"""

from pathlib import Path
from typing import Any

import pytest
from helpers import gdn_aot
from whole_deployments import BLOCKS, CONFIG, EXPERTS, LINEAR, NEEDS_VLLM, traced, words

pytestmark = NEEDS_VLLM

TENSORS = {"activation_scheme": "static", "quant_method": "fp8"}


def test_blocks_where_triton_multiplies(tmp_path: Path) -> None:
    """On sm_89 CUTLASS has no blocks. vLLM has tiles of a product of 5120 by 25600 for an L40S, and none for an L4."""
    wide = {**CONFIG, "hidden_size": 5120, "intermediate_size": 25600, "quantization_config": BLOCKS}
    found = traced("sm_89", tmp_path, (wide, "card=NVIDIA L4"), (wide, "card=NVIDIA L40S"))
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
    there, without, online = traced(
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


@pytest.mark.parametrize(
    ("arch", "quantization", "options", "said"),
    [
        ("sm_80", None, "card=NVIDIA A100-SXM4-80GB,quantization=fp8", "FP8 weights by MarlinFP8ScaledMMLinearKernel"),
        ("sm_100", BLOCKS, "card=NVIDIA B200", "FP8 experts by DEEPGEMM"),
        ("sm_90", TENSORS, "card=NVIDIA H200", "FP8 checkpoints without blocks of scales"),
        ("sm_90", None, "card=NVIDIA H200,quantization=mxfp8", "weights quantized by"),
        ("sm_90", BLOCKS, "card=NVIDIA H200,kv_cache_dtype=fp8", "a quantized KV cache are not enumerated"),
        ("sm_90", BLOCKS, "card=NVIDIA H200,moe_backend=flashinfer_cutlass", "vLLM refuses the deployment: ValueError"),
    ],
)
def test_what_is_not_enumerated_ends_the_build(
    arch: str, quantization: dict[str, Any] | None, options: str, said: str, tmp_path: Path
) -> None:
    config = {**CONFIG, "quantization_config": quantization} if quantization else CONFIG
    assert said in gdn_aot(*words(tmp_path, arch, config, options), home=tmp_path, code=2).err
