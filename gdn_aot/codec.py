"""One codec for every file that we read back: bytes to typed records and back, and what is wrong where it fails.

A `Form` is a kind of file: a record (a `msgspec.Struct` whose fields are the keys, in order), the version of its format
and its bounds. What `Form.decode` accepts is exactly what `Form.encode` writes, byte for byte: so a key that is there
twice, another order of keys or other white space is refused, and two readers cannot disagree. Only where bytes are
refused are they looked at again, with the JSON Schema that the record gives, to list every problem with its path.
"""

from __future__ import annotations

import errno
import gc
import json
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from gdn_aot._files import read_regular
from gdn_aot.errors import Problem, UnknownFormatError, VerificationError
from gdn_aot.problems import capped, problem_of, problems

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: object) -> Callable[[type], type]:
        """Do nothing: it tells type checkers that what inherits from a frozen record is frozen."""
        return lambda record: record


T = TypeVar("T")

Integer = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", min_length=64, max_length=64)]
"""A SHA-256 in hexadecimal."""
NoDigest = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?(?![\s\S])")]
"""A SHA-256 in hexadecimal, or nothing."""
TargetName = Annotated[str, Meta(pattern=r"^sm_[0-9]{2,3}(?![\s\S])", description="a target such as sm_90")]
Commit = Annotated[str, Meta(pattern="^[0-9a-f]{40}$", min_length=40, max_length=40)]
"""A commit of git."""

MAX_STRUCTURE = 2_000_000
"""Opening brackets and commas in a file, unless its form says more; bounds the memory that its values take."""
MAX_DEPTH = 32
"""Levels of lists and objects inside one piece of free JSON."""
_WIDTH = 4
"""Bytes that each character of a text may take in memory if one of them is not ASCII."""
_LISTED = 500_000
"""Brackets and commas in the largest file of which all problems are listed, not the first alone; that takes seconds."""
_INTEGERS = range(-(1 << 63), 1 << 64)
"""The integers of free JSON."""
_CONTAINERS = (list, tuple, dict)


