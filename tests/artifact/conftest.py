from pathlib import Path

import factory
import pytest


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Path of a sound artifact."""
    return factory.write(tmp_path)
