"""The executor on a Ray cluster: tracing, choosing and packing here, compiling in tasks of Ray on its nodes.

Ray places the tasks, takes in nodes that come, and tries again what is lost. A task is a batch of launches of one
target. One that is lost with its worker or its node is told, and its launches are done again one by one, which Ray
tries `MOST_TRIES` times: so a launch that takes its worker along is found, and none that was beside it suffers.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gdn_aot._text import plural, shown
from gdn_aot.codec import Digest
from gdn_aot.compiling import node
from gdn_aot.compiling.client import WorkerError
from gdn_aot.compiling.executor import Answer
from gdn_aot.compiling.versions import versions
from gdn_aot.errors import ClusterError, NotWritableError, UsageError
from gdn_aot.launches import CompiledKernel
from gdn_aot.machine.cluster import Cluster, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.client import Worker
    from gdn_aot.compiling.executor import CompileTask, Order

MOST_TRIES = 3
"""Times that a launch is tried alone until it counts as failed."""
POLL_SECONDS = 1.0
"""How often the nodes of the cluster are looked at."""
SAY_SECONDS = 30.0
"""After which it is said that nothing comes of the tasks, as other work has the CPUs."""
MARGIN_SECONDS = node.MARGIN_SECONDS
_MOST_CPUS = 8
"""Of one task: a larger node has several, each of which imports the provider."""
_ROOM = 4
"""Launches per CPU that are worth having."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    order: Order | None = None
    """None for one that only prepares a worker."""
    tasks: tuple[CompileTask, ...] = ()


class _Reply(Answer, frozen=True, kw_only=True):
    """What a node says of one task, whose number is its place in the batch, with what was made."""

    object: Digest | None = None
    record: CompiledKernel | None = None
    cubin: bytes = b""
    text: str | None = None
    """The PTX, if it was asked for."""
    not_writable: str | None = None