@dataclass_transform(frozen_default=True)
class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what a file holds: its fields are the keys, in order; other keys are refused."""


class Form(Generic[T]):
    """One kind of JSON file.

    Args:
        record: What it holds.
        what: What messages call it, as ``the manifest``.
        format: Its format version, which the field ``format`` of ``record`` holds.
        limit: Most bytes that one may have.
        structure: Most opening brackets and commas.
        objects: Most opening braces; an object takes ten times the memory of another value.
        layout: Puts the compact JSON that is encoded into the lines of the file.
        check: Yields what contradicts itself in a record that is well formed.
        hint: What to do about a file that is refused; nothing for what errors of verification say.
    """

    def __init__(
        self,
        record: type[T],
        what: str,
        *,
        format: int,  # noqa: A002 - it is what the key is called
        limit: int,
        structure: int = MAX_STRUCTURE,
        objects: int = MAX_STRUCTURE,
        layout: Callable[[bytes], bytes] = lambda compact: compact + b"\n",
        check: Callable[[T], Iterable[Problem]] | None = None,
        hint: str | None = None,
    ) -> None:
        self._record, self.what, self.format, self.limit = record, what, format, limit
        self._structure, self._objects = structure, objects
        self._layout, self._check, self._hint = layout, check, hint
        self._decoder = msgspec.json.Decoder(record)
        self._encoder = msgspec.json.Encoder()

    def encode(self, record: T) -> bytes:
        """Return the bytes of the file.

        Raises:
            ValueError: They would not be read as what they were written from: something in it is not of the type that
                its record says, or a number is not finite or has more than 64 bits.
        """
        try:
            data = self._written(record)
            read = self._decoder.decode(data)
        except (TypeError, OverflowError) as error:
            raise ValueError(str(error)) from error
        if read != record or self._written(read) != data:
            raise ValueError(f"{self.what} would not be read as what it was written from")
        return data

    def decode(self, data: bytes, name: str | None = None) -> T:
        """Return what a file holds.

        Args:
            data: Its bytes.
            name: What messages call it; nothing for ``what``.

        Raises:
            UnknownFormatError: It is of another format version; nothing else was looked at.
            VerificationError: It is refused; every problem is listed, up to `gdn_aot.problems.MAX_PROBLEMS`.
        """
        name = name or self.what
        self._refuse(self._unreadable(data), f"{name} cannot be read")
        with collector_paused():
            try:
                record = self._decoder.decode(data)
            except (ValueError, RecursionError) as error:
                self._check_format(data)
                raise self._refused(self._problems(data, error), f"{name} is malformed") from error
            self._check_version(getattr(record, "format", self.format))
            self._refuse(self._other_form(record, data), f"{name} is malformed")
            self._refuse(self._contradictions(record), f"{name} contradicts itself")
        return record

    def read(self, path: Path, name: str | None = None) -> T:
        """Return what the regular file at a path holds; see `decode`.

        Raises:
            OSError: It cannot be read, or is no regular file.
            UnknownFormatError: As for `decode`.
            VerificationError: As for `decode`.
        """
        try:
            data = read_regular(path, self.limit)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            found = [Problem("", str(error.strerror))]
            raise self._refused(found, f"{name or self.what} cannot be read") from error
        return self.decode(data, name)

    def convert(self, value: object, name: str | None = None) -> T:
        """Return the record of a JSON value that no file holds.

        Raises:
            VerificationError: As for `decode`.
        """
        name = name or self.what
        try:
            record = msgspec.convert(value, self._record)
        except (ValueError, RecursionError) as error:
            found = problems(value, self.schema()) or [problem_of(error)]
            raise self._refused(found, f"{name} is malformed") from error
        self._refuse(self._contradictions(record), f"{name} contradicts itself")
        return record

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the file (draft 2020-12)."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(self._record)}

    def _unreadable(self, data: bytes) -> list[Problem]:
        if len(data) > self.limit:
            return [Problem("", f"is larger than {self.limit} bytes")]
        if _structure(data) > self._structure:
            return [Problem("", f"has more than {self._structure} brackets and commas")]
        if data.count(b"{") > self._objects:
            return [Problem("", f"has more than {self._objects} braces")]
        if len(data) > self.limit // _WIDTH and not (data.isascii() and b"\\u" not in data):
            return [Problem("", f"is larger than {self.limit // _WIDTH} bytes and has characters beyond ASCII")]
        return []

    def _check_format(self, data: bytes) -> None:
        """Look at the format version of a file that is not of this form: it may be of another one."""
        try:
            found = msgspec.json.decode(data, type=_Head).format
        except (ValueError, RecursionError):
            return
        if found is not msgspec.UNSET:
            self._check_version(found)

    def _check_version(self, found: object) -> None:
        if found != self.format:
            problem = Problem("format", f"{found} is not a known format version, only {self.format} is")
            name = self.what.removeprefix("the ")
            raise UnknownFormatError(f"unknown {name} format {found}, expected {self.format}", [problem])

    def _problems(self, data: bytes, error: Exception) -> list[Problem]:
        try:
            value = json.loads(data.decode(), parse_constant=_refuse_constant, parse_int=_bounded)
        except RecursionError:
            return [Problem("", "is nested too deep")]
        except ValueError as fault:
            what = f"{fault.msg} at character {fault.pos}" if isinstance(fault, json.JSONDecodeError) else str(fault)
            return [Problem("", f"is not JSON: {what[:200]}")]
        found = problems(value, self.schema()) if _structure(data) <= _LISTED else []
        return found or [problem_of(error)]

    def _other_form(self, record: T, data: bytes) -> list[Problem]:
        """Return how a file that says the same differs from what we write."""
        try:
            expected = self._written(record)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            return [Problem("", f"holds what is not written: {str(error)[:200]}")]
        if expected == data:
            return []
        at = next((at for at, (one, other) in enumerate(zip(expected, data, strict=False)) if one != other), None)
        place = min(len(expected), len(data)) if at is None else at
        what = f"is not written as gdn-aot writes it: from byte {place} on"
        return [Problem("", f"{what}; a key twice, another order of keys, other white space or another spelling")]

    def _written(self, record: T) -> bytes:
        return self._layout(self._encoder.encode(record))

    def _contradictions(self, record: T) -> list[Problem]:
        return capped(self._check(record)) if self._check else []

    def _refuse(self, found: list[Problem], message: str) -> None:
        if found:
            raise self._refused(found, message)

    def _refused(self, found: list[Problem], message: str) -> VerificationError:
        return VerificationError(message, found, hint=self._hint)


def _structure(data: bytes) -> int:
    return sum(map(data.count, (b"[", b"{", b",")))


class _Head(msgspec.Struct):
    format: int | msgspec.UnsetType = msgspec.UNSET


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from looking, again and again, at many objects that are made and not dropped."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def unbounded(value: object, most: int = MAX_STRUCTURE) -> str:
    """Return why a piece of free JSON is refused, or nothing: it is nested too deep, or an integer is too large.

    Or it has more than ``most`` values.
    """
    level: list[Any] = [value]
    count = 0
    for _ in range(MAX_DEPTH + 1):
        count += len(level)
        if count > most:
            return f"has more than {most} values"
        integers = [item for item in level if type(item) is int]
        if not all(map(_INTEGERS.__contains__, integers)):
            return "holds an integer of more than 64 bits"
        containers = [item for item in level if type(item) in _CONTAINERS]
        if not containers:
            return ""
        level = [*chain.from_iterable(item.values() if type(item) is dict else item for item in containers)]
    return f"is nested deeper than {MAX_DEPTH} levels"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _bounded(text: str) -> int:
    """Read an integer; one with more than 64 bits is one that no bound admits."""
    return int(text) if len(text) < 20 else (-(1 << 64) if text.startswith("-") else 1 << 64)  # noqa: PLR2004
