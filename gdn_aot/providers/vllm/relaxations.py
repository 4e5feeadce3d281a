"""What may be relaxed in vLLM's kernels: the number of cache lines in both convolutions. Imports no vLLM.

Up to 0.26 ``num_cache_lines`` is a constexpr: the number of pages in the engine's cache, which follows the memory that
is free when it starts. Both kernels use it once, in the mask of the load that shifts a sequence's window:
``conv_states_input_coord < num_cache_lines``. The coordinate is a page that the engine gave to a request, so the test
is true in every launch that is defined at all: for a coordinate past the last page, the same program reads
``conv_states_base`` and stores the new window without that test, outside the cache. A binary must hence have the test
pass for every page that there can be, and the largest int32 does: it is more pages than any memory holds, and as a
32-bit constant it compares with the 64-bit coordinate as it is. Anything smaller would drop windows in larger caches.

`tests/providers/test_vllm.py` in Triton's interpreter and `tests/gpu/test_vllm.py` on a device run the kernels with the
least and the greatest number of pages.
"""

from __future__ import annotations

from gdn_aot.providers.workload import Relaxation

LINES = (1 << 31) - 1
"""What stands for every number of cache lines: the largest int32."""

_MODULE = "vllm.model_executor.layers.mamba.ops.causal_conv1d"
_REASON = (
    "num_cache_lines is compared with a page index in one mask; the index is in the cache in every launch, or the "
    "kernel's other accesses to the same page would be out of bounds"
)

_SOURCES = {
    "_causal_conv1d_fwd_kernel": (
        "63d067f9eb6f5c17dbf175405525ed4e6331ac5d5f06f295762f10253838af23",  # 0.17 to 0.19
        "bf9a680cb56246f061ba73bc13b1d6b10ad633bc67ae152035c9a71ddf75aa3d",  # 0.20
        "8f5576cc97b55a32ef70489205ae0211d987c9da09af3f4dc8242875ed91ca02",  # 0.21, 0.22
        "028acdd8960507a33e1052d464764cb4dafac7a4fea9128b4a8eaffa5ced39f6",  # 0.23 to 0.26
    ),
    "_causal_conv1d_update_kernel": (
        "07a853522d45d07a5ca458e2b7cf2be62cedd95aadd0c8a0006b6945e557993d",  # 0.17 to 0.19
        "508d2ead4835832e0cff75d62675e65db30fc8a69ec370073e5d28b6414f1345",  # 0.20
        "9e38f27b26199a4202e6f90cb604ac8c13abf7dea5cd68376c5cf4794bce26d9",  # 0.21 to 0.26
    ),
}
RELAXATIONS = tuple(
    Relaxation(kernel=f"{_MODULE}:{name}", argument="num_cache_lines", value=LINES, sources=sources, reason=_REASON)
    for name, sources in _SOURCES.items()
)
