import shutil
from pathlib import Path

import pytest
from builds import Built
from doctoring import CLEARED, driver_library, serving_home


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CLEARED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def served(decode: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store has the smallest artifact, for sm_120."""
    return serving_home(tmp_path_factory.mktemp("served"), decode)


@pytest.fixture
def copied(served: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(served, tmp_path / "copied"))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``libcuda.so.1`` that has devices, and no function that makes a context."""
    return driver_library(tmp_path_factory.mktemp("driver"))
