"""Rows as GitHub's ``strategy.matrix`` takes them, and the matrix that their pins must agree with."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot.errors import MatrixError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.matrix.form import BuildEnvironment, Matrix, MatrixRow

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)")


def include(matrix: Matrix, row: MatrixRow) -> dict[str, str | int]:
    """Return a row as one entry of ``include``: all values strings or integers.

    ``models`` and ``tp`` are what ``--model`` and ``--tp`` take; ``requirements`` is seen from the working directory.
    """
    built_in = row.environment
    return {
        "identifier": row.identifier,
        "provider": built_in.provider,
        "provider_version": built_in.version,
        "triton": built_in.triton,
        "arch": row.target,
        "runner": built_in.runner,
        "requirements": Path(os.path.relpath(matrix.requirements(built_in))).as_posix(),
        "python": built_in.python,
        "models": ",".join(row.table.models),
        "tp": ",".join(map(str, row.table.tp)),
        "max_tokens": row.table.max_tokens,
    }


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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        return
    pins: dict[str, str] = {}
    for line in (line.partition("#")[0].strip() for line in text.splitlines()):
        pin = _PIN.fullmatch(line.partition(";")[0].strip())
        if line and pin is None and not line.startswith("-"):
            yield f"{path} has {line!r}, which pins nothing"
        elif pin is not None:
            pins[re.sub(r"[-_.]+", "-", pin[1]).lower()] = pin[2]
    for name, version in ((environment.distribution, environment.version), ("triton", environment.triton)):
        if pins.get(name) != version:
            has = f"{name} {pins[name]}" if name in pins else f"no {name}"
            yield f"{path} pins {has}, but {environment.name} is {name} {version}"
