"""Typed reading of untrusted JSON values, for what is not read by `gdn_aot.codec` yet.

Each problem is noted with its path, and reading goes on.

What is missing or wrong is replaced by an empty value of the right type. Callers must therefore end in
`ProblemList.raise_any` before they hand out what they read.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

from gdn_aot.errors import Problem, UnknownFormatError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gdn_aot.launches import Key, Scalar

MAX_PROBLEMS = 1000
"""Problems listed before a reader gives up."""
MAX_DEPTH = 32
"""Levels of lists and objects inside one piece of free JSON."""
INTEGERS = range(-(1 << 63), 1 << 64)
"""The integers that are read."""

MAX_STRUCTURE = 2_000_000
"""Opening brackets and commas in a file; bounds the memory that its objects take."""
DIGEST = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")

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
    names = getattr(record, "__struct_fields__", None)
    return frozenset(names or (field.name for field in fields(record)))


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

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a list of integers."""
        return tuple(cast("int", self.scalar(item, path, "int")) for path, item in self.items(name))

    def key(self, name: str) -> Key:
        """Return an autotune key."""
        return tuple(self.scalar(item, path) for path, item in self.items(name))

    def sequence(self, value: object, path: str, length: int | None = None) -> list[object]:
        """Return a list as it is, or an empty one if it is not a list (of ``length``)."""
        if isinstance(value, list) and length in (None, len(value)):
            return value
        expected = "list" if length is None else f"list of {length}"
        got = f"list of {len(value)}" if isinstance(value, list) else kind(value)
        self._problems.add(path, f"expected {expected}, got {got}")
        return []

    def scalar(self, value: object, path: str, expected: str = "scalar") -> Scalar:
        """Return a string, number, boolean or null, and only that named by ``expected`` if that is a type."""
        if isinstance(value, (list, dict)) or expected not in ("scalar", type(value).__name__):
            self._problems.add(path, f"expected {expected}, got {kind(value)}")
            return ""
        return cast("Scalar", self.free(value, path))

    def free(self, value: object, path: str, depth: int = 0) -> object:
        """Return free JSON in frozen form. Objects are changed in place, which spares a second copy."""
        if _is_plain(value):
            return cast("Scalar", value)
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


def load_json(data: bytes, name: str, limit: int, problems: ProblemList) -> object:
    """Return the JSON value in a file, or None with what is wrong noted.

    Args:
        data: The file: ASCII, at most `MAX_STRUCTURE` brackets and commas, no key twice in an object.
        name: What messages call it.
        limit: Most bytes it may have.
        problems: Where to note what is wrong.
    """
    refusal = _unreadable(data, name, limit)
    if refusal:
        problems.add("", refusal)
    else:
        try:
            value: object = json.loads(
                data.decode("ascii"), object_pairs_hook=unique_pairs, parse_constant=refuse_constant
            )
        except json.JSONDecodeError as error:
            problems.add("", f"{name} is not JSON: {error.msg} at byte {error.pos}")
        except ValueError as error:
            problems.add("", f"{name} is not acceptable JSON: {str(error)[:200]}")
        except RecursionError:
            problems.add("", f"{name} is nested too deep")
        else:
            return value
    return None


def _unreadable(data: bytes, name: str, limit: int) -> str:
    """Return why a file is not even looked into, or nothing."""
    if len(data) > limit:
        return f"{name} is larger than {limit} bytes"
    if not data.isascii():
        return f"{name} is not ASCII"
    if sum(map(data.count, (b"[", b"{", b","))) > MAX_STRUCTURE:
        return f"{name} has more than {MAX_STRUCTURE} brackets and commas"
    return ""


def check_format(raw: object, what: str, known: int, problems: ProblemList) -> None:
    """Look at the ``format`` of a file before anything else in it.

    Args:
        raw: What `load_json` returned.
        what: What is of that format, in messages.
        known: The version that can be read.
        problems: Where to note what is wrong.

    Raises:
        UnknownFormatError: It is of another version.
    """
    if not isinstance(raw, dict):
        problems.add("", f"expected object, got {kind(raw)}")
        return
    version = raw.get("format")
    if "format" not in raw:
        problems.add("format", "missing, expected int")
    elif not isinstance(version, int) or isinstance(version, bool):
        problems.add("format", f"expected int, got {kind(version)}")
    elif version != known:
        shown = version if version in INTEGERS else "a very large number"
        problem = Problem("format", f"{shown} is not a known format version, only {known} is")
        raise UnknownFormatError(f"unknown {what} format {shown}, expected {known}", [problem])
