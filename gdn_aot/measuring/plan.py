"""What is to be tuned, and all of it that needs no card: the trace and the compiled candidates."""

from __future__ import annotations

import contextlib
import fnmatch
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gdn_aot.building import pipeline
from gdn_aot.choosing.occupancy import blocks_per_sm, shared_for
from gdn_aot.compiling.compilation import Compilation
from gdn_aot.errors import NothingSelectedError, VerificationError
from gdn_aot.measuring.client import KeyState, Unit
from gdn_aot.measuring.process import PlannedBinary
from gdn_aot.measuring.prune import prune
from gdn_aot.measuring.selection import Selection, launches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.launches import CompiledKernel, KernelKey
    from gdn_aot.measuring.client import Method
    from gdn_aot.records.objective import Objective
    from gdn_aot.tracing.records import Trace, Users
    from gdn_aot.tracing.records import Tuning as TracedKey

    Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class TuneTask:
    """What to tune, and how."""

    job: pipeline.Job
    """Provider, shapes, workloads, limits, build cache and compile workers."""
    target: Target
    method: Method
    objective: Objective
    search: str
    """``provider``: its own candidates. ``relieved``: where one of them is not sound, also sound ones that ask less of
    a thread. ``wide``: also others that it does not offer."""
    kernels: tuple[str, ...] = ()
    """Globs that a kernel's function name must match to be measured; none for all kernels."""
    budget: float | None
    """Seconds to measure in; None for as many as it takes."""
    resume: bool
    """Keep what the record has for the same key and token count."""
    path: Path
    """The record."""


@dataclass
class PreparedUnits:
    """All that can be done without the card: the units, and how far their candidates are compiled."""

    trace: Trace
    units: list[Unit]
    keys: dict[KernelKey, KeyState]
    wanted: dict[KernelKey, set[int]]
    """Token counts at which each key occurs."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each cubin."""
    compiled: int = 0
    """Kernels that the compiler really ran for."""
    seconds: dict[str, float] = field(default_factory=dict)


class Preparation:
    """Traces on entering, then compiles unit by unit. Needs no card; what is compiled already is not compiled again.

    Raises:
        NothingSelectedError: No call of the wanted lengths has an autotune key, or that of a wanted kernel.
    """

    def __init__(self, task: TuneTask, progress: Progress) -> None:
        self._task, self._progress = task, progress
        self.shown = True
        """Whether progress of compiling is told."""
        self._ready: set[KernelKey] = set()

    def __enter__(self) -> Self:
        start = time.monotonic()
        task, target = self._task, self._task.target
        with contextlib.ExitStack() as stack:
            lazy = pipeline.LazyWorker(stack, task.job.wanted.provider, target)
            tokens = (*task.method.gate_tokens, *task.method.tokens)
            worker = pipeline.expected(task.job, target, lazy)
            derive = "" if task.search == "provider" else task.search
            with lazy.tracing(self._progress):
                trace = pipeline.traced(task.job, target, worker, derive=derive, tokens=tokens)
            trace, idle = _only(trace, task.kernels)
            if not trace.tunings:
                raise NothingSelectedError("none of the selected workloads has an autotuned kernel")
            order = pipeline.order(task.job, target, trace)
            workers = stack.enter_context(task.job.executor.compiling(order, lazy.get))
            self._work = Compilation(order, trace, workers, self._tell)
            self._stack = stack.pop_all()
        self._lazy = lazy
        self.prepared = _planned(task, trace, idle)
        unwanted = {key for key, state in self.prepared.keys.items() if state.idle}
        self._selection = Selection(self._work, trace, target, task.search, unwanted)
        self.prepared.seconds["trace"] = time.monotonic() - start
        return self

    def __exit__(self, *left: object) -> None:
        self._lazy.close()
        self._stack.close()

    def _tell(self, done: int, total: int, text: str) -> None:
        if self.shown:
            self._progress(done, total, text)

    def compile(self, *numbers: int) -> None:
        """Compile every candidate of every key of these units, and put into the units what came of it."""
        start = time.monotonic()
        trace, prepared = self.prepared.trace, self.prepared
        wanted = set().union(*(prepared.units[number].keys for number in numbers))
        mine = [traced for traced in trace.tunings if trace.key_of(traced) in wanted]
        plain = [launch for launch, users in trace.plain.items() if not _shapes(users).isdisjoint(numbers)]
        chosen = self._selection
        chosen.add(mine, plain)
        every = {launch for traced in mine for launch in launches(traced, chosen.kept[trace.key_of(traced)])}
        reasons = {launch: chosen.reason(launch) for launch in {*plain, *every}}
        for made in map(chosen.made, reasons):
            if made is not None:
                prepared.sizes[made.cubin] = self._task.job.cache.cubin_size(made.cubin)
        for traced in mine:
            self._settle(traced, reasons)
            for variant, users in zip(traced.variants, traced.users, strict=True):
                runs = [variant[index] for index in chosen.kept[trace.key_of(traced)]]
                self._add(runs, _shapes(users).intersection(numbers), reasons)
        for launch in plain:
            self._add([launch], _shapes(trace.plain[launch]).intersection(numbers), reasons)
        prepared.compiled = self._work.compiled
        prepared.seconds["compile"] = prepared.seconds.get("compile", 0.0) + time.monotonic() - start

    def _binary(self, made: CompiledKernel, specialization: dict[str, Any]) -> PlannedBinary:
        """Return what to launch: by proxy the assembled code, with shared memory that holds occupancy down."""
        proxy = self._task.job.proxy
        if proxy is None:
            return PlannedBinary(made.cubin, made.metadata, specialization)
        runs = self._assembled(made)
        shared = shared_for(runs, proxy.card, max(1, blocks_per_sm(made, proxy.target)))
        return PlannedBinary(runs.cubin, {**made.metadata, "shared": shared}, specialization)

    def _assembled(self, made: CompiledKernel) -> CompiledKernel:
        job = self._task.job
        found = job.proxy.assembled(job.cache, made.cubin) if job.proxy else None
        if found is None:
            raise VerificationError(f"the build cache lost what was assembled of {made.cubin}", hint="tune again")
        return found

    def _unheld(self, made: CompiledKernel | None) -> bool:
        """Say whether the card holds fewer blocks of a candidate at a time than the target does."""
        proxy = self._task.job.proxy
        if proxy is None or made is None:
            return False
        return blocks_per_sm(self._assembled(made), proxy.card) < blocks_per_sm(made, proxy.target)

    def _settle(self, traced: TracedKey, reasons: dict[int, str | None]) -> None:
        """Put into a key, once, what its candidates compiled to, and which are out for what they take."""
        where = self.prepared.trace.key_of(traced)
        if where in self._ready:
            return
        self._ready.add(where)
        state, kept = self.prepared.keys[where], self._selection.kept[where]
        state.configs = [traced.candidates[index] for index in kept]
        state.objects = [self._selection.made(traced.variants[0][index]) for index in kept]
        state.offered = sum(index < traced.offered for index in kept)
        state.unheld = tuple(index for index, made in enumerate(state.objects) if self._unheld(made))
        for number, index in enumerate(kept):
            why = next(filter(None, (reasons[variant[index]] for variant in traced.variants)), None)
            if why is not None:
                state.out.setdefault(number, (0, why))
        if self._task.search == "wide" and not state.idle:
            left = {
                config: made
                for index, (config, made) in enumerate(zip(state.configs, state.objects, strict=True))
                if made is not None and index not in state.out
            }
            for config, why in prune(left, self._task.target, state.configs[: state.offered]).items():
                state.out[state.configs.index(config)] = (0, why)

    def _add(self, launches: list[int], units: set[int], reasons: dict[int, str | None]) -> None:
        trace = self.prepared.trace
        for launch in launches:
            traced, made = trace.launches[launch], self._selection.made(launch)
            row: PlannedBinary | str = reasons[launch] or ""
            if made is not None and not row:
                row = self._binary(made, msgspec.to_builtins(traced.specialization))
            for unit in units:
                kernel = trace.kernels[traced.kernel].name
                self.prepared.units[unit].binaries.setdefault(kernel, {})[traced.key] = row


