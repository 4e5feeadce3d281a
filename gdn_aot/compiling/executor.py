"""The seam between what is to be compiled and where, and the executor of this machine; `cluster` has the other one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gdn_aot.compiling.cache import launch_digest
from gdn_aot.errors import NotWritableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.compiling.client import Worker
    from gdn_aot.compiling.proxy import Proxy
    from gdn_aot.launches import CompiledKernel
    from gdn_aot.tracing.records import Trace

_TASKS_PER_JOB = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What compiling the kernels of one target takes."""

    provider: ProviderInfo
    target: Target
    compiler: Mapping[str, str]
    """Target, Triton and ptxas versions: part of every key of the build cache."""
    cache: BuildCache
    """Where everything that is compiled has to end up."""
    jobs: int
    """Compile workers on this machine."""
    timeout: float
    """Seconds that one kernel may take."""
    ptx: bool = False
    """Keep the PTX of everything, too; what the cache has without is compiled again."""
    proxy: Proxy | None = None
    """What stands in for the target: its code is compiled, and assembled for the card, too."""

    @property
    def code(self) -> Target:
        """Whose code is compiled."""
        return self.proxy.code if self.proxy else self.target

    def lacks(self, found: CompiledKernel) -> bool:
        """Say whether something that is wanted beside a compiled kernel is not in the cache."""
        if self.proxy is not None and self.proxy.assembled(self.cache, found.cubin) is None:
            return True
        return self.ptx and not self.cache.has_ptx(found.cubin)

    def key(self, trace: Trace, launch: int) -> str:
        """Return the key of a launch in the build cache."""
        item = trace.launches[launch]
        return launch_digest(trace.kernels[item.kernel], item.specialization, self.compiler)

    def task(self, trace: Trace, launch: int) -> CompileTask:
        """Return what has to be known to compile a launch."""
        item = trace.launches[launch]
        kernel = trace.kernels[item.kernel]
        return CompileTask(
            number=launch,
            module=kernel.module,
            qualname=kernel.qualname,
            specialization=msgspec.to_builtins(item.specialization),
            key=self.key(trace, launch),
            ptx=self.ptx or self.proxy is not None,
            card=self.proxy.card.name if self.proxy else None,
        )


class CompileTask(msgspec.Struct, frozen=True, kw_only=True):
    """One launch to compile."""

    number: int
    """Names the task in the answer."""
    module: str
    qualname: str
    specialization: dict[str, Any]
    key: str
    """Of the launch in the build cache."""
    ptx: bool
    """Keep the PTX, too."""
    card: str | None = None
    """The target that the PTX is assembled for, too."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a task; the build cache has it, unless it failed."""

    number: int = msgspec.field(name="task")
    object: str | None = None
    """Key of the compiled kernel in the build cache."""
    rejected: str | None = None
    failed: str | None = None
    reused: bool = False
    """Another launch with the same IR had been compiled before."""
    seconds: float = 0.0
    """CPU time; 0 if the worker did not live to tell."""


class Compiling(Protocol):
    """Compile workers for one target, used by one thread. Nothing is started before the first task."""

    @property
    def room(self) -> int:
        """How many tasks are worth having submitted at one time."""

    @property
    def where(self) -> str:
        """What to add to a line on progress; nothing for this machine."""

    def submit(self, task: CompileTask) -> None:
        """Take a task; it need not be started yet."""

    def receive(self) -> Answer:
        """Wait for the next finished task.

        Raises:
            WorkerError: The provider cannot be imported there, or nobody is left to work.
            NotWritableError: A build cache cannot be written.
        """


class Executor(Protocol):
    """Does the work. Entering it is the caller's, and leaving it ends all that it has started."""

    def expect(self, provider: ProviderInfo, targets: Sequence[Target]) -> None:
        """Be told which targets come next, so that their workers may start meanwhile.

        Raises:
            UsageError: A node has other versions.
            ClusterError: The cluster has gone.
        """

    def compiling(self, order: Order, worker: Callable[[], Worker]) -> AbstractContextManager[Compiling]:
        """Return compile workers for a target; ``worker`` returns the process here that traced it."""


class LocalExecutor:
    """Works on this machine: the worker that traced a target compiles."""

    def expect(self, provider: ProviderInfo, targets: Sequence[Target]) -> None:
        """Do nothing: the pipeline starts the next target's worker, which traces first."""

    @contextlib.contextmanager
    def compiling(self, order: Order, worker: Callable[[], Worker]) -> Iterator[LocalCompiling]:
        """Return the pool of the worker that traced the target. It ends with that worker."""
        yield LocalCompiling(order, worker)


class LocalCompiling:
    """Compile workers forked by the worker of the target."""

    where = ""

    def __init__(self, order: Order, worker: Callable[[], Worker]) -> None:
        self._order, self._get = order, worker
        self._worker: Worker | None = None
        self.room = _TASKS_PER_JOB * order.jobs
        """Enough that no compile worker waits for the next task."""

    def submit(self, task: CompileTask) -> None:
        """Queue a task in the worker."""
        if self._worker is None:
            order, self._worker = self._order, self._get()
            self._worker.start_pool(order.cache, order.compiler, order.jobs, order.timeout)
        self._worker.submit(task.number, msgspec.to_builtins(task))

    def receive(self) -> Answer:
        """Wait for the worker's next answer."""
        message = self._get().expect("compiled")
        if "not_writable" in message:
            raise NotWritableError(message["not_writable"], hint="set GDN_AOT_HOME to a directory with free space")
        return msgspec.convert(message, Answer)
