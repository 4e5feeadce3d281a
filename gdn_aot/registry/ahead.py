"""What a fetch or a bundle says while it downloads: which artifact, how much is left and for about how long."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gdn_aot._text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gdn_aot.registry.layout import Entry


class Ahead:
    """The artifacts that are to be downloaded from one place, of which ``say`` is told one after the other."""

    def __init__(self, entries: Sequence[Entry], where: str, say: Callable[[str], None]) -> None:
        self._left = {entry.identifier: entry.size for entry in entries}
        self._number = 0
        self._where, self._say = where, say
        self._bytes, self._seconds = 0, 0.0

    def drop(self, entry: Entry) -> None:
        """Leave one out that is there already."""
        del self._left[entry.identifier]

    @contextmanager
    def downloading(self, entry: Entry) -> Iterator[None]:
        """Say that an artifact is downloaded, and take the time of it."""
        self._number += 1
        several = self._number - 1 + len(self._left)
        number = f"{self._number} of {several}: " if several > 1 else ""
        self._say(f"downloading {number}{entry.identifier}, {_size(entry.size)}, from {self._where}{self._rest()}")
        start = time.monotonic()
        yield
        self._seconds += time.monotonic() - start
        self._bytes += entry.size
        self._left.pop(entry.identifier, None)

    def _rest(self) -> str:
        """Return what is left, this artifact included, after the first of several."""
        if not self._bytes or not self._left:
            return ""
        rest = sum(self._left.values())
        return f"; {_size(rest)} left, {duration(self._seconds / self._bytes * rest)}"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
