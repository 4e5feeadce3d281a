"""More fetches, more of them killed, publishing killed at every step; examples that import the provider."""

from pathlib import Path

import pytest
from machines import Site, fetch_at_once, kill_fetches
from processes import ALL
from registries import Here, check_kills
from signing import Publisher
from swapping import swap_while_fetching

from examples import docker, kubernetes, registry, tools

__all__ = ["registry", "tools"]


def test_fetchers_at_once(site: Site) -> None:
    fetch_at_once(16, site)


def test_killed_at_any_moment(site: Site) -> None:
    kill_fetches(50, site)


def test_a_file_that_is_swapped_again_and_again(here: Here) -> None:
    found = swap_while_fetching(here, 200)
    assert found["evil"] == 0
    assert min(found["good"], found["refused"]) > 10, found


@pytest.mark.parametrize("kind", ["none", "empty", "release", "copy"])
def test_publishing_that_is_killed_at_every_step(tmp_path: Path, kind: str) -> None:
    assert check_kills(tmp_path, kind, ALL) > 20


@pytest.mark.parametrize("kind", ["none", "release", "copy"])
def test_publishing_that_is_killed_while_it_is_signed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher()
    monkeypatch.setenv("GDN_AOT_KEYS", publisher.known_in(tmp_path / "keys")["GDN_AOT_KEYS"])
    assert check_kills(tmp_path, kind, ALL, publisher.signing()) > 20


def test_docker_with_a_seeded_cache(registry: Path, tools: Path, tmp_path: Path) -> None:
    docker("Dockerfile.seeded", registry, tools, tmp_path)


def test_kubernetes_with_a_seeded_cache(registry: Path, tools: Path, tmp_path: Path) -> None:
    kubernetes("seeded.yaml", registry, tools, tmp_path)
