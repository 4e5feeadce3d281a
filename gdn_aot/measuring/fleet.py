"""The cards that share the units: a thread for each, which takes the next unit when it is done with one."""

from __future__ import annotations

import queue
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gdn_aot.errors import ClusterError, UsageError
from gdn_aot.measuring.cards import LostError
from gdn_aot.measuring.client import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

    from gdn_aot.measuring.cards import MeasuringCard
    from gdn_aot.measuring.client import Method

_SECONDS_TO_END = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Event:
    card: MeasuringCard
    device: dict[str, Any] | None = None
    """The card's process has started, and says this of it."""
    error: BaseException | None = None
    """Why the thread of the card has ended, if for a reason."""


class Fleet:
    """Has units measured by all cards. Entering starts their processes; leaving ends them.

    ``say`` is told of cards that are lost, which is no error as long as there is another.

    Raises:
        UsageError: A process cannot be started, or cards are not of one kind.
        ClusterError: All cards are lost.
    """

    def __init__(self, method: Method, cards: Sequence[MeasuringCard], say: Callable[[str], None]) -> None:
        self._method, self._cards, self._say = method, cards, say
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._change = threading.Condition()
        self._left: deque[int] | None = None
        """Units that nobody has; None before there are any."""
        self._taken = self._measuring = 0
        self._alive = len(cards)
        self._stopped = False
        self._work: Callable[[int, Session], None] = lambda _unit, _session: None
        self._threads = [threading.Thread(target=self._serve, args=(card,), name="card", daemon=True) for card in cards]
        self.device: dict[str, Any] = {}
        """What the first process said of its card."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        try:
            while not self.device:
                self._take(self._events.get())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop()

    @property
    def stopped(self) -> bool:
        """Whether everything is to end now."""
        return self._stopped

    @property
    def idle(self) -> bool:
        """Whether nothing is being measured."""
        return self._measuring == 0

    def run(self, units: Sequence[int], work: Callable[[int, Session], None]) -> None:
        """Have every unit worked on by some card's thread; one whose card is lost goes to another.

        ``work`` is called with a unit's number and the card's session; what it raises is raised here.
        """
        with self._change:
            self._left, self._work = deque(units), work
            self._change.notify_all()
        while self._alive:
            self._take(self._events.get())

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Count the thread among those that measure."""
        with self._change:
            self._measuring += 1
        try:
            yield
        finally:
            with self._change:
                self._measuring -= 1

    def _take(self, event: _Event) -> None:
        if event.device is not None:
            if self.device and event.device != self.device:
                raise UsageError(
                    f"the card of node {event.card.name} is another one: {event.device}, not {self.device}",
                    hint="offer the resource on nodes of one kind at a time",
                )
            self.device = event.device
            return
        self._alive -= 1
        if isinstance(event.error, LostError):
            with self._change:
                left = len(self._left or ())
            if not self._alive and (left or self._left is None):
                raise ClusterError(f"no card is left to measure on, {left} shapes are not done: {event.error}")
            self._say(f"{event.error}: its work goes to others")
        elif event.error is not None:
            raise event.error

    def _serve(self, card: MeasuringCard) -> None:
        try:
            with Session(self._method, card) as session:
                self._events.put(_Event(card=card, device=dict(session.device)))
                while (unit := self._next()) is not None:
                    try:
                        self._work(unit, session)
                    except LostError:
                        self._done(unit)
                        raise
                    self._done(None)
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            self._events.put(_Event(card=card, error=error))
        else:
            self._events.put(_Event(card=card))

    def _next(self) -> int | None:
        """Take a unit; waits for those of others, which may come back. Returns None when all are done."""
        with self._change:
            while not self._stopped and (self._left is None or (not self._left and self._taken)):
                self._change.wait()
            if self._stopped or not self._left:
                return None
            self._taken += 1
            return self._left.popleft()

    def _done(self, back: int | None) -> None:
        with self._change:
            self._taken -= 1
            if back is not None and self._left is not None:
                self._left.appendleft(back)
            self._change.notify_all()

    def _stop(self) -> None:
        with self._change:
            early, self._stopped = any(thread.is_alive() for thread in self._threads), True
            self._change.notify_all()
        if early:
            for card in self._cards:
                card.stop()
        for thread in self._threads:
            thread.join(_SECONDS_TO_END)
