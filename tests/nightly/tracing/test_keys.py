"""The keys of an artifact whose kernels compile for minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tracing.test_keys import *  # noqa: F403

if TYPE_CHECKING:
    from builds import Built


@pytest.fixture
def built(sm_70: Built) -> Built:
    return sm_70
