"""Hosts in all broken surroundings; how long each is delayed says ``benchmarks/surroundings.py``."""

from pathlib import Path

import pytest
from builds import Built
from hostile import hosts
from hostile.conditions import CONDITIONS


@pytest.fixture(scope="module")
def sound(decode: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hosts.template(tmp_path_factory.mktemp("surroundings") / "sound", decode.path)


@pytest.mark.parametrize("way", hosts.WAYS)
@pytest.mark.parametrize("name", CONDITIONS)
def test_hosts_in_broken_surroundings(name: str, way: str, sound: Path, tmp_path: Path) -> None:
    row = hosts.measure(name, way, sound, tmp_path / "host", rounds=1)
    assert row.problem in ("", "slow") or row.problem.startswith("skipped"), row
