"""What is to be tuned, and all of it that needs no card: the trace and the compiled candidates."""

from __future__ import annotations

import contextlib
import fnmatch
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gdn_aot.building import pipeline
from gdn_aot.choosing.choose import misfit
from gdn_aot.choosing.occupancy import blocks_per_sm, shared_for
from gdn_aot.choosing.walk import SOUND_LOCAL, Spill, most_local
from gdn_aot.compiling.compilation import Compilation
from gdn_aot.errors import NothingSelectedError, VerificationError
from gdn_aot.measuring.client import KeyState, Unit
from gdn_aot.measuring.process import PlannedBinary
from gdn_aot.measuring.prune import prune
from gdn_aot.tracing import wide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from typing_extensions import Self

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.launches import CompiledKernel, Config, KernelKey, Outcome
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
    """``provider``: its own candidates. ``relieved``: where none of them is sound, also sound ones that ask less of a
    thread. ``wide``: also others that it does not offer."""
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
        self._outcomes: dict[int, Outcome] = {}
        self._ready: set[KernelKey] = set()
        self._kept: dict[KernelKey, list[int]] = {}
        """Which of a key's candidates are measured."""
        self._spilling: set[tuple[int, Config]] = set()
        """Kernels and configurations that are not sound with some key."""

    def __enter__(self) -> Self:
        start = time.monotonic()
        task, target = self._task, self._task.target
        with contextlib.ExitStack() as stack:
            lazy = pipeline.LazyWorker(stack, task.job.wanted.provider, target)
            self._progress(0, 0, f"{target}: tracing")
            tokens = (*task.method.gate_tokens, *task.method.tokens)
            worker = pipeline.expected(task.job, target, lazy)
            trace = pipeline.traced(
                task.job, target, worker, derive="" if task.search == "provider" else task.search, tokens=tokens
            )
            trace, idle = _only(trace, task.kernels)
            if not trace.tunings:
                raise NothingSelectedError("none of the selected workloads has an autotuned kernel")
            order = pipeline.order(task.job, target, trace)
            workers = stack.enter_context(task.job.executor.compiling(order, lazy.get))
            self._work = Compilation(order, trace, workers, self._tell)
            self._stack = stack.pop_all()
        self._lazy = lazy
        self.prepared = _planned(task, trace, idle)
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
        mine = [traced for traced in trace.tunings if _place(trace, traced) in wanted]
        plain = [launch for launch, users in trace.plain.items() if not _shapes(users).isdisjoint(numbers)]
        first = {_place(trace, traced): [0] if self._idle(traced) else range(_offered(traced)) for traced in mine}
        if self._task.search == "wide":
            first |= {_place(trace, traced): range(len(traced.candidates)) for traced in mine}
        offered = [launch for traced in mine for launch in self._launches(traced, first[_place(trace, traced)])]
        self._outcomes |= self._work.every([*plain, *offered])
        for traced in mine:  # one key after another: what spills with one is not compiled for the next
            self._kept.setdefault(_place(trace, traced), self._compiled(traced))
        every = {launch for traced in mine for launch in self._launches(traced, self._kept[_place(trace, traced)])}
        reasons = {launch: _reason(self._outcomes[launch], self._task.target) for launch in {*plain, *every}}
        for made in (self._outcomes[launch].object for launch in reasons):
            if made is not None:
                prepared.sizes[made.cubin] = self._task.job.cache.cubin_size(made.cubin)
        for traced in mine:
            self._settle(traced, reasons)
            for variant, users in zip(traced.variants, traced.users, strict=True):
                self._add(
                    [variant[index] for index in self._kept[_place(trace, traced)]],
                    _shapes(users).intersection(numbers),
                    reasons,
                )
        for launch in plain:
            self._add([launch], _shapes(trace.plain[launch]).intersection(numbers), reasons)
        prepared.compiled = self._work.compiled
        prepared.seconds["compile"] = prepared.seconds.get("compile", 0.0) + time.monotonic() - start

    def _idle(self, traced: TracedKey) -> bool:
        return self.prepared.keys[_place(self.prepared.trace, traced)].idle

    def _compiled(self, traced: TracedKey) -> list[int]:
        """Compile what a key lacks. Returns its candidates: of one that is not measured, those up to one that fits."""
        if not self._idle(traced):
            self._outcomes |= self._work.every(self._launches(traced, self._derived(traced)))
            return self._worth(traced)
        for index in range(_offered(traced)):
            self._outcomes |= self._work.every(self._launches(traced, [index]))
            if self._local(traced, index) < math.inf:
                break
        return list(range(index + 1))

    def _derived(self, traced: TracedKey) -> list[int]:
        """Return the candidates that the provider does not offer and that are worth compiling for a key."""
        derived = list(range(_offered(traced), len(traced.candidates)))
        if self._task.search != "relieved" or not derived:
            return derived
        if any(self._local(traced, index) <= SOUND_LOCAL for index in range(_offered(traced))):
            return []
        target, spills = self._task.target, []
        for index in range(_offered(traced)):
            outcomes = [self._outcomes[launch] for launch in self._launches(traced, [index])]
            if any(outcome.object for outcome in outcomes):
                spills.append(Spill.of(traced.candidates[index], target, outcomes, ""))
        return [
            index
            for index in derived
            if (traced.kernel, traced.candidates[index]) not in self._spilling
            and all(spill.leaves(wide.load(traced.candidates[index], target)) for spill in spills)
        ]

    def _worth(self, traced: TracedKey) -> list[int]:
        """Return the candidates of a key that are measured, if they can be: the provider's own, and sound others."""
        own, derived = list(range(_offered(traced))), self._derived(traced)
        if self._task.search != "relieved":
            return own + derived
        sound = [index for index in derived if self._local(traced, index) <= SOUND_LOCAL]
        self._spilling |= {(traced.kernel, traced.candidates[index]) for index in derived if index not in sound}
        return own + sound

    def _local(self, traced: TracedKey, index: int) -> float:
        """Return the most local memory that a thread of a compiled candidate has; infinite for one that does not fit.

        In bytes.
        """
        outcomes = [self._outcomes[launch] for launch in self._launches(traced, [index])]
        if any(_reason(outcome, self._task.target) for outcome in outcomes):
            return math.inf
        return most_local(outcomes)

    @staticmethod
    def _launches(traced: TracedKey, candidates: Iterable[int]) -> list[int]:
        return [variant[index] for index in candidates for variant in traced.variants]

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
        place = _place(self.prepared.trace, traced)
        if place in self._ready:
            return
        self._ready.add(place)
        state, kept = self.prepared.keys[place], self._kept[place]
        state.configs = [traced.candidates[index] for index in kept]
        state.objects = [self._outcomes[traced.variants[0][index]].object for index in kept]
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
            traced, made = trace.launches[launch], self._outcomes[launch].object
            row: PlannedBinary | str = reasons[launch] or ""
            if made is not None and not row:
                row = self._binary(made, {"signature": traced.specialization.signature})
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


