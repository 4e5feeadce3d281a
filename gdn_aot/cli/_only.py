"""``gdn-aot build --only``: one row of the matrix, in the environment that it says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.matrix import Matrix, MatrixRow

_SAID_BY_ROW = (
    "arch", "model", "tp", "shape", "dtype", "provider", "mode", "max_tokens", "max_batch", "workload",
    "exclude_workload", "capture", "candidates",
)  # fmt: skip
"""Parameters of build that decide what is in the artifact."""


def only_row(identifier: str | None, matrix: Path) -> MatrixRow | None:
    """Return the row that ``--only`` names, if it is given, checked against the other options and the environment.

    Raises:
        UsageError: An option stands beside it that says what to build, or another provider or Triton is installed.
        NothingSelectedError: The matrix has no such row.
        MatrixError: The file is malformed.
    """
    context = click.get_current_context()
    if identifier is None:
        if _given(context, "matrix"):
            raise UsageError("--matrix without --only means nothing", hint="--only IDENTIFIER; see gdn-aot matrix")
        return None
    if beside := [name for name in _SAID_BY_ROW if _given(context, name)]:
        option = f"--{beside[0].replace('_', '-')}"
        raise UsageError(
            f"{option} cannot stand beside --only, which says what is built by the row of the matrix",
            hint=f"leave {option} out, or say everything without --only",
        )
    from gdn_aot.matrix import load
    from gdn_aot.matrix.select import one

    found = load(matrix)
    row = one(found, identifier)
    _check_environment(found, row)
    return row


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)


def _check_environment(matrix: Matrix, row: MatrixRow) -> None:
    from gdn_aot.machine import installed

    wanted = {row.environment.distribution: row.environment.version, "triton": row.environment.triton}
    there = {name: installed.version(name) for name in wanted}
    if there == wanted:
        return
    needs = " and ".join(f"{name} {version}" for name, version in wanted.items())
    has = " and ".join(f"{name} {version}" if version else f"no {name}" for name, version in there.items())
    where = f".venv-{row.environment.name}"
    pip = f"{where}/bin/pip install --no-deps"
    raise UsageError(
        f"{row.identifier} is built with {needs}, but here is {has}",
        hint=(
            f"make its environment: python{row.environment.python} -m venv {where} && "
            f"{pip} -r {os.path.relpath(matrix.requirements(row.environment))} && {pip} ."
        ),
    )
