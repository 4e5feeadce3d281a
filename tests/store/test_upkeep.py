"""Looking after a store: listing, removing, pruning, checking and repairing."""

import os
from pathlib import Path

import pytest
import storing
from storing import check_store

from gdn_aot.artifact.verify import Artifact
from gdn_aot.errors import NothingSelectedError
from gdn_aot.store.install import install, size_of
from gdn_aot.store.store import Store
from gdn_aot.store.upkeep import Removed, audit, ls, prune, remove

SM_90 = "fla0.6.0-triton3.6.0-sm_90"


def both(home: Path, act: object, *args: object, **options: object) -> Removed:
    """Do it dry, see that nothing changed, do it, and see that it did what was said."""
    store = Store(str(home))
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    said = act(store, *args, dry_run=True, **options)  # type: ignore[operator]
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    whole = size_of(store.root)
    done: Removed = act(store, *args, **options)  # type: ignore[operator]
    assert done == said
    assert whole - size_of(store.root) == done.freed
    return done


# ---- ls ----


def test_the_damaged_one_is_not_preferred(home: Path, three: list[Artifact]) -> None:
    place = Store(str(home)).artifacts()[0]
    Path(place, "index").unlink()
    found = ls(Store(str(home)))
    assert [item.preferred for item in found] == [False, True, True]
    assert (found[0].place, found[0].identifier, found[0].target) == (place, "fla0.6.0-triton3.6.0-sm_120", None)
    assert three[2].sha256.startswith(found[0].sha256)
    assert found[0].problem == f"{place}/index: No such file or directory"


# ---- rm ----


@pytest.mark.parametrize("name", ["identifier", "directory", "glob", "path", "digits", "sha256"])
def test_rm_by(home: Path, three: list[Artifact], name: str) -> None:
    place = Path(Store(str(home)).artifacts()[1])
    names = {
        "identifier": "fla0.6.0-triton3.6.0-sm_90",
        "directory": place.name,
        "glob": "*-sm_9?",
        "path": str(place),
        "digits": three[1].sha256[:4],
        "sha256": three[1].sha256,
    }
    done = both(home, remove, [names[name]])
    assert [item.sha256 for item in done.artifacts] == [three[1].sha256]
    assert done.leftovers == ()
    assert check_store(home) == [three[2].sha256, three[0].sha256]


def test_rm_of_all_builds_of_an_identifier(home: Path, three: list[Artifact]) -> None:
    assert len(both(home, remove, ["fla0.6.0-triton3.6.0-sm_120"]).artifacts) == 2
    assert check_store(home) == [three[1].sha256]


def test_rm_of_everything(home: Path, three: list[Artifact]) -> None:
    both(home, remove, ["*", three[0].sha256])
    assert check_store(home) == []
    assert list((home / "store/artifacts").iterdir()) == []
    install(Store(str(home)), three[0])
    assert check_store(home) == [three[0].sha256]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fla0.6.0-triton3.6.0-sm_91", "did you mean fla0.6.0-triton3.6.0-sm_90?"),
        ("nothing", "see gdn-aot cache ls"),
        ("*sm_100*", "see gdn-aot cache ls"),
        ("abc", "see gdn-aot cache ls"),
        ("../artifacts", "see gdn-aot cache ls"),
        ("", "see gdn-aot cache ls"),
    ],
)
def test_rm_of_what_is_not_there(home: Path, three: list[Artifact], name: str, hint: str) -> None:
    """Nothing at all is removed if one of the names is wrong."""
    for dry_run in (True, False):
        with pytest.raises(NothingSelectedError, match="has no artifact") as caught:
            remove(Store(str(home)), ["fla0.6.0-triton3.6.0-sm_120", name], dry_run=dry_run)
        assert hint in caught.value.hint
    assert len(check_store(home)) == len(three)
    with pytest.raises(NothingSelectedError, match="it is empty"):
        remove(Store(str(home / "other")), [name])
    assert not (home / "other").exists()


