"""The loopback hub, one for each module of tests, and a new repository on it for each test."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from hub.loopback import ORG, LoopbackHub

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def running_hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def hub(running_hub: LoopbackHub) -> Iterator[LoopbackHub]:
    """The module's hub, with no faults in force and nothing in its log."""
    running_hub.quiet()
    yield running_hub
    running_hub.quiet()


@pytest.fixture
def name() -> str:
    """The name of a repository that is not there yet."""
    return f"{ORG}/kernels-{next(_numbers)}"
