"""Records as files: where each lies, what all of them say first, and how they are read and written.

There is one file per target and provider version, ``<target>/<distribution>-<version>.json``. Records lie in git:
an object that holds no list of objects has a line of its own, and a record has one order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec

from gdn_aot._files import read_regular, write_whole
from gdn_aot.codec import Count, Form, Record
from gdn_aot.errors import NotWritableError, UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from gdn_aot.errors import Problem

FORMAT: Final = 1
"""The format version written, and the only one read."""
_MAX_BYTES = 128 << 20
_MAX_STRUCTURE = 20_000_000
"""Brackets and commas: a wide search over every kernel has some millions."""
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


class RecordedProvider(Record):
    """Whose kernels were run."""

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


class RecordedDevice(Record, omit_defaults=True):
    """The card that ran them."""

    name: str
    """As ``torch.cuda.get_device_name`` prints it."""
    driver: str
    sm_count: Count | None = None
    memory: Count | None = None
    """Bytes."""


class AnyRecord(Record, kw_only=True):
    """What every record says first."""

    format: Literal[1] = FORMAT
    target: str
    provider: RecordedProvider
    triton: str
    ptxas: str
    tool: str
    """Of gdn-aot, as ``gdn-aot 0.1.0``."""


R = TypeVar("R", bound=AnyRecord)


class RecordForm(Form[R]):
    """One kind of record, which messages call ``name``, as ``tuning record``; ``hint`` is what to do if one is refused.

    ``order`` brings a record into the one order that files have, ``check`` yields what contradicts itself in one.
    """

    def __init__(
        self,
        record: type[R],
        name: str,
        *,
        hint: str,
        order: Callable[[R], R] = lambda record: record,
        check: Callable[[R], Iterable[Problem]] | None = None,
    ) -> None:
        super().__init__(
            record,
            f"the {name}",
            format=FORMAT,
            limit=_MAX_BYTES,
            structure=_MAX_STRUCTURE,
            layout=_lines,
            check=check,
            hint=hint,
        )
        self._name, self._order, self._what_to_do = name, order, hint

    @staticmethod
    def path(root: Path, target: str, distribution: str, version: str) -> Path:
        """Return where the record of a target and provider version lies."""
        return root / target / f"{distribution}-{version}.json"

    def dump(self, record: R) -> bytes:
        """Return the bytes of a record; the same for the same record, whatever order it was made in.

        Raises:
            ValueError: As for `encode`.
        """
        return self.encode(self._order(record))

    def parse(self, data: bytes, *, name: str = "") -> R:
        """Read the bytes of a record, which messages call ``name``.

        Raises:
            UsageError: It is no record of this format, or contradicts itself. Carries every problem with its path.
        """
        try:
            return self.decode(data)
        except VerificationError as error:
            raise self._refusal(name or self._name, list(error.problems)) from error

    def _refusal(self, name: str, problems: list[Problem]) -> UsageError:
        more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
        return UsageError(f"{name} is refused: {problems[0]}{more}", problems if more else (), hint=self._what_to_do)

    def load(
        self, path: Path, *, target: str | None = None, distribution: str | None = None, version: str | None = None
    ) -> R | None:
        """Read a record, which must be for the target, distribution and version given; None if there is no file.

        Raises:
            UsageError: It cannot be read, is no record, or is for something else. Records are never mixed.
        """
        name = f"{self._name} {path}"
        try:
            data = read_regular(path, self.limit)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{name} cannot be read: {error.strerror}", hint=self._what_to_do) from error
        record = self.parse(data, name=name)
        compared = {
            "target": (record.target, target),
            "provider.distribution": (record.provider.distribution, distribution),
            "provider.version": (record.provider.version, version),
        }
        for field, (found, wanted) in compared.items():
            if wanted is not None and found != wanted:
                raise UsageError(f"{name} is refused: {field}: {found!r} is not {wanted!r}", hint=self._what_to_do)
        return record

    def find(self, root: Path | None, target: str, distribution: str, version: str) -> R | None:
        """Read the record of a target and provider version below a directory; None if there is none of either.

        Raises:
            UsageError: As for `load`.
        """
        if root is None:
            return None
        path = self.path(root, target, distribution, version)
        return self.load(path, target=target, distribution=distribution, version=version)

    def save(self, record: R, path: Path) -> None:
        """Write a record whole, and its directory if that is missing.

        Raises:
            NotWritableError: It cannot be written. What was at ``path`` is still there.
        """
        content = self.dump(record)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content, sync=True)
        except OSError as error:
            raise NotWritableError(f"cannot write the {self._name} {path}: {error.strerror or error}") from error


def _lines(compact: bytes) -> bytes:
    """Return JSON with a line for each object that holds no list of objects, and for each key of one that does."""
    return _split(msgspec.json.format(compact, indent=0), b"\n") + b"\n"


def _split(text: bytes, end: bytes) -> bytes:
    """Return a value in the lines that it takes; ``end`` is the line break before what closes it."""
    if b"[{" not in text or text.startswith(b'"'):
        return text
    inner = end + b" "
    if text.startswith(b"{"):
        fields = _FIELDS.decode(text).items()
        items = [b'"%b": %b' % (name.encode(), _split(bytes(value), inner)) for name, value in fields]
    else:
        items = [_split(bytes(item), inner) for item in _ITEMS.decode(text)]
    return text[:1] + inner + (b"," + inner).join(items) + end + text[-1:]
