"""What long commands show on stderr: what is done, what is left, and for about how long."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from gdn_aot._text import duration, shown
from gdn_aot.cli._output import LIVE, note

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_WIDTH = 30
"""Characters of a bar."""
_SOON = 2.0
"""Seconds of a stage before the time left is estimated."""
_TEXT = 100
"""Characters of a word on the present step: a step of an engine may name hundreds of requests."""
_EVERY = 30.0
"""Seconds between two lines of a log: a command that takes less writes none."""


class Progress:
    """A line on a terminal that is rewritten as work gets done; elsewhere a line of a log twice a minute.

    Example:
        >>> with Progress("compile") as progress:
        ...     progress.update(1, 10, "chunk_fwd_kernel_o")
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._shown = 0
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._logged = time.monotonic()
        self._stage: tuple[float, int, int] | None = None
        """When the present stage began, and how many steps were done then and last."""

    def update(self, done: int, total: int, text: str = "") -> None:
        """Show that ``done`` of ``total`` steps are finished, with a word on the present one.

        A total of 0 is not known; it, and fewer steps than before, begin another stage.
        """
        now = time.monotonic()
        ahead = self._ahead(now, done, total)
        if self._live:
            full = _WIDTH * done // total if total else 0
            bar = f"[{'#' * full}{'.' * (_WIDTH - full)}] {done}/{total} " if total else ""
            self._rewrite(f"{self._title} {bar}{shown(text, _TEXT)}", ahead)
        elif now - self._logged >= _EVERY:
            self._logged = now
            note(f"{self._title}: {f'{done} of {total}, ' if total else ''}{shown(text, _TEXT)}{ahead}")

    def _ahead(self, now: float, done: int, total: int) -> str:
        """Return how long the stage takes on at the pace that it has had, if that is known."""
        start, first, last = self._stage or (now, done, done)
        if not total or done < last:
            start, first = now, done
        self._stage = start, first, done
        if now - start < _SOON or done <= first or done >= total:
            return ""
        return f", {duration((now - start) / (done - first) * (total - done))} left"

    def _rewrite(self, line: str, ahead: str) -> None:
        """Write a line whose end stays where the terminal is too narrow for all of it."""
        most = _columns() - 1
        line = (line[: max(0, most - len(ahead))] + ahead)[:most]
        sys.stderr.write("\r" + line.ljust(self._shown))
        sys.stderr.flush()
        self._shown = len(line)

    def _clear(self) -> None:
        """Have what is written next begin a line of its own."""
        if self._live and self._shown:
            sys.stderr.write("\r" + " " * self._shown + "\r")
            sys.stderr.flush()
            self._shown = 0

    def __enter__(self) -> Self:
        LIVE.append(self._clear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        LIVE.remove(self._clear)
        self._clear()


def _columns() -> int:
    """Return the width of the terminal; 80 where it is not known, which some terminals report as 0."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
