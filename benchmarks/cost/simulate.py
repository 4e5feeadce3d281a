"""When a list of compile tasks is done on so many cores, and how soon it could be.

Tasks become known as they do in a build: an autotune key asks for the launches of its first candidate, and for those of
the next one only when all of these are compiled and one does not fit. Two keys may ask for the same task; it runs once.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Order: TypeAlias = Literal["asked", "longest", "own"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be done."""

    seconds: tuple[float, ...]
    """CPU seconds of each task."""
    walks: tuple[tuple[tuple[int, ...], ...], ...]
    """For each key its steps: tasks that are asked for when all of the step before are done. Every task is in one."""
    kinds: tuple[int, ...] = ()
    """For what a core must have been started to do each task; empty if for nothing."""
    start: float = 0.0
    """Seconds in which a core starts for another kind than that of its last task."""


def bound(plan: Plan, cores: int) -> float:
    """Return seconds that no schedule beats: all work spread evenly, or the longest chain of tasks.

    Each kind is started at least once, and a chain begins with a start.
    """
    if not plan.seconds:
        return 0.0
    starts = len(set(plan.kinds)) * plan.start
    alone = replace(plan, kinds=(), start=0.0)
    chain = schedule(alone, len(plan.seconds))
    return max((sum(plan.seconds) + starts) / cores, chain + (plan.start if plan.kinds else 0.0))


def schedule(plan: Plan, cores: int, order: Order = "asked") -> float:
    """Return the seconds until all is done.

    Args:
        plan: What is to be done.
        cores: How many tasks run at once.
        order: What a free core takes. ``asked``: the task that was asked for first. ``longest``: the longest, which one
            would have to know before. ``own``: the first of those for which the core was started; it starts for another
            kind only if what waits there would take the cores of that kind longer than a start.
    """
    return _Run(plan, cores, order).finish()


class _Run:
    """One simulation. Cores are alike, so only how many idle ones were started for each kind is known."""

    def __init__(self, plan: Plan, cores: int, order: Order) -> None:
        self._plan, self._order = plan, order
        self._kinds = plan.kinds or (0,) * len(plan.seconds)
        self._idle: dict[int, int] = defaultdict(int, {0 if not plan.kinds else _FRESH: cores})
        self._cores: dict[int, int] = defaultdict(int)
        self._asked: set[int] = set()
        self._done: set[int] = set()
        self._ready: dict[int, list[tuple[float, int, int]]] = defaultdict(list)
        """Tasks that were asked for, as (rank, number, task): of each kind on its own in order ``own``."""
        self._running: list[tuple[float, int]] = []
        self._position = [-1] * len(plan.walks)
        self._left = [0] * len(plan.walks)
        self._waiting: dict[int, list[int]] = defaultdict(list)
        self._now = 0.0
        self._mean = _means(plan.seconds, self._kinds)

    def finish(self) -> float:
        for walk in range(len(self._plan.walks)):
            self._advance(walk)
        self._begin()
        while self._running:
            self._now, task = heapq.heappop(self._running)
            self._idle[self._kinds[task]] += 1
            self._done.add(task)
            for walk in self._waiting.pop(task, ()):
                self._left[walk] -= 1
                if not self._left[walk]:
                    self._advance(walk)
            self._begin()
        return self._now

    def _advance(self, walk: int) -> None:
        """Ask for the next step of a walk that has something left to do."""
        steps = self._plan.walks[walk]
        while self._position[walk] + 1 < len(steps):
            self._position[walk] += 1
            missing = {task for task in steps[self._position[walk]] if task not in self._done}
            for task in sorted(missing):
                self._waiting[task].append(walk)
                if task not in self._asked:
                    self._asked.add(task)
                    rank = -self._plan.seconds[task] if self._order == "longest" else 0.0
                    place = self._kinds[task] if self._order == "own" else _FRESH
                    heapq.heappush(self._ready[place], (rank, len(self._asked), task))
            self._left[walk] = len(missing)
            if missing:
                return

    def _begin(self) -> None:
        """Give tasks to idle cores."""
        if self._order == "own":
            self._begin_own()
            return
        ready = self._ready[_FRESH]
        while ready and self._some_idle():
            self._run(heapq.heappop(ready)[2])

    def _begin_own(self) -> None:
        for kind in [kind for kind, count in self._idle.items() if count]:
            while self._idle[kind] and self._ready[kind]:
                self._run(heapq.heappop(self._ready[kind])[2])
        while self._some_idle():
            worth = [kind for kind, ready in self._ready.items() if ready and self._worth_a_start(kind)]
            if not worth:
                return
            most = max(worth, key=lambda kind: self._load(kind, self._cores[kind] + 1))
            self._run(heapq.heappop(self._ready[most])[2])

    def _load(self, kind: int, cores: int) -> float:
        return len(self._ready[kind]) * self._mean[kind] / cores

    def _worth_a_start(self, kind: int) -> bool:
        return not self._cores[kind] or self._load(kind, self._cores[kind]) > self._plan.start

    def _some_idle(self) -> bool:
        return any(self._idle.values())

    def _run(self, task: int) -> None:
        """Run a task on an idle core: one of its kind, else one never started, else any."""
        kind = self._kinds[task]
        seconds = self._plan.seconds[task]
        if self._idle[kind]:
            self._idle[kind] -= 1
        else:
            fallback = next(other for other, count in self._idle.items() if count)
            before = _FRESH if self._idle[_FRESH] else fallback
            self._idle[before] -= 1
            self._cores[before] -= 1
            self._cores[kind] += 1
            seconds += self._plan.start
        heapq.heappush(self._running, (self._now + seconds, task))


_FRESH = -1
"""Kind of a core that was never started."""


def _means(seconds: Sequence[float], kinds: Sequence[int]) -> dict[int, float]:
    """Return the mean of the seconds of each kind."""
    found: dict[int, list[float]] = defaultdict(list)
    for kind, each in zip(kinds, seconds, strict=True):
        found[kind].append(each)
    return {kind: sum(each) / len(each) for kind, each in found.items()}
