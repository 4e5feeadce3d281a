"""Installing: whole or not at all, whatever was there before and whatever goes wrong."""

import errno
import itertools
import os
import time
from pathlib import Path
from typing import Any

import factory
import pytest
import storing
from storing import check_store

from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.errors import NotWritableError, VerificationError
from gdn_aot.store.install import install, renew
from gdn_aot.store.origins import Origin, read_origins
from gdn_aot.store.store import Store
from gdn_aot.store.stored import read_manifest
from gdn_aot.store.upkeep import audit
from gdn_aot.store.whole import find_installed


def origin(number: int, repo: str = "hf://org/name", revision: str = "v1") -> Origin:
    return Origin(repo=repo, revision=revision, commit=f"{number:040x}")


def test_a_first_artifact(home: Path, one: Artifact) -> None:
    store = Store(str(home))
    done = install(store, one, origin(1))
    assert (done.new, done.repaired) == (True, False)
    assert done.place == f"{home}/store/artifacts/{one.manifest.identifier}-{one.sha256[:16]}"
    assert find_installed(store, one.sha256) == done.place
    assert read_origins(done.place) == (origin(1),)
    assert check_store(home) == [one.sha256]
    assert storing.contents(Path(done.place)) == dict(one.iter_blobs())
    assert read_manifest(done.place) == one.manifest_json
    names = {str(path.relative_to(home / "store")) for path in home.rglob("*") if path.is_file()}
    assert {name for name in names if "/" not in name} == {".lock", "CACHEDIR.TAG", "format"}
    assert {path.name for path in Path(done.place).iterdir()} == {"index", "pack", "manifest.json.zst", "origin.json"}
    assert (home / "store/CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


def test_again_nothing_is_written_but_the_order(home: Path, one: Artifact) -> None:
    install(Store(str(home)), one, origin(1))
    place = next((home / "store/artifacts").iterdir())
    os.utime(place, (1000, 1000))
    before = {path: path.stat().st_ino for path in home.rglob("*") if path.is_file()}
    done = install(Store(str(home)), one, origin(1))
    assert (done.new, done.repaired) == (False, False)
    assert {path: path.stat().st_ino for path in home.rglob("*") if path.is_file()} == before
    assert place.stat().st_mtime > time.time() - 60


def test_origins(home: Path, one: Artifact) -> None:
    store = Store(str(home))
    for number, repo in ((1, "hf://b/b"), (2, "/a"), (3, "hf://b/b")):
        place = install(store, one, origin(number, repo)).place
    assert read_origins(place) == (origin(2, "/a"), origin(3, "hf://b/b"))
    install(store, one)
    assert len(read_origins(place)) == 2
    for content in ("", "[1]", '{"a": 1}', '{"format":1,"fetched":[{"repo":"x"}]}\n', "[" * 10000):
        Path(place, "origin.json").write_text(content)
        assert read_origins(place) == ()
    assert not install(store, one, origin(4)).repaired
    assert read_origins(place) == (origin(4),)


def test_an_origin_for_each_revision(home: Path, one: Artifact) -> None:
    """One that is pinned stays when the branch is fetched too, and asking for them in turn writes nothing."""
    store, pinned, moving = Store(str(home)), origin(1, revision=f"{1:040x}"), origin(1)
    place = install(store, one, pinned).place
    renew(store, place, moving)
    assert read_origins(place) == (pinned, moving)
    with storing.read_only(home):
        before = Path(place, "origin.json").stat()
        for asked in (pinned, moving, pinned):
            renew(store, place, asked)
        assert Path(place, "origin.json").stat().st_ino == before.st_ino
    renew(store, place, origin(2))
    assert read_origins(place) == (pinned, origin(2)), "the branch moved"
    for number in range(20):
        renew(store, place, origin(3, revision=f"v1.{number}.0"))
    assert read_origins(place) == tuple(origin(3, revision=f"v1.{number}.0") for number in range(4, 20))


def test_a_branch_is_one_build(home: Path, tmp_path: Path, one: Artifact) -> None:
    """When it moves on to another build, the one that it was is known by its commit, however it is asked for then."""
    store = Store(str(home))
    old = install(store, one, origin(1)).place
    new = install(store, storing.variant(tmp_path, 2), origin(2)).place
    renew(store, old, origin(1, revision="v1.0.0"))
    assert read_origins(old) == (origin(1, revision=f"{1:040x}"), origin(1, revision="v1.0.0"))
    assert read_origins(new) == (origin(2),)
    renew(store, old, origin(3))
    assert read_origins(new) == (origin(2, revision=f"{2:040x}"),)


def test_asked_for_again(home: Path, tmp_path: Path, one: Artifact) -> None:
    """An older release that is asked for is preferred from then on; where it is already, nothing is written."""
    store = Store(str(home))
    places = [storing.put(home, one, 1000), storing.put(home, storing.variant(tmp_path, 2), 2000)]
    renew(store, str(places[0]), origin(1))
    assert store.artifacts()[0] == str(places[0])
    assert read_origins(str(places[0])) == (origin(1),)
    with storing.read_only(home):
        renew(store, str(places[0]), origin(1))
        renew(store, str(places[0]), origin(2))  # that its origin cannot be noted is no failure
        with pytest.raises(NotWritableError, match="is preferred to"):
            renew(store, str(places[1]))
    assert read_origins(str(places[0])) == (origin(1),)


# ---- What was there is damaged ----


@pytest.mark.parametrize("how", ["flip", "cut", "gone", "empty"])
@pytest.mark.parametrize("name", ["index", "pack", "manifest.json.zst"])
def test_every_file_is_repaired(home: Path, one: Artifact, name: str, how: str) -> None:
    path = storing.put(home, one, origin=origin(1)) / name
    good = path.read_bytes()
    if how == "flip":
        storing.flip(path, -20)
    elif how == "gone":
        path.unlink()
    else:
        path.write_bytes(good[:-1] if how == "cut" else b"")
    store = Store(str(home))
    assert how == "flip" or find_installed(store, one.sha256) is None or (how, name) == ("cut", "manifest.json.zst")
    done = install(store, one)
    assert (done.new, done.repaired) == (False, True)
    assert audit(store).problems == ()
    assert path.read_bytes() == good
    assert check_store(home) == [one.sha256]
    assert find_installed(store, one.sha256) == done.place
    assert read_origins(done.place) == (origin(1),)
    assert storing.leftovers(home) == []


def test_what_was_left_unfinished_is_removed(home: Path, one: Artifact) -> None:
    place = storing.put(home, one)
    for folder in (home / "store", place.parent, place):
        (folder / ".tmp-0123").write_bytes(b"x")
    (place.parent / ".tmp-4567").mkdir()
    for name in (".tmp-89", "index"):
        (place.parent / ".tmp-4567" / name).write_bytes(b"x")
    outside = home / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (place.parent / ".tmp-link").symlink_to(outside)
    assert len(storing.leftovers(home)) == 6
    assert Store(str(home)).artifacts() == [str(place)]
    install(Store(str(home)), one)
    assert storing.leftovers(home) == []
    assert (outside / "precious").exists()


def test_something_else_is_in_the_way(home: Path, one: Artifact) -> None:
    place = home / "store/artifacts" / f"{one.manifest.identifier}-{one.sha256[:16]}"
    place.parent.mkdir(parents=True)
    place.write_text("a file")
    with pytest.raises(NotWritableError, match="cannot write the store"):
        install(Store(str(home)), one)
    assert storing.leftovers(home) == []
    assert place.read_text() == "a file"


# ---- The store cannot be written ----


def test_a_read_only_store_is_not_written(home: Path, tmp_path: Path, one: Artifact) -> None:
    storing.put(home, one)
    with storing.read_only(home), pytest.raises(NotWritableError, match="Permission denied") as caught:
        install(Store(str(home)), storing.variant(tmp_path, 2))
    assert caught.value.exit_code == 9
    assert check_store(home) == [one.sha256]


def refusal(home: Path, artifact: Artifact, source: Origin) -> str:
    """Install, and return the message if that is refused."""
    try:
        install(Store(str(home)), artifact, source)
    except NotWritableError as error:
        return error.message
    return ""


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("step", ["fsync", "writev", "replace", "rename", "utime"])
def test_a_full_disk(
    home: Path, tmp_path: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch, step: str, damaged: bool
) -> None:
    """Each step that the system can refuse is refused once: nothing is left unfinished, and what is there is whole."""
    storing.put(home, one, 1000)
    other = storing.variant(tmp_path, 2)
    for number in itertools.count(1):
        if damaged:
            (storing.put(home, other) / "pack").write_bytes(b"")
        left = [number]
        real = getattr(os, step)

        def failing(*args: Any, real: Any = real, left: list[int] = left, **kwargs: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, step, failing)
            message = refusal(home, other, origin(number))
        assert storing.leftovers(home) == []
        if not message:
            break
        assert "No space left on device" in message
        there = [path.name.rpartition("-")[2] for path in (home / "store/artifacts").glob("[!.]*")]
        assert set(there) <= {one.sha256[:16], other.sha256[:16]}
        assert find_installed(Store(str(home)), one.sha256) is not None
        if not damaged and step != "utime":
            assert check_store(home) == [one.sha256]
    assert number > 1
    assert check_store(home)[0] == other.sha256


@pytest.mark.parametrize("most", [1, 7, 100_000])
def test_a_write_that_is_done_in_part(home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """The system may take fewer bytes than it is given."""
    real = os.writev

    def part(file: int, buffers: list[memoryview]) -> int:
        return real(file, [buffers[0][:most]] if len(buffers[0]) > most else buffers[:2])

    monkeypatch.setattr(os, "writev", part)
    install(Store(str(home)), one)
    assert check_store(home) == [one.sha256]


def test_blobs_that_are_not_what_the_manifest_calls_for(home: Path, tmp_path: Path) -> None:
    """They are checked as they are written; nothing of the artifact is left."""
    parts = factory.members()
    (tmp_path / "a").write_bytes(factory.pack([*parts[:2], parts[3], parts[2]]))
    with pytest.raises(VerificationError, match="is not a sound artifact"):
        install(Store(str(home)), open_artifact(tmp_path / "a", lazy=True))
    assert Store(str(home)).artifacts() == storing.leftovers(home) == []


def test_content_is_on_the_disk_first(home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a reader relies on gets its name before it was synchronized."""
    synced: list[int] = []
    named: list[str] = []
    real_fsync, real_rename, real_replace = os.fsync, os.rename, os.replace

    def fsync(file: int) -> None:
        synced.append(os.fstat(file).st_ino)
        real_fsync(file)

    def check(source: str, target: str, folders: dict[str, int]) -> None:
        path = Path(f"/proc/self/fd/{folders['src_dir_fd']}", source)
        inside = list(path.iterdir()) if path.is_dir() else [path]
        named.append(Path(target).name)
        assert named[-1] == "CACHEDIR.TAG" or {path.stat().st_ino for path in inside} <= set(synced), (source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", lambda *names, **fds: (check(*names, fds), real_rename(*names, **fds)))
    monkeypatch.setattr(os, "replace", lambda *names, **fds: (check(*names, fds), real_replace(*names, **fds)))
    install(Store(str(home)), one, origin(1))
    files = {"manifest.json.zst", "index", "origin.json"}
    assert (named[:2], set(named[2:-1])) == (["CACHEDIR.TAG", "format"], files)
    assert named[-1] == storing.place_of(home).name
    assert len(synced) == 5
