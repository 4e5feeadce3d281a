"""Choose one candidate per autotune key, by compiling until one fits the target.

Order: the choice that a tuning record has for the target, else those transferred from other targets' records, then the
provider's own candidates in its order, then those that it does not offer. A candidate must compile and fit for every
launch that its key can cause, because a key has one configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gdn_aot.errors import UsageError
from gdn_aot.records.numerics import choice_digest, plain_launch_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.launches import CompiledKernel, Config, Key, Outcome
    from gdn_aot.records.tuning import TunedChoice, TuningTable
    from gdn_aot.tracing.records import Trace, Tuning

    Suggest = Callable[[str, Key, Sequence[Config]], Sequence[TunedChoice]]
    """(kernel, autotune key, the provider's own candidates) -> transferred choices, best first."""

MAX_THREADS = 1024
"""Threads per block on every target (CUDA C++ Programming Guide, technical specifications table)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The candidate chosen for one autotune key."""

    tuning: Tuning
    candidate: int
    provenance: str
    note: str

    @property
    def config(self) -> Config:
        """The chosen configuration."""
        return self.tuning.candidates[self.candidate]

    @property
    def derived(self) -> bool:
        """Whether the provider itself does not offer the configuration."""
        return self.candidate >= len(self.tuning.candidates) - self.tuning.derived

    @property
    def launches(self) -> list[int]:
        """Indices of the launches that the choice causes."""
        return [variant[self.candidate] for variant in self.tuning.variants]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A compile that broke, which is not the same as a candidate that does not fit."""

    kernel: str
    candidate: str
    message: str


@dataclass(slots=True)
class Choices:
    """What choosing came to."""

    chosen: list[Chosen] = field(default_factory=list)
    plain: list[int] = field(default_factory=list)
    """Launches of kernels without autotuning that compile and fit."""
    uncovered: list[tuple[str, str, tuple[object, ...] | None]] = field(default_factory=list)
    """(kernel, reason, autotune key or None)."""
    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    """(kernel, candidate, reason) of candidates that do not fit this target."""
    failures: list[Failure] = field(default_factory=list)

    def digests(self, trace: Trace) -> set[str]:
        """Return the digests, as records of numeric checks have them, of everything that is packed."""
        tuned = {
            choice_digest(trace.kernels[one.tuning.kernel].name, one.tuning.key, one.config) for one in self.chosen
        }
        plain = [trace.launches[index] for index in self.plain]
        return tuned | {plain_launch_digest(trace.kernels[launch.kernel].name, launch.key) for launch in plain}


def misfit(compiled: CompiledKernel, target: Target) -> str | None:
    """Return why a compiled kernel cannot run on a target, or None if it can."""
    if compiled.shared > target.max_shared:
        return f"needs {compiled.shared} bytes of shared memory, {target} has {target.max_shared}"
    if compiled.threads > MAX_THREADS:
        return f"needs {compiled.threads} threads per block, {target} has {MAX_THREADS}"
    registers = compiled.registers * compiled.threads
    if registers > target.registers_per_block:
        return f"needs {registers} registers per block, {target} has {target.registers_per_block}"
    return None


class Chooser:
    """Walks the candidates of every key. `wanted` says what to compile next, `take` brings the outcome.

    ``table`` has the choices measured on the target, ``suggest`` is asked for the keys that it lacks.

    Raises:
        UsageError: The tuning record names a configuration that is no candidate.
    """

    def __init__(self, trace: Trace, target: Target, table: TuningTable, suggest: Suggest | None = None) -> None:
        self._trace, self._target, self._table, self._suggest = trace, target, table, suggest
        self.result = Choices()
        self._walks = [self._walk(tuning) for tuning in trace.tunings]
        self._waiting: dict[int, list[_Walk]] = {}
        self._done: dict[int, Outcome] = {}

    def _walk(self, tuning: Tuning) -> _Walk:
        kernel = self._trace.kernels[tuning.kernel].name
        own = tuning.candidates[: len(tuning.candidates) - tuning.derived]
        measured = self._table.get((kernel, tuning.key))
        if measured is not None:
            self._check(kernel, tuning, own, measured)
            tuned = {tuning.candidates.index(measured.config): measured}
        else:
            suggested = self._suggest(kernel, tuning.key, own) if self._suggest else ()
            tuned = {own.index(choice.config): choice for choice in suggested}
        rest = (index for index in range(len(tuning.candidates)) if index not in tuned)
        return _Walk(tuning, [*tuned, *rest], tuned)

    def _check(self, kernel: str, tuning: Tuning, own: list[Config], measured: TunedChoice) -> None:
        """Check that a record names a candidate: the provider's, or one that a wide search makes and the trace has."""
        if measured.config in own:
            return
        if measured.wide and measured.config in tuning.candidates:
            from gdn_aot.tracing import wide

            if measured.config in wide.candidates(own, self._target):
                return
        raise UsageError(
            f"the tuning record names {measured.config} for {kernel} with key {tuning.key}, "
            "which is no candidate of it",
            hint="tune again; records are not edited by hand",
        )

    def wanted(self) -> Iterator[int]:
        """Yield the launches to compile first: every plain one, and the first candidate of every key."""
        yield from self._trace.plain
        for walk in self._walks:
            yield from self._advance(walk)

    def take(self, launch: int, outcome: Outcome) -> Iterator[int]:
        """Take the outcome of one launch and yield further launches to compile."""
        self._done[launch] = outcome
        if launch in self._trace.plain:
            kernel = self._trace.kernels[self._trace.launches[launch].kernel].name
            reason = self._objection(kernel, "its only configuration", outcome)
            if reason is None:
                self.result.plain.append(launch)
            else:
                self.result.uncovered.append((kernel, reason, None))
        for walk in self._waiting.pop(launch, []):
            yield from self._advance(walk)

    def _objection(self, kernel: str, candidate: str, outcome: Outcome) -> str | None:
        if outcome.failed is not None:
            self.result.failures.append(Failure(kernel=kernel, candidate=candidate, message=outcome.failed))
            return f"{candidate} does not compile: {outcome.failed}"
        if outcome.rejected is not None:
            return f"{candidate} was refused by the compiler: {outcome.rejected}"
        assert outcome.object is not None  # noqa: S101
        reason = misfit(outcome.object, self._target)
        return None if reason is None else f"{candidate} {reason}"

    def _advance(self, walk: _Walk) -> Iterator[int]:
        """Move one key on as far as the outcomes at hand allow; yield the launches that it now waits for."""
        kernel = self._trace.kernels[walk.tuning.kernel].name
        while not walk.ended and walk.position < len(walk.order):
            candidate = walk.order[walk.position]
            launches = [variant[candidate] for variant in walk.tuning.variants]
            missing = [launch for launch in launches if launch not in self._done]
            if missing:
                self._waiting.setdefault(missing[0], []).append(walk)
                yield from missing
                return
            name = str(walk.tuning.candidates[candidate])
            objections = [self._objection(kernel, name, self._done[launch]) for launch in launches]
            reasons = [reason for reason in objections if reason is not None]
            if not reasons:
                self._choose(walk, candidate)
                return
            walk.reasons.append(reasons[0])
            self.result.rejected.append((kernel, name, reasons[0]))
            walk.position += 1
        if not walk.ended:
            walk.ended = True
            self.result.uncovered.append((kernel, "no candidate fits: " + walk.reasons[-1], walk.tuning.key))

    def _choose(self, walk: _Walk, candidate: int) -> None:
        walk.ended = True
        tuned = walk.tuned.get(candidate)
        notes = [tuned.note] if tuned and tuned.note else []
        if walk.reasons:
            notes.append(f"{len(walk.reasons)} candidates before it do not fit: {walk.reasons[0]}")
        provenance = tuned.provenance if tuned else "default"
        chosen = Chosen(tuning=walk.tuning, candidate=candidate, provenance=provenance, note="; ".join(notes))
        self.result.chosen.append(chosen)


@dataclass(slots=True)
class _Walk:
    tuning: Tuning
    order: Sequence[int]
    tuned: dict[int, TunedChoice]
    """What records say of the candidates that come first."""
    position: int = 0
    ended: bool = False
    reasons: list[str] = field(default_factory=list)
