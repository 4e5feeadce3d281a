"""Every byte of an installed artifact, changed."""

from pathlib import Path

import pytest
import storing


@pytest.mark.parametrize("name", ["index", "pack", "manifest.json.zst"])
def test_every_changed_byte_is_found(tmp_path: Path, name: str) -> None:
    place = storing.put(tmp_path / "home", storing.variant(tmp_path, 1))
    assert storing.missed(place, name, step=1) == []
