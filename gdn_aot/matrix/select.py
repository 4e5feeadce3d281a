"""Choose rows by globs on their identifiers, as ``fla*-sm_{80,9?}``."""

from __future__ import annotations

import difflib
import fnmatch
import re
from functools import partial
from typing import TYPE_CHECKING

from gdn_aot.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.matrix.form import Matrix, MatrixRow

MOST_ALTERNATIVES = 1000
"""Globs that one with braces may stand for."""
_NEAR = 3
"""Identifiers that are named when none matches."""
_INNERMOST = re.compile(r"\{([^{}]*)\}")


def alternatives(pattern: str) -> list[str]:
    """Return the globs that one with braces stands for, each once: ``sm_{80,9?}`` for ``sm_80`` and ``sm_9?``.

    Raises:
        UsageError: A brace is open, or there are too many.
    """
    done: dict[str, None] = {}
    left = [pattern]
    while left:
        one = left.pop()
        inner = _INNERMOST.search(one)
        if inner is None:
            if "{" in one or "}" in one:
                raise UsageError(f"{pattern!r} has a brace without its partner", hint="for example 'fla*-sm_{80,90}'")
            done[one] = None
        else:
            left += [one[: inner.start()] + part + one[inner.end() :] for part in inner[1].split(",")]
        if len(done) + len(left) > MOST_ALTERNATIVES:
            raise UsageError(f"{pattern!r} stands for more than {MOST_ALTERNATIVES} globs", hint="use * or ?")
    return list(done)


def matches(pattern: str, identifiers: Sequence[str]) -> set[str]:
    """Return the identifiers that a glob matches.

    Raises:
        UsageError: The glob is malformed, or starts with ``!``.
    """
    if not pattern:
        raise UsageError("an empty glob matches nothing", hint="for example --select 'fla*-sm_9?'")
    if pattern.startswith("!"):
        raise UsageError(f"{pattern!r}: a glob is not negated", hint=f"use --exclude {pattern[1:]!r}")
    globs = alternatives(pattern)
    return {name for name in identifiers if any(fnmatch.fnmatchcase(name, glob) for glob in globs)}


def select(
    rows: Sequence[MatrixRow], wanted: Sequence[str] = (), unwanted: Sequence[str] = ()
) -> tuple[MatrixRow, ...]:
    """Return the rows that any wanted glob matches, all if there is none, and no unwanted one; in their order.

    Raises:
        UsageError: A glob is malformed.
        NothingSelectedError: A wanted glob matches nothing, or nothing is left.
    """
    identifiers = [row.identifier for row in rows]
    chosen = set() if wanted else set(identifiers)
    for pattern in wanted:
        found = matches(pattern, identifiers)
        if not found:
            raise NothingSelectedError(
                f"no artifact of the matrix matches {pattern!r}", hint=_near(pattern, identifiers)
            )
        chosen |= found
    for pattern in unwanted:
        chosen -= matches(pattern, identifiers)
    if not chosen:
        raise NothingSelectedError("every selected artifact is excluded", hint="narrow --exclude")
    return tuple(row for row in rows if row.identifier in chosen)


def one(matrix: Matrix, identifier: str) -> MatrixRow:
    """Return the row of an identifier.

    Raises:
        NothingSelectedError: There is none; the hint names the nearest.
    """
    for row in matrix.rows:
        if row.identifier == identifier:
            return row
    hint = _near(identifier, [row.identifier for row in matrix.rows])
    raise NothingSelectedError(f"the matrix {matrix.path} has no artifact {identifier!r}", hint=hint)


def _near(pattern: str, identifiers: Sequence[str]) -> str:
    """Return a hint with the identifiers in which most of a glob's own characters are found in order."""
    literal = re.sub(r"[*?\[\]{},]", "", pattern)
    near = sorted(identifiers, key=partial(_likeness, literal), reverse=True)[:_NEAR]
    return f"near misses: {', '.join(near)}; gdn-aot matrix lists all"


def _likeness(literal: str, name: str) -> float:
    matcher = difflib.SequenceMatcher(a=literal, b=name, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks()) - len(name) / 1000
