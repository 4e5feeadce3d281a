"""Compile workers on the nodes of a cluster: one actor each, started, checked, replaced, and given up."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gdn_aot.errors import ClusterError, NotWritableError, UsageError
from gdn_aot.executors.ray_cluster import reason, when_done
from gdn_aot.executors.ray_node import CompileNode
from gdn_aot.executors.versions import difference, versions
from gdn_aot.tracing.client import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.executors.base import Order
    from gdn_aot.executors.ray_cluster import Cluster, Node

POLL_SECONDS = 1.0
"""How often the nodes of the cluster are looked at."""
START_SECONDS = 180.0
"""In which at least one node must be ready. More than importing takes; other work may hold the CPUs."""
MARGIN_SECONDS = 60.0
"""Beyond the time that a kernel may take, in which a member with tasks has to answer one of them."""
MOST_STARTS = 3
"""Times that compile workers on a node may end before they are ready until the node is given up."""


@dataclass(kw_only=True, slots=True)
class Member:
    """Compile workers on one node."""

    node: Node
    actor: Any
    checked: set[str] = field(default_factory=set)
    """Targets for which its versions are those here."""
    ready: set[str] = field(default_factory=set)
    """Targets whose provider is imported there."""
    running: set[int] = field(default_factory=set)
    alone: bool = False
    """What it runs is not to have company."""
    heard: float = 0.0
    """When it last answered a task, or began the first of several; `time.monotonic`."""
    patience: float = 0.0
    """Seconds in which it has to answer one of its tasks: a kernel that takes too long is ended there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A call to a member that came back, or did not."""

    member: Member
    what: str
    target: str
    number: int
    """Of the task, or -1."""
    outcome: Future[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A task came back."""

    member: Member
    number: int
    message: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """A member is gone, and what it ran with it."""

    member: Member
    numbers: tuple[int, ...]
    why: str


