"""The files that a report is of: artifacts, and records of tuning and numerics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from gdn_aot._files import read_regular
from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.errors import UsageError
from gdn_aot.records.numerics import FORM as NUMERICS
from gdn_aot.records.numerics import NumericsRecord
from gdn_aot.records.tuning import FORM as TUNING
from gdn_aot.records.tuning import TuningRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ARTIFACT = b"\x28\xb5\x2f\xfd"
"""What zstd frames, and so artifacts, begin with: RFC 8878, 3.1.1."""
Input: TypeAlias = "Artifact | TuningRecord | NumericsRecord"


class _Kind(msgspec.Struct):
    """What tells a record of numeric checks from one of times."""

    checks: msgspec.Raw = msgspec.Raw(b"")


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """One file, and what it holds."""

    path: Path
    held: Input


def read(path: Path) -> Named:
    """Read a file: a record if it begins as JSON objects do, else an artifact, which is verified.

    Raises:
        UsageError: It cannot be read, is of another kind, or is a record that is refused.
        VerificationError: It is no sound artifact.
    """
    try:
        with path.open("rb") as opened:
            start = opened.read(4) if path.is_file() else b""
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", hint="name a file") from error
    if start[:1] != b"{":
        if not start.startswith(_ARTIFACT):
            hint = "name a file of gdn-aot build, tune or check"
            raise UsageError(f"{path} is neither an artifact nor a record", hint=hint)
        artifact = open_artifact(path, lazy=True)
        for _ in artifact.iter_blobs():  # each is checked, and none is kept: a set may have a hundred artifacts
            pass
        return Named(path=path, held=artifact)
    try:
        data = read_regular(path, TUNING.limit)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    form = NUMERICS if _is_of_checks(data) else TUNING
    return Named(path=path, held=form.parse(data, name=f"{form.what.removeprefix('the ')} {path}"))


def read_all(paths: Sequence[Path]) -> list[Named]:
    """Read several files, in their order.

    Raises:
        UsageError: One cannot be read or is refused, or two are the same.
        VerificationError: As for `read`.
    """
    found = [read(path) for path in paths]
    for place, one in enumerate(found):
        if any(one.held == other.held or _is_same(one.held, other.held) for other in found[:place]):
            raise UsageError(f"{one.path} is given twice", hint="name each file once")
    return found


def _is_of_checks(data: bytes) -> bool:
    try:
        return msgspec.json.decode(data, type=_Kind).checks != msgspec.Raw(b"")
    except (ValueError, RecursionError):
        return False


def _is_same(one: Input, other: Input) -> bool:
    return isinstance(one, Artifact) and isinstance(other, Artifact) and one.sha256 == other.sha256
