"""What is counted and read around a call: compilations, benchmarks, modules, memory, and where the time goes."""

from __future__ import annotations

import functools
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20


PAUSE = 0.3
"""Seconds between calls that are not made in a loop."""


class Counters:
    """Counts what Triton does in this process, from now on. Imports Triton; creates no driver."""

    def __init__(self) -> None:
        import triton
        from triton.compiler import CompiledKernel
        from triton.runtime import build
        from triton.runtime.autotuner import Autotuner

        self.compiled = 0
        """Kernels compiled."""
        self.found = 0
        """Kernels read from Triton's cache."""
        self.benchmarked = 0
        """Configurations timed."""
        self.built = 0
        """Launchers and helpers compiled with the C compiler."""
        self.loaded = 0
        """Modules that Triton itself loaded onto the device."""

        def listen(*, cache_hit: bool, **_: Any) -> None:
            if cache_hit:
                self.found += 1
            else:
                self.compiled += 1

        triton.knobs.compilation.listener = listen
        self._wrap(Autotuner, "_bench", "benchmarked")
        self._wrap(build, "_build", "built")
        init_handles = CompiledKernel._init_handles  # noqa: SLF001

        def load(kernel: Any) -> None:
            new = kernel.module is None
            init_handles(kernel)
            self.loaded += new and kernel.module is not None

        CompiledKernel._init_handles = load  # noqa: SLF001

    def _wrap(self, owner: Any, name: str, counter: str) -> None:
        wrapped = getattr(owner, name)

        @functools.wraps(wrapped)
        def count(*args: Any, **kwargs: Any) -> Any:
            setattr(self, counter, getattr(self, counter) + 1)
            return wrapped(*args, **kwargs)

        setattr(owner, name, count)

    def read(self) -> dict[str, int]:
        """Return the counts; ``modules`` are those that anybody loaded."""
        loader = sys.modules.get("gdn_aot.serving.loader")
        served = loader.report().modules if loader else 0
        return {
            "compiled": self.compiled,
            "found": self.found,
            "benchmarked": self.benchmarked,
            "built": self.built,
            "modules": self.loaded + served,
        }


def host_memory() -> dict[str, float]:
    """Return resident memory of this process now and at its highest, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM") if name in fields}


def device_memory() -> dict[str, float]:
    """Return free memory of the device, and what PyTorch has reserved and allocated of it, in MiB."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    return {
        "free": free / MIB,
        "reserved": torch.cuda.memory_reserved() / MIB,
        "allocated": torch.cuda.memory_allocated() / MIB,
    }


def measure(call: Callable[[], Any], counters: Counters, steady: int, rested: int = 0) -> tuple[dict[str, Any], Any]:
    """Make a first call, a second and ``steady`` more, waiting for the device after each; then ``rested`` after pauses.

    Returns:
        The record (times in milliseconds, memory in MiB), and the result of the first call, on the host. On the
        device it is gone, so that the second call finds its memory in PyTorch's pool.
    """
    import torch

    torch.cuda.reset_peak_memory_stats()
    counted, host, device = counters.read(), host_memory(), device_memory()
    start = time.perf_counter()
    result = call()
    submitted = time.perf_counter()
    torch.cuda.synchronize()
    end = time.perf_counter()
    device_after, host_after = device_memory(), host_memory()
    peak = torch.cuda.max_memory_allocated() / MIB
    outside = (device["free"] - device_after["free"]) - (device_after["reserved"] - device["reserved"])
    record = {
        "first_ms": 1000 * (end - start),
        "submitted_ms": 1000 * (submitted - start),
        **{name: value - counted[name] for name, value in counters.read().items()},
        "torch_peak_mib": peak - device["allocated"],
        "device_outside_torch_mib": outside,
        "device_total_mib": device["free"] - device_after["free"],
        "host_before_mib": host["VmRSS"],
        "host_growth_mib": host_after["VmRSS"] - host["VmRSS"],
        "host_peak_mib": host_after.get("VmHWM", host_after["VmRSS"]),
    }
    result = [tensor.cpu() for tensor in result]
    times = []
    for _ in range(1 + steady):
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    record["second_ms"] = times[0]
    if steady:
        record["steady_ms"] = statistics.median(times[1:])
    if rested:
        record["rested_ms"] = statistics.median(_after_pause(call) for _ in range(rested))
    return record, result


def _after_pause(call: Callable[[], Any]) -> float:
    """Return the milliseconds of a call in a process that slept before: clocks and caches are not those of a loop."""
    import torch

    time.sleep(PAUSE)
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


class Spans:
    """Sums the time that functions take, without that of wrapped functions which they call."""

    def __init__(self) -> None:
        self.self_ms: dict[str, float] = {}
        self.count: dict[str, int] = {}
        self._inner = [0.0]

    def clear(self) -> None:
        """Forget what was summed."""
        self.self_ms.clear()
        self.count.clear()

    def run(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function as part of ``name``."""
        self._inner.append(0.0)
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            taken = 1000 * (time.perf_counter() - start)
            self.self_ms[name] = self.self_ms.get(name, 0.0) + taken - self._inner.pop()
            self.count[name] = self.count.get(name, 0) + 1
            self._inner[-1] += taken

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """Replace an attribute by one that is timed as ``name``."""
        wrapped = getattr(owner, attribute)

        @functools.wraps(wrapped)
        def timed(*args: Any, **kwargs: Any) -> Any:
            return self.run(name, wrapped, *args, **kwargs)

        setattr(owner, attribute, timed)