class Crew:
    """The compile workers of all nodes.

    Args:
        cluster: Where.
        say: Told when nodes come and go.
    """

    def __init__(self, cluster: Cluster, say: Callable[[str], None]) -> None:
        self._cluster, self._say = cluster, say
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.members: dict[str, Member] = {}
        self._targets: dict[str, tuple[ProviderInfo, dict[str, str]]] = {}
        self._failed_starts: dict[str, list[str]] = {}
        self._given_up: dict[str, str] = {}
        self._looked = self._idle_since = time.monotonic()
        self._first: set[str] = set()
        """Nodes that were there at the start: a wrong version on one of these ends the command."""
        self._closed = False

    def expect(self, provider: ProviderInfo, target: str) -> None:
        """Start the workers of a target on every node.

        Raises:
            ClusterError: No node has CPUs.
        """
        if target in self._targets:
            return
        first = not self._targets
        self._targets[target] = provider, versions(provider, target)
        for member in self.members.values():
            self._prepare(member, target)
        if first:
            self._first = {node.id for node in self._cluster.nodes()}
            self._enlist()
            self._check_left("")

    def end(self, target: str) -> None:
        """End the workers of a target."""
        self._targets.pop(target, None)
        for member in self.members.values():
            member.actor.end.remote(target)
            member.checked.discard(target)
            member.ready.discard(target)

    def close(self) -> None:
        """End everything on all nodes."""
        self._closed = True
        members, self.members = list(self.members.values()), {}
        self._cluster.end([member.actor.close.remote() for member in members])
        for member in members:
            self._cluster.kill(member.actor)

    def compile(self, member: Member, order: Order, number: int, payload: dict[str, Any]) -> None:
        """Give a member a task. It has a compile worker for each of its CPUs."""
        if not member.running:
            member.heard, member.patience = time.monotonic(), order.timeout + MARGIN_SECONDS
        member.running.add(number)
        target = order.target.name
        pool = {"compiler": dict(order.compiler), "jobs": member.node.cpus, "timeout": order.timeout}
        self._call(member, "compile", target, target, pool, payload, number=number)

    def next(self, target: str) -> Done | Lost | None:
        """Wait for what comes next, for a moment.

        Args:
            target: What is compiled now.

        Raises:
            UsageError: A node that was there from the start has other versions.
            ClusterError: No node is left, or none gets ready.
            WorkerError: A node cannot import the provider.
            NotWritableError: A node cannot write its build cache.
        """
        if time.monotonic() - self._looked > POLL_SECONDS:
            self._look(target)
        if self._events.empty() and (silent := self._silent()):
            return self._lose(silent, f"it answered none of its tasks in {silent.patience:g} s")
        try:
            event = self._events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return None
        if self._closed:
            raise WorkerError("the work was stopped")
        if self.members.get(event.member.node.id) is not event.member:
            return None  # of a member that is gone already
        error = event.outcome.exception()
        if error is not None:
            return self._lose(event.member, reason(error))
        return self._take(event, event.outcome.result())

    def _take(self, event: Event, message: Any) -> Done | Lost | None:
        member, node = event.member, event.member.node
        if event.what == "versions":
            self._check(member, event.target, message)
            return None
        if "broken" in message:
            raise WorkerError(f"on node {node.name}: {message['broken']}")
        if "not_writable" in message:
            raise NotWritableError(
                f"on node {node.name}: {message['not_writable']}", hint="free space in the node's TMPDIR, or set it"
            )
        if "ended" in message:
            return self._lose(member, message["ended"])
        if event.what == "prepare":
            if event.target in self._targets:
                member.ready.add(event.target)
            self._failed_starts.pop(node.id, None)
            return None
        member.running.discard(event.number)
        member.heard = time.monotonic()
        return Done(member=member, number=event.number, message=message)

    def _check(self, member: Member, target: str, found: dict[str, str]) -> None:
        if target not in self._targets:
            return
        provider, here = self._targets[target]
        wrong = difference(here, found, provider.distribution)
        if not wrong:
            member.checked.add(target)
            return
        text = f"node {member.node.name} cannot work for this machine: {wrong}"
        if member.node.id in self._first:
            raise UsageError(text, hint="install the same versions of gdn-aot, Triton and the provider on every node")
        self._drop(member, text)

    def _drop(self, member: Member, why: str) -> None:
        del self.members[member.node.id]
        self._cluster.kill(member.actor)
        self._given_up[member.node.id] = why
        self._say(f"{why}: it is left out")

    def _lose(self, member: Member, why: str) -> Lost:
        node, numbers = member.node, tuple(sorted(member.running))
        del self.members[node.id]
        self._cluster.kill(member.actor)
        what = f"its {len(numbers)} tasks are done again" if numbers else "it had no task"
        self._say(f"compile workers on node {node.name} ended: {why}; {what}")
        if not member.ready:
            starts = self._failed_starts.setdefault(node.id, [])
            starts.append(why)
            if len(starts) >= MOST_STARTS:
                self._given_up[node.id] = f"node {node.name} was given up after {len(starts)} starts: {why}"
                self._say(self._given_up[node.id])
        self._enlist()
        self._check_left(why)
        return Lost(member=member, numbers=numbers, why=why)

    def _silent(self) -> Member | None:
        """Return a member that has tasks and hangs: its node is well, but nothing comes from it."""
        now = time.monotonic()
        waiting = (member for member in self.members.values() if member.running)
        return next((member for member in waiting if now - member.heard > member.patience), None)

    def _look(self, target: str) -> None:
        """See which nodes have come, and that one gets ready."""
        self._looked = time.monotonic()
        self._enlist()
        if any(target in member.ready for member in self.members.values()):
            self._idle_since = self._looked
        elif self._looked - self._idle_since > START_SECONDS:
            names = ", ".join(member.node.name for member in self.members.values())
            raise ClusterError(
                f"no compile worker started in {START_SECONDS:g} s on {names or 'any node'}",
                hint="other work may hold the CPUs of the nodes: ray status shows it",
            )
        else:
            self._check_left("")

    def _enlist(self) -> None:
        for node in self._cluster.nodes():
            if node.cpus < 1 or node.id in self.members or node.id in self._given_up:
                continue
            actor = self._cluster.actor(CompileNode, node, num_cpus=node.cpus)
            member = self.members[node.id] = Member(node=node, actor=actor)
            if node.id not in self._first and self._first:
                self._say(f"node {node.name} has come")
            for target in self._targets:
                self._prepare(member, target)

    def _check_left(self, why: str) -> None:
        if not self.members:
            reasons = "; ".join([*self._given_up.values(), *([why] if why else [])])
            raise ClusterError(
                "no node of the cluster is left to compile on" + (f": {reasons}" if reasons else ": none offers CPUs")
            )

    def _prepare(self, member: Member, target: str) -> None:
        provider = self._targets[target][0].name
        self._call(member, "versions", target, provider, target)
        self._call(member, "prepare", target, provider, target)

    def _call(self, member: Member, what: str, target: str, *arguments: Any, number: int = -1) -> None:
        def tell(outcome: Future[Any]) -> None:
            self._events.put(Event(member=member, what=what, target=target, number=number, outcome=outcome))

        when_done(getattr(member.actor, what).remote(*arguments), tell)
