"""When a list of compile tasks is done on so many cores, and how soon it could be.

Tasks become known as they do in a build: an autotune key asks for the launches of its first candidate, and for those of
the next one only when all of these are compiled and one does not fit. Two keys may ask for the same task; it runs once.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, field, replace


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


def schedule(plan: Plan, cores: int, *, longest_first: bool = False) -> float:
    """Return the seconds until all is done if a free core takes the next task that was asked for.

    Args:
        plan: What is to be done.
        cores: How many tasks run at once.
        longest_first: Take the longest task that was asked for instead, which one would have to know before.
    """
    return _Run(plan, cores, longest_first=longest_first).finish()


@dataclass(slots=True)
class _Idle:
    """Cores without a task, by what they were started for."""

    fresh: int
    """Cores that were started for nothing yet."""
    by_kind: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def take(self, kind: int | None) -> bool | None:
        """Take a core for a task, one of its kind if there is one; return whether it must start, None if none is idle.

        Else it is one that was never started, else the first of those that were for another kind.
        """
        if kind is not None and self.by_kind.get(kind):
            self._drop(kind)
            return False
        if self.fresh:
            self.fresh -= 1
            return kind is not None
        for other in self.by_kind:
            self._drop(other)
            return True
        return None

    def give(self, kind: int | None) -> None:
        if kind is None:
            self.fresh += 1
        else:
            self.by_kind[kind] += 1

    def _drop(self, kind: int) -> None:
        self.by_kind[kind] -= 1
        if not self.by_kind[kind]:
            del self.by_kind[kind]


class _Run:
    """One simulation."""

    def __init__(self, plan: Plan, cores: int, *, longest_first: bool) -> None:
        self._plan, self._longest_first = plan, longest_first
        self._idle = _Idle(cores)
        self._asked: set[int] = set()
        self._done: set[int] = set()
        self._ready: list[tuple[float, int, int]] = []
        self._running: list[tuple[float, int, int]] = []
        self._position = [-1] * len(plan.walks)
        self._left = [0] * len(plan.walks)
        self._waiting: dict[int, list[int]] = defaultdict(list)
        self._now = 0.0

    def finish(self) -> float:
        for walk in range(len(self._plan.walks)):
            self._advance(walk)
        while self._ready or self._running:
            self._begin()
            self._now, _, task = heapq.heappop(self._running)
            self._idle.give(self._kind(task))
            self._done.add(task)
            for walk in self._waiting.pop(task, ()):
                self._left[walk] -= 1
                if not self._left[walk]:
                    self._advance(walk)
        return self._now

    def _kind(self, task: int) -> int | None:
        return self._plan.kinds[task] if self._plan.kinds else None

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
                    rank = -self._plan.seconds[task] if self._longest_first else 0.0
                    heapq.heappush(self._ready, (rank, len(self._asked), task))
            self._left[walk] = len(missing)
            if missing:
                return

    def _begin(self) -> None:
        """Give tasks to idle cores."""
        while self._ready:
            task = self._ready[0][2]
            starts = self._idle.take(self._kind(task))
            if starts is None:
                return
            heapq.heappop(self._ready)
            end = self._now + self._plan.seconds[task] + (self._plan.start if starts else 0.0)
            heapq.heappush(self._running, (end, task, task))
