"""A few of each kind of hostile file and of broken surroundings; tests/nightly has the rest."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import factory
import pytest
from builds import Built
from hostile import artifacts, campaign, hosts, judging
from hostile.conditions import CONDITIONS
from hostile.containers import expand, fold, originals, take_apart
from hostile.places import Place
from hostile.trials import METER, Case, Outcome, attack

SURROUNDINGS = (
    "no store", "HOME unset", "stderr closed", "8 threads", "a finder of the old kind", "a log handler that raises",
    "index: FIFO", "index: a list", "format is garbage", "artifact: link to zero",
    "working directory deleted, relative names", "artifact writable by all",
)  # fmt: skip


@pytest.mark.parametrize(("what", "count"), [("artifacts", 200), ("others", 100)])
def test_hostile_files_do_no_harm(what: str, count: int, decode: Built, tmp_path: Path) -> None:
    tally = campaign.run(what, 1, range(count), tmp_path, decode.path)
    assert tally.faults == [], tally.table()
    assert len(tally.kinds) > 8
    counts = tally.document()["total"]
    assert counts["cases"] == count
    assert counts["refused"] > count // 4
    assert counts["accepted"] > count // 20


@pytest.fixture(scope="module")
def sound(decode: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hosts.template(tmp_path_factory.mktemp("surroundings") / "sound", decode.path)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_hosts_in_broken_surroundings(name: str, sound: Path, tmp_path: Path) -> None:
    for way in hosts.WAYS[::2]:
        row = hosts.measure(name, way, sound, tmp_path / way, rounds=1)
        assert row.problem in ("", "slow") or row.problem.startswith("skipped"), row  # tests are no place for times


def test_sixty_surroundings() -> None:
    assert len(CONDITIONS) >= 60


# What attacks has to be able to see


def test_a_number_stands_for_one_case() -> None:
    sound = originals([])
    made = [artifacts.make(*artifacts.draw(1, number), sound)[1] for number in (3, 4, 3)]
    assert made[0] == made[2] != made[1]


def test_artifacts_are_put_together_as_they_were(sm_120_file: Path) -> None:
    original = take_apart(sm_120_file.read_bytes())
    assert fold(expand(original.manifest), original.blobs) == original.manifest


@pytest.fixture
def sm_120_file(tmp_path: Path) -> Path:
    return factory.write(tmp_path)


def _bad(folder: Path) -> Case:
    held: list[bytes] = []

    def case(number: int) -> Outcome:
        match number:
            case 1:
                raise ValueError("a bug")
            case 2:
                with METER:
                    held.append(b"x" * (100 << 20))
            case 3:
                held.clear()
                while True:
                    hashlib.sha256(bytes(1 << 20))
            case 5:
                with METER:
                    start = time.process_time()
                    while time.process_time() < start + 0.6:
                        hashlib.sha256(bytes(1 << 20))
            case 4:
                os._exit(7)
        return Outcome(number=number, kind="bad", verdict="fine")

    return case


def test_faults_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostile.trials.SECONDS", 0.4)
    monkeypatch.setattr("hostile.trials.MEBIBYTES", 60)
    found = {one.number: one for one in attack(_bad, range(7), scratch=tmp_path, kind_of=lambda _: "bad", jobs=1)}
    faults = {number: one.fault for number, one in sorted(found.items())}
    assert faults == {0: "", 1: "traceback", 2: "memory", 3: "hang", 4: "died", 5: "hang", 6: ""}
    assert {one.kind for one in found.values()} == {"bad"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    return Place(tmp_path / "place")


def test_what_is_touched_is_seen(place: Place) -> None:
    assert place.touched() == []
    for change in (
        lambda: (place.canary / "notes.txt").write_bytes(b"the user's own!\n"),
        (place.canary / "empty").unlink,
        (place.root / "new").mkdir,
        (place.tmp / "left").touch,
        lambda: (place.canary / "packs").chmod(0o700),
    ):
        change()
        assert place.touched() != []
        assert place.touched() == []


def test_what_was_not_said_is_seen(place: Place, sm_120_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = take_apart(sm_120_file.read_bytes())
    data = judging_data(original.manifest, original.blobs)
    assert judging.judge(place, data, original) == "accepted"
    place.clean()
    real = json.loads
    monkeypatch.setattr("hostile.reading.json.loads", lambda text, **more: {**real(text, **more), "mode": "train"})
    with pytest.raises(judging.WrongError, match="something else"):
        judging.judge(place, data, original)


def judging_data(manifest: object, blobs: dict[str, bytes]) -> bytes:
    from hostile.containers import assemble

    return assemble(manifest, blobs)
