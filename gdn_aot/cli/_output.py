"""How commands speak: data on stdout, notes on stderr; progress is in `_progress`."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from gdn_aot._text import printable
from gdn_aot.errors import NoArtifactError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

    from gdn_aot.errors import GdnAotError

LIVE: list[Callable[[], None]] = []
"""Clears the line that a command rewrites on the terminal, if there is one: see `_progress`."""
_UNPRINTABLE = re.compile(r"[^\n -~]+")
"""Runs of characters that may have to be escaped in JSON, which has escaped the others itself."""
_MOST_REASONS = 20
"""Artifacts that do not fit that are named on stderr, the nearest first; ``--json`` has all."""


def emit_json(value: Any, error: GdnAotError | None = None) -> None:
    """Write one JSON document, and the error that the command ends with, to stdout, piece by piece: it can be large.

    A path may hold bytes that UTF-8 cannot carry; they are replaced.
    """
    if error is not None:
        value = {**value, "error": describe(error.code, error.message, error.hint, problems_of(error))}
    for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
        emit_piece(piece)
    click.echo()


def emit_piece(piece: str) -> None:
    """Write a piece of a JSON document to stdout, without what steers a terminal."""
    click.echo(_UNPRINTABLE.sub(_escaped, piece), nl=False)


def _escaped(found: re.Match[str]) -> str:
    """Return for JSON what JSON would let pass to a terminal."""
    text = found[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def conclude(document: dict[str, Any], error: GdnAotError | None, *, as_json: bool) -> None:
    """Say how a check ended: as JSON, which ends the command if there is an error, or by raising the error."""
    if as_json:
        emit_json(document, error)
        if error is not None:
            raise click.exceptions.Exit(error.exit_code)
    elif error is not None:
        raise error


def _clear() -> None:
    for clear in LIVE:
        clear()


def out(text: str) -> None:
    """Write lines of data to stdout, in which text that is not ours steers no terminal."""
    _clear()
    click.echo(printable(text, "\n"))


def out_path(path: str | PathLike[str]) -> None:
    """Write a path to stdout: what a program reads has the very bytes of it."""
    text = os.fspath(path)
    _clear()
    if sys.stdout.isatty():
        out(printable(text))
        return
    try:
        sys.stdout.write(f"{text}\n")
    except UnicodeEncodeError:
        click.echo(os.fsencode(text))


def note(text: str) -> None:
    """Write lines for a person to stderr, as `out` does; ``Error:`` and ``Hint:`` are coloured on a terminal."""
    text = printable(text, "\n")
    word, colon, rest = text.partition(":")
    colour = {"Error": "red", "Hint": "yellow", "Warning": "yellow"}.get(word)
    if colour and colon and "NO_COLOR" not in os.environ:
        text = click.style(f"{word}:", fg=colour, bold=True) + rest
    _clear()
    click.echo(text, err=True)


def notes(*, quiet: bool) -> Callable[[str], None]:
    """Return what says something to a person, unless nothing is to be said."""
    return (lambda _: None) if quiet else note


def note_some(lines: Sequence[str], most: int) -> None:
    """Write the first of some lines that belong to a note, and how many more there are."""
    for line in lines[:most]:
        note(f"  {indented(line)}")
    if len(lines) > most:
        note(f"  and {len(lines) - most} more")


def no_bars(*, quiet: bool) -> None:
    """Switch huggingface_hub's progress bars off where nobody sees them; it reads the variable when it is imported."""
    if quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def tell(message: str, hint: str, problems: Sequence[Problem] = (), *, word: str = "Error") -> None:
    """Say on stderr what went wrong, with what was found, and what to do. Only our own words begin a line."""
    note(f"{word}: {indented(message)}")
    for problem in problems:
        note(f"  {indented(str(problem))}")
    if hint:
        note(f"Hint: {' '.join(hint.split())}")


def indented(text: str) -> str:
    """Return text of which only the first line begins where lines of ours do."""
    return text.replace("\n", "\n  ")


def problems_of(error: GdnAotError, *, brief: bool = False) -> list[Problem]:
    """Return what an error lists; if brief, not what its message says, nor all artifacts of many that do not fit."""
    if brief and len(error.problems) == 1 and _is_said(error.problems[0], error.message):
        return []
    more = len(error.problems) - _MOST_REASONS
    if not brief or more <= 0 or not isinstance(error, NoArtifactError):
        return list(error.problems)
    return [*error.problems[:_MOST_REASONS], Problem("", f"and {more} more, which --json lists")]


def _is_said(problem: Problem, message: str) -> bool:
    return problem.where in message and problem.what in message


def describe(code: str, message: str, hint: str, problems: Sequence[Problem] = ()) -> dict[str, object]:
    """Return an error as ``--json`` has it."""
    more = {"problems": problems_json(problems)} if problems else {}
    return {"code": code, "message": message, "hint": " ".join(hint.split()), **more}


def problems_json(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """Return problems as ``--json`` has them."""
    return [{"where": item.where, "what": item.what} for item in problems]


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """Align rows in columns: numbers to the right, the rest to the left, two spaces between; None is ``-``."""
    cells = [["-" if value is None else printable(str(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(headers))]
    aligned = [str.rjust if number else str.ljust for number in right]
    lines = (
        [put(cell, width) for put, cell, width in zip(aligned, line, widths, strict=True)] for line in (headers, *cells)
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return times as ``--json`` has them."""
    return {name: round(value, 3) for name, value in seconds.items()}


def times(seconds: Mapping[str, float]) -> str:
    """Return times as notes have them."""
    return ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
