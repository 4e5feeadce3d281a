"""Installing: whole or not at all, whatever was there before and whatever goes wrong."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
import storing
from helpers import python
from registry.checking import check_store

from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.errors import NotWritableError
from gdn_aot.store import install as install_module
from gdn_aot.store.audit import audit
from gdn_aot.store.install import find_installed, install, renew
from gdn_aot.store.origins import Origin, read_origins
from gdn_aot.store.pack import FIXED, ROW
from gdn_aot.store.store import Store


def origin(number: int, repo: str = "hf://org/name", revision: str = "v1") -> Origin:
    return Origin(repo=repo, revision=revision, commit=f"{number:040x}")


def test_a_first_artifact(home: Path, one: Artifact) -> None:
    store = Store(str(home))
    done = install(store, one, origin(1))
    assert (done.identifier, done.sha256) == (one.manifest.identifier, one.sha256)
    assert (done.new, done.repaired) == (True, 0)
    assert done.place == f"{home}/store/artifacts/{one.manifest.identifier}-{one.sha256[:16]}"
    assert find_installed(store, one.sha256) == done.place
    assert read_origins(done.place) == [origin(1)]
    assert check_store(home) == [one.sha256]
    assert storing.contents(home) == dict(one.iter_blobs())
    assert storing.read_manifest(Path(done.place)) == one.manifest_json
    names = {str(path.relative_to(home / "store")) for path in home.rglob("*") if path.is_file()}
    assert {name for name in names if "/" not in name} == {".lock", "CACHEDIR.TAG", "format"}
    assert (home / "store/CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    files = [path for path in (home / "store/artifacts").rglob("*") if path.is_file()]
    rows = FIXED.size + ROW.size * len(one.manifest.blobs)
    stored = sum(path.stat().st_size for path in (*files, *storing.packs(home)))
    assert done.written == stored - rows


def test_again_nothing_is_written_but_the_order(home: Path, one: Artifact) -> None:
    install(Store(str(home)), one, origin(1))
    place = next((home / "store/artifacts").iterdir())
    os.utime(place, (1000, 1000))
    before = {path: path.stat().st_ino for path in home.rglob("*") if path.is_file()}
    done = install(Store(str(home)), one, origin(1))
    assert (done.new, done.repaired, done.written) == (False, 0, 0)
    assert {path: path.stat().st_ino for path in home.rglob("*") if path.is_file()} == before
    assert place.stat().st_mtime > time.time() - 60


def test_blobs_are_shared(home: Path, tmp_path: Path) -> None:
    artifacts = [storing.variant(tmp_path, number) for number in range(3)]
    for artifact in artifacts:
        storing.put(home, artifact)
    blobs = [sha256 for path in storing.packs(home) for sha256, _ in storing.Pack(str(path)).blobs()]
    assert sorted(blobs) == sorted({sha256 for artifact in artifacts for sha256, _ in artifact.iter_blobs()})
    assert len(blobs) == 5
    assert audit(Store(str(home))).problems == ()


def test_origins(home: Path, one: Artifact) -> None:
    store = Store(str(home))
    for number, repo in ((1, "hf://b/b"), (2, "/a"), (3, "hf://b/b")):
        place = install(store, one, origin(number, repo)).place
    assert read_origins(place) == [origin(2, "/a"), origin(3, "hf://b/b")]
    install(store, one)
    assert len(read_origins(place)) == 2
    for content in ("", "[1]", '{"a": 1}', '[{"repo": "x"}]', "[" * 10000):
        Path(place, "origin.json").write_text(content)
        assert read_origins(place) == []
    assert install(store, one, origin(4)).repaired == 0
    assert read_origins(place) == [origin(4)]


def test_an_origin_for_each_revision(home: Path, one: Artifact) -> None:
    """One that is pinned stays when the branch is fetched too, and asking for them in turn writes nothing."""
    store, pinned, moving = Store(str(home)), origin(1, revision=f"{1:040x}"), origin(1)
    place = install(store, one, pinned).place
    renew(store, place, moving)
    assert read_origins(place) == [pinned, moving]
    with storing.read_only(home):
        before = Path(place, "origin.json").stat()
        for asked in (pinned, moving, pinned):
            renew(store, place, asked)
        assert Path(place, "origin.json").stat().st_ino == before.st_ino
    renew(store, place, origin(2))
    assert read_origins(place) == [pinned, origin(2)], "the branch moved"
    for number in range(20):
        renew(store, place, origin(3, revision=f"v1.{number}.0"))
    assert read_origins(place) == [origin(3, revision=f"v1.{number}.0") for number in range(4, 20)]


def test_a_branch_is_one_build(home: Path, tmp_path: Path, one: Artifact) -> None:
    """When it moves on to another build, the one that it was is known by its commit, however it is asked for then."""
    store = Store(str(home))
    old = install(store, one, origin(1)).place
    new = install(store, storing.variant(tmp_path, 2), origin(2)).place
    renew(store, old, origin(1, revision="v1.0.0"))
    assert read_origins(old) == [origin(1, revision=f"{1:040x}"), origin(1, revision="v1.0.0")]
    assert read_origins(new) == [origin(2)]
    renew(store, old, origin(3))
    assert read_origins(new) == [origin(2, revision=f"{2:040x}")]


def test_asked_for_again(home: Path, tmp_path: Path, one: Artifact) -> None:
    """An older release that is asked for is preferred from then on; where it is already, nothing is written."""
    store = Store(str(home))
    places = [storing.put(home, one, 1000), storing.put(home, storing.variant(tmp_path, 2), 2000)]
    renew(store, str(places[0]), origin(1))
    assert store.artifacts()[0] == str(places[0])
    assert read_origins(str(places[0])) == [origin(1)]
    with storing.read_only(home):
        renew(store, str(places[0]), origin(1))
        renew(store, str(places[0]), origin(2))  # that its origin cannot be noted is no failure
        with pytest.raises(NotWritableError, match="is preferred to"):
            renew(store, str(places[1]))
    assert read_origins(str(places[0])) == [origin(1)]


# ---- What was there is damaged ----


@pytest.mark.parametrize("how", ["flip", "cut", "gone", "empty"])
def test_every_file_is_repaired(home: Path, one: Artifact, how: str) -> None:
    storing.put(home, one)
    files = [path for path in home.rglob("*") if path.is_file() and path.parent.name != "store"]
    assert len(files) == 3
    for path in files:
        good = path.read_bytes()
        if how == "flip":
            path.write_bytes(good[:-20] + bytes([good[-20] ^ 1]) + good[-19:])
        elif how == "gone":
            path.unlink()
        else:
            path.write_bytes(good[:-1] if how == "cut" else b"")
        store = Store(str(home))
        whole = find_installed(store, one.sha256)
        done = install(store, one)
        assert not done.new
        assert done.repaired > 0
        assert audit(store).problems == ()
        assert path.parent.name == "packs" or path.read_bytes() == good
        assert check_store(home) == [one.sha256]
        assert find_installed(store, one.sha256) == done.place
        assert how == "flip" or whole is None or path.name == "manifest.json.zst"


def test_what_was_left_unfinished_is_removed(home: Path, one: Artifact) -> None:
    place = storing.put(home, one)
    for folder in (home / "store", place.parent, place, home / "store/packs"):
        (folder / ".tmp-0123").write_bytes(b"x")
    (place.parent / ".tmp-4567/.tmp-89").mkdir(parents=True)
    (place.parent / ".tmp-4567/index").write_bytes(b"x")
    outside = home / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (place.parent / ".tmp-link").symlink_to(outside)
    assert len(storing.leftovers(home)) == 7
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
    assert storing.packs(home) == []


# ---- The store cannot be written ----


def test_a_read_only_store_is_not_written(home: Path, tmp_path: Path, one: Artifact) -> None:
    storing.put(home, one)
    with storing.read_only(home), pytest.raises(NotWritableError, match="Permission denied") as caught:
        install(Store(str(home)), storing.variant(tmp_path, 2))
    assert caught.value.exit_code == 9
    assert check_store(home) == [one.sha256]


@pytest.mark.parametrize("name", ["home", "home/store"])
def test_a_home_that_is_a_file(tmp_path: Path, one: Artifact, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    with pytest.raises(NotWritableError, match="cannot write the store"):
        install(Store(str(tmp_path / "home")), one)


def refusal(home: Path, artifact: Artifact) -> str:
    """Install, and return the message if that is refused."""
    try:
        install(Store(str(home)), artifact)
    except NotWritableError as error:
        return error.message
    return ""


def test_a_full_disk(home: Path, tmp_path: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step that the system can refuse is refused once; nothing of the artifact is left, and what was is right."""
    storing.put(home, one)
    before = {path.name for path in storing.packs(home)}
    other = storing.variant(tmp_path, 2)
    for step in ("fsync", "writev", "rename", "replace"):
        number = 0
        while True:
            number += 1
            left = [number]
            real = getattr(os, step)

            def failing(*args: Any, real: Any = real, left: list[int] = left, **kwargs: Any) -> Any:
                left[0] -= 1
                if not left[0]:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(os, step, failing)
                message = refusal(home, other)
            if not message:
                break
            assert "No space left on device" in message
            assert check_store(home) == [one.sha256]
            assert storing.leftovers(home) == []
            assert {path.name for path in storing.packs(home)} == before
        assert number > 1, step
        assert check_store(home)[0] == other.sha256
        for path in storing.packs(home):
            if path.name not in before:
                path.unlink()
        install_module.discard(f"{home}/store/artifacts/{other.manifest.identifier}-{other.sha256[:16]}")


