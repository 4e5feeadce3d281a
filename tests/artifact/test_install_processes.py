"""Many processes on one store at once, and processes that are killed at any moment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import storing
from helpers import ROOT, run
from registry.checking import check_store

from gdn_aot.artifact.verify import Artifact
from gdn_aot.store.audit import audit
from gdn_aot.store.install import install
from gdn_aot.store.store import Store


def storm(mode: str, home: Path, seed: int, count: int, artifacts: list[Artifact]) -> Any:
    command = [sys.executable, "-m", "artifact.storm", mode, home, seed, count, *(item.path for item in artifacts)]
    extra = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = run(list(map(str, command)), home.parent / "cwd", extra)
    assert done.code == 0, done.err
    assert done.err == ""
    return done.json


def test_sixteen_at_once_leave_one_good_copy(tmp_path: Path) -> None:
    home, artifact = tmp_path / "home", storing.variant(tmp_path, 1)
    told = storm("many", home, 0, 16, [artifact])
    assert len({item["place"] for item in told}) == 1
    assert sorted(item["new"] for item in told) == [False] * 15 + [True]
    assert {item["repaired"] for item in told} == {0}
    assert check_store(home) == [artifact.sha256]
    assert storing.contents(home) == dict(artifact.iter_blobs())
    assert len(storing.packs(home)) == 1
    assert storing.leftovers(home) == []


def test_sixteen_different_ones_at_once(tmp_path: Path) -> None:
    home, artifacts = tmp_path / "home", [storing.variant(tmp_path, number) for number in range(16)]
    told = storm("many", home, 0, 16, artifacts)
    assert [item["new"] for item in told] == [True] * 16
    assert sorted(check_store(home)) == sorted(artifact.sha256 for artifact in artifacts)
    blobs = [sha256 for path in storing.packs(home) for sha256, _ in storing.Pack(str(path)).blobs()]
    assert len(blobs) == len(set(blobs)) == 18


def test_all_kinds_of_things_at_once(tmp_path: Path) -> None:
    """No process fails, and no blob is taken away from an artifact that another is just installing."""
    home, artifacts = tmp_path / "home", [storing.variant(tmp_path, number) for number in range(4)]
    assert storm("mixed", home, 1, 25, artifacts) == [0] * 6
    check_store(home)
    assert audit(Store(str(home))).problems == ()
    assert storing.leftovers(home) == []
    for artifact in artifacts:
        install(Store(str(home)), artifact)
    assert len(check_store(home)) == len(artifacts)


def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    """After each the store works: what is listed is whole. The next installation leaves nothing of the accident."""
    home, artifacts = tmp_path / "home", [storing.variant(tmp_path, number) for number in range(3)]
    found = storm("kill", home, 2, 50, artifacts)
    assert len(found) == 50
    assert [item["problems"] for item in found if item["problems"]] == []
    assert {item["after"] for item in found} == {0}
    assert sum(item["left"] > 0 for item in found) > 5, "hardly any was killed in the middle of writing"
    assert {len(item["whole"]) for item in found} > {1, 2}
