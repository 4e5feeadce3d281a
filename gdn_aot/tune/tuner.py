"""Tune: trace what calls of the wanted lengths launch, compile every candidate, measure, choose, write the record."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gdn_aot.providers import require_installed
from gdn_aot.tune import record as records
from gdn_aot.tune.client import Outcome, Session
from gdn_aot.tune.plan import prepare
from gdn_aot.tune.settle import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gdn_aot.tune.client import KeyState, Unit
    from gdn_aot.tune.device import CardInfo
    from gdn_aot.tune.objective import Sample
    from gdn_aot.tune.plan import Prepared, Progress, Task


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
    prepared = prepare(task, progress)
    result = Tuned(path=task.path, seconds=dict(prepared.seconds))
    start = time.monotonic()
    with Session(task.method, task.job.cache.root.absolute()) as session:
        writer = Writer(task, card, prepared, session.device, existing)
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
    result.keys = len(writer.recalled.union(writer.choices))
    result.missing = len(prepared.keys) - result.keys
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
