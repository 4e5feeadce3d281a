"""A process of the benchmark: the parent starts it with a specification and reads one line of JSON from its stdout."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

COPIED = 2 << 30
"""Bytes of the copy that the bandwidth is taken from."""
_COPIES = 20


def main(text: str) -> None:
    """Do what the specification says. What libraries print goes to stderr."""
    from kernels import calls

    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    spec = json.loads(text)
    kinds = {"trace": calls.trace, "fla": pick, "copy": copy}
    json.dump(kinds[spec["kind"]](spec), answer)
    answer.flush()
    sys.stderr.flush()
    os._exit(0)


def ask(kind: str, env: dict[str, str] | None = None, seconds: float = 400.0, **spec: Any) -> Any:
    """Start such a process and return its answer.

    Raises:
        RuntimeError: It failed.
    """
    from cold_start.session import ROOT, command

    script = str(ROOT / "benchmarks" / "kernels.py")
    done = command(
        sys.executable, script, "--worker", json.dumps({"kind": kind, **spec}), env=env or {}, seconds=seconds
    )
    if not done["ok"]:
        raise RuntimeError(f"{kind}: {done['error']}\n{done['stderr']}")
    return json.loads(done["stdout"])


def copy(_spec: dict[str, Any]) -> dict[str, Any]:
    """Return the bytes per second, read and written, of a large copy on the device."""
    import statistics

    import torch

    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda").zero_()
    there = torch.empty_like(source)
    times = []
    for number in range(_COPIES + 3):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        there.copy_(source)
        last.record()
        torch.cuda.synchronize()
        if number >= 3:
            times.append(first.elapsed_time(last) / 1000)
    return {"bytes": COPIED, "seconds": times, "bytes_per_second": 2 * COPIED / statistics.median(times)}


def pick(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Let plain FLA tune itself at each length in turn, from nothing, and return what it took.

    Raises:
        RuntimeError: It compiled something, or did not benchmark every configuration that it offers.
    """
    import torch

    device = "cuda"
    if spec["dry"]:
        from cold_start import dry

        device = dry.start()
    from cold_start.probes import Counters

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.providers import load
    from gdn_aot.providers.draw import Random
    from kernels import calls

    counters, tuners = Counters(), _watch()
    workload = load(calls.PROVIDER).WORKLOADS[calls.WORKLOAD]()
    shape, limits = ModelShape(**spec["shape"]), Limits(**spec["limits"])
    found = []
    for tokens in spec["tokens"]:
        call = calls.find(workload, shape, tokens, limits)[1]
        before, start = counters.read(), time.perf_counter()
        with torch.device(device), torch.no_grad():
            workload.apply(shape, call, workload.inputs(shape, call, Random(0, device)))
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        counts = {name: value - before[name] for name, value in counters.read().items()}
        offered = sum(len(tuner.cache) * len(tuner.configs) for tuner in tuners.values())
        if counts["compiled"] or counts["benchmarked"] != offered or not offered:
            raise RuntimeError(f"{call}: FLA offers {offered} configurations, Triton did {counts}")
        if any(tuner.cache_results for tuner in tuners.values()):
            raise RuntimeError("Triton keeps FLA's choices on disk")
        found.append({"tokens": tokens, "seconds": round(seconds, 2), **counts, "picks": _take(tuners)})
    return found


def _watch() -> dict[int, Any]:
    """Return a dictionary that every autotuner that runs from now on is put into."""
    from triton.runtime.autotuner import Autotuner

    seen: dict[int, Any] = {}
    run = Autotuner.run

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen[id(self)] = self
        return run(self, *args, **kwargs)

    Autotuner.run = watched
    return seen


def _take(tuners: dict[int, Any]) -> list[dict[str, Any]]:
    """Return what each autotuner has in its cache, and empty it."""
    from gdn_aot import triton_internals

    picks = []
    for tuner in tuners.values():
        name = triton_internals.kernel_name(triton_internals.layers(tuner)[0])
        for key, config in tuner.cache.items():
            fields = ("num_warps", "num_stages", "num_ctas", "maxnreg")
            values = {field: getattr(config, field) for field in fields}
            picks.append({"kernel": name, "key": key, "config": {"kwargs": list(config.kwargs.items()), **values}})
        tuner.cache.clear()
    return picks
