"""What a probe of doctor returns: facts, as ``--json`` has them, how a page shows them, and what is in the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN = 8
"""Things of one kind that a page lists; ``--json`` has all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle:
    """One reason why not everything is served from artifacts."""

    where: str
    """The section that shows it: ``settings``, ``artifacts`` ..."""
    what: str
    hint: str
    """What to do about it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One part of a diagnosis."""

    title: str
    """Also its key in ``--json``, with ``_`` for spaces."""
    facts: Any
    """JSON."""
    lines: tuple[str, ...]
    """The same for a person."""
    obstacles: tuple[Obstacle, ...] = ()


def make_section(
    title: str,
    facts: Mapping[str, object],
    obstacles: Iterable[tuple[str, str]] = (),
    rows: Iterable[tuple[str, object]] | None = None,
) -> Section:
    """Return a section of one object; an obstacle is (what, hint). The page shows each fact that is not empty."""
    where = title.replace(" ", "_")
    return Section(
        title=title,
        facts=facts,
        lines=tuple(columns(_rows(facts) if rows is None else rows)),
        obstacles=tuple(Obstacle(where=where, what=what, hint=hint) for what, hint in obstacles),
    )


def columns(rows: Iterable[tuple[str, object]], indent: str = "  ") -> Iterator[str]:
    """Yield a line for each (name, value), in two columns."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    return (f"{indent}{name.ljust(width)}  {_text(value)}".rstrip() for name, value in rows)


def more(found: Sequence[object]) -> str:
    """Return what follows the first of several."""
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def _rows(facts: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _rows(value)
        elif value not in ("", ()):
            yield name, value


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
