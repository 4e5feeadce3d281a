"""Fixtures of stores: where one may be, a small artifact, and no patience."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import storing

from gdn_aot.artifact.verify import Artifact


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def one(tmp_path: Path) -> Artifact:
    return storing.variant(tmp_path, 1)


@pytest.fixture
def no_hang() -> Iterator[None]:
    """End a test that waits for somebody."""
    signal.alarm(20)
    yield
    signal.alarm(0)