def test_rm_follows_no_link(home: Path, three: list[Artifact], tmp_path: Path) -> None:
    """An artifact that is a link to elsewhere: the link goes, and what it points to stays."""
    place = Path(Store(str(home)).artifacts()[0])
    elsewhere = tmp_path / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    (elsewhere / ".tmp-0123").write_bytes(b"not ours")
    pack = Path(Store(str(home)).artifacts()[1], "pack")
    moved = pack.rename(tmp_path / "pack")
    pack.symlink_to(moved)
    linked = [item.problem.rpartition(": ")[2] for item in ls(Store(str(home)))[:2]]
    assert linked == ["is a symbolic link"] * 2
    remove(Store(str(home)), ["*"])
    assert not os.path.lexists(place)
    assert not os.path.lexists(pack)
    assert moved.exists()
    assert sorted(path.name for path in elsewhere.iterdir()) == [".tmp-0123", "index", "manifest.json.zst", "pack"]


# ---- prune ----


def test_prune(home: Path, three: list[Artifact]) -> None:
    assert both(home, prune, keep=2).artifacts == ()
    assert len(check_store(home)) == len(three)
    done = both(home, prune)
    assert [item.sha256 for item in done.artifacts] == [three[0].sha256]
    assert check_store(home) == [three[2].sha256, three[1].sha256]
    assert both(home, prune) == Removed(artifacts=(), leftovers=(), freed=0)
    assert len(both(home, prune, keep=0).artifacts) == 2
    assert check_store(home) == []


def test_prune_keeps_the_last_whole_build(home: Path, three: list[Artifact]) -> None:
    """A damaged build is no reason to remove the one before it."""
    Path(Store(str(home)).artifacts()[0], "index").write_bytes(b"x")
    done = both(home, prune)
    assert done.artifacts == ()
    assert [item.sha256 for item in ls(Store(str(home))) if not item.problem] == [three[1].sha256, three[0].sha256]
    install(Store(str(home)), three[2])
    assert check_store(home) == [three[2].sha256, three[1].sha256, three[0].sha256]


def test_prune_of_what_was_left_unfinished(home: Path, three: list[Artifact]) -> None:
    artifacts = home / "store/artifacts"
    (home / "store/.tmp-0123").write_bytes(b"x" * 50)
    (artifacts / ".tmp-4567").mkdir()
    (artifacts / ".tmp-4567/index").write_bytes(b"x" * 25)
    done = both(home, prune, keep=9)
    assert (done.artifacts, done.freed) == ((), 75)
    assert [Path(path).name for path in done.leftovers] == [".tmp-0123", ".tmp-4567"]
    assert len(check_store(home)) == len(list(artifacts.iterdir())) == len(three)


# ---- verify ----


@pytest.mark.parametrize("name", ["index", "pack", "manifest.json.zst"])
def test_repair(home: Path, three: list[Artifact], name: str) -> None:
    store = Store(str(home))
    before, place = size_of(store.root), store.artifacts()[0]
    storing.flip(Path(place, name), -10)
    assert [problem.where for problem in audit(store).problems] == [f"{place}/{name}"]
    found = audit(store, repair=True)
    assert [item.sha256 for item in found.removed] == [three[2].sha256]
    assert found.freed == before - size_of(store.root)
    assert check_store(home) == [three[1].sha256, three[0].sha256]
    assert audit(store, repair=True).removed == ()
    assert install(store, three[2]).new
    assert check_store(home)[0] == three[2].sha256


def test_other_things_that_are_wrong(home: Path, three: list[Artifact]) -> None:
    store = Store(str(home))
    places = [Path(place) for place in store.artifacts()]
    (places[0] / "origin.json").write_text("{")
    places[1].rename(places[1].with_name(f"other-{three[1].sha256[:16]}"))
    (places[2] / "manifest.json.zst").write_bytes((places[0] / "manifest.json.zst").read_bytes())
    (home / "store/artifacts/garbage").write_bytes(b"x")
    found = {problem.where.partition("/artifacts/")[2]: problem.what for problem in audit(store).problems}
    assert found == {
        "garbage": "Not a directory",
        f"{places[0].name}/origin.json": "does not say where the artifact was fetched from",
        f"other-{three[1].sha256[:16]}": f"is the directory of {SM_90} of SHA-256 {three[1].sha256}",
        f"{places[2].name}/manifest.json.zst": "is not the manifest that the index was made of",
    }
    error = audit(store).error()
    assert (error.exit_code, error.message) == (5, f"the store {home}/store is damaged: 4 problems")
    assert len(audit(store, repair=True).removed) == 3
    assert check_store(home) == [three[2].sha256]
    assert audit(store).problems == ()
