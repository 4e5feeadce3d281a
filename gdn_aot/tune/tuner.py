"""Tune: trace what calls of the wanted lengths launch, compile every candidate, measure, choose, write the record."""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gdn_aot._version import __version__
from gdn_aot.build import pipeline
from gdn_aot.build.choose import misfit
from gdn_aot.errors import NothingSelectedError
from gdn_aot.models import distinct
from gdn_aot.providers import require_installed
from gdn_aot.tune import record as records
from gdn_aot.tune.client import KeyState, Outcome, Session, Unit
from gdn_aot.tune.objective import NoneEligible, Sample, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gdn_aot.build import cache
    from gdn_aot.build.records import Config, Scalar, Trace
    from gdn_aot.build.records import Tuning as TracedKey
    from gdn_aot.targets import Target
    from gdn_aot.tune.client import Method
    from gdn_aot.tune.device import CardInfo
    from gdn_aot.tune.objective import Objective

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


@dataclass(kw_only=True)
class Tuned:
    """What tuning came to."""

    path: Path
    keys: int = 0
    """Autotune keys that now have a measured choice of this run, or of the one that it went on from."""
    missing: int = 0
    """Keys that were to be measured and have no choice."""
    out: int = 0
    """Candidates that were found wrong, or that ended their process."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """By shape."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Calls with the chosen candidates that float64 does not confirm, and why."""
    ended: str = ""
    """Why measuring ended early, if it did."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds per step."""
    noise: float | None = None
    """Median over all samples of the standard error over the time."""


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


class _BudgetSpentError(Exception):
    """The time to measure in is over."""