class RayExecutor:
    """Works on the nodes of a cluster. Entering connects.

    ``address`` is ``HOST:PORT`` of the cluster's head, or ``auto`` for the one that this machine is a node of;
    ``say`` is told what happens to nodes.
    """

    def __init__(self, address: str, say: Callable[[str], None]) -> None:
        self.cluster = Cluster(address)
        self.say = say
        self._job = uuid.uuid4().hex[:12]
        self._flying: dict[Any, _Batch] = {}
        """The tasks of Ray that have not come back."""
        self._heard, self._told = time.monotonic(), False
        self._versions: dict[str, dict[str, str]] = {}
        self._first: set[str] = set()
        """Nodes that were there at the start: a wrong version on one of these ends the command."""
        self._left_out: set[str] = set()
        self.seen: set[str] = set()
        """Nodes that something came back from."""

    def __enter__(self) -> Self:
        self.cluster.__enter__()
        return self

    def __exit__(self, *left: object) -> None:
        try:
            self.cluster.cancel(list(self._flying))
            self.cluster.on_every_node(node.end, self._job)
        finally:
            self.cluster.__exit__(*left)

    def describe(self) -> str:
        """Return in a few words which cluster this is."""
        return f"the Ray cluster at {self.cluster.place()} with {len(self.cluster.nodes())} nodes"

    def cpus(self) -> tuple[int, int]:
        """Return (CPUs of a task, tasks that the nodes have room for).

        Raises:
            ClusterError: No node has CPUs.
        """
        found = [one.cpus for one in self.cluster.nodes() if one.cpus and one.id not in self._left_out]
        if not found:
            raise ClusterError("no node of the cluster is left to compile on: no present node offers CPUs")
        each = min(_MOST_CPUS, *found)
        return each, sum(cpus // each for cpus in found)

    def expect(self, provider: ProviderInfo, targets: Sequence[Target]) -> None:
        """Have the provider imported for these targets, as often as there is room for a task."""
        each, slots = self.cpus()
        self._first = self._first or {one.id for one in self.cluster.nodes()}
        for target in targets:
            if target.name not in self._versions:
                here = self._versions[target.name] = versions(provider, target.name)
                for _ in range(slots):
                    self._submit(_Batch(), node.prepare, each, self._job, provider.name, target.name, here)

    @contextlib.contextmanager
    def compiling(self, order: Order, worker: Callable[[], Worker]) -> Iterator[RayCompiling]:
        """Return compile workers on every node; the worker here only traces."""
        del worker
        yield RayCompiling(self, order)

    def compile(self, order: Order, tasks: tuple[CompileTask, ...]) -> None:
        """Hand Ray a batch of launches."""
        each, _ = self.cpus()
        pool = {"compiler": order.compiler, "jobs": each, "timeout": order.timeout, "margin": MARGIN_SECONDS}
        target = order.target.name
        where = (self._job, order.provider.name, target, self._versions[target])
        tries, payloads = MOST_TRIES if len(tasks) == 1 else 1, msgspec.to_builtins(tasks)
        self._submit(_Batch(order=order, tasks=tasks), node.compile_batch, each, *where, pool, payloads, tries=tries)

    def _submit(self, batch: _Batch, function: Any, cpus: int, *arguments: Any, tries: int = 1) -> None:
        call = self.cluster.task(function, arguments, cpus=cpus, tries=tries, without=self._left_out)
        self._flying[call] = batch

    @property
    def batches(self) -> int:
        """How many batches of launches have not come back."""
        return sum(batch.order is not None for batch in self._flying.values())

    def next(self) -> tuple[tuple[CompileTask, ...], list[dict[str, Any]] | str] | None:
        """Wait a moment for launches to come back: with their answers, or why they were lost. None if none did.

        Raises:
            UsageError: A node that was there from the start has other versions.
            ClusterError: No node is left.
            WorkerError: A node cannot import the provider.
        """
        call = self.cluster.first(list(self._flying), POLL_SECONDS)
        if call is None:
            self._check_waiting()
            return None
        batch = self._flying.pop(call)
        self._heard = time.monotonic()
        try:
            where, message = self.cluster.get(call)
        except Exception as error:  # noqa: BLE001 - whatever Ray says of a task that it lost
            return (batch.tasks, reason(error)) if batch.order else None
        self.seen.add(where)
        if "broken" in message:
            raise WorkerError(f"on node {self.cluster.name(where)}: {message['broken']}")
        if "differs" in message:
            self._leave_out(where, message["differs"])
            if batch.order:
                self.compile(batch.order, batch.tasks)
            return None
        return (batch.tasks, message["answers"]) if batch.order else None

    def _leave_out(self, where: str, wrong: str) -> None:
        text = f"node {self.cluster.name(where)} cannot work for this machine: {wrong}"
        if where in self._first:
            raise UsageError(text, hint="install the same versions of gdn-aot, Triton and the provider on every node")
        if where not in self._left_out:
            self._left_out.add(where)
            self.say(f"{text}: it is left out")

    def _check_waiting(self) -> None:
        self.cpus()
        if self._flying and not self._told and time.monotonic() - self._heard > SAY_SECONDS:
            self._told = True
            self.say("waiting for CPUs of the cluster: other work may hold them, ray status shows it")


class RayCompiling:
    """Compile workers of one target on all nodes."""

    def __init__(self, executor: RayExecutor, order: Order) -> None:
        self._executor, self._order = executor, order
        self._waiting: deque[CompileTask] = deque()
        self._answers: deque[Answer] = deque()

    @property
    def room(self) -> int:
        """Enough that no CPU of the cluster waits."""
        each, slots = self._executor.cpus()
        return _ROOM * each * slots

    @property
    def where(self) -> str:
        """How many nodes are at it."""
        return f" on {plural(len(self._executor.seen), 'node')}"

    def submit(self, task: CompileTask) -> None:
        """Take a task; it is sent with others."""
        self._waiting.append(task)

    def receive(self) -> Answer:
        """Wait for the next finished task; errors are those of `RayExecutor.next`."""
        self._executor.expect(self._order.provider, [self._order.target])
        while not self._answers:
            self._send()
            came = self._executor.next()
            if came is None:
                continue
            tasks, outcome = came
            if isinstance(outcome, str):
                self._lost(tasks, outcome)
            else:
                self._answers.extend(self._taken(tasks, outcome))
        return self._answers.popleft()

    def _send(self) -> None:
        """Send what waits, in as many batches as keep all nodes busy, and one more for each to go on with."""
        each, slots = self._executor.cpus()
        free = 2 * slots - self._executor.batches
        size = min(_ROOM * each, math.ceil(len(self._waiting) / max(free, 1)))
        while self._waiting and free > 0:
            count = min(size, len(self._waiting))
            self._executor.compile(self._order, tuple(self._waiting.popleft() for _ in range(count)))
            free -= 1

    def _lost(self, tasks: tuple[CompileTask, ...], why: str) -> None:
        if len(tasks) > 1:
            self._executor.say(f"a task of {len(tasks)} kernels was lost: {why}; they are compiled again")
            for task in tasks:
                self._executor.compile(self._order, (task,))
            return
        failed = f"it ended its worker {MOST_TRIES} times, the last time: {why}"
        self._answers.extend(Answer(number=task.number, failed=failed) for task in tasks)

    def _taken(self, tasks: tuple[CompileTask, ...], messages: list[Any]) -> Iterator[Answer]:
        """Yield the answer to each task: what a node sent, if it is one."""
        left, why = dict(enumerate(tasks)), "it says nothing of this kernel"
        for message in messages:
            try:
                reply = msgspec.convert(message, _Reply)
            except (ValueError, RecursionError) as error:
                why = shown(error)
                continue
            if task := left.pop(reply.number, None):
                yield self._keep(task, reply)
        for task in left.values():
            yield Answer(number=task.number, failed=f"what the node sent is no answer: {why}")

    def _keep(self, task: CompileTask, reply: _Reply) -> Answer:
        """Put what a node made into the build cache here, as a worker here would have."""
        if reply.not_writable is not None:
            raise NotWritableError(
                f"on a node: {shown(reply.not_writable)}", hint="free space in the node's TMPDIR, or set it"
            )
        cache, made = self._order.cache, reply.record
        if reply.rejected is not None:
            cache.put_launch(task.key, rejected=reply.rejected)
        elif reply.object is not None:
            if made is None or made.cubin != hashlib.sha256(reply.cubin).hexdigest():
                return Answer(number=task.number, failed="the node did not send the cubin that it says it has made")
            cache.put_object(reply.object, reply.cubin, made.metadata, made.registers, made.local)
            if reply.text is not None:
                cache.put_ptx(made.cubin, reply.text)
            cache.put_launch(task.key, object_key=reply.object)
        elif reply.failed is None:
            return Answer(number=task.number, failed="the node says nothing of what became of it")
        return Answer(
            number=task.number,
            object=reply.object,
            rejected=reply.rejected,
            failed=reply.failed,
            reused=reply.reused,
            seconds=reply.seconds,
        )
