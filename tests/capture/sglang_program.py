"""A deployment of SGLang as far as this goes without a GPU: a process that spawns a scheduler, which launches kernels.

They are launched by SGLang's own functions, up to the driver: experts, in both ways that Triton is given their weights,
and what a sampler with seeds launches.
"""

import multiprocessing
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))


def scheduler(answer: Any) -> None:
    from gdn_aot.plugins import sglang

    sglang.register()  # as SGLang does first; there is an artifact in one of the tests
    import launching
    import torch

    driver = launching.start("sm_90")
    torch.version.cuda = "13.0"
    counter = launching.Counter()
    run_experts(tma=False)
    run_experts(tma=True)
    from sglang.kernels.ops.sampling.murmur_hash import murmur_hash32

    from gdn_aot.providers.sglang import platform

    with platform.on_target():  # a CPU's tensors have code of their own from some release on
        murmur_hash32(torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), torch.arange(32))
    answer.send([[name for name, _ in driver.launched], counter.compiled])


def run_experts(*, tma: bool) -> None:
    """Multiply 64 tokens, each by the weights of two of eight experts."""
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


def main() -> None:
    import json

    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=scheduler, args=(there,))
    process.start()
    there.close()
    print(json.dumps(here.recv()))
    process.join()
    sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
