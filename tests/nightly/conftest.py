"""At night artifacts are looked at whose kernels compile for minutes."""

import pytest
from builds import Built


@pytest.fixture
def built(sm_70: Built) -> Built:
    return sm_70
