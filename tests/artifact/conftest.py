from __future__ import annotations

from typing import TYPE_CHECKING

import factory
import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Path of a sound artifact."""
    return factory.write(tmp_path)
