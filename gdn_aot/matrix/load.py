"""From a matrix file to `Matrix`: lists expanded, names known, every pair possible, no identifier twice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._text import suggest
from gdn_aot.catalogue.models import all_models
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.catalogue.targets import all_targets
from gdn_aot.errors import MatrixError, Problem, UsageError
from gdn_aot.matrix import pairs
from gdn_aot.matrix.form import Matrix, MatrixRow, read

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gdn_aot.matrix.form import ArtifactTable, BuildEnvironment, MatrixFile

DEFAULT = Path("artifacts/matrix.toml")
"""Where a checkout of this repository has it, from the root."""


def load(path: Path) -> Matrix:
    """Read a matrix file.

    Raises:
        UsageError: It cannot be read.
        MatrixError: It is not TOML, or something in it is wrong; every problem is named with its path.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        hint = "run in the root of the repository, or give --matrix FILE"
        raise UsageError(f"cannot read the matrix {path}: {error.strerror}", hint=hint) from error
    return parse(data, path)


def parse(data: bytes, path: Path) -> Matrix:
    """Read the bytes of a matrix file.

    Args:
        data: What the file holds.
        path: Where it lies, or would.

    Raises:
        MatrixError: As for `load`.
    """
    try:
        value = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise MatrixError(f"{path} is not TOML: {error}") from error
    file = read(value, path)
    problems: list[Problem] = []
    environments = _environments(file, problems)
    rows = _rows(file, environments, problems)
    if not problems:
        problems += _unused(environments, rows)
    if problems:
        raise MatrixError(f"{path} asks for what cannot be", problems)
    return Matrix(path=path, environments=tuple(environments.values()), rows=rows)


def _environments(file: MatrixFile, problems: list[Problem]) -> dict[str, BuildEnvironment]:
    """Return the environments by name. Those that cannot be are noted, and are there all the same."""
    found: dict[str, BuildEnvironment] = {}
    for number, environment in enumerate(file.environment):
        where = f"environment[{number}]"
        if environment.name in found:
            problems.append(Problem(f"{where}.name", f"another environment is named {environment.name!r}"))
        elif environment.provider not in PROVIDERS:
            problems.append(Problem(f"{where}.provider", _unknown("provider", environment.provider, PROVIDERS)))
        else:
            found[environment.name] = environment
            reasons = pairs.environment_problems(environment)
            problems.extend(Problem(f"{where}.{key}", reason) for key, reason in reasons)
    return found


def _rows(
    file: MatrixFile, environments: dict[str, BuildEnvironment], problems: list[Problem]
) -> tuple[MatrixRow, ...]:
    known = {environment.name for environment in file.environment}
    first: dict[str, tuple[str, MatrixRow]] = {}
    for number, table in enumerate(file.artifact):
        where = f"artifact[{number}]"
        problems.extend(_name_problems(table, known, where))
        for position, name in enumerate(table.targets):
            for row in (_row(table, environments[one], name) for one in table.environments if one in environments):
                if row.identifier in first:
                    what = f"{row.identifier} is an artifact of {first[row.identifier][0]} already"
                    problems.append(Problem(f"{where}.targets[{position}]", what))
                elif reason := pairs.target_problem(row.environment, name):
                    problems.append(Problem(f"{where}.targets[{position}]", f"{row.identifier} cannot be: {reason}"))
                first.setdefault(row.identifier, (where, row))
    return tuple(row for _, row in first.values())


def _unused(environments: dict[str, BuildEnvironment], rows: tuple[MatrixRow, ...]) -> list[Problem]:
    """Return the environments of which nothing is published: an artifact has lost one, or they are left over."""
    used = {row.environment.name for row in rows}
    return [
        Problem(f"environment[{number}].name", f"no artifact is built in {name!r}")
        for number, name in enumerate(environments)
        if name not in used
    ]


def _row(table: ArtifactTable, environment: BuildEnvironment, target: str) -> MatrixRow:
    return MatrixRow(
        environment=environment, target=target, models=table.models, tp=table.tp, max_tokens=table.max_tokens
    )


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = tuple(known)
    return f"unknown {what} {name!r}; {suggest(name, names, 'known are ' + ', '.join(names))}"


def _name_problems(table: ArtifactTable, environments: set[str], where: str) -> Iterator[Problem]:
    targets = [target.name for target in all_targets()]
    for what, names, known in (
        ("environment", table.environments, sorted(environments)),
        ("target", table.targets, targets),
    ):
        for number, name in enumerate(names):
            if name not in known:
                yield Problem(f"{where}.{what}s[{number}]", _unknown(what, name, known))
    yield from _model_problems(table, where)


def _model_problems(table: ArtifactTable, where: str) -> list[Problem]:
    """Return what is wrong with models and sizes: a named model must exist in every size, of ``all`` one in each."""
    catalogue = {model.name: model for model in all_models()}
    if "all" in table.models:
        if len(table.models) > 1:
            return [Problem(f"{where}.models", "all stands alone")]
        return [
            Problem(f"{where}.tp[{number}]", f"{tp} divides the heads of no model")
            for number, tp in enumerate(table.tp)
            if all(model.indivisible(tp) for model in catalogue.values())
        ]
    found = []
    for number, name in enumerate(table.models):
        if name not in catalogue:
            found.append(Problem(f"{where}.models[{number}]", _unknown("model", name, catalogue)))
            continue
        reasons = (catalogue[name].indivisible(tp) for tp in table.tp)
        found.extend(Problem(f"{where}.models[{number}]", reason) for reason in reasons if reason)
    return found
