"""Typed reading of untrusted JSON values: each problem is noted with its path, and reading goes on.

What is missing or wrong is replaced by an empty value of the right type. Callers must therefore end in
`ProblemList.raise_any` before they hand out what they read.
"""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

from gdn_aot.errors import Problem, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gdn_aot.artifact import manifest as m

MAX_PROBLEMS = 1000
"""Problems listed before a reader gives up."""
MAX_DEPTH = 32
"""Levels of lists and objects inside one piece of free JSON."""
INTEGERS = range(-(1 << 63), 1 << 64)
"""The integers that are read."""

_MISSING = object()
_T = TypeVar("_T")
_L = TypeVar("_L", bound=str)


class ProblemList:
    """Problems in the order found, up to `MAX_PROBLEMS`: what a hostile file can make us keep is bounded.

    Args:
        hint: What to do about them; None for what is done about artifacts.
    """

    __slots__ = ("_hint", "_items")

    def __init__(self, hint: str | None = None) -> None:
        self._items: list[Problem] = []
        self._hint = hint

    def add(self, where: str, what: str) -> None:
        """Note one problem.

        Raises:
            VerificationError: The list is full. Nothing is looked at any more.
        """
        if len(self._items) == MAX_PROBLEMS:
            self._items.append(Problem("", f"there are more than {MAX_PROBLEMS} problems"))
        if len(self._items) > MAX_PROBLEMS:
            raise VerificationError("there are too many problems", self.found(), hint=self._hint)
        self._items.append(Problem(where, what))

    @property
    def count(self) -> int:
        """Return how many were noted so far."""
        return len(self._items)

    def found(self) -> list[Problem]:
        """Return the problems noted so far."""
        return list(self._items)

    def raise_any(self, message: str) -> None:
        """Raise `VerificationError` if any problem was noted."""
        if self._items:
            raise VerificationError(message, self.found(), hint=self._hint)


def kind(value: object) -> str:
    """Return the name of a JSON value's type in messages."""
    names = {type(None): "null", dict: "object", tuple: "list"}
    return names.get(type(value), type(value).__name__)


def _step(key: str) -> str:
    if key.isascii() and key.isidentifier() and len(key) <= 80:  # noqa: PLR2004
        return f".{key}"
    return f"[{key[:80]!a}]"


def _is_text(value: str) -> bool:
    """Say whether a string can be encoded: JSON escapes can spell lone surrogates."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@cache
def _field_names(record: type) -> frozenset[str]:
    return frozenset(field.name for field in fields(record))


def _is_plain(value: object) -> bool:
    """Say whether a value is a scalar that can be taken as it is."""
    if isinstance(value, str):
        return _is_text(value)
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return value in INTEGERS
    return isinstance(value, float) and math.isfinite(value)


def unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of its pairs: an ``object_pairs_hook`` for `json.loads`.

    Raises:
        ValueError: A key is there twice.
    """
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1) if len(keys) < MAX_PROBLEMS else "..."
        raise ValueError(f"an object has the key {twice[:80]!a} twice")
    return value


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and infinity: a ``parse_constant`` for `json.loads`.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{name} is not a JSON number")


