"""Call plain FLA as a server would, on a machine without a GPU, and count what Triton has to compile and measure.

gdn-aot's loader is not used: Triton computes every key itself and reads ``TRITON_CACHE_DIR``. Only the card is a
stand-in, which loads binaries and launches them to nothing. Dense batches of several prompts are left out: of those
Triton compiles one small kernel. Ends with 0 if everything was found, else with 1.

Usage::

    TRITON_CACHE_DIR=DIR python examples/plain_calls.py sm_120 [bf16|fp16]
"""

from __future__ import annotations

import collections
import json
import random
import sys
from typing import TYPE_CHECKING, Any

from gdn_aot.catalogue.targets import get_target
from gdn_aot.tracing import stub

if TYPE_CHECKING:
    import torch

launched: collections.Counter[str] = collections.Counter()
lookups: list[tuple[str, bool]] = []
benchmarks: list[str] = []
binaries: set[bytes] = set()


def watch() -> None:
    """Have Triton say what it looks up, and refuse to measure."""
    from triton import knobs
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.driver import driver

    def bench(self: Any, *_args: object, **_kwargs: object) -> None:
        benchmarks.append(self.base_fn.__name__)
        raise RuntimeError("there is nothing to measure with")

    def load(_name: str, code: bytes, *_rest: object) -> tuple[object, object, int, int, int]:
        binaries.add(code)
        return object(), object(), 32, 0, 1024

    driver.active.launcher_cls = lambda _src, metadata: lambda *_: launched.update([metadata.name])
    driver.active.utils.load_binary = load
    driver.active.utils.unload_module = lambda *_: None
    knobs.compilation.listener = lambda *, src, cache_hit, **_: lookups.append((src.name, cache_hit))
    Autotuner._bench = bench  # noqa: SLF001 - a benchmark is what must not happen


def inputs(batch: int, tokens: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return the arguments of a prefill of Qwen3.5-9B."""
    import torch

    def make(heads: int, *dim: int) -> torch.Tensor:
        return torch.zeros(batch, tokens, heads, *dim, dtype=dtype)

    gate = torch.zeros(batch, tokens, 32, dtype=torch.float32)
    heads = {"q": make(16, 128), "k": make(16, 128), "v": make(32, 128), "beta": make(32), "g": gate}
    return {**heads, "use_qk_l2norm_in_kernel": True}


def call(dtype: torch.dtype) -> None:
    """Make calls of FLA's public functions, as transformers does."""
    import torch
    from fla.modules import FusedRMSNormGated
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule

    def state(count: int) -> torch.Tensor:
        return torch.zeros(count, 32, 128, 128, dtype=torch.float32)

    for tokens in (1, 63, 64, 100, 2500):
        chunk_gated_delta_rule(**inputs(1, tokens, dtype), initial_state=None, output_final_state=True)
    chunk_gated_delta_rule(**inputs(1, 200, dtype), output_final_state=False)
    chunk_gated_delta_rule(**inputs(1, 300, dtype), initial_state=state(1), output_final_state=True)
    for kind in (torch.int32, torch.int64):
        ends = torch.tensor([0, 17, 130, 300], dtype=kind)
        packed = inputs(1, 300, dtype)
        chunk_gated_delta_rule(**packed, initial_state=state(3), output_final_state=True, cu_seqlens=ends)
    for batch in (1, 2, 16, 77):
        fused_recurrent_gated_delta_rule(**inputs(batch, 1, dtype), initial_state=state(batch), output_final_state=True)
    norm = FusedRMSNormGated(128, eps=1e-6, activation="silu", dtype=dtype)
    norm(torch.zeros(100 * 32, 128, dtype=dtype), torch.zeros(100 * 32, 128, dtype=dtype))


def traffic(dtype: str) -> None:
    """Make random calls of the workloads that artifacts are built for, of which those above are but examples."""
    from gdn_aot.catalogue.models import find_model
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.providers.fla import workloads as fla

    rng, limits = random.Random(1), Limits(max_tokens=2000, max_batch=1)  # noqa: S311 - no secret
    shape = find_model("qwen3.5-9b").shape(1, dtype)
    for name in ("transformers-prefill", "transformers-decode", "gated-norm"):
        workload = fla.WORKLOADS[name]()
        for _ in range(30):
            workload.run(shape, workload.sample(shape, limits, rng))


def main() -> int:
    """Make the calls and say in JSON what happened."""
    name, dtype = (*sys.argv[1:], "bf16")[:2]
    stub.activate(get_target(name))  # before torch, Triton and the provider look for a card
    import torch

    watch()
    with torch.no_grad():
        call({"bf16": torch.bfloat16, "fp16": torch.float16}[dtype])
        own = sum(launched.values())
        traffic(dtype)
    misses = [kernel for kernel, hit in lookups if not hit]
    document = {
        "own": own,
        "launches": sum(launched.values()),
        "kernels": sorted(launched),
        "binaries": len(binaries),
        "hits": sum(hit for _, hit in lookups),
        "misses": misses,
        "benchmarks": benchmarks,
    }
    sys.stdout.write(json.dumps(document) + "\n")
    return 1 if misses or benchmarks else 0


if __name__ == "__main__":
    sys.exit(main())
