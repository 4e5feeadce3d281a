"""Compile what a chooser wants of a trace, from the build cache where possible."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from gdn_aot.choosing.choose import Chooser
from gdn_aot.launches import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gdn_aot.choosing.choose import Choices
    from gdn_aot.choosing.known import Known
    from gdn_aot.compiling.executor import Answer, Compiling, Order
    from gdn_aot.launches import CompiledKernel
    from gdn_aot.tracing.records import Trace


class Compilation:
    """Compiles what the chooser wants, from the cache where possible.

    ``busy`` is called when the first task has been given to the workers.
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
        self.compiled = 0
        """Kernels that the compiler really ran for; the rest came from the cache."""
        self.spent: Counter[str] = Counter()
        """CPU seconds of the compile workers per kernel."""

    def choose(self, known: Known, *, all_candidates: bool, final: bool) -> Choices:
        """Compile until every key has a sound candidate or none is left, and, if asked to, all of the provider's, too.

        ``final`` is the chooser's.
        """
        chooser = Chooser(self._trace, self._target, known.measured, known.suggest, final=final)
        self._run(chooser.wanted(), chooser.take)
        if all_candidates:
            self.every(
                launch
                for item in self._trace.tunings
                for variant in item.variants
                for launch in variant[: item.offered]
            )
        return chooser.result

    def kept(self, choices: Choices, *, all_candidates: bool = False) -> dict[int, CompiledKernel]:
        """Return the compiled kernels that go into the artifact, by launch."""
        if all_candidates:
            return dict(self._objects)
        wanted = set(choices.plain).union(*(chosen.launches for chosen in choices.chosen))
        return {launch: self._objects[launch] for launch in wanted}

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
        flying: set[int] = set()
        pending = deque(first)
        while pending or waiting or flying:
            while pending:
                launch = pending.popleft()
                if launch in self._asked:
                    continue
                self._asked.add(launch)
                found = self._order.cache.launch(self._order.key(self._trace, launch))
                if found is None or (found.object is not None and self._order.lacks(found.object)):
                    waiting.append(launch)
                else:
                    pending.extend(self._took(launch, found, take))
            while waiting and len(flying) < self._workers.room:
                launch = waiting.popleft()
                flying.add(launch)
                self._submit(launch)
            if flying:
                total = len(self._objects) + len(waiting) + len(flying)
                self._progress(len(self._objects), total, f"{self._target}: compiling{self._workers.where}")
                answer = self._workers.receive()
                flying.remove(answer.number)
                pending.extend(self._took(answer.number, self._outcome(answer), take))

    def _took(self, launch: int, outcome: Outcome, take: Callable[[int, Outcome], Iterator[int]]) -> Iterator[int]:
        if outcome.object is not None:
            self._objects[launch] = outcome.object
        return take(launch, outcome)

    def _submit(self, launch: int) -> None:
        self._workers.submit(self._order.task(self._trace, launch))
        if self._busy is not None:
            busy, self._busy = self._busy, None
            busy()

    def _outcome(self, answer: Answer) -> Outcome:
        kernel = self._trace.kernels[self._trace.launches[answer.number].kernel].qualname
        self.spent[kernel] += answer.seconds  # type: ignore[assignment]
        self.compiled += answer.object is not None and not answer.reused
        if answer.object is None:
            return Outcome(failed=answer.failed, rejected=answer.rejected)
        found = self._order.cache.object(answer.object)
        return Outcome(object=found) if found else Outcome(failed="the build cache lost what was just compiled")
