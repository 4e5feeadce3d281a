"""What may be relaxed in SGLang's kernels: slots of the pool and rows of a norm. Imports no SGLang.

``num_cache_lines`` is a constexpr: the slots of the engine's pool of states, which follows the memory that is free when
it starts. As in vLLM's, of which they are copies, both kernels use it once, in the mask of the load that shifts a
window, and store the new window without that test; `gdn_aot.providers.vllm.relaxations` says why the largest int32
may stand for every number.

``NUM_STATE_SLOTS`` of the projection fused with the convolution, from 0.5.19 on, is none of these: there the test
guards the loads and stores themselves against indices that are out of date, and must fail for the pool that there is.
So no number stands for it: binaries take it as an argument, and the guard holds.

``T`` of the L2 norm, up to 0.5.15, is the rows of a call. It is nothing but the bound of two block pointers, against
which loads and stores are checked: binaries take it as an argument, as those of later releases do by themselves.
"""

from __future__ import annotations

from gdn_aot.providers.workload import Relaxation

LINES = (1 << 31) - 1
"""What stands for every number of cache lines: the largest int32."""

_MODULES = (
    "sglang.kernels.ops.mamba.causal_conv1d_triton",
    "sglang.srt.layers.attention.mamba.causal_conv1d_triton",  # up to 0.5.15
)
_L2_NORM = "sglang.srt.layers.attention.fla.l2norm:l2norm_fwd_kernel"
_REASON = (
    "num_cache_lines is compared with a slot in one mask; the slot is in the pool in every launch, or the kernel's "
    "other accesses to it would be out of bounds"
)
_ROWS = "T is the bound of block pointers, which is checked as well with an argument"
_NORM = (
    "417ae43607bcf643d70efa0e9714400ec0b269ac4b9dba202f7cb7e790a95f03",  # 0.5.11 to 0.5.15
)
_SOURCES: dict[str, tuple[str, ...]] = {
    "_causal_conv1d_fwd_kernel": (
        "59b39bdb95236f6bc8180ae2fefa48c662d895e15b46cfaa5b37262f2c854a47",  # 0.5.11 to 0.5.17
        "9d66e848f9f2d24e9757ce4c0fe06c0721d5896240d76e3c5c54ea4de8b57dfb",  # 0.5.18, 0.5.19
        "5ba095f711ac2d7fffe4715f748bc439a0726b2c2dfd802ea42bf58cb4acaeb9",  # 0.5.20, 0.5.21
        "f10233706b3f927e434fd1c29b62ff3e60ea1aae5618e836c1b6d992824f2605",  # 0.5.22, 0.5.23
    ),
    "_causal_conv1d_update_kernel": (
        "73a4fe433c53a52cbcb777316609ef0920a026d032758b89dce4b4750202de8a",  # 0.5.11
        "44acf9c884bd58e72dea63b2714b9a8d60122887b02ebc3f0cc7a7338000c515",  # 0.5.12
        "856c2f63927dae71c07f757e4acdc5598aaa4dbeb18310c3d18f6a3ab984a8a0",  # 0.5.13 to 0.5.18
        "f4e344d8823fa83a1abf0436b872a36cd3053d5b495e79d7f1a6d0baf7cdb0de",  # 0.5.19 to 0.5.23
    ),
}
RELAXATIONS = (
    *(
        Relaxation(kernel=f"{module}:{name}", argument="num_cache_lines", value=LINES, sources=sources, reason=_REASON)
        for module in _MODULES
        for name, sources in _SOURCES.items()
    ),
    Relaxation(kernel=_L2_NORM, argument="T", value=None, sources=_NORM, reason=_ROWS),
)
ARGUMENTS = {
    "NUM_STATE_SLOTS": (
        "a slot is compared with it, to guard loads and stores of states; binaries take it, so that the guard holds "
        "for the pool that there is"
    )
}
