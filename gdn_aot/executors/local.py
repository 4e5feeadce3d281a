"""The executor without a cluster: the worker that traced a target compiles, and the card here measures."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot.errors import NotWritableError
from gdn_aot.executors.base import Answer, Cards, LostError
from gdn_aot.machine.child import EndedError, Isolated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.executors.base import CompileTask, Order
    from gdn_aot.machine.card import CardInfo
    from gdn_aot.measuring.client import Method
    from gdn_aot.tracing.client import Worker

MEASURER = "gdn_aot.measuring.worker"
"""The module that measures."""
START_SECONDS = 300.0
"""Seconds in which a measuring process has imported the provider."""
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Cards are counted as nvidia-smi counts them."""
_TASKS_PER_JOB = 4


class LocalExecutor:
    """Works on this machine.

    Args:
        card: The card here, if something is to be measured.
    """

    def __init__(self, card: CardInfo | None = None) -> None:
        self._card = card

    def expect(self, provider: ProviderInfo, targets: Sequence[Target]) -> None:
        """Do nothing: the pipeline starts the next target's worker, which traces first."""

    @contextlib.contextmanager
    def compiling(self, order: Order, worker: Callable[[], Worker]) -> Iterator[LocalCompiling]:
        """Return the pool of the worker that traced the target. It ends with that worker."""
        yield LocalCompiling(order, worker)

    @contextlib.contextmanager
    def measuring(self, method: Method, cache: BuildCache, target: Target) -> Iterator[Cards]:
        """Return the card of this machine."""
        del method, target
        assert self._card is not None  # noqa: S101
        with local_card(cache) as card:
            yield Cards(info=self._card, cards=[card])


@contextlib.contextmanager
def local_card(cache: BuildCache) -> Iterator[LocalCard]:
    """Use the card of this machine, with binaries of a build cache."""
    with tempfile.TemporaryDirectory(prefix="gdn-aot-plan-") as folder:
        card = LocalCard(cache, Path(folder))
        try:
            yield card
        finally:
            card.stop()


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
        message = self._get().receive("compiled")
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


class LocalProcess(Isolated):
    """A measuring process on this machine that has been started."""

    stopped = False
    """Killed by us: what it was doing is not to blame."""
    over = False

    def receive(self) -> dict[str, Any]:
        """Wait for the next message."""
        try:
            return super().receive()
        except EndedError:
            if self.stopped:
                raise LostError("measuring was stopped") from None
            raise

    def end(self, *, at_once: bool) -> None:
        """End it, after its last message or at once."""
        self.over = True
        error = InterruptedError() if at_once else None
        self.__exit__(type(error) if error else None, error, None)


class LocalCard:
    """The card of this machine."""

    name = ""

    def __init__(self, cache: BuildCache, folder: Path) -> None:
        self._cache, self._folder = cache, folder
        self._lock = threading.Lock()
        self._process: LocalProcess | None = None
        self._stopped = False

    def start(self) -> LocalProcess:
        """Start a measuring process."""
        with self._lock:
            if self._stopped:
                raise LostError("measuring was stopped")
            self._process = LocalProcess(MEASURER, silence=START_SECONDS, variables=ORDER).__enter__()
            return self._process

    def plan(self, kernels: Sequence[Mapping[str, Any]]) -> str:
        """Write the plan; binaries are in the build cache already."""
        path = self._folder / "plan.json"
        path.write_text(json.dumps({"cache": str(self._cache.root.absolute()), "kernels": kernels}))
        return str(path)

    def stop(self) -> None:
        """Kill the process and start no more."""
        with self._lock:
            self._stopped = True
            if self._process is not None and not self._process.over:
                self._process.stopped = True
                self._process.kill()
