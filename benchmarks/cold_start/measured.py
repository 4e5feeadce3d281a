"""The processes of ``benchmarks/cold_start.py``: each gets ready, measures, and answers.

Imports torch and the provider inside functions only: when they are imported is part of what is measured.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from counting import Counters

from cold_start import floor, launching, shapes, turns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 1 << 20
_PAUSE = 0.3
"""Seconds between calls that are not made in a loop."""
_RESTED = 5
"""Calls after such a pause, in processes that preloaded."""


class Provider(Protocol):
    """What of a provider is called: `cold_start.fla`, `cold_start.kda` or `cold_start.sglang`."""

    def load(self) -> None:
        """Import what the calls need."""

    def host_inputs(self, call: str) -> dict[str, Any]:
        """Return the arguments of a call on the host, from a fixed seed.

        They are made on the host and copied, so that no kernel of PyTorch runs on them before the measured call.
        """

    def prepare(self, inputs: dict[str, Any], device: str) -> Callable[[], tuple[Any, Any]]:
        """Copy inputs to the device, wait for it, and return the call.

        It returns output and final states, and does not wait.
        """


def provider(spec: dict[str, Any]) -> Provider:
    """Return what a process is told to call."""
    found: Any = importlib.import_module(f"cold_start.{spec['called']}")
    return found  # type: ignore[no-any-return]


def digest(result: Sequence[Any]) -> dict[str, Any]:
    """Return the SHA-256 of the bytes of an output and its final state, and their norms."""
    found: dict[str, Any] = {}
    for name, tensor in zip(("output", "state"), result, strict=True):
        host = tensor.cpu().contiguous()
        data = ctypes.string_at(host.data_ptr(), host.numel() * host.element_size())
        found[name] = {"sha256": hashlib.sha256(data).hexdigest(), "norm": float(host.double().norm())}
    return found


def ready(spec: dict[str, Any]) -> tuple[str, Counters]:
    """Import the provider, make the device's context and start counting. Returns the device and the counts."""
    if spec.get("loader"):
        import gdn_aot

        gdn_aot.install(spec["artifact"])
    import torch

    device = "cuda"
    if spec.get("dry"):
        import stand_in

        device = stand_in.start()
    counters = Counters()
    provider(spec).load()
    torch.cuda.init()
    torch.empty(1, device=device)
    torch.cuda.synchronize()
    return device, counters


def told() -> dict[str, Any]:
    """Return what the loader says, if it is there."""
    loader = sys.modules.get("gdn_aot.serving.loader")
    if loader is None:
        return {}
    report = loader.report()
    kept = ("active", "problem", "native_launcher", "modules", "chosen", "loaded", "refused")
    counts = {"seeded": len(report.seeded), "misses": [str(miss) for miss in report.misses]}
    return {"report": {**{name: getattr(report, name) for name in kept}, **counts}}


