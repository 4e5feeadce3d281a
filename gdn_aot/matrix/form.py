"""What a matrix file holds, and what it comes to: environments, and rows that are each one artifact."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from gdn_aot.artifact.names import make_identifier
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.codec import Form, Record, TargetName
from gdn_aot.errors import MatrixError, Problem, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_T = TypeVar("_T", bound=msgspec.Struct)

_SIGNS = "letters, digits, dots, dashes and underscores"
_PATH_SIGNS = "letters, digits, dots, dashes, underscores and slashes"
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}(?!\n)$", description=f"lower-case {_SIGNS}")]
Version = Annotated[
    str, Meta(pattern=r"^[0-9]+(\.[0-9]+)*[A-Za-z0-9.+!-]{0,40}(?!\n)$", description="a version such as 3.6.0")
]
Python = Annotated[str, Meta(pattern=r"^3\.[0-9]{1,2}(?!\n)$", description="a version of Python such as 3.11")]
Runner = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}(?!\n)$", description=f"a label of {_SIGNS}")]
PinsPath = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._/-]{1,200}(?!\n)$", description=f"a path of {_PATH_SIGNS}")]
Positive = Annotated[int, Meta(ge=1, lt=1 << 31)]
"""Positions in kernels are 32 bits wide."""
Names = Annotated[tuple[Name, ...], Meta(min_length=1)]
Targets = Annotated[tuple[TargetName, ...], Meta(min_length=1)]
Sizes = Annotated[tuple[Positive, ...], Meta(min_length=1)]


class Defaults(Record):
    """``[defaults]``: what an environment or artifact table has if it does not say otherwise."""

    python: Python
    runner: Runner
    models: Names
    tp: Sizes
    max_tokens: Positive


class BuildEnvironment(Record):
    """One ``[[environment]]``: what artifacts are built in."""

    name: Name
    provider: Name
    """``fla`` or ``vllm``: as ``--provider`` takes it."""
    version: Version
    """Of the provider's distribution."""
    triton: Version
    requirements: PinsPath
    """Path of the file of pins, from the folder of the matrix file; ``/`` between its parts."""
    python: Python = ""
    """``3.11``."""
    runner: Runner = ""
    """Label of the GitHub runner."""

    @property
    def distribution(self) -> str:
        """Of the provider."""
        return PROVIDERS[self.provider].distribution


class ArtifactTable(Record):
    """One ``[[artifact]]``: as many artifacts as it has pairs of an environment and a target."""

    environments: Names
    targets: Targets
    models: Names = ()
    """Names of the catalogue, or ``all`` alone."""
    tp: Sizes = ()
    """Tensor-parallel sizes."""
    max_tokens: Positive = 0
    """Most tokens in one call."""


class MatrixFile(Record):
    """A whole file. Tables keep their positions, by which problems name them."""

    format: Literal[1]
    defaults: Defaults
    environment: Annotated[tuple[BuildEnvironment, ...], Meta(min_length=1)]
    artifact: Annotated[tuple[ArtifactTable, ...], Meta(min_length=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixRow:
    """One artifact."""

    environment: BuildEnvironment
    target: str
    table: ArtifactTable
    """What asks for it, with its models, sizes and tokens."""

    @property
    def identifier(self) -> str:
        """That of its artifact: ``fla0.6.0-triton3.6.0-sm_120``."""
        built_in = self.environment
        return make_identifier(built_in.provider, built_in.version, built_in.triton, self.target)


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """A matrix file, with its lists expanded."""

    path: Path
    environments: tuple[BuildEnvironment, ...]
    rows: tuple[MatrixRow, ...]
    """In the order of the file; no identifier twice."""

    def requirements(self, environment: BuildEnvironment) -> Path:
        """Return where the pins of an environment lie."""
        return Path(os.path.normpath(self.path.parent / environment.requirements))

    def include(self, row: MatrixRow) -> dict[str, str | int]:
        """Return a row as GitHub's ``strategy.matrix`` takes it: all values strings or integers.

        ``models`` and ``tp`` are as ``--model`` and ``--tp`` take them, ``requirements`` from the working directory.
        """
        built_in = row.environment
        return {
            "identifier": row.identifier,
            "provider": built_in.provider,
            "provider_version": built_in.version,
            "triton": built_in.triton,
            "arch": row.target,
            "runner": built_in.runner,
            "requirements": Path(os.path.relpath(self.requirements(built_in))).as_posix(),
            "python": built_in.python,
            "models": ",".join(row.table.models),
            "tp": ",".join(map(str, row.table.tp)),
            "max_tokens": row.table.max_tokens,
        }


def _twice(found: MatrixFile) -> Iterator[Problem]:
    tables = {"defaults": found.defaults} | {f"artifact[{number}]": one for number, one in enumerate(found.artifact)}
    for where, table in tables.items():
        for key, values in msgspec.structs.asdict(table).items():
            for place, item in enumerate(values if isinstance(values, tuple) else ()):
                if item in values[:place]:
                    yield Problem(f"{where}.{key}[{place}]", f"{item!a} occurs twice")


FORM = Form(MatrixFile, "the matrix", format=1, limit=1 << 20, check=_twice)
"""Of what the TOML stands for; no file has it as JSON."""


def read(value: object, path: Path) -> MatrixFile:
    """Read a parsed file; its defaults are filled in.

    Raises:
        MatrixError: Its form is wrong; every problem is named with its path.
    """
    try:
        found = FORM.convert(value)
    except VerificationError as error:
        raise MatrixError(f"{path} is no matrix", error.problems) from error
    return replace(
        found,
        environment=tuple(_filled(table, found.defaults) for table in found.environment),
        artifact=tuple(_filled(table, found.defaults) for table in found.artifact),
    )


def _filled(table: _T, defaults: Defaults) -> _T:
    shared = set(table.__struct_fields__) & set(defaults.__struct_fields__)
    return replace(table, **{name: getattr(table, name) or getattr(defaults, name) for name in shared})
