"""The executor without a cluster: the worker that traced a target compiles."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from gdn_aot.compiling.executor import Answer
from gdn_aot.errors import NotWritableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.client import Worker
    from gdn_aot.compiling.executor import CompileTask, Order

_TASKS_PER_JOB = 4


class LocalExecutor:
    """Works on this machine."""

    def expect(self, provider: ProviderInfo, targets: Sequence[Target]) -> None:
        """Do nothing: the pipeline starts the next target's worker, which traces first."""

    @contextlib.contextmanager
    def compiling(self, order: Order, worker: Callable[[], Worker]) -> Iterator[LocalCompiling]:
        """Return the pool of the worker that traced the target. It ends with that worker."""
        yield LocalCompiling(order, worker)


class LocalCompiling:
    """Compile workers forked by the worker of the target."""

    def __init__(self, order: Order, worker: Callable[[], Worker]) -> None:
        self._order, self._get = order, worker
        self._worker: Worker | None = None

    @property
    def room(self) -> int:
        """Enough that no compile worker waits for the next task."""
        return _TASKS_PER_JOB * self._order.jobs

    @property
    def where(self) -> str:
        """Nothing: it is here."""
        return ""

    def submit(self, task: CompileTask) -> None:
        """Queue a task in the worker."""
        if self._worker is None:
            order, self._worker = self._order, self._get()
            self._worker.start_pool(order.cache, order.compiler, order.jobs, order.timeout)
        self._worker.submit(task.number, payload(task))

    def receive(self) -> Answer:
        """Wait for the worker's next answer."""
        message = self._get().expect("compiled")
        if "not_writable" in message:
            raise NotWritableError(message["not_writable"], hint="set GDN_AOT_HOME to a directory with free space")
        return answer(message["task"], message)


def payload(task: CompileTask) -> dict[str, Any]:
    """Return a task as the worker takes it."""
    return {
        "module": task.module,
        "qualname": task.qualname,
        "specialization": task.specialization,
        "key": task.key,
        "ptx": task.ptx,
    }


def answer(number: int, message: Mapping[str, Any]) -> Answer:
    """Return what a worker answered."""
    return Answer(
        number=number,
        object=message.get("object"),
        rejected=message.get("rejected"),
        failed=message.get("failed"),
        reused=message.get("reused", False),
        seconds=message.get("seconds", 0.0),
    )
