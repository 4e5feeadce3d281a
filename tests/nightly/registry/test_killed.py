"""Publishing to a directory is killed before every change that it makes."""

from pathlib import Path

import pytest
from processes import ALL
from registries import check_kills


@pytest.mark.parametrize("kind", ["none", "empty", "release", "copy"])
def test_killed_at_every_step(tmp_path: Path, kind: str) -> None:
    assert check_kills(tmp_path, kind, ALL) > 20
