"""A whole deployment with LoRA: vLLM's own manager puts its layers in place, and random traffic misses nothing."""

from pathlib import Path

import pytest
from helpers import gdn_aot
from whole_deployments import BLOCKS, CONFIG, EXPERTS, LINEAR, NEEDS_VLLM, traced, words

pytestmark = NEEDS_VLLM

_OPS = "vllm.lora.ops.triton_ops"
PRODUCTS = {f"{_OPS}.lora_shrink_op:_lora_shrink_kernel", f"{_OPS}.lora_expand_op:_lora_expand_kernel"}
ONE_SHOT = f"{_OPS}.fused_moe_lora_op:_fused_moe_lora_one_shot_kernel"
SMALL = f"{_OPS}.fused_moe_lora_op:_fused_moe_lora_small_batch_kernel"


def test_kernels_follow_from_rank_and_slots(tmp_path: Path) -> None:
    """Experts with adapters have a kernel for few tokens, up to rank 64. Those of the model itself do not change."""
    low, high, without = traced(
        "sm_90",
        tmp_path,
        (CONFIG, "card=NVIDIA H200,enable_lora=true,max_loras=2,max_lora_rank=16"),
        (CONFIG, "card=NVIDIA H200,enable_lora=true,max_loras=2,max_lora_rank=128"),
        (CONFIG, "card=NVIDIA H200"),
    )
    assert (low[0]["max_loras"], low[0]["max_lora_rank"], low[0]["sm_count"]) == (2, 16, 132)
    assert {*low[1]} - {*without[1]} == {*PRODUCTS, ONE_SHOT, SMALL}
    assert {*high[1]} - {*without[1]} == {*PRODUCTS, ONE_SHOT}
    assert not {*low[1][ONE_SHOT]} & {*high[1][ONE_SHOT]}
    for name, keys in without[1].items():
        assert low[1][name] == high[1][name] == keys


def test_random_traffic_of_quantized_weights_with_adapters_misses_nothing(tmp_path: Path) -> None:
    config = {**CONFIG, "quantization_config": BLOCKS}
    options = "card=NVIDIA L4,enable_lora=true,max_loras=2,max_lora_rank=16"
    gdn_aot(*words(tmp_path, "sm_89", config, options), home=tmp_path)
    (path,) = (tmp_path / "out").glob("*-deployment-*.tar.zst")
    shown = gdn_aot("inspect", path, home=tmp_path).out
    assert "fp8_experts=TRITON, fp8_linear=TritonFp8BlockScaledMMKernel" in shown
    assert "max_lora_rank=16, max_loras=2" in shown
    built = {*PRODUCTS, ONE_SHOT, SMALL, LINEAR, EXPERTS}
    assert all(name in shown for name in built)
    result = gdn_aot("coverage", path, "--calls", 60, "--seed", 5, "--json", home=tmp_path, code=None).json
    assert result["launches"] > 100
    assert result["refused"] == []
    assert [miss for miss in result["misses"] if miss["kernel"] in built] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("fully_sharded_loras=true", "fully sharded LoRA are not enumerated"),
        ("specialize_active_lora=true", "LoRA kernels for each number of active adapters are not enumerated"),
        ("enable_prefix_caching=true", "LoRA with prefix caching or a block size of its own are not enumerated"),
        ("VLLM_LORA_ENABLE_DUAL_STREAM=1", "LoRA on a second stream are not enumerated"),
    ],
)
def test_what_is_not_enumerated_ends_the_build(options: str, said: str, tmp_path: Path) -> None:
    options = f"card=NVIDIA H200,enable_lora=true,{options}"
    assert said in gdn_aot(*words(tmp_path, "sm_90", CONFIG, options), home=tmp_path, code=2).err
