"""Looking after a store: listing, removing, pruning, checking and repairing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import storing
from registry.checking import check_store

from artifact import factory
from gdn_aot.artifact.verify import Artifact
from gdn_aot.errors import NothingSelectedError, NotWritableError, UnknownFormatError
from gdn_aot.store.audit import audit
from gdn_aot.store.install import install, size_of
from gdn_aot.store.origins import Origin
from gdn_aot.store.pack_writer import write_pack
from gdn_aot.store.store import Store
from gdn_aot.store.upkeep import Removed, ls, prune, remove, size, unneeded

SM_90 = "fla0.6.0-triton3.6.0-sm_90"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def three(tmp_path: Path, home: Path) -> list[Artifact]:
    """Two builds for sm_120, the second installed last, and one for sm_90 between them; all share blobs."""
    made = [
        storing.variant(tmp_path, 1),
        storing.variant(tmp_path, 2, target="sm_90"),
        storing.variant(tmp_path, 3),
    ]
    for number, artifact in enumerate(made):
        storing.put(home, artifact, 1000 + number)
    return made


def digests(home: Path) -> list[str]:
    return [artifact.sha256 for artifact in ls(Store(str(home)))]


def both(home: Path, act: object, *args: object, **options: object) -> Removed:
    """Do it dry, see that nothing changed, do it, and see that it did what was said."""
    store = Store(str(home))
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    said = act(store, *args, dry_run=True, **options)  # type: ignore[operator]
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    whole = size(store)
    done: Removed = act(store, *args, **options)  # type: ignore[operator]
    assert done == said
    assert whole - size(store) == done.freed
    return done


# ---- ls ----


def test_ls(home: Path, three: list[Artifact]) -> None:
    third, second, first = ls(Store(str(home)))
    assert [item.sha256 for item in (first, second, third)] == [artifact.sha256 for artifact in three]
    assert (first.preferred, second.preferred, third.preferred) == (False, True, True)
    assert (second.identifier, second.target) == ("fla0.6.0-triton3.6.0-sm_90", "sm_90")
    assert (first.provider, first.version, first.triton) == ("fla", "0.6.0", "3.6.0")
    assert (first.installed, first.origins, first.problem) == (1000, (), "")
    common = len(factory.LICENSE) + len(factory.CUBINS[0])
    assert [item.shared for item in (first, second, third)] == [common] * 3
    assert first.own == size_of(first.place) + 3004
    assert unneeded(Store(str(home))) == 0


def test_ls_of_nothing(home: Path) -> None:
    assert ls(Store(str(home))) == []
    assert (size(Store(str(home))), unneeded(Store(str(home)))) == (0, 0)
    assert not home.exists()


def test_ls_says_what_is_wrong(home: Path, three: list[Artifact]) -> None:
    places = Store(str(home)).artifacts()
    Path(places[0], "index").write_bytes(b"x")
    Path(places[1], "manifest.json.zst").unlink()
    own = next(iter(dict(three[0].iter_blobs()).keys() - dict(three[1].iter_blobs()).keys()))
    storing.change_blobs(home, {own: None})
    for number, place in enumerate(places):
        os.utime(place, (1000 - number, 1000 - number))
    found = ls(Store(str(home)))
    assert [item.place for item in found] == places
    assert [item.preferred for item in found] == [False] * 3
    assert "it is not an index" in found[0].problem
    assert (found[0].identifier, found[0].target) == ("fla0.6.0-triton3.6.0-sm_120", None)
    assert three[2].sha256.startswith(found[0].sha256)
    assert found[1].problem == "manifest.json.zst is missing"
    assert found[2].problem == "1 of its 3 blobs are missing or cut short"


def test_the_damaged_one_is_not_preferred(home: Path, three: list[Artifact]) -> None:
    Path(Store(str(home)).artifacts()[0], "index").unlink()
    assert [item.preferred for item in ls(Store(str(home)))] == [False, True, True]


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
    assert (done.blobs, done.leftovers) == (1, ())
    assert check_store(home) == [three[2].sha256, three[0].sha256]
    assert len(storing.contents(home)) == 4


def test_rm_of_all_builds_of_an_identifier(home: Path, three: list[Artifact]) -> None:
    assert len(both(home, remove, ["fla0.6.0-triton3.6.0-sm_120"]).artifacts) == 2
    assert check_store(home) == [three[1].sha256]
    assert storing.contents(home).keys() == dict(three[1].iter_blobs()).keys()


def test_rm_of_everything(home: Path, three: list[Artifact]) -> None:
    both(home, remove, ["*", three[0].sha256])
    assert check_store(home) == storing.packs(home) == []
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
    pack = storing.packs(home)[0]
    moved = pack.rename(tmp_path / "pack")
    pack.symlink_to(moved)
    assert len(check_store(home)) == 3
    remove(Store(str(home)), ["*"])
    assert not os.path.lexists(place)
    assert not os.path.lexists(pack)
    assert moved.exists()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["index", "manifest.json.zst"]


def test_rm_from_a_read_only_store(home: Path, three: list[Artifact]) -> None:
    with storing.read_only(home):
        assert len(remove(Store(str(home)), ["*"], dry_run=True).artifacts) == 3
        for attempt in (lambda: remove(Store(str(home)), ["*"]), lambda: prune(Store(str(home)))):
            with pytest.raises(NotWritableError, match="Permission denied"):
                attempt()
        assert len(check_store(home)) == len(three)


# ---- prune ----


def test_prune(home: Path, three: list[Artifact]) -> None:
    done = both(home, prune)
    assert [item.sha256 for item in done.artifacts] == [three[0].sha256]
    assert check_store(home) == [three[2].sha256, three[1].sha256]
    assert both(home, prune) == Removed(artifacts=(), blobs=0, leftovers=(), freed=0)
    assert len(both(home, prune, keep=0).artifacts) == 2
    assert storing.packs(home) == []


def test_prune_keeps_as_many_as_asked(home: Path, three: list[Artifact]) -> None:
    assert both(home, prune, keep=2).artifacts == ()
    assert len(check_store(home)) == len(three)


def test_prune_of_nothing(home: Path) -> None:
    assert prune(Store(str(home))) == Removed(artifacts=(), blobs=0, leftovers=(), freed=0)
    assert not home.exists()


def test_prune_keeps_the_last_whole_build(home: Path, three: list[Artifact]) -> None:
    """A damaged build is no reason to remove the one before it."""
    Path(Store(str(home)).artifacts()[0], "index").write_bytes(b"x")
    done = both(home, prune)
    assert done.artifacts == ()
    assert done.blobs == 1
    assert [item.sha256 for item in ls(Store(str(home))) if not item.problem] == [three[1].sha256, three[0].sha256]
    install(Store(str(home)), three[2])
    assert check_store(home) == [three[2].sha256, three[1].sha256, three[0].sha256]


def test_prune_of_what_nothing_needs(home: Path, three: list[Artifact]) -> None:
    packs = home / "store/packs"
    write_pack(str(packs), {factory.sha256(b"unneeded"): b"unneeded"})
    assert unneeded(Store(str(home))) > 8
    (packs / "garbage").write_bytes(b"x" * 100)
    (packs / ".tmp-0123").write_bytes(b"x" * 50)
    (home / "store/artifacts/.tmp-4567").mkdir()
    (home / "store/artifacts/.tmp-4567/index").write_bytes(b"x" * 25)
    done = both(home, prune, keep=9)
    assert (done.artifacts, done.blobs) == ((), 1)
    assert [Path(path).name for path in done.leftovers] == [".tmp-0123", ".tmp-4567", "garbage"]
    assert len(check_store(home)) == len(three)
    assert len(list(packs.iterdir())) == 3


def test_the_copy_that_is_right_stays(home: Path, three: list[Artifact]) -> None:
    """Two packs have a blob, and one of them is damaged, whichever comes first."""
    for sha256, content in storing.contents(home).items():
        pack = storing.flip_blob(home, sha256)
        good = write_pack(str(home / "store/packs"), {sha256: content})  # which replaces a pack of this blob alone
        assert both(home, prune, keep=9).blobs == (str(pack) != good)
        assert len(check_store(home)) == len(three)


def test_a_newer_store_is_left_alone(home: Path, three: list[Artifact]) -> None:
    (home / "store/format").write_text("99\n")
    store = Store(str(home))
    for attempt in (
        lambda: ls(store),
        lambda: prune(store),
        lambda: prune(store, dry_run=True),
        lambda: audit(store),
        lambda: audit(store, repair=True),
    ):
        with pytest.raises(UnknownFormatError):
            attempt()
    (home / "store/format").write_text("1\n")
    assert len(check_store(home)) == len(three)


# ---- verify ----


def test_a_sound_store(home: Path, three: list[Artifact]) -> None:
    found = audit(Store(str(home)))
    assert (found.problems, found.artifacts, found.blobs) == ((), 3, 5)
    assert found.size == sum(path.stat().st_size for path in storing.packs(home))
    assert audit(Store(str(home / "nothing"))).artifacts == 0
    with storing.read_only(home):
        assert audit(Store(str(home))) == found
        with pytest.raises(NotWritableError):
            audit(Store(str(home)), repair=True)


def test_every_changed_byte_is_found_and_repaired(home: Path, tmp_path: Path) -> None:
    artifact = storing.variant(tmp_path, 1)
    place = storing.put(home, artifact)
    files = [place / "index", place / "manifest.json.zst", *storing.packs(home)]
    store = Store(str(home))
    missed = []
    for path in files:
        good = path.read_bytes()
        for at in range(0, len(good), 97 if len(good) > 2000 else 13):
            path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
            problems = audit(Store(str(home))).problems
            texts = [str(problem) for problem in problems]
            if not any(str(path) in text or text.endswith("is missing") for text in texts):
                missed.append((path.name, at))
        path.write_bytes(good[: len(good) // 2])
        found = audit(store, repair=True)
        assert found.problems
        assert [item.identifier for item in found.removed] == [artifact.manifest.identifier]
        assert audit(store).problems == ()
        assert store.artifacts() == []
        assert install(store, artifact).new
        assert audit(store).problems == ()
        assert check_store(home) == [artifact.sha256]
    assert missed == []


def test_repair_leaves_the_rest_alone(home: Path, three: list[Artifact]) -> None:
    own = next(iter(dict(three[2].iter_blobs()).keys() - dict(three[1].iter_blobs()).keys()))
    pack = storing.flip_blob(home, own)
    store = Store(str(home))
    before = size(store)
    assert [str(problem) for problem in audit(store).problems] == [
        f"{pack}: the content of blob {own} is not what its name says",
        f"{store.artifacts()[0]}: blob {own} is missing",
    ]
    found = audit(store, repair=True)
    assert [item.sha256 for item in found.removed] == [three[2].sha256]
    assert found.freed == before - size(store)
    assert check_store(home) == [three[1].sha256, three[0].sha256]
    assert audit(store, repair=True).removed == ()


def test_repair_of_a_second_copy_removes_no_artifact(home: Path, three: list[Artifact]) -> None:
    sha256, content = next(iter(storing.contents(home).items()))
    storing.flip_blob(home, sha256)
    write_pack(str(home / "store/packs"), {sha256: content})
    found = audit(Store(str(home)), repair=True)
    assert (len(found.problems), found.removed) == (1, ())
    assert len(check_store(home)) == len(three)
    assert audit(Store(str(home))).problems == ()


def test_other_things_that_are_wrong(home: Path, three: list[Artifact]) -> None:
    store = Store(str(home))
    places = [Path(place) for place in store.artifacts()]
    (places[0] / "origin.json").write_text("{")
    places[1].rename(places[1].with_name(f"other-{three[1].sha256[:16]}"))
    (places[2] / "manifest.json.zst").write_bytes((places[0] / "manifest.json.zst").read_bytes())
    (home / "store/packs/garbage").write_bytes(b"x")
    found = {problem.where.rpartition("/")[2]: problem.what for problem in audit(store).problems}
    assert found == {
        "garbage": "is not a pack, or is cut short",
        "origin.json": "does not say where the artifact was fetched from",
        f"other-{three[1].sha256[:16]}": f"is the directory of {SM_90} of SHA-256 {three[1].sha256}",
        "manifest.json.zst": "is not the manifest that the index was made of",
    }
    error = audit(store).error()
    assert (error.exit_code, error.message) == (5, f"the store {home}/store is damaged: 4 problems")
    assert len(audit(store, repair=True).removed) == 2
    assert check_store(home) == [three[2].sha256]
    assert audit(store).problems == ()


def test_origins_are_shown(home: Path, tmp_path: Path) -> None:
    origin = Origin(repo="hf://a/b", revision="v1", commit="c" * 40)
    install(Store(str(home)), storing.variant(tmp_path, 1), origin)
    assert ls(Store(str(home)))[0].origins == (origin,)