def _offered(traced: TracedKey) -> int:
    """Return how many of a key's candidates are the provider's own; they come first."""
    return len(traced.candidates) - traced.derived


def _place(trace: Trace, traced: TracedKey) -> KernelKey:
    return trace.kernels[traced.kernel].name, traced.key


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
        offered = _offered(tunings[index])
        variants = [variant[:offered] for variant in tunings[index].variants]
        candidates = tunings[index].candidates[:offered]
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
        place, users = _place(trace, traced), set().union(*traced.users)
        prepared.keys[place] = KeyState(
            kernel=place[0],
            key=traced.key,
            configs=traced.candidates[: _offered(traced) if task.search == "relieved" else None],
            offered=_offered(traced),
            objects=[],
            idle=index in idle,
        )
        lengths = {entries[workload][1] for _, workload in users}.intersection(task.method.tokens)
        prepared.wanted[place] = set() if index in idle else lengths
        for shape in _shapes(users):
            units[shape].keys[place] = prepared.keys[place]
    order = {count: index for index, count in enumerate((*task.method.gate_tokens, *task.method.tokens))}
    for shape, count, workload, number, fresh in sorted(trace.places, key=lambda item: order[item[1]]):
        units[shape].calls[count, workload, number] = [_place(trace, trace.tunings[index]) for index in fresh]
    return prepared


def _reason(outcome: Outcome, target: Target) -> str | None:
    if outcome.object is None:
        return outcome.rejected or outcome.failed or "it was not compiled"
    return misfit(outcome.object, target)
