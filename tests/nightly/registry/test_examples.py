"""The examples in which a Triton cache is seeded, which imports the provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from examples import docker, kubernetes, registry, tools

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["registry", "tools"]


def test_docker(registry: Path, tools: Path, tmp_path: Path) -> None:
    docker("Dockerfile.seeded", registry, tools, tmp_path)


def test_kubernetes(registry: Path, tools: Path, tmp_path: Path) -> None:
    kubernetes("seeded.yaml", registry, tools, tmp_path)
