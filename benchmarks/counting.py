"""Counts what Triton does in a process: compiles, kernels found compiled, benchmarks, C builds, modules loaded."""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

KINDS = ("compiled", "found", "benchmarked", "built", "modules")
_GDN = (".fla.", "flash_linear_attention", "causal_conv1d")
"""Parts of the names of vLLM's modules with GDN kernels."""


def is_gdn(module: str) -> bool:
    """Say whether a module of vLLM has GDN kernels."""
    return any(part in module for part in _GDN)


class Event(NamedTuple):
    """Something that Triton did."""

    kind: str
    """``compiled``, ``found`` in Triton's cache, a configuration ``benchmarked``, a helper or launcher ``built`` with
    the C compiler, or one of its ``modules`` loaded onto the device."""
    name: str = ""
    gdn: bool = False
    seconds: float = 0.0
    """In the compiler."""


class Counters:
    """Notes what Triton does in this process from now on. Imports Triton; creates no driver."""

    def __init__(self) -> None:
        import triton
        from triton.compiler import CompiledKernel
        from triton.runtime import build
        from triton.runtime.autotuner import Autotuner

        self._events: list[Event] = []
        triton.knobs.compilation.listener = self._on_compile
        bench, make, init_handles = Autotuner._bench, build._build, CompiledKernel._init_handles  # noqa: SLF001

        @functools.wraps(bench)
        def count_bench(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            self._events.append(Event("benchmarked", tuner.base_fn.__name__, is_gdn(tuner.base_fn.__module__)))
            return bench(tuner, *args, **kwargs)

        @functools.wraps(make)
        def count_build(*args: Any, **kwargs: Any) -> Any:
            self._events.append(Event("built"))
            return make(*args, **kwargs)

        def count_load(kernel: Any) -> None:
            new = kernel.module is None
            init_handles(kernel)
            if new and kernel.module is not None:
                self._events.append(Event("modules"))

        Autotuner._bench, build._build, CompiledKernel._init_handles = count_bench, count_build, count_load  # noqa: SLF001

    def _on_compile(self, *, src: Any, metadata: Any, times: Any, cache_hit: bool, **_: Any) -> None:
        function = getattr(src, "fn", None)
        while hasattr(function, "fn"):
            function = function.fn
        spent = 0.0
        if not cache_hit:
            spent = times.ir_initialization + sum(stage for _, stage in times.lowering_stages) + times.store_results
        kind, gdn = "found" if cache_hit else "compiled", is_gdn(getattr(function, "__module__", ""))
        self._events.append(Event(kind, str(metadata.get("name", "?")), gdn, spent / 1e6))

    def read(self) -> dict[str, int]:
        """Return how often each happened; ``modules`` are those that anybody loaded."""
        counts = Counter(event.kind for event in self._events)
        loader = sys.modules.get("gdn_aot.serving.loader")
        served = loader.report().modules if loader else 0
        return {kind: counts[kind] + (served if kind == "modules" else 0) for kind in KINDS}

    def mark(self) -> tuple[int, float]:
        """Return where this process is now."""
        return len(self._events), time.perf_counter()

    def since(self, mark: tuple[int, float]) -> dict[str, Any]:
        """Return what happened since a mark, kernels of GDN apart from others, and the wall seconds."""
        events = self._events[mark[0] :]
        counts = Counter((event.kind, event.gdn) for event in events)
        return {
            "seconds": time.perf_counter() - mark[1],
            "compile_seconds": sum(event.seconds for event in events),
            **{
                f"{shown}_{'gdn' if gdn else 'other'}": counts[kind, gdn]
                for kind, shown in (("compiled", "compiled"), ("found", "found"), ("benchmarked", "benchmarks"))
                for gdn in (True, False)
            },
            "names": sorted({event.name for event in events if event.kind == "compiled"}),
        }
