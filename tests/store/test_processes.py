"""Many processes on one store at once, and processes that are killed at any moment."""

from pathlib import Path

import storing
import storm
from storing import check_store

from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.upkeep import audit


def test_sixteen_at_once_leave_one_good_copy(tmp_path: Path) -> None:
    home, artifact = tmp_path / "home", storing.variant(tmp_path, 1)
    told = storm.run("many", home, 0, 16, [artifact])
    assert len({item["place"] for item in told}) == 1
    assert sorted(item["new"] for item in told) == [False] * 15 + [True]
    assert {item["repaired"] for item in told} == {False}
    assert check_store(home) == [artifact.sha256]
    assert storing.leftovers(home) == []


def test_sixteen_different_ones_at_once(tmp_path: Path) -> None:
    home, artifacts = tmp_path / "home", [storing.variant(tmp_path, number) for number in range(16)]
    told = storm.run("many", home, 0, 16, artifacts)
    assert [item["new"] for item in told] == [True] * 16
    assert sorted(check_store(home)) == sorted(artifact.sha256 for artifact in artifacts)


def test_all_kinds_of_things_at_once(tmp_path: Path) -> None:
    """No process fails."""
    home, artifacts = tmp_path / "home", [storing.variant(tmp_path, number) for number in range(4)]
    assert storm.run("mixed", home, 1, 25, artifacts) == [0] * 6
    check_store(home)
    assert audit(Store(str(home))).problems == ()
    assert storing.leftovers(home) == []
    for artifact in artifacts:
        install(Store(str(home)), artifact)
    assert len(check_store(home)) == len(artifacts)


def test_killed_at_moments(tmp_path: Path) -> None:
    storm.check_kills(tmp_path, 8)
