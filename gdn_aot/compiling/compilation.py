"""Compile what a chooser wants of a trace, from the build cache where possible."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from gdn_aot.choosing.choose import Chooser
from gdn_aot.compiling.cache import launch_digest
from gdn_aot.compiling.executor import CompileTask
from gdn_aot.launches import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.choosing.choose import Choices
    from gdn_aot.choosing.known import Known
    from gdn_aot.compiling.executor import Answer, Compiling, Order
    from gdn_aot.launches import CompiledKernel
    from gdn_aot.tracing.records import Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One launch that the compile workers were asked for."""

    launch: int
    seconds: float
    """CPU time; 0 if the worker did not live to tell."""
    reused: bool
    """Another launch with the same IR had been compiled."""
    object: CompiledKernel | None
    """None if it was rejected or failed."""


class Compilation:
    """Compiles what the chooser wants, from the cache where possible.

    Args:
        order: What compiling takes.
        trace: What is compiled.
        workers: Compile what the cache lacks.
        progress: Told how far it is.
        busy: Called when the first task has been given to the workers.
    """

    def __init__(
        self,
        order: Order,
        trace: Trace,
        workers: Compiling,
        progress: Callable[[int, int, str], None],
        busy: Callable[[], None] | None = None,
    ) -> None:
        self._order, self._target, self._trace = order, order.target, trace
        self._workers, self._progress, self._busy = workers, progress, busy
        self._objects: dict[int, CompiledKernel] = {}
        self._asked: set[int] = set()
        self.before: Compilation | None = None
        """That of the first trace, if the target was traced again."""
        self.tasks: list[Task] = []
        """What was not in the cache, in the order in which it was done."""
        self.chooser: Chooser | None = None
        self.compiled = 0
        self.spent: Counter[str] = Counter()

    def choose(self, known: Known, *, all_candidates: bool) -> Choices:
        """Compile until every key has a candidate that fits, or none is left; or all of the provider's, too."""
        self.chooser = chooser = Chooser(self._trace, self._target, known.measured, known.suggest)
        self._run(chooser.wanted(), chooser.take)
        if all_candidates:
            every = (
                launch
                for item in self._trace.tunings
                for variant in item.variants
                for launch in variant[: len(item.candidates) - item.derived]
            )
            self._run(every, lambda _launch, _outcome: iter(()))
        return chooser.result

    def kept(self, choices: Choices, *, all_candidates: bool = False) -> dict[int, CompiledKernel]:
        """Return the compiled kernels that go into the artifact, by launch."""
        if all_candidates:
            return dict(self._objects)
        wanted = set(choices.plain).union(*(chosen.launches for chosen in choices.chosen))
        return {launch: self._objects[launch] for launch in wanted}

    def kernel_name(self, launch: int) -> str:
        """Return ``module:qualname`` of the kernel of a launch."""
        return self._trace.kernels[self._trace.launches[launch].kernel].name

    def every(self, launches: Iterable[int]) -> dict[int, Outcome]:
        """Compile these launches. Returns what became of each."""
        found: dict[int, Outcome] = {}

        def take(launch: int, outcome: Outcome) -> Iterator[int]:
            found[launch] = outcome
            return iter(())

        self._run(iter(launches), take)
        return found

    def _run(self, first: Iterator[int], take: Callable[[int, Outcome], Iterator[int]]) -> None:
        waiting: deque[int] = deque()
        flying: dict[int, str] = {}
        pending = deque(first)
        while pending or waiting or flying:
            while pending:
                launch = pending.popleft()
                if launch in self._asked:
                    continue
                self._asked.add(launch)
                found = self._order.cache.launch(self._key(launch))
                if found is None or self._lacks_ptx(found):
                    waiting.append(launch)
                else:
                    pending.extend(self._took(launch, found, take))
            while waiting and len(flying) < self._workers.room:
                launch = waiting.popleft()
                flying[launch] = self._key(launch)
                self._submit(launch, flying[launch])
            if flying:
                total = len(self._objects) + len(waiting) + len(flying)
                self._progress(len(self._objects), total, f"{self._target}: compiling{self._workers.where}")
                launch, outcome = self._receive()
                del flying[launch]
                pending.extend(self._took(launch, outcome, take))

    def _lacks_ptx(self, found: Outcome) -> bool:
        return self._order.ptx and found.object is not None and not self._order.cache.has_ptx(found.object.cubin)

    def _took(self, launch: int, outcome: Outcome, take: Callable[[int, Outcome], Iterator[int]]) -> Iterator[int]:
        if outcome.object is not None:
            self._objects[launch] = outcome.object
        return take(launch, outcome)

    def _key(self, launch: int) -> str:
        item = self._trace.launches[launch]
        return launch_digest(self._trace.kernels[item.kernel], item.specialization, self._order.compiler)

    def _submit(self, launch: int, key: str) -> None:
        item = self._trace.launches[launch]
        kernel = self._trace.kernels[item.kernel]
        self._workers.submit(
            CompileTask(
                number=launch,
                module=kernel.module,
                qualname=kernel.qualname,
                specialization=msgspec.to_builtins(item.specialization),
                key=key,
                ptx=self._order.ptx,
            )
        )
        if self._busy is not None:
            busy, self._busy = self._busy, None
            busy()

    def _receive(self) -> tuple[int, Outcome]:
        answer = self._workers.receive()
        launch, outcome = answer.number, self._outcome(answer)
        kernel = self._trace.kernels[self._trace.launches[launch].kernel].qualname
        self.spent[kernel] += answer.seconds  # type: ignore[assignment]
        self.compiled += answer.object is not None and not answer.reused
        self.tasks.append(Task(launch=launch, seconds=answer.seconds, reused=answer.reused, object=outcome.object))
        return launch, outcome

    def _outcome(self, answer: Answer) -> Outcome:
        if answer.object is None:
            return Outcome(failed=answer.failed, rejected=answer.rejected)
        found = self._order.cache.object(answer.object)
        if found is None:
            return Outcome(failed="the build cache lost what was just compiled")
        return Outcome(object=found)


def compiler(target: Target, trace: Trace) -> dict[str, str]:
    """Return what compiles a trace: part of every key of the build cache."""
    return {"target": target.name, "triton": trace.triton_version, "ptxas": trace.ptxas_version}
