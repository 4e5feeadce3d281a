"""What is inside an artifact of a target whose kernels compile for minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from building.test_contents import *  # noqa: F403

if TYPE_CHECKING:
    from builds import Built


@pytest.fixture
def built(sm_70: Built) -> Built:
    return sm_70
