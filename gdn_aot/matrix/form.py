"""What a matrix is: environments, and rows that are each one artifact."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gdn_aot.artifact.names import make_identifier

FORMAT = 1
"""The only format of the file that is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """What artifacts are built in."""

    name: str
    provider: str
    """``fla`` or ``vllm``: as ``--provider`` takes it."""
    distribution: str
    """Of the provider."""
    version: str
    """Of that distribution."""
    triton: str
    requirements: str
    """Path of the file of pins, from the folder of the matrix file; ``/`` between its parts."""
    python: str
    """``3.11``."""
    runner: str
    """Label of the GitHub runner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One artifact."""

    environment: Environment
    target: str
    models: tuple[str, ...]
    """Names of the catalogue, or ``all`` alone."""
    tp: tuple[int, ...]
    """Tensor-parallel sizes."""
    max_tokens: int
    """Most tokens in one call."""

    @property
    def identifier(self) -> str:
        """That of its artifact: ``fla0.6.0-triton3.6.0-sm_120``."""
        built_in = self.environment
        return make_identifier(built_in.provider, built_in.version, built_in.triton, self.target)


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """A matrix file, with its lists expanded."""

    path: Path
    environments: tuple[Environment, ...]
    rows: tuple[Row, ...]
    """In the order of the file; no identifier twice."""

    def requirements(self, environment: Environment) -> Path:
        """Return where the pins of an environment lie."""
        return Path(os.path.normpath(self.path.parent / environment.requirements))
