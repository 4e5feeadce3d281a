"""Which rows would be built from something else than at a commit.

A row's inputs are the row itself, its file of pins, the code of this package that its build runs, the rows of the
tables of models and targets that it names, and the records that its choices are from. A record of another target counts
too: `gdn_aot.choosing.transfer` asks it for every key that nearer ones lack.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot.errors import MatrixError
from gdn_aot.matrix import git
from gdn_aot.matrix.code import Code
from gdn_aot.matrix.load import parse

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from gdn_aot.matrix.form import Matrix, Row

_PACKAGE = "gdn_aot"
"""Folder of this package in its repository."""
_UNSEEN = {"hub", "source", "confidence", "attention_source", "sources"}
"""Fields of the tables of models and targets that say where figures are from."""

_Table = dict[str, dict[str, Any]]


def changed(matrix: Matrix, rows: Sequence[Row], since: str) -> dict[str, str]:
    """Return why rows differ from what they were at a commit, by identifier; those that do not are left out.

    What no commit has counts, files that git does not know included. If the package's code is not in the repository of
    the matrix file, it is not compared.

    Args:
        matrix: As it is now.
        rows: Rows of it.
        since: A commit, as git names them.

    Raises:
        UsageError: Git does not answer, or has no such commit.
    """
    checkout = git.Checkout(matrix.path.resolve().parent)
    commit = checkout.commit(since)
    paths = checkout.changed(commit)
    look = _Look(matrix=matrix, checkout=checkout, commit=commit, paths=paths)
    reasons: list[Callable[[Row], str | None]] = [
        look.row_reason(),
        look.pins_reason,
        look.code_reason(),
        *look.table_reasons(),
        look.record_reason,
    ]
    found = ((row.identifier, next(filter(None, (reason(row) for reason in reasons)), None)) for row in rows)
    return {identifier: reason for identifier, reason in found if reason is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    """Gives one function for each kind of input: row to reason."""

    matrix: Matrix
    checkout: git.Checkout
    commit: str
    paths: frozenset[str]

    def row_reason(self) -> Callable[[Row], str | None]:
        place = self.checkout.path(self.matrix.path)
        data = self.checkout.show(self.commit, place) if place else None
        try:
            before = {row.identifier: row for row in parse(data or b"", self.matrix.path).rows}
        except MatrixError:
            return lambda _: f"{place} was not there, or was another format"

        def reason(row: Row) -> str | None:
            if row.identifier not in before:
                return "it is new in the matrix"
            return None if before[row.identifier] == row else "its row of the matrix differs"

        return reason

    def pins_reason(self, row: Row) -> str | None:
        return _differs(filter(None, [self.checkout.path(self.matrix.requirements(row.environment))]), self.paths)

    def code_reason(self) -> Callable[[Row], str | None]:
        package = self.checkout.root / _PACKAGE
        if not (package / "build" / "pipeline.py").is_file():
            return lambda _: None
        code = Code(package)
        providers = {row.environment.provider for row in self.matrix.rows}
        files = {name: {f"{_PACKAGE}/{path}" for path in code.files(name)} for name in providers}
        return lambda row: _differs(files[row.environment.provider], self.paths)

    def table_reasons(self) -> Iterator[Callable[[Row], str | None]]:
        for kind, names in (("model", lambda row: row.models), ("target", lambda row: (row.target,))):
            place = f"{_PACKAGE}/catalogue/{kind}s.toml"
            if place not in self.paths:
                continue
            now = _table((self.checkout.root / place).read_bytes(), kind)
            before = _table(self.checkout.show(self.commit, place) or b"", kind)
            yield _table_reason(kind, names, now, before)

    def record_reason(self, row: Row) -> str | None:
        records = self.matrix.path.resolve().parent
        name = f"{row.environment.distribution}-{row.environment.version}.json"
        tuning, numerics = (self.checkout.path(records / kind) for kind in ("tuning", "numerics"))
        ours = [path for path in self.paths if path.startswith(f"{tuning}/") and Path(path).name == name]
        return _differs([*sorted(ours), f"{numerics}/{row.target}/{name}"], self.paths)


def _differs(files: Iterable[str], paths: frozenset[str]) -> str | None:
    found = sorted(paths.intersection(files))
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0]}{more} differs" if found else None


def _table(data: bytes, kind: str) -> _Table | None:
    """Return the rows of a table by name, without what only says where they are from; None if it is no such table."""
    try:
        rows = tomllib.loads(data.decode("utf-8"))[kind]
        return {row["name"]: {key: value for key, value in row.items() if key not in _UNSEEN} for row in rows}
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError):
        return None


def _table_reason(
    kind: str, names: Callable[[Row], tuple[str, ...]], now: Mapping[str, Any] | None, before: Mapping[str, Any] | None
) -> Callable[[Row], str | None]:
    if now is None or before is None:
        return lambda _: f"the table of {kind}s was not there, or was another format"
    differing = {name for name in {*now, *before} if now.get(name) != before.get(name)}

    def reason(row: Row) -> str | None:
        named = differing if names(row) == ("all",) else differing.intersection(names(row))
        return f"the {kind} {min(named)} differs" if named else None

    return reason
