from pathlib import Path

import pytest
import storing
from store_fixtures import *  # noqa: F403

from gdn_aot.artifact.verify import Artifact


@pytest.fixture
def three(tmp_path: Path, home: Path) -> list[Artifact]:
    """Two builds for sm_120, the second installed last, and one for sm_90 between them, which was fetched."""
    made = [storing.variant(tmp_path, 1), storing.variant(tmp_path, 2, target="sm_90"), storing.variant(tmp_path, 3)]
    for number, artifact in enumerate(made):
        storing.put(home, artifact, 1000 + number, storing.ORIGIN if number == 1 else None)
    return made
