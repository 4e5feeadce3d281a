"""Words that messages share: the name that was meant, a number of things, text that is not ours."""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that an unknown one is nearest to, or None if none is near."""
    import difflib

    return next(iter(difflib.get_close_matches(name, tuple(known), n=1)), None)


def suggest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the hint for an unknown name: the nearest of the known ones, or ``otherwise`` if none is near."""
    near = nearest(name, known)
    return otherwise if near is None else f"did you mean {near}?"


def plural(number: int, noun: str, several: str = "") -> str:
    """Return ``1 artifact`` or ``2 artifacts``; ``several`` is a plural that is not made with an s."""
    return f"{number} {noun if number == 1 else several or f'{noun}s'}"


def duration(seconds: float) -> str:
    """Return a time to wait for in the unit that suits it: ``8 s``, ``4 min``, ``2.5 h``."""
    if seconds < 90:  # noqa: PLR2004 - as one would say it
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004


def printable(text: str, keep: str = "") -> str:
    """Return text in which everything that could steer a terminal is escaped, except what to ``keep``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)


def shown(text: object, most: int = 200) -> str:
    """Return text that is not ours as messages repeat it: on one line, without what steers a terminal, and not long."""
    line = printable(" ".join(str(text)[: 4 * most].split()))
    return line if len(line) <= most else f"{line[:most]}..."
