"""Counts what Triton does in a process: compiles, kernels found compiled, benchmarks, C builds, modules loaded."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

KINDS = ("compiled", "found", "benchmarked", "built", "modules")
"""Kernels compiled or found in Triton's cache, configurations benchmarked, helpers and launchers built with the C
compiler, modules loaded onto the device."""
_GDN = (".fla.", "flash_linear_attention", "causal_conv1d")
"""Parts of the names of vLLM's modules with GDN kernels."""


def is_gdn(module: str) -> bool:
    """Say whether a module of vLLM has GDN kernels."""
    return any(part in module for part in _GDN)


class Counters:
    """Counts what Triton does in this process from now on. Imports Triton; creates no driver."""

    def __init__(self) -> None:
        import triton
        from triton.compiler import CompiledKernel
        from triton.runtime import build
        from triton.runtime.autotuner import Autotuner

        self._counts: Counter[tuple[str, bool]] = Counter()
        """Of each kind, for kernels of GDN in vLLM and for others."""
        self._compiled: list[tuple[str, float]] = []
        """Each kernel that was compiled, and the seconds in the compiler."""
        triton.knobs.compilation.listener = self._on_compile
        bench, make, init_handles = Autotuner._bench, build._build, CompiledKernel._init_handles  # noqa: SLF001

        def count_bench(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            self._counts["benchmarked", is_gdn(tuner.base_fn.__module__)] += 1
            return bench(tuner, *args, **kwargs)

        def count_build(*args: Any, **kwargs: Any) -> Any:
            self._counts["built", False] += 1
            return make(*args, **kwargs)

        def count_load(kernel: Any) -> None:
            new = kernel.module is None
            init_handles(kernel)
            self._counts["modules", False] += new and kernel.module is not None

        Autotuner._bench, build._build, CompiledKernel._init_handles = count_bench, count_build, count_load  # noqa: SLF001

    def _on_compile(self, *, src: Any, metadata: Any, times: Any, cache_hit: bool, **_: Any) -> None:
        function: Any = getattr(src, "fn", None)
        while hasattr(function, "fn"):
            function = function.fn
        self._counts["found" if cache_hit else "compiled", is_gdn(getattr(function, "__module__", ""))] += 1
        if not cache_hit:
            spent = times.ir_initialization + sum(stage for _, stage in times.lowering_stages) + times.store_results
            self._compiled.append((str(metadata.get("name", "?")), spent / 1e6))

    def read(self) -> dict[str, int]:
        """Return how often each happened; ``modules`` are those that anybody loaded."""
        loader = sys.modules.get("gdn_aot.serving.loader")
        served = {"modules": loader.report().modules if loader else 0}
        return {kind: self._counts[kind, True] + self._counts[kind, False] + served.get(kind, 0) for kind in KINDS}

    def mark(self) -> tuple[Counter[tuple[str, bool]], int, float]:
        """Return where this process is now."""
        return self._counts.copy(), len(self._compiled), time.perf_counter()

    def since(self, mark: tuple[Counter[tuple[str, bool]], int, float]) -> dict[str, Any]:
        """Return what happened since a mark, kernels of GDN apart from others, and the wall seconds."""
        counts, compiled = self._counts - mark[0], self._compiled[mark[1] :]
        shown = {"compiled": "compiled", "found": "found", "benchmarked": "benchmarks"}
        return {
            "seconds": time.perf_counter() - mark[2],
            "compile_seconds": sum(spent for _, spent in compiled),
            **{f"{name}_gdn": counts[kind, True] for kind, name in shown.items()},
            **{f"{name}_other": counts[kind, False] for kind, name in shown.items()},
            "names": sorted({name for name, _ in compiled}),
        }
