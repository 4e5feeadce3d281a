"""The keys of an artifact whose kernels compile for minutes."""

import pytest
from builds import Built
from tracing.test_keys import *  # noqa: F403


@pytest.fixture
def built(sm_70: Built) -> Built:
    return sm_70
