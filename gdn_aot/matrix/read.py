"""From parsed TOML to records of what is written, lists not yet expanded: only the form is judged here.

``resources/matrix.schema.json`` says the same as a schema.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from gdn_aot.errors import Problem
from gdn_aot.matrix.form import FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_T = TypeVar("_T")

NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
VERSION = r"[0-9]+(\.[0-9]+)*[A-Za-z0-9.+!-]{0,40}"
TARGET = r"sm_[0-9]{2,3}"
PYTHON = r"3\.[0-9]{1,2}"
RUNNER = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
PATH = r"[A-Za-z0-9._/-]{1,200}"
LARGEST = 1 << 31
"""No number of the file is as large; positions in kernels are 32 bits wide."""

_SAID = {
    NAME: "lower-case letters, digits, dots, dashes and underscores",
    VERSION: "a version such as 3.6.0",
    TARGET: "a target such as sm_90",
    PYTHON: "a version of Python such as 3.11",
    RUNNER: "a label of letters, digits, dots, dashes and underscores",
    PATH: "a path of letters, digits, dots, dashes, underscores and slashes",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """``[defaults]``: what an environment or artifact table has if it does not say otherwise."""

    python: str
    runner: str
    models: tuple[str, ...]
    tp: tuple[int, ...]
    max_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentTable:
    """One ``[[environment]]``."""

    name: str
    provider: str
    version: str
    triton: str
    requirements: str
    python: str
    runner: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactTable:
    """One ``[[artifact]]``: as many artifacts as it has pairs of an environment and a target."""

    environments: tuple[str, ...]
    targets: tuple[str, ...]
    models: tuple[str, ...]
    tp: tuple[int, ...]
    max_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A whole file. Tables keep their positions, by which problems name them."""

    environments: tuple[EnvironmentTable, ...]
    artifacts: tuple[ArtifactTable, ...]


def read(value: object, problems: list[Problem]) -> Document | None:
    """Read a parsed file.

    Args:
        value: What TOML, or JSON, held.
        problems: Gets what is wrong, each with its path.

    Returns:
        The document; None if its form is wrong.
    """
    before = len(problems)
    root = _Table(value, "", ("format", "defaults", "environment", "artifact"), problems)
    number = root.integer("format")
    if number not in (FORMAT, 0):
        root.note("format", f"{number} is not {FORMAT}, the only format that this gdn-aot knows")
    table = root.inner("defaults", ("python", "runner", "models", "tp", "max_tokens"))
    defaults = Defaults(
        python=table.text("python", PYTHON),
        runner=table.text("runner", RUNNER),
        models=table.texts("models", NAME),
        tp=table.integers("tp"),
        max_tokens=table.integer("max_tokens"),
    )
    environments = tuple(_environment(one, defaults) for one in root.tables("environment", EnvironmentTable.__slots__))
    artifacts = tuple(_artifact(one, defaults) for one in root.tables("artifact", ArtifactTable.__slots__))
    if len(problems) > before:
        return None
    return Document(environments=environments, artifacts=artifacts)


def _environment(table: _Table, defaults: Defaults) -> EnvironmentTable:
    return EnvironmentTable(
        name=table.text("name", NAME),
        provider=table.text("provider", NAME),
        version=table.text("version", VERSION),
        triton=table.text("triton", VERSION),
        requirements=table.text("requirements", PATH),
        python=table.optional("python", lambda name: table.text(name, PYTHON), defaults.python),
        runner=table.optional("runner", lambda name: table.text(name, RUNNER), defaults.runner),
    )


def _artifact(table: _Table, defaults: Defaults) -> ArtifactTable:
    return ArtifactTable(
        environments=table.texts("environments", NAME),
        targets=table.texts("targets", TARGET),
        models=table.optional("models", lambda name: table.texts(name, NAME), defaults.models),
        tp=table.optional("tp", table.integers, defaults.tp),
        max_tokens=table.optional("max_tokens", table.integer, defaults.max_tokens),
    )


def suggest(wrong: str, known: tuple[str, ...]) -> str:
    """Return what to say after an unknown word: the nearest known one, else all."""
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _kind(value: object) -> str:
    names = {dict: "a table", list: "a list", str: "a string", bool: "a boolean", int: "an integer", float: "a float"}
    return names.get(type(value), f"a {type(value).__name__}")


