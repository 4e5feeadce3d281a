"""Reading a store; many processes on one at once, killed ones, and who waits for its lock."""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import factory
import pytest
import storing
import storm
from helpers import python
from storing import check_store

from gdn_aot.artifact.glance import glance
from gdn_aot.artifact.trailer import digest
from gdn_aot.artifact.verify import Artifact
from gdn_aot.errors import UnknownFormatError, UsageError, VerificationError
from gdn_aot.store import lock
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.stored import StoredArtifact, UnpackedArtifact
from gdn_aot.store.upkeep import audit
from gdn_aot.store.whole import faults, find_installed, open_installed


def test_no_store(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "home"))
    assert (store.artifacts(), store.format(), find_installed(store, "0" * 64)) == ([], None, None)
    assert not (tmp_path / "home").exists()


def test_the_one_installed_last_is_preferred(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first, second = (storing.variant(tmp_path, number) for number in (1, 2))
    places = [storing.put(home, first, 1000), storing.put(home, second, 2000)]
    store = Store(str(home))
    assert store.artifacts() == [str(places[1]), str(places[0])]
    storing.put(home, first)
    assert store.artifacts() == [str(places[0]), str(places[1])]
    assert find_installed(store, second.sha256) == str(places[1])
    assert check_store(home) == [first.sha256, second.sha256]


def test_blobs(home: Path, one: Artifact) -> None:
    place = storing.put(home, one)
    stored = StoredArtifact(str(place))
    assert {sha256: stored.read_blob(sha256) for sha256, _ in stored.index.blobs()} == dict(one.iter_blobs())
    assert (stored.manifest, stored.place) == (one.manifest, str(place))
    for absent in ("0" * 64, "f" * 64, factory.sha256(b"three")):
        with pytest.raises(VerificationError, match=f"{place}/index: it has no blob {absent}"):
            stored.read_blob(absent)


def test_a_damaged_blob(home: Path, one: Artifact) -> None:
    place = storing.put(home, one)
    sha256, *rest = storing.contents(place)
    storing.flip_blob(place, sha256, 40)
    stored = StoredArtifact(str(place))
    with pytest.raises(VerificationError, match=f"{place}/pack: blob {sha256} is damaged"):
        stored.read_blob(sha256)
    for other in rest:
        assert stored.read_blob(other)
    (place / "pack").write_bytes(b"")
    with pytest.raises(VerificationError, match="is damaged"):
        StoredArtifact(str(place)).read_blob(rest[-1])


def test_in_memory(one: Artifact) -> None:
    data = one.path.read_bytes()
    stored = UnpackedArtifact(str(one.path), data, glance(data, digest(data)))
    assert stored.index.header == stored.header
    assert {sha256: stored.read_blob(sha256) for sha256, _ in stored.index.blobs()} == dict(one.iter_blobs())
    assert stored.index.header["sha256"] == one.sha256


def test_what_was_opened_outlives_the_store(home: Path, one: Artifact) -> None:
    """Also in a child, and from several threads."""
    stored = StoredArtifact(str(storing.put(home, one)))
    shutil.rmtree(home)
    blobs = dict(one.iter_blobs())
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(stored.read_blob, [*blobs] * 20)) == [*blobs.values()] * 20
    child = os.fork()
    if not child:
        os._exit({sha256: stored.read_blob(sha256) for sha256 in blobs} != blobs)
    assert os.waitpid(child, 0)[1] == 0


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    artifact = storing.variant(tmp_path, 1)
    place = storing.put(home, artifact)
    (home / "store/format").write_text("99\n")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    store = Store(str(home))
    for attempt in (
        store.artifacts,
        store.format,
        lambda: install(store, artifact),
        lambda: open_installed(str(place)),
        lambda: find_installed(store, artifact.sha256),
    ):
        with pytest.raises(UnknownFormatError, match="another format"):
            attempt()
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_reading_loads_no_writer(tmp_path: Path) -> None:
    """What writes, locks or decompresses is none of a serving process's business."""
    storing.put(tmp_path, storing.variant(tmp_path, 1))
    code = """
import sys, json
from gdn_aot.store.store import Store
from gdn_aot.store.stored import StoredArtifact, UnpackedArtifact
from gdn_aot.store.whole import faults
(place,) = Store(sys.argv[1]).artifacts()
assert not faults(place)
stored = StoredArtifact(place)
for kernel in stored.index.kernels():
    stored.index.choices(kernel.name)
for sha256, _ in stored.index.blobs():
    stored.read_blob(sha256)
print(json.dumps(sorted(sys.modules)))
"""
    loaded = python(code, tmp_path, home=tmp_path)
    assert "gdn_aot.store.stored" in loaded
    assert not {"zstandard", "fcntl", "msgspec", "gdn_aot.store.install", "gdn_aot.artifact.manifest"} & set(loaded)


