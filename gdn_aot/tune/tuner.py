"""Tune: trace what calls of the wanted lengths launch, compile every candidate, measure, choose, write the record."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gdn_aot.providers import require_installed
from gdn_aot.tune import record as records
from gdn_aot.tune.client import Outcome, Session
from gdn_aot.tune.plan import Preparation
from gdn_aot.tune.settle import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from gdn_aot.build.records import Scalar
    from gdn_aot.tune.client import KeyState, Method, Unit
    from gdn_aot.tune.device import CardInfo
    from gdn_aot.tune.objective import Sample
    from gdn_aot.tune.plan import Prepared, Progress, Task
    from gdn_aot.tune.record import ChoiceRecord


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
    regret: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Token count -> median and largest part by which choices of this run are slower than the best for that count."""
    noise: float | None = None
    """Median over all samples of the standard error over the time."""


class _BudgetSpentError(Exception):
    """The time to measure in is over."""


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
    with Preparation(task, progress) as preparation, ExitStack() as stack:
        prepared = preparation.prepared
        session = stack.enter_context(Session(_within(task, prepared), task.job.cache.root.absolute()))
        result = Tuned(path=task.path)
        writer = Writer(task, card, prepared, session.device, existing)
        if task.resume:
            writer.recall()
        run = _Run(task, preparation, session, writer, result, progress)
        try:
            run.all()
        except (_BudgetSpentError, KeyboardInterrupt) as ending:
            result.ended = "the budget is spent" if isinstance(ending, _BudgetSpentError) else "interrupted"
            for unit in prepared.units:
                writer.settle(unit, None)
            writer.save()
            if isinstance(ending, KeyboardInterrupt):
                raise
    result.seconds = {**prepared.seconds, **result.seconds}
    result.keys = len(writer.recalled.union(writer.choices))
    result.regret = _regret(writer.choices.values())
    result.missing = sum(not state.idle for state in prepared.keys.values()) - result.keys
    result.out = sum(tokens > 0 for state in prepared.keys.values() for tokens, _ in state.out.values())
    ratios = [one.noise / one.us for state in prepared.keys.values() for one in _samples(state)]
    result.noise = statistics.median(ratios) if ratios else None
    return result


def _within(task: Task, prepared: Prepared) -> Method:
    """Return the method, with searches that together take no more than half of the budget."""
    pairs = sum(map(len, prepared.wanted.values()))
    if not task.wide or task.budget is None or not pairs:
        return task.method
    return replace(task.method, search_seconds=min(task.method.search_seconds, task.budget / 2 / pairs))


def _regret(choices: Iterable[ChoiceRecord]) -> dict[int, tuple[float, float]]:
    parts: dict[int, list[float]] = {}
    for choice in choices:
        for tokens, part in choice.regret:
            parts.setdefault(tokens, []).append(part)
    return {tokens: (statistics.median(found), max(found)) for tokens, found in sorted(parts.items())}


def _samples(state: KeyState) -> Iterator[Sample]:
    for row in state.samples.values():
        yield from row.values()


class _Run:
    """Measures one unit after another, while the next ones are compiled."""

    def __init__(
        self,
        task: Task,
        preparation: Preparation,
        session: Session,
        writer: Writer,
        result: Tuned,
        progress: Progress,
    ) -> None:
        self._task, self._preparation, self._prepared = task, preparation, preparation.prepared
        self._session, self._writer, self._result, self._progress = session, writer, result, progress
        self._pairs = 0
        """Keys to measure, once for each token count."""

    def all(self) -> None:
        """Compile, measure, choose and save, unit by unit."""
        units = self._prepared.units
        wanted = [
            number
            for number, unit in enumerate(units)
            if self._missing(unit) or any(state.fresh for state in unit.keys.values())
        ]
        self._pairs = self._left(*units)
        ahead = ThreadPoolExecutor(max_workers=1)
        try:
            compiled = [ahead.submit(self._preparation.compile, number) for number in wanted]
            for number, ready in zip(wanted, compiled, strict=True):
                self._preparation.shown = True
                ready.result()
                self._preparation.shown = False
                start = time.monotonic()
                try:
                    self._measure(number, units[number])
                    self._result.dropped |= self._writer.settle(units[number], self._session)
                    self._writer.save()
                finally:
                    spent = self._result.seconds.get("measure", 0.0) + time.monotonic() - start
                    self._result.seconds["measure"] = spent
        finally:
            ahead.shutdown(wait=False, cancel_futures=True)

    def _missing(self, unit: Unit) -> list[tuple[str, tuple[Scalar, ...]]]:
        """Return the keys of a unit that lack a token count."""
        return [key for key, state in unit.keys.items() if self._prepared.wanted[key] - set(state.samples)]

    def _left(self, *units: Unit) -> int:
        """Return how many keys, once for each token count, are still to be measured."""
        wanted = self._prepared.wanted
        states = {key: state for unit in units for key, state in unit.keys.items()}
        return sum(len(wanted[key] - set(state.samples)) for key, state in states.items())

    def _measure(self, number: int, unit: Unit) -> None:
        shape, units = unit.shape, self._prepared.units
        outcome = self._result.outcomes.setdefault(f"{shape.name} tp {shape.tp}", Outcome())
        if not self._missing(unit):
            return
        before, start = self._result.seconds.get("measure", 0.0), time.monotonic()

        def report(outcome: Outcome) -> None:
            spent = before + time.monotonic() - start
            if self._task.budget is not None and spent > self._task.budget:
                raise _BudgetSpentError
            left = self._left(*units)
            done = self._pairs - left
            ahead = f", {spent / done * left:.0f} s left" if done else ""
            what = f"{shape.name} tp {shape.tp} ({number + 1} of {len(units)}): {outcome.called} calls{ahead}"
            self._progress(done, self._pairs, what)

        report(outcome)
        self._session.measure(unit, outcome, report)
