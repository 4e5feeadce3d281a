"""Counts what Triton does in a process: compiles, kernels found compiled, benchmarks, C builds, modules loaded."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("compiled", "found", "benchmarked", "built", "modules")
"""Kernels compiled or found in Triton's cache, configurations benchmarked, helpers and launchers built with the C
compiler, modules loaded onto the device."""
_GDN = (".fla.", "flash_linear_attention", "causal_conv1d", "triton_gdn", "mamba_state", "mamba_slot")
"""Parts of the names of modules of vLLM and SGLang with GDN kernels, those of its states' pool included."""


def is_gdn(module: str) -> bool:
    """Say whether a module of an engine has GDN kernels."""
    return any(part in module for part in _GDN)


class Counters:
    """Counts what Triton does in this process from now on. Imports Triton; creates no driver.

    Args:
        tell: Called with kind, module, kernel and milliseconds in the compiler each time.
    """

    def __init__(self, tell: Callable[[str, str, str, float], object] = lambda *_: None) -> None:
        import triton
        from triton.compiler import CompiledKernel
        from triton.runtime import build
        from triton.runtime.autotuner import Autotuner

        self._counts: Counter[tuple[str, bool]] = Counter()
        """Of each kind, for kernels of GDN in vLLM and for others."""
        self._compiled: list[tuple[str, float]] = []
        """Each kernel that was compiled, and the seconds in the compiler."""
        self._tell = tell
        self._before = triton.knobs.compilation.listener
        triton.knobs.compilation.listener = self._on_compile
        bench, make, init_handles = Autotuner._bench, build._build, CompiledKernel._init_handles  # noqa: SLF001

        def count_bench(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            self._count("benchmarked", tuner.base_fn.__module__, tuner.base_fn.__name__)
            return bench(tuner, *args, **kwargs)

        def count_build(*args: Any, **kwargs: Any) -> Any:
            self._count("built", "", "")
            return make(*args, **kwargs)

        def count_load(kernel: Any) -> None:
            new = kernel.module is None
            init_handles(kernel)
            if new and kernel.module is not None:
                self._count("modules", "", str(getattr(kernel, "name", "")))

        Autotuner._bench, build._build, CompiledKernel._init_handles = count_bench, count_build, count_load  # noqa: SLF001

    def _count(self, kind: str, module: str, kernel: str, milliseconds: float = 0.0) -> None:
        self._counts[kind, is_gdn(module)] += 1
        self._tell(kind, module, kernel, milliseconds)

    def _on_compile(self, *, src: Any, metadata: Any, times: Any, cache_hit: bool, **more: Any) -> None:
        if self._before is not None:
            self._before(src=src, metadata=metadata, times=times, cache_hit=cache_hit, **more)
        function: Any = getattr(src, "fn", None)
        while hasattr(function, "fn"):
            function = function.fn
        name, spent = str(metadata.get("name", "?")), 0
        if not cache_hit:
            spent = times.ir_initialization + sum(stage for _, stage in times.lowering_stages) + times.store_results
            self._compiled.append((name, spent / 1e6))
        self._count("found" if cache_hit else "compiled", getattr(function, "__module__", ""), name, spent / 1e3)

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
