"""A deployment of SGLang as far as this goes without a GPU: a process that spawns a scheduler, which launches kernels.

They are launched by SGLang's own functions, up to the driver: what chooses experts for tokens, what sorts the tokens by
expert where that is Triton's, experts, in both ways that Triton is given their weights, and a sampler with top-k, top-p
and seeds.
"""

import multiprocessing
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
TOKENS, EXPERTS = 64, 128


def scheduler(answer: Any) -> None:
    from gdn_aot.plugins import sglang

    sglang.register()  # as SGLang does first; there is an artifact in one of the tests
    import launching

    driver = launching.start("sm_90")
    counter = launching.Counter()
    from gdn_aot.providers.sglang import platform

    platform.prepare()
    with platform.on_target():
        choose_experts()
        if find_spec("sglang.kernels.ops.moe.moe_align_small_numel"):  # before it is CUDA for any number of tokens
            sort_tokens()
        run_experts(tma=False)
        run_experts(tma=True)
        sample()
    answer.send([[name for name, _ in driver.launched], counter.compiled])


def choose_experts() -> None:
    """Choose eight experts for each token, and the one that all share."""
    import torch
    from sglang.kernels.ops.moe.fused_moe_triton_kernels import fused_append_shared_experts_with_weights
    from sglang.kernels.ops.moe.moe_fused_gate import moe_fused_gate

    weights, chosen = moe_fused_gate(torch.zeros(TOKENS, EXPERTS), torch.zeros(EXPERTS), 8, scoring_func="softmax")
    gate = torch.zeros(TOKENS, 1, dtype=torch.bfloat16)
    fused_append_shared_experts_with_weights(chosen, weights, gate, 1, N=EXPERTS, apply_sigmoid=True)


def sort_tokens() -> None:
    """Sort the experts of one token, as a decode step of one request does."""
    import torch
    from sglang.srt.layers.moe.moe_runner.triton_utils.moe_align_block_size import moe_align_block_size

    moe_align_block_size(torch.arange(8, dtype=torch.int32).view(1, 8), 16, EXPERTS)


def run_experts(*, tma: bool) -> None:
    """Multiply tokens, each by the weights of two of eight experts."""
    import torch
    import triton.language as tl
    from sglang.kernels.ops.moe.fused_moe_triton_kernels import invoke_fused_moe_kernel

    def half(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.bfloat16)

    def indices(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.int32)

    blocks = {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 64, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 1}
    kinds = ("fp8_w8a8", "int8_w8a8", "int8_w8a16", "int4_w4a16")
    invoke_fused_moe_kernel(
        half(64, 128), half(8, 64, 128), None, half(64, 2, 64), None, None, None, torch.zeros(64, 2), indices(64, 2),
        indices(256), indices(16), indices(1), False, 2, {**blocks, "num_warps": 4, "num_stages": 3}, tl.bfloat16,
        **{f"use_{kind}": False for kind in kinds}, per_channel_quant=False, a_use_tma=tma, b_use_tma=tma,
    )  # fmt: skip


def sample() -> None:
    """Draw a token for each of four requests with top-k, top-p and a seed."""
    import torch
    from sglang.srt.layers.sampler import top_k_top_p_min_p_sampling_from_probs_torch

    probabilities = torch.softmax(torch.arange(4000.0).view(4, 1000), dim=-1)
    top_k, top_p, numbers = torch.tensor([1, 5, 50, 1000]), torch.tensor([1.0, 0.9, 0.5, 1.0]), torch.arange(4)
    drawn = top_k_top_p_min_p_sampling_from_probs_torch(
        probabilities, top_k, top_p, torch.zeros(4), False, sampling_seed=numbers, positions=numbers
    )
    assert drawn.shape == (4,)


def main() -> None:
    import json

    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # what it compiles for a card is not Triton's here
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=scheduler, args=(there,))
    process.start()
    there.close()
    print(json.dumps(here.recv()))
    process.join()
    sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
