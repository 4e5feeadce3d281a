"""The seam between what is to be compiled and where: this machine, or the nodes of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.compiling.client import Worker
    from gdn_aot.launches import Json


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


@dataclass(frozen=True, kw_only=True, slots=True)
class CompileTask:
    """One launch to compile."""

    number: int
    """Names the task in the answer."""
    module: str
    qualname: str
    specialization: Mapping[str, Json]
    key: str
    """Of the launch in the build cache."""
    ptx: bool
    """Keep the PTX, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What became of a task; the build cache has it, unless it failed."""

    number: int
    object: str | None = None
    """Key of the compiled kernel in the build cache."""
    rejected: str | None = None
    failed: str | None = None
    reused: bool = False
    """Another launch with the same IR had been compiled before."""
    seconds: float = 0.0


class Compiling(Protocol):
    """Compile workers for one target, used by one thread. Nothing is started before the first task."""

    @property
    def room(self) -> int:
        """How many tasks are worth having submitted at one time."""
        ...

    @property
    def where(self) -> str:
        """What to add to a line on progress; nothing for this machine."""
        ...

    def submit(self, task: CompileTask) -> None:
        """Take a task; it need not be started yet."""
        ...

    def receive(self) -> Answer:
        """Wait for the next finished task.

        Raises:
            WorkerError: The provider cannot be imported there, or nobody is left to work.
            NotWritableError: A build cache cannot be written.
        """
        ...


class Executor(Protocol):
    """Does the work. Entering it is the caller's, and leaving it ends all that it has started."""

    def expect(self, provider: ProviderInfo, targets: Sequence[Target]) -> None:
        """Be told which targets come next, so that their workers may start meanwhile.

        Raises:
            UsageError: A node has other versions.
            ClusterError: The cluster has gone.
        """
        ...

    def compiling(self, order: Order, worker: Callable[[], Worker]) -> AbstractContextManager[Compiling]:
        """Return compile workers for a target.

        Args:
            order: What they compile, and into which cache.
            worker: Returns the process on this machine that traced the target.
        """
        ...
