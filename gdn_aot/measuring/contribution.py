"""Whether a tuning record may be contributed: whether its keys and candidates are those that the provider makes.

That needs the provider, of the record's version and with its Triton, and no card: the provider's calls for all models
of the catalogue are traced, as for tuning. What the record alone tells is in `gdn_aot.records.contribution`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import UNSET

from gdn_aot._text import shown
from gdn_aot.building import pipeline
from gdn_aot.catalogue.models import CATALOGUE_TP, select_shapes
from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.errors import Problem, UsageError
from gdn_aot.machine import installed
from gdn_aot.problems import capped
from gdn_aot.records import contribution
from gdn_aot.records.objective import DEFAULT
from gdn_aot.tracing import wide
from gdn_aot.tracing.wanted import Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.launches import Config, KernelKey, Key
    from gdn_aot.records.tuning import MeasuredChoice, MeasuredKernel, TuningRecord
    from gdn_aot.tracing.records import Trace

_TIMEOUT = 300.0
"""Seconds of `pipeline.Job.timeout`; nothing is compiled."""
_FURTHER_TP = (16, 32)
"""Sizes of tensor parallelism that are asked for keys that no call at those of the catalogue has."""
_ANY = "*"
"""Stands for a size in a key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Covered:
    """How much of one model's keys a record has."""

    model: str
    tp: int
    keys: int
    """Autotune keys of its calls."""
    missing: int
    """Those that the record lacks, at one token count or more."""


@dataclass(kw_only=True)
class Examined:
    """What was found of a record."""

    problems: list[Problem] = field(default_factory=list)
    """Why it cannot be contributed; none if it can."""
    unasked: str = ""
    """Why its keys and candidates were not compared with the provider's; empty if they were."""
    models: list[Covered] = field(default_factory=list)
    """The models of the catalogue of which it has a key, those that lack the least first."""
    other_traffic: int = 0
    """Keys that no call for these models has and that differ in one size from one that has: of other batches, say."""


def examine(record: TuningRecord, cache: BuildCache) -> Examined:
    """Say what is wrong with a record that somebody wants to contribute, and what it has.

    Traces are kept in ``cache``; nothing is compiled.
    """
    found = Examined(problems=capped(contribution.problems(record)))
    if found.problems:
        found.unasked = "that is done for records without other faults"
        return found
    job = _job(record, cache)
    found.unasked = _unavailable(record, job)
    if found.unasked:
        return found
    target = get_target(record.target)
    trace = _trace(job, target)
    made = _Made(target)
    made.take(trace)
    if job.wanted.provider.on_request and not all(map(made.own, _places(record))):
        made.take(_trace(_job(record, cache, job.wanted.provider.inference), target))
    if trained := _trained(record, job, made):
        made.take(_trace(_job(record, cache, trained), target))
    if not all(map(made.own, _places(record))):
        made.take(_trace(_job(record, cache, tps=_FURTHER_TP), target))
    found.problems = capped(made.compare(record))
    found.other_traffic = sum(place not in made.keys for place in _places(record))
    found.models = sorted(_covered(record, job, target, trace), key=lambda one: (one.missing, one.model, one.tp))
    return found


def _unavailable(record: TuningRecord, job: pipeline.Job) -> str:
    """Return why the provider of a record cannot be asked here, or nothing."""
    for name, wanted in ((record.provider.distribution, record.provider.version), ("triton", record.triton)):
        there = installed.version(name)
        if there != wanted:
            return f"{name} {wanted} is not installed here{f', {there} is' if there else ''}"
    try:
        installed.require_toolchain("verify")
        pipeline.check_environment(job, [get_target(record.target)])
    except UsageError as error:
        return error.message
    return ""


def _job(
    record: TuningRecord, cache: BuildCache, workloads: tuple[str, ...] = (), tps: Sequence[int] = CATALOGUE_TP
) -> pipeline.Job:
    """Return the job of all models of the catalogue with these workloads, else with those of serving."""
    provider = get_provider(record.provider.name)
    wanted = Wanted(
        provider=provider,
        shapes=select_shapes(["all"], tps).shapes,
        fp16_fallback=True,
        limits=Limits(max_tokens=max(DEFAULT.weights)),
        workloads=workloads or provider.workloads,
    )
    return pipeline.Job(wanted=wanted, cache=cache, output=cache.root, jobs=1, timeout=_TIMEOUT)


def _trace(job: pipeline.Job, target: Target) -> Trace:
    with contextlib.ExitStack() as stack:
        worker = pipeline.LazyWorker(stack, job.wanted.provider, target)
        return pipeline.traced(job, target, worker.get, tokens=(*DEFAULT.weights,))


def _trained(record: TuningRecord, job: pipeline.Job, made: _Made) -> tuple[str, ...]:
    """Return the workloads of training in whose calls keys were measured that no call of serving has."""
    provider = job.wanted.provider
    calls = {
        choice.call.partition("(")[0]
        for kernel in record.kernels
        for choice in kernel.choices
        if not made.own((kernel.kernel, choice.key))
    }
    return tuple(name for name in (*provider.training, *provider.training_on_request) if name in calls)


