"""Tune: trace what calls of the wanted lengths launch, compile every candidate, measure, choose, write the record."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gdn_aot.providers import require_installed
from gdn_aot.tune import record as records
from gdn_aot.tune.client import Outcome, Session
from gdn_aot.tune.plan import Preparation
from gdn_aot.tune.settle import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gdn_aot.build.records import Scalar
    from gdn_aot.tune.client import KeyState, Unit
    from gdn_aot.tune.device import CardInfo
    from gdn_aot.tune.objective import Sample
    from gdn_aot.tune.plan import Progress, Task


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
    with Preparation(task, progress) as preparation, Session(task.method, task.job.cache.root.absolute()) as session:
        prepared = preparation.prepared
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
    result.missing = sum(not state.idle for state in prepared.keys.values()) - result.keys
    result.out = sum(tokens > 0 for state in prepared.keys.values() for tokens, _ in state.out.values())
    ratios = [one.noise / one.us for state in prepared.keys.values() for one in _samples(state)]
    result.noise = statistics.median(ratios) if ratios else None
    return result


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
        self._deadline: float | None = None

    def all(self) -> None:
        """Compile, measure, choose and save, unit by unit."""
        units = self._prepared.units
        wanted = [number for number, unit in enumerate(units) if self._missing(unit)]
        ahead = ThreadPoolExecutor(max_workers=1)
        try:
            compiled = [ahead.submit(self._preparation.compile, number) for number in wanted]
            for number, ready in zip(wanted, compiled, strict=True):
                self._preparation.shown = True
                ready.result()
                self._preparation.shown = False
                start = time.monotonic()
                if self._deadline is None and self._task.budget is not None:
                    self._deadline = start + self._task.budget
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

    def _measure(self, number: int, unit: Unit) -> None:
        shape, count = unit.shape, len(self._prepared.units)
        outcome = self._result.outcomes.setdefault(f"{shape.name} tp {shape.tp}", Outcome())
        missing = self._missing(unit)
        if not missing:
            return
        start = time.monotonic()

        def report(outcome: Outcome) -> None:
            now = time.monotonic()
            if self._deadline is not None and now > self._deadline:
                raise _BudgetSpentError
            left = len(self._missing(unit))
            done = len(missing) - left
            ahead = f", {(now - start) / done * left:.0f} s left of shape {number + 1} of {count}" if done else ""
            self._progress(done, len(missing), f"{shape.name} tp {shape.tp}: {outcome.called} calls{ahead}")

        report(outcome)
        self._session.measure(unit, outcome, report)
