"""One measured process. It gets ready, says so, waits for its turn, measures, and answers.

The parent starts it as ``cold_start.py --worker SPEC`` and reads lines of JSON from its stdout: ``{"ready": ...}``,
then, after it wrote a line to stdin, the result. Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


_RESTED = 5
"""Calls after a pause, in processes that preloaded."""


class Channel:
    """The two lines to the parent."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def wait(self, **ready: object) -> None:
        """Say that everything is prepared, and return when it is this process's turn."""
        self._send({"ready": ready})
        if not sys.stdin.readline():
            sys.exit("the parent is gone")

    def answer(self, result: object) -> None:
        """Send the result, and wait until the parent lets this process end."""
        self._send(result)
        sys.stdin.readline()

    def _send(self, value: object) -> None:
        self._out.write(json.dumps(value) + "\n")
        self._out.flush()


class Process:
    """This process, with the provider imported, the device's context made and the counters in place."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.times: dict[str, float] = {}
        """Milliseconds; taken while other processes start, so not for quoting."""
        if spec.get("loader"):
            self._timed("import_gdn_aot_ms", lambda: __import__("gdn_aot"))
            self._timed("install_ms", self.install)
        if spec["kind"] == "profile":
            from cold_start import profiling

            self.spans = profiling.wrap_loader()
        self._timed("import_torch_ms", lambda: __import__("torch"))
        self.device = "cuda"
        if spec.get("dry"):
            from cold_start import dry

            self.device = dry.start()
        from cold_start.probes import Counters

        self.counters = Counters()
        self._timed("import_fla_ms", lambda: __import__("fla.ops.gated_delta_rule"))
        self._timed("context_ms", self._context)

    def _timed(self, name: str, work: Any) -> None:
        start = time.perf_counter()
        work()
        self.times[name] = 1000 * (time.perf_counter() - start)

    def _context(self) -> None:
        import torch

        torch.cuda.init()
        torch.empty(1, device=self.device)
        torch.cuda.synchronize()

    def install(self) -> None:
        """Install the loader, as a user does."""
        import gdn_aot

        gdn_aot.install(self.spec["artifact"])

    def extras(self) -> dict[str, Any]:
        """Return what the loader says, if it is there."""
        if "gdn_aot.serving.loader" not in sys.modules:
            return {}
        import gdn_aot

        report = gdn_aot.report()
        kept = ("active", "problem", "native_launcher", "modules", "chosen", "loaded", "refused")
        return {
            "report": {
                **{name: getattr(report, name) for name in kept},
                "seeded": len(report.seeded),
                "misses": [str(miss) for miss in report.misses],
            }
        }


def first_call(process: Process, channel: Channel) -> dict[str, Any]:
    """Measure a first call, and after it those in ``then``."""
    from cold_start import calls
    from cold_start.probes import host_memory, measure

    spec = process.spec
    names = [spec["call"], *spec.get("then", [])]
    inputs = {name: calls.host_inputs(name) for name in names}
    channel.wait(**process.times)
    found: dict[str, Any] = {"start_ms": process.times, "host_ready_mib": host_memory()["VmRSS"]}
    if model := spec.get("preload"):
        found["preload"] = _preload(model, calls.TOKENS[spec["call"]] if spec.get("pool") else 0)
    for name in names:
        call = calls.prepare(inputs[name], process.device)
        rested = _RESTED if spec.get("preload") else 0
        record, result = measure(call, process.counters, spec["steady"], rested)
        found[name] = {**record, "digest": calls.digest(result)}
    return {**found, **process.extras()}


def _preload(model: str, tokens: int) -> dict[str, float]:
    import gdn_aot

    start = time.perf_counter()
    taken = gdn_aot.preload(model=model, tp=1, tokens=tokens)
    return {"ms": 1000 * (time.perf_counter() - start), "mib": taken / (1 << 20)}


def floor(process: Process, channel: Channel) -> dict[str, Any]:
    """Measure the floor; see `cold_start.floor`."""
    from cold_start import calls
    from cold_start.floor import Floor
    from cold_start.probes import measure

    spec = process.spec
    inputs = calls.host_inputs(spec["call"])
    from triton.runtime.driver import driver

    driver.active.get_current_device()  # FLA asks Triton's driver for it; making the driver is not part of the floor
    from gdn_aot.store.store import Store
    from gdn_aot.store.stored import StoredArtifact

    below = Floor(spec["launches"], StoredArtifact(Store(os.environ["GDN_AOT_HOME"]).artifacts()[0]))
    below.take_over()
    channel.wait(**process.times)
    call = calls.prepare(inputs, process.device)
    modules = 0

    def again() -> Any:
        nonlocal modules
        below.rewind()
        result = call()
        modules = modules or below.modules
        return result

    record, result = measure(again, process.counters, spec["steady"])
    below.rewind()
    record["modules"] += modules
    return {"start_ms": process.times, spec["call"]: {**record, "digest": calls.digest(result)}}


def record(process: Process, channel: Channel) -> dict[str, Any]:
    """Note the launches of each call, for the floor."""
    from cold_start import calls
    from cold_start import floor as below

    channel.wait()
    launches = {
        name: below.record(calls.prepare(calls.host_inputs(name), process.device)) for name in process.spec["calls"]
    }
    counts, told = process.counters.read(), process.extras()
    if counts["compiled"] or counts["benchmarked"]:
        raise RuntimeError(f"the artifact does not serve these calls: {counts}, {told}")
    return {"launches": launches, **told}


def main(text: str) -> None:
    """Run one process.

    Args:
        text: The specification, as JSON: ``kind``, ``dry``, and what the kind needs.
    """
    from cold_start import profiling, steady

    kinds = {
        "first": first_call,
        "floor": floor,
        "record": record,
        "steady": steady.compare,
        "profile": profiling.profile,
    }
    channel = Channel()
    spec = json.loads(text)
    channel.answer(kinds[spec["kind"]](Process(spec), channel))
    sys.stderr.flush()
    os._exit(0)  # taking PyTorch down takes longer than what was measured