def _places(record: TuningRecord) -> Iterator[KernelKey]:
    return ((kernel.kernel, choice.key) for kernel in record.kernels for choice in kernel.choices)


def _covered(record: TuningRecord, job: pipeline.Job, target: Target, trace: Trace) -> Iterator[Covered]:
    """Yield the models of which a record has a key at each of its token counts."""
    measured = {
        (kernel.kernel, choice.key): {row.tokens for row in choice.times}
        for kernel in record.kernels
        for choice in kernel.choices
    }
    lengths = [int(entry.rpartition("@")[2]) for entry in trace.workloads]
    wanted: dict[int, dict[KernelKey, set[int]]] = {}
    for traced in trace.tunings:
        place = trace.key_of(traced)
        for shape, workload in set().union(*traced.users):
            wanted.setdefault(shape, {}).setdefault(place, set()).add(lengths[workload])
    paged = job.wanted.provider.paged
    traced_for = {
        _kernels_see(shape, paged=paged): index for index, shape in enumerate(job.wanted.distinct_for(target))
    }
    for one in job.wanted.shapes_for(target):
        keys = wanted.get(traced_for[_kernels_see(one, paged=paged)], {})
        missing = sum(not tokens <= measured.get(place, set()) for place, tokens in keys.items())
        if missing < len(keys):
            yield Covered(model=one.name, tp=one.tp, keys=len(keys), missing=missing)


def _kernels_see(shape: ModelShape, *, paged: bool) -> tuple[object, ...]:
    return shape.paged_key if paged else shape.kernel_key


class _Made:
    """The keys that a provider makes for a target, and its candidates for each."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.keys: dict[KernelKey, tuple[Config, ...]] = {}
        self._alike: dict[KernelKey, tuple[Config, ...]] = {}
        """By keys in which one size may be any."""
        self._kernels: dict[str, dict[Config, None]] = {}
        """All candidates of a kernel."""
        self._digests: dict[str, str] = {}

    def take(self, trace: Trace) -> None:
        """Take what a trace has."""
        self._digests |= {kernel.name: kernel.digest for kernel in trace.kernels}
        for traced in trace.tunings:
            (name, key), own = trace.key_of(traced), tuple(traced.candidates[: traced.offered])
            self.keys[name, key] = own
            self._alike.update(((name, masked), own) for masked in _masked(key))
            self._kernels.setdefault(name, {}).update(dict.fromkeys(own))

    def own(self, place: KernelKey) -> tuple[Config, ...]:
        """Return the provider's candidates for a key, or for one that differs in one size; none for others."""
        name, key = place
        alike = (self._alike[name, masked] for masked in _masked(key) if (name, masked) in self._alike)
        return self.keys.get(place) or next(alike, ())

    def compare(self, record: TuningRecord) -> Iterator[Problem]:
        """Yield kernels, keys and candidates that are not the provider's."""
        for number, kernel in enumerate(record.kernels):
            where, own = f"kernels[{number}]", self._kernels.get(kernel.kernel)
            if own is None:
                yield Problem(
                    f"{where}.kernel", f"no call for a model of the catalogue launches {shown(kernel.kernel)}"
                )
                continue
            if kernel.digest not in (UNSET, self._digests[kernel.kernel]):
                yield Problem(f"{where}.digest", f"is not that of the kernel in {record.provider}")
            for index, config in enumerate(kernel.candidates[: kernel.offered]):
                if config not in own:
                    what = f"{shown(config)} is no candidate of {record.provider} for {record.target}"
                    yield Problem(f"{where}.candidates[{index}]", what)
            for place, choice in enumerate(kernel.choices):
                yield from self._choice(kernel, choice, f"{where}.choices[{place}]")

    def _choice(self, kernel: MeasuredKernel, choice: MeasuredChoice, where: str) -> Iterator[Problem]:
        own = self.own((kernel.kernel, choice.key))
        if not own:
            yield Problem(f"{where}.key", f"no call for the models of the catalogue has the key {shown(choice.key)}")
            return
        timed = {index for row in choice.times for index, us in enumerate(row.us) if us is not None}
        searched = frozenset(wide.searched(own, self._target))
        for index in sorted(timed):
            config = kernel.candidates[index]
            if config not in own and config not in searched:
                yield Problem(f"{where}.times", f"{shown(config)} is no candidate for this key")
        tried = {kernel.candidates[index] for index in timed | {item.candidate for item in choice.rejected}}
        for config in own:
            if config not in tried:
                yield Problem(f"{where}.times", f"the candidate {config} is neither timed nor rejected")


def _masked(key: Key) -> Iterator[Key]:
    """Yield a key with each of its sizes in turn taken for any."""
    return ((*key[:at], _ANY, *key[at + 1 :]) for at, part in enumerate(key) if type(part) is int)