def first(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure a first call, and after it those in ``then``."""
    device, counters = ready(spec)
    names = [spec["call"], *spec.get("then", [])]
    called = provider(spec)
    inputs = {name: called.host_inputs(name) for name in names}
    found: dict[str, Any] = {}
    if model := spec.get("preload"):
        import gdn_aot

        turns.take()
        start = time.perf_counter()
        taken = gdn_aot.preload(model=model, tp=1, tokens=shapes.TOKENS[spec["call"]] if spec.get("pool") else 0)
        took, kept = 1000 * (time.perf_counter() - start), _device_memory()["reserved"]
        found["preload"] = {"ms": took, "mib": taken / MIB, "reserved_mib": kept}
    for name in names:
        call = called.prepare(inputs[name], device)
        _work_of_pytorch(spec, call)
        record, result = measure(call, counters, spec["steady"])
        if model:
            record["rested_ms"] = statistics.median(_milliseconds(call, _PAUSE) for _ in range(_RESTED))
        found[name] = {**record, "digest": digest(result)}
    return {**found, **told()}


def _work_of_pytorch(spec: dict[str, Any], call: Callable[[], object]) -> None:
    """Make a call without its launches, if the process is told to: see `launching.Clock.left_out`."""
    if spec.get("torch"):
        import torch

        turns.take()
        with launching.clock().left_out():
            call()
        torch.cuda.synchronize()


def _milliseconds(call: Callable[[], object], pause: float = 0.0) -> float:
    """Return what a call takes; after a pause clocks and caches are not those of a loop."""
    import torch

    time.sleep(pause)
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def measure(call: Callable[[], Any], counters: Counters, steady_calls: int) -> tuple[dict[str, Any], Any]:
    """Make a first call, a second and ``steady_calls`` more, waiting for the device after each.

    Returns:
        The record (times in milliseconds, memory in MiB), and the result of the first call, on the host. On the
        device it is gone, so that the second call finds its memory in PyTorch's pool.
    """
    import torch

    clock = launching.clock()
    turns.take()
    torch.cuda.reset_peak_memory_stats()
    counted, host, device, known = counters.read(), _resident(), _device_memory(), {*sys.modules}
    launched = clock.read()
    start = time.perf_counter()
    result = call()
    submitted = time.perf_counter()
    torch.cuda.synchronize()
    end = time.perf_counter()
    in_launches = clock.read() - launched
    device_after, growth = _device_memory(), _resident() - host
    record = {
        "first_ms": 1000 * (end - start),
        "submitted_ms": 1000 * (submitted - start),
        "launching_ms": 1000 * in_launches,
        **{name: value - counted[name] for name, value in counters.read().items()},
        "torch_peak_mib": torch.cuda.max_memory_allocated() / MIB - device["allocated"],
        "device_outside_torch_mib": device["free"]
        - device_after["free"]
        + device["reserved"]
        - device_after["reserved"],
        "host_growth_mib": growth,
        "imported": len(new := sorted({*sys.modules} - known)),
        "modules_imported": new,
    }
    result = [tensor.cpu() for tensor in result]
    record["second_ms"] = _milliseconds(call)
    if steady_calls:
        record["steady_ms"] = statistics.median(_milliseconds(call) for _ in range(steady_calls))
    return record, result


def _resident() -> float:
    """Return the resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def _device_memory() -> dict[str, float]:
    """Return free memory of the device, and what PyTorch has reserved and allocated of it, in MiB."""
    import torch

    found = {"reserved": torch.cuda.memory_reserved(), "allocated": torch.cuda.memory_allocated()}
    return {name: value / MIB for name, value in {"free": torch.cuda.mem_get_info()[0], **found}.items()}


def at_the_floor(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure the floor; see `cold_start.floor`."""
    device, counters = ready(spec)
    inputs = provider(spec).host_inputs(spec["call"])
    from triton.runtime.driver import driver

    driver.active.get_current_device()  # FLA asks Triton's driver for it; making the driver is not part of the floor
    below = floor.Floor(spec["launches"], spec["artifact"])
    below.take_over()
    call = provider(spec).prepare(inputs, device)
    _work_of_pytorch(spec, call)
    modules: list[int] = []

    def again() -> Any:
        below.rewind()
        result = call()
        modules.append(len(below.modules))
        return result

    record, result = measure(again, counters, spec["steady"])
    below.rewind()
    record["modules"] += modules[0]
    return {spec["call"]: {**record, "digest": digest(result)}}


def record(spec: dict[str, Any]) -> dict[str, Any]:
    """Note the launches of each call, for the floor."""
    device, counters = ready(spec)
    from gdn_aot.providers import load
    from gdn_aot.tracing.relax import Relaxer

    called, relaxer = provider(spec), Relaxer.of(load(spec["provider"]))
    launches = {
        name: floor.record(called.prepare(called.host_inputs(name), device), relaxer.constants)
        for name in spec["calls"]
    }
    counts = counters.read()
    if counts["compiled"] or counts["benchmarked"]:
        raise RuntimeError(f"the artifact does not serve these calls: {counts}, {told()}")
    return {"launches": launches, **told()}


KINDS = {"first": first, "floor": at_the_floor, "record": record}
