"""All hostile files: artifacts, and every other file that is handed over or lies in a store."""

from pathlib import Path

import pytest
from builds import Built
from hostile import campaign


@pytest.mark.parametrize("what", campaign.SIZES)
def test_hostile_files_do_no_harm(what: str, decode: Built, tmp_path: Path) -> None:
    tally = campaign.run(what, 2, range(campaign.SIZES[what]), tmp_path, decode.path)
    print(tally.table())
    assert tally.faults == [], tally.table()
