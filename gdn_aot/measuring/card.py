"""The card that is measured on, as the process there sees it. Tests put another one in its place."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from gdn_aot.tracing import stub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.store.index_records import BinaryRecord

    Launchable: TypeAlias = Callable[[tuple[int, int, int], Mapping[str, Any]], None]


_TRIALS = 20
_SPARE = 1.5
"""How much longer than the host took the device is kept busy: the host is not always as fast."""
WARM_UP = 2
"""Rounds that are not counted: clocks rise and instruction caches fill."""


class Cuda:
    """The first visible CUDA device, through PyTorch and the driver. Made before the provider is imported."""

    device = "cuda"
    """Where tensors are to be, as PyTorch names it."""

    def __init__(self) -> None:
        import torch

        from gdn_aot.triton_internals import launching

        try:
            from gdn_aot.triton_internals import _launch as native
        except ImportError:
            native = None  # type: ignore[assignment]
        self._native: Any = native
        if native is not None:
            __import__("triton.runtime")
            __import__(launching.NVIDIA_DRIVER)
            launching.defer_cuda_utils(native)
        self._torch = torch
        torch.cuda.init()
        properties = torch.cuda.get_device_properties(0)
        self._l2 = int(properties.L2_cache_size)
        self._flushed = torch.empty(2 * self._l2, dtype=torch.uint8, device="cuda")
        self._events: list[Any] = []
        self._overwrite = 0.0
        """Seconds that overwriting the buffer takes."""

    def become(self, target: Target) -> None:
        """Have this process report it as a card of a target."""
        stub.disguise(target)

    def describe(self) -> dict[str, Any]:
        """Return ``name``, ``sm_count``, ``memory`` in bytes and ``l2`` in bytes."""
        properties = self._torch.cuda.get_device_properties(0)
        return {
            "name": properties.name,
            "sm_count": properties.multi_processor_count,
            "memory": properties.total_memory,
            "l2": self._l2,
        }

    def load(self, jit: Any, record: BinaryRecord, code: bytes) -> Launchable:
        """Load a binary. What is returned launches it with a grid and arguments.

        Raises:
            RuntimeError: The driver refused.
        """
        from gdn_aot.triton_internals.direct import Ready, current_stream

        ready, stream = Ready(self._native, jit, record, code, 0), current_stream(0)
        return lambda grid, arguments: ready.launch(grid, arguments, stream)

    def _lead(self, seconds: float) -> int:
        """Return how often to overwrite the buffer so that the device is busy for ``seconds``; at least once."""
        if not self._overwrite:
            first, last = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flushed.zero_()
            first.record()
            for _ in range(_TRIALS):
                self._flushed.zero_()
            last.record()
            self._torch.cuda.synchronize()
            self._overwrite = first.elapsed_time(last) / 1000 / _TRIALS
        return max(1, math.ceil(seconds / self._overwrite))

    def synchronize(self) -> None:
        """Wait for everything launched.

        Raises:
            RuntimeError: A launch failed; the context is lost.
        """
        self._torch.cuda.synchronize()

    def time(
        self, launches: Sequence[Callable[[], None]], before: Callable[[], None], rounds: int
    ) -> list[list[float]]:
        """Return the times in microseconds of each launch, one per round.

        In every round each launch comes once, the rounds starting at another one each time, so that what drifts
        hits all alike. Before each, twice the L2 cache is overwritten: the operands of a kernel in a model come from
        memory or from the kernel before, seldom all from the cache. Every round begins with as much overwriting as the
        host needs to queue the round, so that the device never waits for the host between the two events around a
        launch. ``before`` is called before each launch, outside the time taken: it puts back state that the kernel
        updates. `WARM_UP` more rounds go before those that count.
        """
        count = len(launches)
        lead, took = 0, math.inf
        busy = math.inf
        while len(self._events) < 2 * count:
            self._events.append(self._torch.cuda.Event(enable_timing=True))
        times: list[list[float]] = [[] for _ in launches]
        for number in range(rounds + WARM_UP):
            for _ in range(lead):
                self._flushed.zero_()
            start = time.perf_counter()
            for step in range(count):
                place = (step + number) % count
                before()
                self._flushed.zero_()
                self._events[2 * place].record()
                launches[place]()
                self._events[2 * place + 1].record()
            took = min(took, time.perf_counter() - start)
            self._torch.cuda.synchronize()
            first, last = self._events[2 * (number % count)], self._events[2 * ((number + count - 1) % count) + 1]
            busy = min(busy, first.elapsed_time(last) / 1000)
            lead = self._lead(_SPARE * took - busy)
            if number >= WARM_UP:
                for place in range(count):
                    taken = self._events[2 * place].elapsed_time(self._events[2 * place + 1])
                    times[place].append(1000 * taken)
        return times
