from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import storing

from artifact import factory

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.artifact.verify import Artifact


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Path of a sound artifact."""
    return factory.write(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def one(tmp_path: Path) -> Artifact:
    return storing.variant(tmp_path, 1)
