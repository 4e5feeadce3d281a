"""Processes that change a store, killed at fifty moments."""

from pathlib import Path

import storm


def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    storm.check_kills(tmp_path, 50)