class JsonObject:
    """One JSON object: typed getters that note what is wrong and answer with an empty value."""

    __slots__ = ("_data", "_problems", "path")

    def __init__(self, value: object, path: str, record: type | None, problems: ProblemList) -> None:
        self.path = path
        self._problems = problems
        self._data: dict[str, object] | None = value if isinstance(value, dict) else None
        if self._data is None:
            problems.add(path, f"expected object, got {kind(value)}")
            return
        known = self._data.keys() if record is None else _field_names(record)
        if not self._data.keys() <= known:
            for key in self._data:
                if key not in known:
                    problems.add(self._at(key), "unknown key")

    def _at(self, name: str) -> str:
        return (self.path + _step(name)).lstrip(".")

    def _get(self, name: str, expected: str) -> object:
        if self._data is None:
            return _MISSING
        value = self._data.get(name, _MISSING)
        if value is _MISSING:
            self._problems.add(self._at(name), f"missing, expected {expected}")
        return value

    def _wrong(self, name: str, expected: str, value: object) -> None:
        if value is not _MISSING:
            self._problems.add(self._at(name), f"expected {expected}, got {kind(value)}")

    def text(self, name: str) -> str:
        """Return a string."""
        value = self._get(name, "str")
        if isinstance(value, str) and _is_text(value):
            return value
        self._wrong(name, "str" if not isinstance(value, str) else "str without lone surrogates", value)
        return ""

    def integer(self, name: str) -> int:
        """Return an integer; booleans are none."""
        value = self._get(name, "int")
        if type(value) is int and value in INTEGERS:
            return value
        self._wrong(name, "int" if type(value) is not int else "int of at most 64 bits", value)
        return 0

    def boolean(self, name: str) -> bool:
        """Return a boolean."""
        value = self._get(name, "bool")
        if isinstance(value, bool):
            return value
        self._wrong(name, "bool", value)
        return False

    def number(self, name: str) -> float:
        """Return an integer or a finite float."""
        value = self._get(name, "number")
        if value is _MISSING:
            return 0.0
        found = self.number_or_null(value, self._at(name))
        if found is None and value is None:
            self._wrong(name, "number", value)
        return found or 0.0

    def number_or_null(self, value: object, path: str) -> float | None:
        """Return a number, or None for null."""
        if value is None:
            return None
        if type(value) in (int, float) and _is_plain(value):
            return cast("float", value)
        self._problems.add(path, f"expected number or null, got {kind(value)}")
        return None

    def numbers_or_null(self, name: str) -> tuple[float | None, ...]:
        """Return a list of numbers and nulls."""
        return tuple(self.number_or_null(item, path) for path, item in self.items(name))

    def has(self, name: str) -> bool:
        """Say whether the object has a key."""
        return self._data is not None and name in self._data

    def refuse(self, name: str, what: str) -> None:
        """Note that the value of a key, or a place below it, cannot be used."""
        self._problems.add((self.path + (name if name.startswith("[") else f".{name}")).lstrip("."), what)

    def note(self, path: str, what: str) -> None:
        """Note what is wrong at a path of the whole file."""
        self._problems.add(path, what)

    def pairs(self, name: str) -> Iterator[tuple[str, str, object]]:
        """Yield (key, path, value) for an object whose keys are data."""
        value = self._get(name, "object")
        if isinstance(value, dict):
            for key, item in value.items():
                yield key, self._at(name) + _step(key), item
        else:
            self._wrong(name, "object", value)

    def inner(self, value: object, path: str, record: type) -> JsonObject:
        """Return a value below this object as an object of its own."""
        return JsonObject(value, path, record, self._problems)

    def optional(self, name: str, get: Callable[[str], _T]) -> _T | None:
        """Return None for null, else what ``get`` reads."""
        if self._data is not None and self._data.get(name, _MISSING) is None:
            return None
        return get(name)

    def one_of(self, name: str, choices: tuple[_L, ...]) -> _L:
        """Return one of the given strings."""
        value = self.text(name)
        for choice in choices:
            if choice == value:
                return choice
        if self._data is not None and isinstance(self._data.get(name), str):
            self._problems.add(self._at(name), f"expected one of {', '.join(choices)}")
        return choices[0]

    def items(self, name: str) -> Iterator[tuple[str, object]]:
        """Yield (path, item) for a list."""
        value = self._get(name, "list")
        if isinstance(value, list):
            where = self._at(name)
            for number, item in enumerate(value):
                yield f"{where}[{number}]", item
        else:
            self._wrong(name, "list", value)

    def child(self, name: str, record: type, build: Callable[[JsonObject], _T]) -> _T:
        """Return the record that ``build`` makes of an object."""
        value = self._get(name, "object")
        # A missing record is noted once: its own fields are not looked for.
        silent = ProblemList() if value is _MISSING else self._problems
        return build(JsonObject(value, self._at(name), record, silent))

    def children(self, name: str, record: type, build: Callable[[JsonObject], _T]) -> tuple[_T, ...]:
        """Return the records that ``build`` makes of a list of objects."""
        if self._data is not None and isinstance(done := self._data.get(name), tuple):
            return done  # it was read before: there are no tuples in JSON
        return tuple([build(JsonObject(item, path, record, self._problems)) for path, item in self.items(name)])

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings."""
        return tuple(cast("str", self.scalar(item, path, "str")) for path, item in self.items(name))

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a list of integers."""
        return tuple(cast("int", self.scalar(item, path, "int")) for path, item in self.items(name))

    def key(self, name: str) -> m.Key:
        """Return an autotune key."""
        return tuple(self.scalar(item, path) for path, item in self.items(name))

    def pair(self, name: str) -> tuple[int, int]:
        """Return a list of two integers."""
        value = self._get(name, "list")
        if value is _MISSING:
            return 0, 0
        where = self._at(name)
        pair = enumerate(self.sequence(value, where, 2))
        numbers = [self.scalar(item, f"{where}[{number}]", "int") for number, item in pair]
        return cast("tuple[int, int]", tuple(numbers or (0, 0)))

    def scalars(self, name: str) -> Mapping[str, m.Scalar]:
        """Return an object with scalar values."""
        value = self.mapping(name, lambda item: not isinstance(item, (tuple, dict)), "scalar")
        return cast("Mapping[str, m.Scalar]", value)

    def keys(self, name: str) -> tuple[m.Key, ...]:
        """Return a list of autotune keys."""
        return tuple(
            tuple(self.scalar(part, f"{path}[{number}]") for number, part in enumerate(self.sequence(item, path)))
            for path, item in self.items(name)
        )

    def sequence(self, value: object, path: str, length: int | None = None) -> list[object]:
        """Return a list as it is, or an empty one if it is not a list (of ``length``)."""
        if isinstance(value, list) and length in (None, len(value)):
            return value
        expected = "list" if length is None else f"list of {length}"
        got = f"list of {len(value)}" if isinstance(value, list) else kind(value)
        self._problems.add(path, f"expected {expected}, got {got}")
        return []

    def scalar(self, value: object, path: str, expected: str = "scalar") -> m.Scalar:
        """Return a string, number, boolean or null, and only that named by ``expected`` if that is a type."""
        if isinstance(value, (list, dict)) or expected not in ("scalar", type(value).__name__):
            self._problems.add(path, f"expected {expected}, got {kind(value)}")
            return ""
        return cast("m.Scalar", self.free(value, path))

    def free(self, value: object, path: str, depth: int = 0) -> m.Json:
        """Return free JSON in frozen form. Objects are changed in place, which spares a second copy."""
        if _is_plain(value):
            return cast("m.Scalar", value)
        if depth > MAX_DEPTH:
            self._problems.add(path, f"is nested deeper than {MAX_DEPTH} levels")
        elif isinstance(value, list):
            return tuple(
                [
                    item if _is_plain(item) else self.free(item, f"{path}[{number}]", depth + 1)
                    for number, item in enumerate(value)
                ]
            )
        elif isinstance(value, dict):
            for key, item in value.items():
                if not _is_text(key):
                    self._problems.add(path + _step(key), "expected key without lone surrogates")
                if not _is_plain(item):
                    value[key] = self.free(item, path + _step(key), depth + 1)
            return value
        elif isinstance(value, str):
            self._problems.add(path, "expected str without lone surrogates, got str")
        elif isinstance(value, int):
            self._problems.add(path, "expected int of at most 64 bits, got int")
        else:
            self._problems.add(path, "expected a finite number, got float")
        return None

    def mapping(
        self, name: str, test: Callable[[m.Json], bool] | None = None, expected: str = ""
    ) -> Mapping[str, m.Json]:
        """Return an object with free values, each value tested."""
        value = self._get(name, "object")
        if not isinstance(value, dict):
            self._wrong(name, "object", value)
            return {}
        frozen = cast("Mapping[str, m.Json]", self.free(value, self._at(name)))
        for key, item in frozen.items():
            if test is not None and not test(item):
                self._problems.add(self._at(name) + _step(key), f"expected {expected}, got {kind(item)}")
        return frozen

    def by_argument(
        self, name: str, test: Callable[[m.Json], bool], expected: str
    ) -> tuple[tuple[m.ArgumentPath, m.Json], ...]:
        """Return a list of [argument path, value] pairs, each value tested."""
        pairs = []
        for path, item in self.items(name):
            pair = self.sequence(item, path, 2)
            if pair:
                steps = self.sequence(pair[0], f"{path}[0]")
                if not all(type(step) is int and step in INTEGERS for step in steps):
                    steps = [self.scalar(step, f"{path}[0][{number}]", "int") for number, step in enumerate(steps)]
                value = pair[1] if _is_plain(pair[1]) else self.free(pair[1], f"{path}[1]")
                if not test(cast("m.Json", value)):
                    self._problems.add(f"{path}[1]", f"expected {expected}")
                pairs.append((cast("m.ArgumentPath", tuple(steps)), cast("m.Json", value)))
        return tuple(pairs)
