"""From a matrix file to `Matrix`: lists expanded, names known, every pair possible, no identifier twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._files import parse_toml, read_regular
from gdn_aot._text import suggest
from gdn_aot.catalogue.models import all_models
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.catalogue.targets import all_targets, release_refusal
from gdn_aot.errors import MatrixError, Problem, UsageError
from gdn_aot.machine.installed import normal_name
from gdn_aot.matrix.form import Matrix, MatrixRow, read
from gdn_aot.triton_internals import SUPPORTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gdn_aot.catalogue.models import Model
    from gdn_aot.catalogue.providers import ProviderVersion
    from gdn_aot.matrix.form import ArtifactTable, BuildEnvironment, MatrixFile

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)")
_MAX_BYTES = 4 << 20
"""Bytes of a matrix, and of a file of requirements."""
DEFAULT = Path("artifacts/matrix.toml")
"""Where a checkout of this repository has it, from the root."""


def load(path: Path) -> Matrix:
    """Read a matrix file.

    Raises:
        UsageError: It cannot be read.
        MatrixError: It is not TOML, or something in it is wrong; every problem is named with its path.
    """
    try:
        data = read_regular(path, _MAX_BYTES)
    except OSError as error:
        hint = "run in the root of the repository, or give --matrix FILE"
        raise UsageError(f"cannot read the matrix {path}: {error.strerror}", hint=hint) from error
    return parse(data, path)


def parse(data: bytes, path: Path) -> Matrix:
    """Read the bytes of a matrix file, as `load` does."""
    try:
        value = parse_toml(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MatrixError(f"{path} is not TOML: {error}") from error
    file = read(value, path)
    problems: list[Problem] = []
    environments = _environments(file, problems)
    rows = _rows(file, environments, problems)
    if not problems:
        problems += _unused(environments, rows)
    if problems:
        raise MatrixError(f"{path} asks for impossible artifacts", problems)
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
            reasons = _environment_problems(environment)
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
            for environment in filter(None, map(environments.get, table.environments)):
                row = MatrixRow(environment=environment, target=name, table=table)
                if row.identifier in first:
                    what = f"{row.identifier} is an artifact of {first[row.identifier][0]} already"
                    problems.append(Problem(f"{where}.targets[{position}]", what))
                elif reason := _target_problem(environment, name):
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


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = tuple(known)
    return f"unknown {what} {name!r}; {suggest(name, names, 'known are ' + ', '.join(names))}"


def _name_problems(table: ArtifactTable, environments: set[str], where: str) -> Iterator[Problem]:
    """Yield what is wrong with names: a named model must exist in every size, of ``all`` one in each."""
    models = {model.name: model for model in all_models()}
    known = {
        "environment": sorted(environments),
        "target": [target.name for target in all_targets()],
        "model": ["all", *models] if "all" in table.models else list(models),
    }
    for what, names in known.items():
        for number, name in enumerate(getattr(table, f"{what}s")):
            if name not in names:
                yield Problem(f"{where}.{what}s[{number}]", _unknown(what, name, names))
    yield from _size_problems(table, models, where)


def _size_problems(table: ArtifactTable, models: dict[str, Model], where: str) -> Iterator[Problem]:
    if "all" not in table.models:
        for number, model in enumerate(map(models.get, table.models)):
            reasons = map(model.indivisible, table.tp) if model else ()
            yield from (Problem(f"{where}.models[{number}]", reason) for reason in filter(None, reasons))
    elif len(table.models) > 1:
        yield Problem(f"{where}.models", "all stands alone")
    else:
        for number, tp in enumerate(table.tp):
            if all(model.indivisible(tp) for model in models.values()):
                yield Problem(f"{where}.tp[{number}]", f"{tp} divides the heads of no model")


def _environment_problems(environment: BuildEnvironment) -> Iterator[tuple[str, str]]:
    """Yield why an environment of a known provider cannot be, each as (key, reason): what its release requires."""
    distribution, version, triton = environment.distribution, environment.version, environment.triton
    supported = SUPPORTED[0] <= _minor(triton) <= SUPPORTED[1]
    if not supported:
        low, high = (".".join(map(str, bound)) for bound in SUPPORTED)
        yield "triton", f"Triton {triton} is not supported; {low} to {high} are"
    release = _release(environment)
    if release is None:
        known = [release.version for release in PROVIDERS[environment.provider].versions]
        near = suggest(version, known, f"known are {', '.join(known)}")
        yield "version", f"unknown version {version} of {distribution}; {near}"
        return
    if supported and release.triton and _minor(triton) != _minor(release.triton):
        required = f"it requires {release.triton} ({release.source})"
        yield "triton", f"{distribution} {version} does not run with Triton {triton}: {required}"
    if _minor(environment.python) < _minor(release.python):
        yield "python", f"{distribution} {version} requires Python {release.python} or later"


def _target_problem(environment: BuildEnvironment, target: str) -> str | None:
    """Return why an environment has no artifact for a target, or None. An unknown target has none."""
    found = next((one for one in all_targets() if one.name == target), None)
    if found is None:
        return None
    release = _release(environment)
    if release is not None and target in release.absent:
        return f"{environment.distribution} {environment.version} itself does not run on {target} ({release.source})"
    return release_refusal(found, environment.triton)


def _release(environment: BuildEnvironment) -> ProviderVersion | None:
    releases = PROVIDERS[environment.provider].versions
    return next((release for release in releases if release.version == environment.version), None)


def _minor(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version: (3, 8) of ``3.8.0``."""
    parts = version.split(".")[:2]
    return tuple(int(re.sub(r"[^0-9]", "", part)[:9] or 0) for part in parts)


def check_requirements(matrix: Matrix) -> None:
    """Check that the pins of every environment are there and agree with what the matrix says of it.

    Raises:
        MatrixError: They do not.
    """
    problems = [
        Problem(f"environment[{number}].requirements", what)
        for number, environment in enumerate(matrix.environments)
        for what in _disagreements(matrix.requirements(environment), environment)
    ]
    if problems:
        raise MatrixError(f"{matrix.path} and its requirements disagree", problems)


def _disagreements(path: Path, environment: BuildEnvironment) -> Iterator[str]:
    try:
        text = read_regular(path, _MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        yield f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        return
    pins: dict[str, str] = {}
    for line in (line.partition("#")[0].strip() for line in text.splitlines()):
        pin = _PIN.fullmatch(line.partition(";")[0].strip())
        if line and pin is None and not line.startswith("-"):
            yield f"{path} has {line!r}, which pins nothing"
        elif pin is not None:
            pins[normal_name(pin[1])] = pin[2]
    for name, version in ((environment.distribution, environment.version), ("triton", environment.triton)):
        if pins.get(name) != version:
            has = f"{name} {pins[name]}" if name in pins else f"no {name}"
            yield f"{path} pins {has}, but {environment.name} is {name} {version}"
