"""Measure what one artifact costs to build: start, trace, every compile of one part of its trace, and packing."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot.building.split import Part

from gdn_aot.building import pipeline
from gdn_aot.catalogue.models import select_shapes
from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.choosing.known import tuned_for
from gdn_aot.cli.build import select_workloads
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.compiling.client import Worker
from gdn_aot.machine import installed

if TYPE_CHECKING:
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.compilation import Compilation

SIZES = [1, 2, 4, 8]
"""Tensor-parallel sizes of the matrix."""
TUNING = Path(__file__).parents[2] / "artifacts" / "tuning"


def children() -> float:
    """Return the CPU seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(provider: str, target_name: str, of: int, jobs: int) -> dict[str, Any]:
    """Build part 1 of ``of`` of an artifact of the matrix, from an empty build cache.

    Returns:
        A row of ``results/cost.json``; all seconds are CPU seconds.
    """
    target = get_target(target_name)
    with tempfile.TemporaryDirectory(prefix="gdn-aot-cost-") as folder:
        job = _job(provider, Path(folder), of, jobs)
        began = children()
        with Worker(provider, target) as worker:
            worker.receive("started")
        start = children() - began
        began = children()
        with contextlib.ExitStack() as stack:
            lazy = pipeline.LazyWorker(stack, provider, target)
            whole = pipeline.traced(job, target, lazy.get, extras=tuned_for(job, target).extras)
        trace = children() - began - start
        with contextlib.ExitStack() as stack:
            done = pipeline.compile_target(job, target, pipeline.LazyWorker(stack, provider, target), lambda *_: None)
        began = time.process_time()
        built = pipeline.Built(
            target=target, manifest=None, path=None, choices=done.choices, compiled=0, spent=done.run.spent
        )
        pipeline.pack_target(job, done, built)
        pack = time.process_time() - began
        (path,) = job.output.iterdir()
        return {
            "identifier": _identifier(provider, target),
            "provider": provider,
            "target": target_name,
            "part": [1, of],
            "keys": {"all": len(whole.tunings), "part": len(done.trace.tunings)},
            "plain": {"all": len(whole.plain), "part": len(done.trace.plain)},
            "start": round(start, 2),
            "trace": round(max(trace, 0.0), 2),
            "pack": round(pack, 2),
            "bytes": path.stat().st_size,
            **_tasks(done.run, job.cache),
        }


def _identifier(provider: str, target: Target) -> str:
    version = installed.version(get_provider(provider).distribution)
    return f"{provider}{version}-triton{installed.version('triton')}-{target.name}"


def _job(provider: str, folder: Path, of: int, jobs: int) -> pipeline.Job:
    info = get_provider(provider)
    return pipeline.Job(
        provider=info,
        shapes=tuple(select_shapes(["all"], SIZES, [], None).shapes),
        fp16_fallback=True,
        limits=Limits(max_tokens=32768, max_batch=64, mode="inference"),
        workloads=select_workloads(info, "inference", (), ()),
        cache=BuildCache(folder / "cache"),
        tuning_root=TUNING if TUNING.is_dir() else None,
        jobs=jobs,
        timeout=1800.0,
        all_candidates=False,
        keep_going=True,
        output=folder / "out",
        part=Part(number=1, of=of),
    )


def _tasks(run: Compilation, cache: BuildCache) -> dict[str, Any]:
    """Return every compile with its kernel, seconds and bytes, and the keys that waited for one of theirs.

    If the target was traced twice, the compiles of both are one list; that the second list waits for the first is left
    out.
    """
    kernels: list[str] = []
    rows: list[list[float]] = []
    chains: list[list[list[int]]] = []
    for part in filter(None, (run.before, run)):
        numbers = {task.launch: len(rows) + index for index, task in enumerate(part.tasks)}
        for task in part.tasks:
            kernel = part.kernel_name(task.launch).rpartition(":")[2]
            if kernel not in kernels:
                kernels.append(kernel)
            size = cache.cubin_size(task.object.cubin) if task.object else 0
            rows.append([kernels.index(kernel), round(task.seconds, 3), size])
        for walk in part.chooser.walked() if part.chooser else ():
            steps = [sorted({numbers[launch] for launch in step if launch in numbers}) for step in walk]
            steps = [step for step in steps if step]
            if len(steps) > 1:
                chains.append(steps)
    return {"kernels": kernels, "tasks": rows, "chains": chains}


def environment(requirements: Path) -> float:
    """Return the wall seconds in which an environment of the matrix is made: a new venv, and everything in it."""
    with tempfile.TemporaryDirectory(prefix="gdn-aot-cost-") as folder:
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "install", "-q", "--no-cache-dir", "--no-deps"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        subprocess.run([*pip, str(Path(__file__).parents[2])], check=True, env={**os.environ, "PYTHONPATH": ""})
        return time.monotonic() - began