def prepare(task: TuneTask, progress: Progress) -> PreparedUnits:
    """Do all of a `Preparation`; arguments and errors are its."""
    with Preparation(task, progress) as preparation:
        preparation.compile(*range(len(preparation.prepared.units)))
        return preparation.prepared


def _shapes(users: Users) -> set[int]:
    return {shape for shape, _ in users}


def _only(trace: Trace, patterns: tuple[str, ...]) -> tuple[Trace, set[int]]:
    """Leave the keys of other kernels with the provider's candidates and without calls; return their indices too."""
    names = [trace.kernels[traced.kernel].qualname for traced in trace.tunings]
    idle = {
        index
        for index, name in enumerate(names)
        if patterns and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    if len(idle) == len(names):
        raise NothingSelectedError(
            f"no kernel matches {', '.join(patterns)}", hint=f"kernels are {', '.join(sorted(set(names)))}"
        )
    tunings = list(trace.tunings)
    for index in idle:  # without the candidates that the provider does not offer
        own = tunings[index].offered
        variants = [variant[:own] for variant in tunings[index].variants]
        candidates = tunings[index].candidates[:own]
        tunings[index] = replace(tunings[index], candidates=candidates, derived=0, variants=variants)
    places = [
        (shape, count, workload, number, [key for key in keys if key not in idle])
        for shape, count, workload, number, keys in trace.places
    ]
    return replace(trace, tunings=tunings, places=[place for place in places if place[-1]]), idle


def _planned(task: TuneTask, trace: Trace, idle: set[int]) -> PreparedUnits:
    units = [Unit(shape=shape, keys={}, binaries={}) for shape in task.job.wanted.distinct_for(task.target)]
    entries = [(name, int(tokens)) for name, _, tokens in (entry.rpartition("@") for entry in trace.workloads)]
    prepared = PreparedUnits(trace, units, {}, {})
    for index, traced in enumerate(trace.tunings):
        where, users = trace.key_of(traced), set().union(*traced.users)
        prepared.keys[where] = KeyState(
            kernel=where[0],
            key=traced.key,
            configs=traced.candidates[: traced.offered if task.search == "relieved" else None],
            offered=traced.offered,
            objects=[],
            idle=index in idle,
        )
        lengths = {entries[workload][1] for _, workload in users}.intersection(task.method.tokens)
        prepared.wanted[where] = set() if index in idle else lengths
        for shape in _shapes(users):
            units[shape].keys[where] = prepared.keys[where]
    order = {count: index for index, count in enumerate((*task.method.gate_tokens, *task.method.tokens))}
    for shape, count, workload, number, fresh in sorted(trace.places, key=lambda item: order[item[1]]):
        units[shape].calls[count, workload, number] = [trace.key_of(trace.tunings[index]) for index in fresh]
    return prepared
