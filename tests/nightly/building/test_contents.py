"""What is inside an artifact of a target whose kernels compile for minutes."""

import pytest
from building.test_contents import *  # noqa: F403
from builds import Built


@pytest.fixture
def built(sm_70: Built) -> Built:
    return sm_70
