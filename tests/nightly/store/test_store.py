"""Every byte of an installed artifact, changed; processes that change a store, killed at fifty moments."""

from pathlib import Path

import pytest
import storing
import storm


@pytest.mark.parametrize("name", ["index", "pack", "manifest.json.zst"])
def test_every_changed_byte_is_found(tmp_path: Path, name: str) -> None:
    place = storing.put(tmp_path / "home", storing.variant(tmp_path, 1))
    assert storing.missed(place, name, step=1) == []


def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    storm.check_kills(tmp_path, 50)