class _Table:
    """One table: getters that note what is wrong and answer with an empty value of the right type."""

    def __init__(self, value: object, path: str, known: tuple[str, ...], problems: list[Problem]) -> None:
        self._path, self._problems = path, problems
        self._silent = not isinstance(value, dict)
        self._data: dict[str, object] = value if isinstance(value, dict) else {}
        if self._silent:
            problems.append(Problem(path, f"expected a table, got {_kind(value)}"))
        for key in self._data:
            if key not in known:
                self.note(key, f"unknown key; {suggest(key, known)}")

    def _at(self, name: str) -> str:
        step = name if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name) else f"{name[:80]!a}"
        return f"{self._path}.{step}".lstrip(".")

    def note(self, name: str, what: str) -> None:
        """Note what is wrong with a key."""
        self._problems.append(Problem(self._at(name), what))

    def _get(self, name: str, kind: type, expected: str) -> object:
        """Return the value of a key if it is of the very type, else None with a note."""
        if name not in self._data:
            if not self._silent:
                self.note(name, f"missing, expected {expected}")
            return None
        value = self._data[name]
        if type(value) is not kind:
            self.note(name, f"expected {expected}, got {_kind(value)}")
            return None
        return value

    def optional(self, name: str, get: Callable[[str], _T], otherwise: _T) -> _T:
        """Return what ``get`` reads if the key is there."""
        return get(name) if name in self._data else otherwise

    def text(self, name: str, pattern: str) -> str:
        """Return a string of a pattern."""
        value = self._get(name, str, "a string")
        return self._matching(name, str(value), pattern) if value is not None else ""

    def _matching(self, where: str, value: str, pattern: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            self._problems.append(Problem(self._place(where), f"{value[:80]!a} is not {_SAID[pattern]}"))
        return value

    def _place(self, where: str) -> str:
        name, bracket, rest = where.partition("[")
        return self._at(name) + bracket + rest

    def integer(self, name: str) -> int:
        """Return a positive integer."""
        value = self._get(name, int, "a positive integer")
        return self._positive(name, value) if value is not None else 0

    def _positive(self, where: str, value: object) -> int:
        if type(value) is not int:
            self._problems.append(Problem(self._place(where), f"expected a positive integer, got {_kind(value)}"))
            return 0
        if not 0 < value < LARGEST:
            self._problems.append(Problem(self._place(where), f"{value} is not between 1 and {LARGEST - 1}"))
            return 0
        return value

    def _items(self, name: str) -> Iterator[tuple[str, object]]:
        value = self._get(name, list, "a list")
        if not isinstance(value, list):
            return
        if not value:
            self.note(name, "is empty")
        for number, item in enumerate(value):
            yield f"{name}[{number}]", item

    def texts(self, name: str, pattern: str) -> tuple[str, ...]:
        """Return a list of different strings of a pattern, at least one."""
        found: list[str] = []
        for where, item in self._items(name):
            if not isinstance(item, str):
                self._problems.append(Problem(self._place(where), f"expected a string, got {_kind(item)}"))
                continue
            self._twice(where, item, found)
            found.append(self._matching(where, item, pattern))
        return tuple(found)

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a list of different positive integers, at least one."""
        found: list[int] = []
        for where, item in self._items(name):
            number = self._positive(where, item)
            if number:
                self._twice(where, number, found)
                found.append(number)
        return tuple(found)

    def _twice(self, where: str, item: _T, before: list[_T]) -> None:
        if item in before:
            self._problems.append(Problem(self._place(where), f"{item!a} is there twice"))

    def inner(self, name: str, known: tuple[str, ...]) -> _Table:
        """Return the table of a key."""
        value = self._get(name, dict, "a table")
        # One that is missing or no table is noted once: its own keys are not looked for.
        inner = _Table({} if value is None else value, self._at(name), known, self._problems)
        inner._silent = value is None
        return inner

    def tables(self, name: str, known: tuple[str, ...]) -> list[_Table]:
        """Return the tables of a list, at least one."""
        return [_Table(item, self._place(where), known, self._problems) for where, item in self._items(name)]
