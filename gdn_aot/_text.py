"""Words of messages."""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterable


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return what to say after an unknown word: the nearest known one, else all."""
    import difflib

    words = tuple(known)
    near = difflib.get_close_matches(wrong, words, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(words)}"
