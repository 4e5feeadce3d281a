"""Is an installed artifact whole? And opening one for who needs all of it."""

import shutil
from pathlib import Path

import pytest
import storing

from gdn_aot.artifact.verify import Artifact
from gdn_aot.errors import UsageError, VerificationError
from gdn_aot.store.store import Store
from gdn_aot.store.whole import faults, find_installed, open_installed


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
        ("pack", "cut", "has 4087 bytes, expected 8174"),
        ("pack", "longer", "has 8175 bytes, expected 8174"),
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
