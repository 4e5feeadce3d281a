"""The seam between what is to be measured and where: the card of this machine, or those of a cluster's nodes."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gdn_aot.machine import scratch
from gdn_aot.machine.child import Child, EndedError
from gdn_aot.measuring.process import START_SECONDS, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.machine.card import CardInfo
    from gdn_aot.measuring.process import Measurer, PlannedKernel

    Cards = tuple[CardInfo, list["MeasuringCard"]]
    """What each of some cards is, which are all of one kind, and the cards, which share the measuring."""


MODULE = "gdn_aot.measuring.worker"
"""The module that measures."""
VARIABLES = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Cards are counted as nvidia-smi counts them."""


class LostError(Exception):
    """A card cannot be used any more, through no fault of what was measured on it."""


class MeasuringCard(Protocol):
    """A place to measure: starts measuring processes, one at a time, and gives them what they read.

    ``start`` and ``plan`` are called by one thread, ``stop`` by any.
    """

    name: str
    """Of the machine, for messages; nothing for this one."""

    def start(self) -> Measurer:
        """Start a process.

        Raises:
            LostError: The place is gone, or was stopped.
        """

    def plan(self, kernels: list[PlannedKernel]) -> str:
        """Make a plan, and the binaries that it names, readable for the process there. Returns its path there."""

    def stop(self) -> None:
        """Kill the process, now; whoever waits for it gets `LostError`."""


@contextlib.contextmanager
def this_card(info: CardInfo, cache: BuildCache) -> Iterator[Cards]:
    """Use the card of this machine, with binaries of a build cache."""
    card = LocalCard(cache, Path(scratch.make("plan")))
    try:
        yield info, [card]
    finally:
        card.stop()


class LocalMeasurer(Child):
    """A measuring process on this machine that has been started."""

    stopped = False
    """Killed by us: what it was doing is not to blame."""

    def receive(self) -> dict[str, Any]:
        """Wait for the next message."""
        try:
            return super().receive()
        except EndedError:
            if self.stopped:
                raise LostError("measuring was stopped") from None
            raise


class LocalCard:
    """The card of this machine."""

    name = ""

    def __init__(self, cache: BuildCache, folder: Path) -> None:
        self._cache, self._folder = cache, folder
        self._lock = threading.Lock()
        self._process: LocalMeasurer | None = None
        self._stopped = False

    def start(self) -> Measurer:
        """Start a measuring process."""
        with self._lock:
            if self._stopped:
                raise LostError("measuring was stopped")
            self._process = LocalMeasurer(MODULE, silence=START_SECONDS, variables=VARIABLES).__enter__()
            return self._process

    def plan(self, kernels: list[PlannedKernel]) -> str:
        """Write the plan; binaries are in the build cache already."""
        return Plan(str(self._cache.root.absolute()), kernels).write(self._folder / "plan.json")

    def stop(self) -> None:
        """Kill the process and start no more."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.stopped = True
                self._process.kill()