# Many processes on one store at once, and processes that are killed at any moment


def test_sixteen_at_once_leave_one_good_copy(tmp_path: Path) -> None:
    home, artifact = tmp_path / "home", storing.variant(tmp_path, 1)
    told = storm.run("many", home, 0, 16, [artifact])
    assert len({item["place"] for item in told}) == 1
    assert sorted(item["new"] for item in told) == [False] * 15 + [True]
    assert {item["repaired"] for item in told} == {False}
    assert check_store(home) == [artifact.sha256]
    assert storing.leftovers(home) == []


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


# Who waits for the lock of a store, and who does not


def test_who_need_not_wait_says_nothing(home: Path, one: Artifact) -> None:
    said: list[str] = []
    install(Store(str(home)), one, waiting=said.append)
    install(Store(str(home)), one, waiting=said.append)
    assert said == []


def test_readers_share_and_keep_writers_out(home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    storing.put(home, one)
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    store, said = Store(str(home)), list[str]()
    with lock.undisturbed(store), lock.undisturbed(store, said.append):
        assert said == []
        thread = threading.Thread(target=lambda: install(store, one, waiting=said.append))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(30)
    assert said == [f"waiting for another process, which is using the store {store.root}"]


# Is an installed artifact whole? And opening one for who needs all of it


@pytest.fixture
def place(home: Path, one: Artifact) -> Path:
    return storing.put(home, one)


@pytest.mark.parametrize(
    ("name", "how", "expected"),
    [
        ("index", "gone", "No such file or directory"),
        ("index", "cut", "it is truncated"),
        ("index", "flip", "its table is damaged"),
        ("index", "junk", "it is not an index"),
        ("pack", "gone", "No such file or directory"),
        ("pack", "cut", "has 2119 bytes, expected 4238"),
        ("pack", "longer", "has 4239 bytes, expected 4238"),
        ("manifest.json.zst", "gone", "No such file or directory"),
        ("manifest.json.zst", "empty", "is empty"),
    ],
)
def test_what_a_short_look_finds(place: Path, home: Path, one: Artifact, name: str, how: str, expected: str) -> None:
    assert faults(str(place)) == []
    path = place / name
    content = path.read_bytes()
    match how:
        case "gone":
            path.unlink()
        case "flip":
            storing.flip(path, len(content) // 4)
        case _:
            changed = {"cut": content[: len(content) // 2], "junk": b"x" * 1000, "empty": b"", "longer": content + b"x"}
            path.write_bytes(changed[how])
    assert [str(fault) for fault in faults(str(place))] == [f"{path}: {expected}"]
    assert faults(str(place), deep=True) != []
    assert find_installed(Store(str(home)), one.sha256) is None
    with pytest.raises(VerificationError, match="is damaged") as caught:
        open_installed(str(place))
    assert str(path) in str(caught.value.problems[0])


@pytest.mark.parametrize("name", ["index", "pack", "manifest.json.zst"])
def test_a_long_look_finds_every_changed_byte(place: Path, name: str) -> None:
    """Some of them by day; tests/nightly has all."""
    assert storing.missed(place, name, step=197) == []


def test_every_blob_is_named(place: Path, one: Artifact) -> None:
    first, _, third = storing.contents(place)
    for sha256 in (first, third):
        storing.flip_blob(place, sha256, 3)
    assert faults(str(place)) == []
    what = "the content of blob {} is not what its name says"
    assert [fault.what for fault in faults(str(place), deep=True)] == [what.format(first), what.format(third)]


def test_it_is_what_the_file_is(place: Path, one: Artifact, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(place)
    for path in (place, tmp_path / "link"):
        stored = open_installed(str(path))
        assert stored.manifest == one.manifest
        assert {blob.sha256: stored.read_blob(blob.sha256) for blob in stored.manifest.blobs} == dict(one.iter_blobs())


def test_a_manifest_that_is_damaged(place: Path) -> None:
    storing.flip(place / "manifest.json.zst", 0)
    with pytest.raises(VerificationError, match="is damaged"):
        _ = open_installed(str(place)).manifest


def test_what_is_none(place: Path, home: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "copy" / place.name)
    for other in (tmp_path, home / "store", place.parent, tmp_path / "nowhere", tmp_path / "copy" / place.name):
        with pytest.raises(UsageError, match="is no artifact of a store"):
            open_installed(str(other))
