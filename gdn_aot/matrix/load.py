"""From a matrix file to `Matrix`: lists expanded, names known, every pair possible, no identifier twice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot.catalogue.models import all_models
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.catalogue.targets import all_targets
from gdn_aot.errors import MatrixError, Problem, UsageError
from gdn_aot.matrix import pairs
from gdn_aot.matrix.form import Environment, Matrix, Row
from gdn_aot.matrix.read import Document, read, suggest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from gdn_aot.matrix.read import ArtifactTable, EnvironmentTable

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
    problems: list[Problem] = []
    try:
        value = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise MatrixError(f"{path} is not TOML: {error}", []) from error
    document = read(value, problems)
    if document is None:
        raise MatrixError(f"{path} is no matrix", problems)
    environments = _environments(document, problems)
    rows = _rows(document, environments, problems)
    if not problems:
        problems += _unused(environments, rows)
    if problems:
        raise MatrixError(f"{path} asks for what cannot be", problems)
    return Matrix(path=path, environments=tuple(environments.values()), rows=rows)


def _environments(document: Document, problems: list[Problem]) -> dict[str, Environment]:
    """Return the environments by name. Those that cannot be are noted, and are there all the same."""
    found: dict[str, Environment] = {}
    for number, table in enumerate(document.environments):
        where = f"environment[{number}]"
        if table.name in found:
            problems.append(Problem(f"{where}.name", f"another environment is named {table.name!r}"))
        elif made := _environment(table, where, problems):
            found[table.name] = made
    return found


def _environment(table: EnvironmentTable, where: str, problems: list[Problem]) -> Environment | None:
    info = PROVIDERS.get(table.provider)
    if info is None:
        what = f"unknown provider {table.provider!r}; {suggest(table.provider, tuple(PROVIDERS))}"
        problems.append(Problem(f"{where}.provider", what))
        return None
    for key, reason in pairs.environment_problems(info, table.version, table.triton, table.python):
        problems.append(Problem(f"{where}.{key}", reason))
    return Environment(
        name=table.name,
        provider=info.name,
        distribution=info.distribution,
        version=table.version,
        triton=table.triton,
        requirements=table.requirements,
        python=table.python,
        runner=table.runner,
    )


def _rows(document: Document, environments: dict[str, Environment], problems: list[Problem]) -> tuple[Row, ...]:
    known = {table.name for table in document.environments}
    first: dict[str, tuple[str, Row]] = {}
    for number, table in enumerate(document.artifacts):
        where = f"artifact[{number}]"
        _check_names(table, known, where, problems)
        for position, name in enumerate(table.targets):
            for row in (_row(table, environments[one], name) for one in table.environments if one in environments):
                if row.identifier in first:
                    what = f"{row.identifier} is an artifact of {first[row.identifier][0]} already"
                    problems.append(Problem(f"{where}.targets[{position}]", what))
                elif reason := pairs.target_problem(row.environment, name):
                    problems.append(Problem(f"{where}.targets[{position}]", f"{row.identifier} cannot be: {reason}"))
                first.setdefault(row.identifier, (where, row))
    return tuple(row for _, row in first.values())


def _unused(environments: dict[str, Environment], rows: tuple[Row, ...]) -> list[Problem]:
    """Return the environments of which nothing is published: an artifact has lost one, or they are left over."""
    used = {row.environment.name for row in rows}
    return [
        Problem(f"environment[{number}].name", f"no artifact is built in {name!r}")
        for number, name in enumerate(environments)
        if name not in used
    ]


def _row(table: ArtifactTable, environment: Environment, target: str) -> Row:
    return Row(environment=environment, target=target, models=table.models, tp=table.tp, max_tokens=table.max_tokens)


def _check_names(table: ArtifactTable, environments: set[str], where: str, problems: list[Problem]) -> None:
    targets = tuple(target.name for target in all_targets())
    for key, names, known in (
        ("environments", table.environments, tuple(sorted(environments))),
        ("targets", table.targets, targets),
    ):
        for number, name in enumerate(names):
            if name not in known:
                what = f"unknown {key[:-1]} {name!r}; {suggest(name, known)}"
                problems.append(Problem(f"{where}.{key}[{number}]", what))
    problems.extend(_model_problems(table, where))


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
            what = f"unknown model {name!r}; {suggest(name, tuple(catalogue))}"
            found.append(Problem(f"{where}.models[{number}]", what))
            continue
        reasons = (catalogue[name].indivisible(tp) for tp in table.tp)
        found.extend(Problem(f"{where}.models[{number}]", reason) for reason in reasons if reason)
    return found
