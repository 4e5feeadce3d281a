"""What is to be tuned, and all of it that needs no card: the trace and the compiled candidates."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot.build import pipeline
from gdn_aot.build.choose import misfit
from gdn_aot.build.compilation import Compilation
from gdn_aot.errors import NothingSelectedError
from gdn_aot.models import distinct
from gdn_aot.tune.client import KeyState, Unit
from gdn_aot.tune.prune import prune

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gdn_aot.build import cache
    from gdn_aot.build.records import Scalar, Trace
    from gdn_aot.build.records import Tuning as TracedKey
    from gdn_aot.targets import Target
    from gdn_aot.tune.client import Method
    from gdn_aot.tune.objective import Objective

    Place = tuple[str, tuple[Scalar, ...]]
    """A kernel and one of its autotune keys."""
    Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to tune, and how."""

    job: pipeline.Job
    """Provider, shapes, workloads, limits, build cache and compile workers."""
    target: Target
    method: Method
    objective: Objective
    wide: bool
    """Also measure candidates that the provider does not offer."""
    budget: float | None
    """Seconds to measure in; None for as many as it takes."""
    resume: bool
    """Keep what the record has for the same key and token count."""
    path: Path
    """The record."""


@dataclass
class Prepared:
    """All that can be done without the card: the units, with every candidate compiled."""

    trace: Trace
    units: list[Unit]
    keys: dict[tuple[str, tuple[Scalar, ...]], KeyState]
    wanted: dict[tuple[str, tuple[Scalar, ...]], set[int]]
    """Token counts at which each key occurs."""
    sizes: dict[str, int]
    """Bytes of each cubin."""
    compiled: int
    seconds: dict[str, float]


def prepare(task: Task, progress: Progress, narrow: Callable[[Trace], Trace] | None = None) -> Prepared:
    """Trace and compile. Needs no card; what is compiled already is not compiled again.

    Args:
        task: What to tune.
        progress: Told what is going on.
        narrow: Returns the part of a trace that is wanted; None for all of it.

    Raises:
        NothingSelectedError: No call of the wanted lengths has an autotune key.
    """
    start = time.monotonic()
    job, target = task.job, task.target
    with contextlib.ExitStack() as stack:
        lazy = pipeline.LazyWorker(stack, job.provider.name, target)
        progress(0, 0, f"{target}: tracing")
        tokens = (*task.method.gate_tokens, *task.method.tokens)
        trace = pipeline.traced(job, target, lazy.get, derive="wide" if task.wide else "", tokens=tokens)
        if narrow is not None:
            trace = narrow(trace)
        traced = time.monotonic()
        if not trace.tunings:
            raise NothingSelectedError("none of the selected workloads has an autotuned kernel")
        work = Compilation(job, target, trace, lazy, None, progress)
        every = [launch for key in trace.tunings for variant in key.variants for launch in variant]
        outcomes = work.every([*trace.plain, *every])
        lazy.close()
    done = time.monotonic()
    return _units(task, trace, outcomes, work.compiled, {"trace": traced - start, "compile": done - traced})


def _units(
    task: Task, trace: Trace, outcomes: dict[int, cache.Outcome], compiled: int, seconds: dict[str, float]
) -> Prepared:
    reasons = {launch: _reason(outcome, task.target) for launch, outcome in outcomes.items()}
    shapes = distinct(task.job.shapes_for(task.target))
    units = [Unit(shape=shape, keys={}, binaries={}) for shape in shapes]
    place = [(name, int(tokens)) for name, _, tokens in (entry.rpartition("@") for entry in trace.workloads)]
    timed = set(task.method.tokens)
    keys: dict[tuple[str, tuple[Scalar, ...]], KeyState] = {}
    wanted: dict[tuple[str, tuple[Scalar, ...]], set[int]] = {}
    for traced in trace.tunings:
        name = trace.kernels[traced.kernel].name
        state = KeyState(
            kernel=name,
            key=traced.key,
            configs=traced.candidates,
            offered=len(traced.candidates) - traced.derived,
            objects=[outcomes[launch].object for launch in traced.variants[0]],
            out=_unfit(traced, reasons),
        )
        if task.wide:
            state.out |= _pruned(state, task.target)
        keys[name, traced.key] = state
        users = set().union(*traced.users)
        wanted[name, traced.key] = {place[workload][1] for _, workload in users} & timed
        for shape in {shape for shape, _ in users}:
            units[shape].keys[name, traced.key] = state
        for variant, whose in zip(traced.variants, traced.users, strict=True):
            for shape, _ in whose:
                _add(units[shape], trace, variant, outcomes, reasons)
    places = [(trace.kernels[traced.kernel].name, traced.key) for traced in trace.tunings]
    order = {count: index for index, count in enumerate((*task.method.gate_tokens, *task.method.tokens))}
    for shape, count, workload, number, fresh in sorted(trace.places, key=lambda place: order[place[1]]):
        units[shape].calls[count, workload, number] = [places[index] for index in fresh]
    for launch, whose in trace.plain.items():
        for shape, _ in whose:
            _add(units[shape], trace, [launch], outcomes, reasons)
    cubins = {outcome.object.cubin for outcome in outcomes.values() if outcome.object is not None}
    sizes = {cubin: task.job.cache.cubin_size(cubin) for cubin in cubins}
    return Prepared(trace, units, keys, wanted, sizes, compiled, seconds)


def _unfit(traced: TracedKey, reasons: dict[int, str | None]) -> dict[int, tuple[int, str]]:
    """Return the candidates that do not compile or do not fit for some launch of the key."""
    found = {}
    for index in range(len(traced.candidates)):
        why = next((reason for variant in traced.variants if (reason := reasons[variant[index]])), None)
        if why is not None:
            found[index] = (0, why)
    return found


def _pruned(state: KeyState, target: Target) -> dict[int, tuple[int, str]]:
    """Return the candidates that are not worth timing by what their binaries take."""
    objects = {
        config: made
        for index, (config, made) in enumerate(zip(state.configs, state.objects, strict=True))
        if made is not None and index not in state.out
    }
    left_out = prune(objects, target, state.configs[: state.offered])
    return {state.configs.index(config): (0, reason) for config, reason in left_out.items()}


def _reason(outcome: cache.Outcome, target: Target) -> str | None:
    if outcome.object is None:
        return outcome.rejected or outcome.failed or "it was not compiled"
    return misfit(outcome.object, target)


def _add(
    unit: Unit,
    trace: Trace,
    launches: list[int],
    outcomes: dict[int, cache.Outcome],
    reasons: dict[int, str | None],
) -> None:
    """Put what the worker needs to launch these into a unit."""
    for launch in launches:
        traced, made = trace.launches[launch], outcomes[launch].object
        row: object = reasons[launch]
        if made is not None and row is None:
            signature = traced.specialization["signature"]
            row = {"cubin": made.cubin, "metadata": made.metadata, "signature": signature}
        unit.binaries.setdefault(trace.kernels[traced.kernel].name, {})[traced.key] = row
