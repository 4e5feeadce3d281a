"""Tune: trace what calls of the wanted lengths launch, compile every candidate, measure, choose, write the record."""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gdn_aot.errors import ClusterError
from gdn_aot.machine import installed
from gdn_aot.measuring.cards import LostError
from gdn_aot.measuring.client import Findings
from gdn_aot.measuring.fleet import Fleet
from gdn_aot.measuring.plan import Preparation
from gdn_aot.measuring.settle import Writer
from gdn_aot.records import tuning as records
from gdn_aot.records.verdict import derives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from pathlib import Path

    from gdn_aot.launches import KernelKey
    from gdn_aot.machine.card import CardInfo
    from gdn_aot.measuring.cards import Cards
    from gdn_aot.measuring.client import Method, Session, Unit
    from gdn_aot.measuring.plan import PreparedUnits, Progress, TuneTask
    from gdn_aot.records.tuning import MeasuredChoice


@dataclass(kw_only=True)
class Tuned:
    """What tuning came to."""

    path: Path
    card: CardInfo
    keys: int = 0
    """Autotune keys that now have a measured choice of this run, or of the one that it went on from."""
    missing: int = 0
    """Keys that were to be measured and have no choice."""
    unsound: int = 0
    """Keys of this run whose choice spills, as no sound candidate has a time at every token count."""
    out: int = 0
    """Candidates that were found wrong, or that ended their process."""
    outcomes: dict[str, Findings] = field(default_factory=dict)
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


def tune(task: TuneTask, cards: AbstractContextManager[Cards], progress: Progress, say: Callable[[str], None]) -> Tuned:
    """Measure every candidate of every key and write the record after each shape.

    ``progress`` is told how far it is, ``say`` of cards that are lost. A KeyboardInterrupt is raised again when what
    was measured is in the record; so is the loss of the last card.

    Raises:
        NothingSelectedError: There is no card of the target.
        UsageError: The record there is of something else; or the worker does not start.
        ClusterError: All cards are lost.
        NotWritableError: The record cannot be written.
    """
    distribution = task.job.wanted.provider.distribution
    version = installed.require(task.job.wanted.provider.name)
    existing = records.load(task.path, target=task.target.name, distribution=distribution, version=version)
    with ExitStack() as stack:
        info, measured_on = stack.enter_context(cards)
        preparation = stack.enter_context(Preparation(task, progress))
        prepared = preparation.prepared
        result = Tuned(path=task.path, card=info)
        ended: BaseException | None = None
        with Fleet(_within(task, prepared), measured_on, say) as fleet:
            writer = Writer(task, info, prepared, fleet.device, existing)
            if task.resume:
                writer.recall()
            try:
                _Run(task, preparation, fleet, writer, result, progress).all()
            except (_BudgetSpentError, KeyboardInterrupt, ClusterError) as ending:
                ended = ending
        if ended is not None:
            result.ended = "the budget is spent" if isinstance(ended, _BudgetSpentError) else "interrupted"
            for unit in prepared.units:
                writer.settle(unit, None)
            writer.save()
            if not isinstance(ended, _BudgetSpentError):
                raise ended
    _sum_up(result, prepared, writer)
    return result


def _sum_up(result: Tuned, prepared: PreparedUnits, writer: Writer) -> None:
    result.seconds = {**prepared.seconds, **result.seconds}
    result.keys = len(writer.recalled.union(writer.choices))
    result.unsound = sum(map(derives, writer.choices.values()))
    result.regret = _regret(writer.choices.values())
    result.missing = sum(not state.idle for state in prepared.keys.values()) - result.keys
    result.out = sum(tokens > 0 for state in prepared.keys.values() for tokens, _ in state.out.values())
    rows = (row for state in prepared.keys.values() for row in state.samples.values())
    ratios = [one.noise / one.us for row in rows for one in row.values()]
    result.noise = statistics.median(ratios) if ratios else None


def _within(task: TuneTask, prepared: PreparedUnits) -> Method:
    """Return the method, with searches that together take no more than half of the budget."""
    pairs = sum(map(len, prepared.wanted.values()))
    if task.search != "wide" or task.budget is None or not pairs:
        return task.method
    return replace(task.method, search_seconds=min(task.method.search_seconds, task.budget / 2 / pairs))


def _regret(choices: Iterable[MeasuredChoice]) -> dict[int, tuple[float, float]]:
    parts: dict[int, list[float]] = {}
    for choice in choices:
        for tokens, part in choice.regret.items():
            parts.setdefault(tokens, []).append(part)
    return {tokens: (statistics.median(found), max(found)) for tokens, found in sorted(parts.items())}


class _Run:
    """Measures the units, each on the card that is free first, while the next ones are compiled."""

    def __init__(
        self, task: TuneTask, preparation: Preparation, fleet: Fleet, writer: Writer, result: Tuned, progress: Progress
    ) -> None:
        self._task, self._preparation, self._prepared = task, preparation, preparation.prepared
        self._fleet, self._writer, self._result, self._progress = fleet, writer, result, progress
        self._pairs = 0
        """Keys to measure, once for each token count."""
        self._compiled: dict[int, Future[None]] = {}
        self._spent: dict[Session, float] = {}
        """Seconds that each card has measured."""
        self._telling = threading.Lock()

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
            self._compiled = {number: ahead.submit(self._preparation.compile, number) for number in wanted}
            self._fleet.run(wanted, self._one)
        finally:
            ahead.shutdown(wait=False, cancel_futures=True)
            self._result.seconds["measure"] = max(self._spent.values(), default=0.0)

    def _one(self, number: int, session: Session) -> None:
        """Measure one unit, in the thread of a card."""
        self._wait(self._compiled[number])
        unit, start = self._prepared.units[number], time.monotonic()
        before = self._spent.get(session, 0.0)
        try:
            with self._fleet.measuring():
                self._preparation.shown = False
                self._measure(number, unit, session, before)
                dropped = self._writer.settle(unit, session)
                with self._telling:
                    self._result.dropped |= dropped
                self._writer.save()
        finally:
            self._spent[session] = before + time.monotonic() - start

    def _wait(self, compiled: Future[None]) -> None:
        while not self._fleet.stopped:
            self._preparation.shown = self._fleet.idle
            try:
                return compiled.result(timeout=1.0)
            except NotYetError:
                if compiled.done():
                    raise
        raise LostError("measuring was stopped")

    def _missing(self, unit: Unit) -> list[KernelKey]:
        """Return the keys of a unit that lack a token count."""
        return [key for key, state in unit.keys.items() if self._prepared.wanted[key] - set(state.samples)]

    def _left(self, *units: Unit) -> int:
        """Return how many keys, once for each token count, are still to be measured."""
        wanted = self._prepared.wanted
        states = {key: state for unit in units for key, state in unit.keys.items()}
        return sum(len(wanted[key] - set(state.samples)) for key, state in states.items())

    def _measure(self, number: int, unit: Unit, session: Session, before: float) -> None:
        shape, units = unit.shape, self._prepared.units
        with self._telling:
            outcome = self._result.outcomes.setdefault(f"{shape.name} tp {shape.tp}", Findings())
        if not self._missing(unit):
            return
        start = time.monotonic()

        def report(outcome: Findings) -> None:
            spent = before + time.monotonic() - start
            if self._task.budget is not None and spent > self._task.budget:
                raise _BudgetSpentError
            with self._telling:
                left = self._left(*units)
                done = self._pairs - left
                what = f"{shape.name} tp {shape.tp} ({number + 1} of {len(units)}): {outcome.called} calls"
                self._progress(done, self._pairs, what)

        report(outcome)
        session.measure(unit, outcome, report)