def test_files_may_not_grow(home: Path, tmp_path: Path, one: Artifact) -> None:
    """A real limit, at every size from nothing to enough."""
    storing.put(home, one)
    other = storing.variant(tmp_path, 2)
    code = """
import json, os, resource, signal, sys
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.errors import NotWritableError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store, artifact = Store(sys.argv[1]), open_artifact(sys.argv[2])
refused = []
for limit in range(0, 100000, 300):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        install(store, artifact)
        break
    except NotWritableError as error:
        refused.append(error.message)
    packs, artifacts = os.listdir(f"{store.root}/packs"), os.listdir(f"{store.root}/artifacts")
    assert len(packs) == len(artifacts) == 1, (limit, packs, artifacts)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps(refused))
"""
    refused = python(code, home, other.path, home=tmp_path)
    assert len(refused) > 5
    assert all("File too large" in message for message in refused)
    assert check_store(home) == [other.sha256, one.sha256]
    assert storing.leftovers(home) == []


def test_the_file_changes_while_it_is_installed(home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdn_aot.artifact.verify._CACHE", 0)
    artifact = open_artifact(one.path)
    Path(artifact.path).write_bytes(b"")
    with pytest.raises(Exception, match="changed after it was verified"):
        install(Store(str(home)), artifact)
    assert Store(str(home)).artifacts() == storing.packs(home) == storing.leftovers(home) == []


# ---- The lock ----


def test_content_is_on_the_disk_first(home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a reader relies on gets its name before it was synchronized."""
    synced: list[str] = []
    named: list[str] = []
    real_fsync, real_rename, real_replace = os.fsync, os.rename, os.replace

    def fsync(file: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{file}").readlink()))
        real_fsync(file)

    def check(source: str, target: str) -> None:
        inside = [str(path) for path in Path(source).iterdir()] if Path(source).is_dir() else [source]
        named.append(Path(target).name)
        assert named[-1] == "CACHEDIR.TAG" or set(inside) <= set(synced), (source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", lambda source, target: (check(source, target), real_rename(source, target)))
    monkeypatch.setattr(os, "replace", lambda source, target: (check(source, target), real_replace(source, target)))
    install(Store(str(home)), one, origin(1))
    pack, place = storing.packs(home)[0].name, Path(Store(str(home)).artifacts()[0]).name
    assert named == ["CACHEDIR.TAG", "format", pack, place]
    assert len(synced) == 5
