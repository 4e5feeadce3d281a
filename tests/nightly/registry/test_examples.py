"""The examples in which a Triton cache is seeded, which imports the provider."""

from pathlib import Path

from examples import docker, kubernetes, registry, tools

__all__ = ["registry", "tools"]


def test_docker(registry: Path, tools: Path, tmp_path: Path) -> None:
    docker("Dockerfile.seeded", registry, tools, tmp_path)


def test_kubernetes(registry: Path, tools: Path, tmp_path: Path) -> None:
    kubernetes("seeded.yaml", registry, tools, tmp_path)
