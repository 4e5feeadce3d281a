"""Count what Triton compiles, finds compiled, and benchmarks in an engine's process, GDN kernels apart from others."""

from __future__ import annotations

import collections
import time
from typing import Any

GDN = (".fla.", "flash_linear_attention", "causal_conv1d")
"""Parts of the names of modules with GDN kernels."""


def is_gdn(module: str) -> bool:
    return any(part in module for part in GDN)


class Watch:
    """Counters since the process began; `mark` and `since` give those of a part of it."""

    def __init__(self) -> None:
        from triton import knobs
        from triton.runtime.autotuner import Autotuner

        self.compiled: list[tuple[str, bool, float]] = []
        """(kernel, is GDN, seconds in the compiler)."""
        self.found: list[tuple[str, bool]] = []
        """(kernel, is GDN) taken from Triton's cache."""
        self.benchmarks: collections.Counter[tuple[str, bool]] = collections.Counter()
        knobs.compilation.listener = self._on_compile
        bench = Autotuner._bench  # noqa: SLF001 - a count of what nothing else reports

        def counted(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            self.benchmarks[tuner.base_fn.__name__, is_gdn(tuner.base_fn.__module__)] += 1
            return bench(tuner, *args, **kwargs)

        Autotuner._bench = counted  # noqa: SLF001

    def _on_compile(self, *, src: Any, metadata: Any, metadata_group: Any, times: Any, cache_hit: bool) -> None:
        del metadata_group
        function = getattr(src, "fn", None)
        while hasattr(function, "fn"):
            function = function.fn
        gdn = is_gdn(getattr(function, "__module__", ""))
        name = str(metadata.get("name", "?"))
        if cache_hit:
            self.found.append((name, gdn))
            return
        spent = times.ir_initialization + sum(stage for _, stage in times.lowering_stages) + times.store_results
        self.compiled.append((name, gdn, spent / 1e6))

    def mark(self) -> tuple[int, int, collections.Counter[tuple[str, bool]], float]:
        """Return where the counters are now."""
        return len(self.compiled), len(self.found), self.benchmarks.copy(), time.perf_counter()

    def since(self, mark: tuple[int, int, collections.Counter[tuple[str, bool]], float]) -> dict[str, Any]:
        """Return the counts since a mark, and the wall seconds."""
        compiled, found, benchmarks = self.compiled[mark[0] :], self.found[mark[1] :], self.benchmarks - mark[2]
        return {
            "seconds": time.perf_counter() - mark[3],
            "compiled_gdn": sum(gdn for _, gdn, _ in compiled),
            "compiled_other": sum(not gdn for _, gdn, _ in compiled),
            "compile_seconds": sum(seconds for _, _, seconds in compiled),
            "found_gdn": sum(gdn for _, gdn in found),
            "found_other": sum(not gdn for _, gdn in found),
            "benchmarks_gdn": sum(count for (_, gdn), count in benchmarks.items() if gdn),
            "benchmarks_other": sum(count for (_, gdn), count in benchmarks.items() if not gdn),
            "names": sorted({name for name, _, _ in compiled}),
        }
