"""Compiling one target on a cluster: which node gets which task, and what becomes of tasks whose node is gone."""

from __future__ import annotations

import json
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from gdn_aot.compiling.cache import digest
from gdn_aot.executors.base import Answer
from gdn_aot.executors.local import answer, payload
from gdn_aot.executors.ray_crew import Done, Lost

if TYPE_CHECKING:
    from gdn_aot.executors.base import CompileTask, Order
    from gdn_aot.executors.ray_crew import Crew, Member

MOST_STRIKES = 3
"""Workers that a task may take with it, each time as the only task there, until it counts as failed."""
_ROOM = 4
"""Tasks per CPU that are worth having."""


class RayCompiling:
    """Compile workers of one target on all nodes.

    A task whose worker is gone goes to another one. If it was there alone, that is a strike against it; if it had
    company, it and its company are run alone from then on. After `MOST_STRIKES` it has failed.
    """

    def __init__(self, crew: Crew, order: Order) -> None:
        self._crew, self._order = crew, order
        self._target = order.target.name
        self._tasks: dict[int, CompileTask] = {}
        self._waiting: deque[int] = deque()
        self._suspects: deque[int] = deque()
        self._strikes: Counter[int] = Counter()
        self._homes: dict[str, str] = {}
        """Kind of launch -> node that had the first of it; see `_kind`."""
        self._kinds: dict[int, str] = {}
        self._answers: deque[Answer] = deque()

    @property
    def room(self) -> int:
        """Enough that no CPU of the cluster waits."""
        return max(_ROOM, _ROOM * sum(member.node.cpus for member in self._crew.members.values()))

    @property
    def where(self) -> str:
        """How many nodes are at it."""
        count = sum(self._target in member.ready for member in self._crew.members.values())
        return f" on {count} node{'' if count == 1 else 's'}"

    def submit(self, task: CompileTask) -> None:
        """Take a task."""
        self._crew.expect(self._order.provider, self._target)
        self._tasks[task.number] = task
        self._kinds[task.number] = _kind(task)
        self._waiting.append(task.number)
        self._feed()

    def receive(self) -> Answer:
        """Wait for the next finished task; errors are those of `gdn_aot.executors.ray_crew.Crew.next`."""
        while not self._answers:
            self._feed()
            match self._crew.next(self._target):
                case Done(member=member, number=number, message=message):
                    self._done(member, number, message)
                case Lost(numbers=numbers, why=why):
                    self._lost(numbers, why)
                case None:
                    pass
        return self._answers.popleft()

    def _feed(self) -> None:
        able = [member for member in self._crew.members.values() if self._target in member.ready & member.checked]
        for member in able:
            if not member.running:
                member.alone = bool(self._suspects)
                if member.alone:
                    self._give(member, self._suspects.popleft())
        draining = bool(self._suspects) and not any(member.alone for member in able)
        if draining:  # one node takes nothing new, to be free for a suspect
            able.remove(min(able, key=lambda member: len(member.running))) if able else None
        for member in able:
            while self._waiting and not member.alone and len(member.running) < _most(member):
                self._give(member, self._pick(member))

    def _pick(self, member: Member) -> int:
        """Take the first waiting task whose kind is this node's or nobody's, else the first."""
        here = member.node.id
        number = next((one for one in self._waiting if self._homes.get(self._kinds[one], here) == here), None)
        if number is None:
            return self._waiting.popleft()
        self._waiting.remove(number)
        self._homes[self._kinds[number]] = here
        return number

    def _give(self, member: Member, number: int) -> None:
        self._crew.compile(member, self._order, number, payload(self._tasks[number]))

    def _done(self, member: Member, number: int, message: dict[str, Any]) -> None:
        member.alone = False
        self._keep(number, message)
        self._answers.append(answer(number, message))
        del self._tasks[number], self._kinds[number]

    def _keep(self, number: int, message: dict[str, Any]) -> None:
        """Put what a node made into the build cache here, as a worker here would have."""
        cache, key = self._order.cache, self._tasks[number].key
        if "rejected" in message:
            cache.put_launch(key, rejected=message["rejected"])
        if "object" in message:
            record = message["record"]
            made = cache.put_object(
                message["object"], message["cubin"], record["metadata"], record["registers"], record["local"]
            )
            if message["text"] is not None:
                cache.put_ptx(made.cubin, message["text"])
            cache.put_launch(key, object_key=message["object"])

    def _lost(self, numbers: tuple[int, ...], why: str) -> None:
        for home in [kind for kind, node in self._homes.items() if node not in self._crew.members]:
            del self._homes[home]
        if len(numbers) > 1:
            self._suspects.extend(numbers)
            return
        for number in numbers:
            self._strikes[number] += 1
            if self._strikes[number] < MOST_STRIKES:
                self._suspects.append(number)
                continue
            failed = f"it ended its worker {MOST_STRIKES} times, the last time: {why}"
            self._answers.append(Answer(number=number, failed=failed))
            del self._tasks[number], self._kinds[number]


def _most(member: Member) -> int:
    """Return how many tasks a node has at one time: one per CPU, and some that wait there already."""
    return member.node.cpus + max(1, member.node.cpus // 4)


def _kind(task: CompileTask) -> str:
    """Return what launches have in common that may have the same IR, and so are compiled once if one node has them.

    That is all but the values of constants: a kernel need not use them.
    """
    plain: dict[str, Any] = json.loads(json.dumps(task.specialization))
    names = [path for path, _ in plain.pop("constants", [])]
    return digest(task.module, task.qualname, plain, names)
