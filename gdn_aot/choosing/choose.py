"""Choose one candidate per autotune key, by compiling until one fits the target and is sound.

Order: the choice that a tuning record has for the target, else what a capture has, then the next ones of that record or
those transferred from other keys and targets, then the provider's own candidates in its order, then those that it does
not offer. A candidate must compile, fit and be sound for every launch that its key can cause, because a key has one
configuration. Where none is sound, the one that fits and spills least is chosen. ``docs/adr/0026-sound-choices.md`` has
the rule and its reasons.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gdn_aot.choosing.walk import Walk, most_local
from gdn_aot.errors import UsageError
from gdn_aot.launches import SOUND_LOCAL
from gdn_aot.records.numerics import choice_digest, plain_launch_digest
from gdn_aot.tracing import wide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.launches import CompiledKernel, Config, Key, Outcome
    from gdn_aot.records.tuning import TunedChoice, TuningTable
    from gdn_aot.tracing.records import Trace, Tuning

    Suggest = Callable[[str, Key, Sequence[Config], Sequence[Config], str], Sequence[TunedChoice]]
    """(kernel, autotune key, the provider's own candidates, others, the kernel's digest) -> those that records speak
    for, best first."""

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
        return self.candidate >= self.tuning.offered

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
    """(kernel, candidate, reason) of candidates that do not fit this target or are not sound on it."""
    spills: list[tuple[str, str, int]] = field(default_factory=list)
    """(kernel, configuration, bytes of local memory per thread) of what is shipped although it is not sound."""
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

    ``table`` has the choices measured for the target, by digest of the kernel or by its name; ``suggest`` is asked for
    what comes after them. A candidate that is not sound is chosen only if ``final``; else a key that has no other is
    uncovered, because more candidates can be traced for it.

    Raises:
        UsageError: The tuning record names a configuration that is no candidate.
    """

    def __init__(
        self,
        trace: Trace,
        target: Target,
        table: TuningTable,
        suggest: Suggest | None = None,
        *,
        final: bool = True,
    ) -> None:
        self._trace, self._target, self._table, self._suggest, self._final = trace, target, table, suggest, final
        self.result = Choices()
        self._leaders: list[Walk] = []
        self._waiting: dict[int, list[Walk]] = {}
        self._done: dict[int, Outcome] = {}
        groups: dict[object, Walk] = {}
        # Where tl.dot is multiply-adds, the provider's own spill and take long to compile: of the keys of a kernel that
        # differ in types alone one goes first, and the others do not compile what needed far too much there.
        for number, walk in enumerate(map(self._walk, trace.tunings)):
            led = target.dot == "fma" and all(choice.provenance == "transferred" for choice in walk.tuned.values())
            sizes = tuple(item for item in walk.tuning.key if isinstance(item, int))
            leader = groups.setdefault((walk.tuning.kernel, sizes) if led else number, walk)
            (self._leaders if leader is walk else leader.followers).append(walk)

    def _walk(self, tuning: Tuning) -> Walk:
        traced = self._trace.kernels[tuning.kernel]
        own, others = tuning.candidates[: tuning.offered], tuning.candidates[tuning.offered :]
        measured = self._table.get((traced.digest, tuning.key)) or self._table.get((traced.name, tuning.key))
        tuned: dict[int, TunedChoice] = {}
        if measured is not None and self._names_a_candidate(traced.name, tuning, own, measured):
            tuned[tuning.candidates.index(measured.config)] = measured
        found = self._suggest(traced.name, tuning.key, own, others, traced.digest) if self._suggest else ()
        for choice in found:
            tuned.setdefault(tuning.candidates.index(choice.config), choice)
        rest = (index for index in range(len(tuning.candidates)) if index not in tuned)
        return Walk(tuning, self._target, [*tuned, *rest], tuned)

    def _names_a_candidate(self, kernel: str, tuning: Tuning, own: list[Config], measured: TunedChoice) -> bool:
        """Say whether a record names a candidate: the provider's, or one that a search makes and the trace has.

        One of the very release must.
        """
        if measured.config in own:
            return True
        traced = measured.wide and measured.config in tuning.candidates
        if traced and measured.config in wide.searched(own, self._target):
            return True
        if measured.elsewhere:
            return False
        raise UsageError(
            f"the tuning record names {measured.config} for {kernel} with key {tuning.key}, "
            "which is no candidate of it",
            hint="tune again; records are not edited by hand",
        )

    def wanted(self) -> Iterator[int]:
        """Yield the launches to compile first: every plain one, and the first candidate of each key without leader."""
        yield from self._trace.plain
        for walk in self._leaders:
            yield from self._advance(walk)

    def take(self, launch: int, outcome: Outcome) -> Iterator[int]:
        """Take the outcome of one launch and yield further launches to compile."""
        self._done[launch] = outcome
        if launch in self._trace.plain:
            kernel = self._trace.kernels[self._trace.launches[launch].kernel].name
            reason = self._objection(kernel, "its only configuration", outcome)
            if reason is None:
                self.result.plain.append(launch)
                self._note_spill(kernel, "its only configuration", most_local([outcome]))
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

    def _advance(self, walk: Walk) -> Iterator[int]:
        """Move one key on as far as the outcomes at hand allow; yield the launches that it now waits for."""
        yield from self._step(walk)
        if walk.ended:
            followers, walk.followers = walk.followers, []
            for follower in followers:
                follower.learn(walk)
                yield from self._advance(follower)

    def _step(self, walk: Walk) -> Iterator[int]:
        kernel = self._trace.kernels[walk.tuning.kernel].name
        while not walk.ended:
            candidate = walk.next(final=self._final)
            if candidate is None:
                self._end(walk, kernel)
                return
            launches = [variant[candidate] for variant in walk.tuning.variants]
            missing = [launch for launch in launches if launch not in self._done]
            if missing:
                self._waiting.setdefault(missing[0], []).append(walk)
                yield from missing
                return
            name, outcomes = str(walk.tuning.candidates[candidate]), [self._done[launch] for launch in launches]
            reason = next(filter(None, [self._objection(kernel, name, outcome) for outcome in outcomes]), None)
            if reason is not None:
                walk.refuse(candidate, reason, outcomes)
            elif (local := most_local(outcomes)) > SOUND_LOCAL:
                reason = f"{name} spills {local} bytes per thread, more than {SOUND_LOCAL}"
                walk.put_off(candidate, reason, outcomes)
            else:
                self._choose(walk, candidate)
                return
            self.result.rejected.append((kernel, name, reason))

    def _end(self, walk: Walk, kernel: str) -> None:
        """End a walk on which nothing was sound."""
        if self._final and walk.spilling:
            candidate = min(walk.spilling, key=lambda index: walk.spilling[index].local)
            local = walk.spilling[candidate].local
            self._choose(walk, candidate, f"none is sound, this one spills least: {local} bytes per thread")
            self._note_spill(kernel, str(walk.tuning.candidates[candidate]), local)
            return
        walk.ended = True
        reason = (walk.reasons or [spill.reason for spill in walk.lessons])[-1]
        self.result.uncovered.append((kernel, f"no candidate fits: {reason}", walk.tuning.key))

    def _note_spill(self, kernel: str, candidate: str, local: int) -> None:
        if local > SOUND_LOCAL:
            self.result.spills.append((kernel, candidate, local))

    def _choose(self, walk: Walk, candidate: int, why: str = "") -> None:
        walk.ended = True
        tuned = walk.tuned.get(candidate)
        notes = [tuned.note] if tuned and tuned.note else []
        if why:
            notes.append(why)
        elif walk.reasons:
            fault = "do not fit or are not sound" if walk.spilling else "do not fit"
            notes.append(f"{len(walk.reasons)} candidates before it {fault}: {walk.reasons[0]}")
        elif walk.lessons:
            notes.append(f"by what was compiled for another key of these sizes: {walk.lessons[0].reason}")
        provenance = tuned.provenance if tuned else "default"
        chosen = Chosen(tuning=walk.tuning, candidate=candidate, provenance=provenance, note="; ".join(notes))
        self.result.chosen.append(chosen)
