"""Random traffic against what a trace has, without compiling: which launches a build of it would lack."""

import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from msgspec import to_builtins

from gdn_aot.catalogue.models import ModelShape
from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.client import Worker
from gdn_aot.tracing.records import Trace
from gdn_aot.tracing.wanted import Wanted


def cover(target: str, shapes: Sequence[ModelShape], workloads: Sequence[str], limits: Limits, calls: int) -> list[Any]:
    """Trace workloads of ``fla`` for shapes, and replay as many random calls of each workload and shape.

    Every autotune key gets one of its candidates at random, as records of measurements might, so that neighbouring
    keys have different ones. Returns (shape, workload, what `gdn_aot.tracing.replay.replay` returns) of each pair that
    made a call.
    """
    found = []
    with Worker("fla", get_target(target)) as worker:
        wanted = Wanted(
            provider=get_provider("fla"), shapes=tuple(shapes), fp16_fallback=False, limits=limits,
            workloads=tuple(workloads),
        )  # fmt: skip
        kernels = _built(Trace.from_json(worker.trace(wanted, "12")))
        for shape in shapes:
            for workload in workloads:
                request = {
                    "kernels": kernels, "shapes": [asdict(shape)], "limits": asdict(limits), "workloads": [workload],
                    "deployment": None, "calls": calls, "seed": 7,
                }  # fmt: skip
                result = worker.replay(request)
                if result["calls"]:
                    found.append((shape, workload, result))
    return found


def _built(trace: Trace) -> dict[str, Any]:
    """Return the kernels as a replay wants them."""
    rng = random.Random(3)
    made = [
        {
            "cache_key": kernel.cache_key,
            "sources": [[source.path, source.sha256] for source in kernel.sources],
            "launches": [],
            "relaxations": [relaxed.row for relaxed in kernel.relaxations],
            "choices": [],
        }
        for kernel in trace.kernels
    ]
    chosen = list(trace.plain)
    for tuning in trace.tunings:
        candidate = rng.randrange(tuning.offered)
        made[tuning.kernel]["choices"].append([tuning.key, to_builtins(tuning.candidates[candidate])])
        chosen += [variant[candidate] for variant in tuning.variants]
    for index in chosen:
        launch = trace.launches[index]
        made[launch.kernel]["launches"].append(launch.key)
    return {kernel.name: one for kernel, one in zip(trace.kernels, made, strict=True)}