def prepare(task: Task, progress: Progress) -> Prepared:
    """Trace and compile. Needs no card; what is compiled already is not compiled again.

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
        traced = time.monotonic()
        if not trace.tunings:
            raise NothingSelectedError("none of the selected workloads has an autotuned kernel")
        work = pipeline.Compilation(job, target, trace, lazy, None, progress)
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
        keys[name, traced.key] = state
        users = set().union(*traced.users)
        wanted[name, traced.key] = {place[workload][1] for _, workload in users} & timed
        for shape in {shape for shape, _ in users}:
            units[shape].keys[name, traced.key] = state
        for variant, whose in zip(traced.variants, traced.users, strict=True):
            for shape, _ in whose:
                _add(units[shape], trace, variant, outcomes, reasons)
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


def tune(task: Task, card: CardInfo, progress: Progress) -> Tuned:
    """Measure every candidate of every key and write the record after each shape.

    A KeyboardInterrupt is raised again when what was measured is in the record.

    Raises:
        UsageError: The record there is of something else; or the worker does not start.
        NotWritableError: The record cannot be written.
    """
    distribution = task.job.provider.distribution
    version = require_installed(task.job.provider.name)
    existing = records.load(task.path, target=task.target.name, distribution=distribution, version=version)
    prepared = prepare(task, progress)
    result = Tuned(path=task.path, seconds=dict(prepared.seconds))
    start = time.monotonic()
    with Session(task.method, task.job.cache.root.absolute()) as session:
        writer = _Writer(task, card, prepared, session.device, existing)
        if task.resume:
            writer.recall()
        deadline = None if task.budget is None else time.monotonic() + task.budget
        try:
            for number, unit in enumerate(prepared.units):
                _measure(session, prepared, number, unit, result, deadline, progress)
                result.dropped |= writer.settle(unit, session)
                writer.save()
        except (_BudgetSpentError, KeyboardInterrupt) as ending:
            result.ended = "the budget is spent" if isinstance(ending, _BudgetSpentError) else "interrupted"
            for unit in prepared.units:
                writer.settle(unit, None)
            writer.save()
            if isinstance(ending, KeyboardInterrupt):
                raise
    result.seconds["measure"] = time.monotonic() - start
    result.keys, result.missing = len(writer.choices), len(prepared.keys) - len(writer.choices)
    result.out = sum(tokens > 0 for state in prepared.keys.values() for tokens, _ in state.out.values())
    ratios = [one.noise / one.us for state in prepared.keys.values() for one in _samples(state)]
    result.noise = statistics.median(ratios) if ratios else None
    return result


def _samples(state: KeyState) -> Iterator[Sample]:
    for row in state.samples.values():
        yield from row.values()


def _measure(
    session: Session,
    prepared: Prepared,
    number: int,
    unit: Unit,
    result: Tuned,
    deadline: float | None,
    progress: Progress,
) -> None:
    shape, count = unit.shape, len(prepared.units)
    outcome = result.outcomes.setdefault(f"{shape.name} tp {shape.tp}", Outcome())
    missing = [key for key, state in unit.keys.items() if prepared.wanted[key] - set(state.samples)]
    if not missing:
        return
    start = time.monotonic()

    def report(outcome: Outcome) -> None:
        now = time.monotonic()
        if deadline is not None and now > deadline:
            raise _BudgetSpentError
        done = sum(not prepared.wanted[key] - set(prepared.keys[key].samples) for key in missing)
        left = (now - start) / done * (len(missing) - done) if done else 0.0
        ahead = f", {left:.0f} s left of shape {number + 1} of {count}" if done else ""
        progress(done, len(missing), f"{shape.name} tp {shape.tp}: {outcome.called} calls{ahead}")

    report(outcome)
    session.measure(unit, outcome, report)


class _Writer:
    """Turns measured keys into choices and the choices into the record."""

    def __init__(
        self,
        task: Task,
        card: CardInfo,
        prepared: Prepared,
        device: dict[str, object],
        existing: records.Record | None,
    ) -> None:
        self._task, self._prepared, self._existing = task, prepared, existing
        provider = task.job.provider
        trace = prepared.trace
        self._frame = records.Record(
            target=task.target.name,
            provider=records.Provider(
                name=provider.name, distribution=provider.distribution, version=trace.provider_version
            ),
            triton=trace.triton_version,
            ptxas=trace.ptxas_version,
            device=records.Device(
                name=card.name, driver=card.driver, sm_count=_integer(device["sm_count"]), memory=card.memory
            ),
            tool=f"gdn-aot {__version__}",
            method=records.Method(
                rounds=task.method.rounds, flush_bytes=2 * _integer(device["l2"]), clock="cuda events"
            ),
            objective=records.Objective(
                weights=tuple(sorted(task.objective.weights.items())), bound=task.objective.bound
            ),
            kernels=(),
        )
        records.merge(existing, self._frame)  # refuses now what must not be mixed later
        self.choices: dict[tuple[str, tuple[Scalar, ...]], records.ChoiceRecord] = {}

    def recall(self) -> None:
        """Take samples and findings of the record that is there as if they had been measured now."""
        for kernel in self._existing.kernels if self._existing else ():
            for choice in kernel.choices:
                state = self._prepared.keys.get((kernel.kernel, choice.key))
                if state is not None:
                    _recall(state, kernel.candidates, choice)

    def settle(self, unit: Unit, session: Session | None) -> dict[str, str]:
        """Choose for every key of a unit that has samples.

        Args:
            unit: The shape that was measured.
            session: Calls with the choices are checked against float64 with it; None to leave that out.

        Returns:
            The calls that failed the check. Keys of the unit then have no choice.
        """
        fresh: dict[tuple[str, tuple[Scalar, ...]], records.ChoiceRecord] = {}
        for place, state in unit.keys.items():
            made = self._choice(place, state)
            if made is not None:
                fresh[place] = made
        wrong: dict[str, str] = {}
        if session is not None and fresh:
            chosen = [(*place, choice.chosen) for place, choice in fresh.items()]
            wrong = session.check(unit, chosen, self._task.method.gate_tokens)
        if not wrong:
            self.choices |= fresh
        return wrong

    def _choice(self, place: tuple[str, tuple[Scalar, ...]], state: KeyState) -> records.ChoiceRecord | None:
        if not state.samples:
            return None
        count = len(state.configs)
        rows = {
            tokens: [None if index in state.out else row.get(index) for index in range(count)]
            for tokens, row in sorted(state.samples.items())
        }
        verdict = choose(rows, [self._size(made) for made in state.objects], self._task.objective)
        if isinstance(verdict, NoneEligible):
            return None
        return records.ChoiceRecord(
            key=state.key,
            chosen=verdict.chosen,
            score=round(verdict.score, 4),
            worst=round(verdict.worst, 4),
            note=verdict.note + self._incomplete(place, state),
            call=state.call,
            reference=state.reference,
            times=tuple(
                records.Times(
                    tokens=tokens,
                    us=tuple(None if one is None else round(one.us, 2) for one in row),
                    noise=tuple(None if one is None else round(one.noise, 2) for one in row),
                )
                for tokens, row in rows.items()
            ),
            rejected=tuple(
                records.Rejected(candidate=index, tokens=tokens or None, reason=reason)
                for index, (tokens, reason) in sorted(state.out.items())
            ),
            resources=tuple(self._resources(made) for made in state.objects),
        )

    def _incomplete(self, place: tuple[str, tuple[Scalar, ...]], state: KeyState) -> str:
        missing = sorted(self._prepared.wanted[place] - set(state.samples))
        return f"; not measured at {', '.join(map(str, missing))} tokens" if missing else ""

    def _size(self, made: cache.Object | None) -> tuple[int, ...]:
        if made is None:
            return ()
        return self._prepared.sizes[made.cubin], made.shared, made.registers * made.threads

    def _resources(self, made: cache.Object | None) -> records.Resources | None:
        if made is None:
            return None
        size = self._prepared.sizes[made.cubin]
        return records.Resources(registers=made.registers, shared=made.shared, local=made.local, size=size)

    def save(self) -> None:
        """Write the record: what was there, with the choices of this run in place of old ones.

        Raises:
            NotWritableError: It cannot be written; what was there stays.
        """
        kernels = []
        for name in sorted({kernel for kernel, _ in self.choices}):
            states = [state for (kernel, _), state in self._prepared.keys.items() if kernel == name]
            kernels.append(_kernel(name, states, [(key, c) for (k, key), c in self.choices.items() if k == name]))
        if kernels:
            records.save(records.merge(self._existing, replace(self._frame, kernels=tuple(kernels))), self._task.path)


def _kernel(
    name: str, states: list[KeyState], choices: list[tuple[tuple[Scalar, ...], records.ChoiceRecord]]
) -> records.KernelRecord:
    """Return the record of one kernel; keys whose candidates differ get the union of all."""
    configs = {state.key: state for state in states}
    made: records.KernelRecord | None = None
    by_candidates: dict[tuple[tuple[Config, ...], int], list[records.ChoiceRecord]] = {}
    for key, choice in choices:
        state = configs[key]
        by_candidates.setdefault((tuple(state.configs), state.offered), []).append(choice)
    for (candidates, offered), group in by_candidates.items():
        part = records.KernelRecord(kernel=name, candidates=candidates, offered=offered, choices=tuple(group))
        made = part if made is None else records.merge_kernel(made, part)
    assert made is not None  # noqa: S101
    return made


def _recall(state: KeyState, candidates: tuple[Config, ...], choice: records.ChoiceRecord) -> None:
    place = {index: state.configs.index(config) for index, config in enumerate(candidates) if config in state.configs}
    if len(place) < len(state.configs):
        return  # other candidates: measured anew
    state.call, state.reference = choice.call, place.get(choice.reference, 0)
    for row in choice.times:
        state.samples[row.tokens] = {
            place[index]: Sample(us, noise)
            for index, (us, noise) in enumerate(zip(row.us, row.noise, strict=True))
            if index in place and us is not None and noise is not None
        }
    for item in choice.rejected:
        if item.candidate in place:
            state.out.setdefault(place[item.candidate], (item.tokens or 0, item.reason))


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected an integer, got {value!r}")
    return value
