"""Stores that cannot be read, or not in part: every command that looks into one says so, and none that all is well."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import storing
from helpers import ROOT, SUPPORT, gdn_aot, run

from gdn_aot.artifact.verify import Artifact
from gdn_aot.errors import NotWritableError, UnreadableError
from gdn_aot.serving.find import find
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.upkeep import audit, ls
from gdn_aot.store.whole import find_installed, open_installed

_READING = (
    ("cache", "verify"),
    ("cache", "verify", "--repair"),
    ("cache", "ls"),
    ("cache", "ls", "--quiet"),
    ("cache", "ls", "--json"),
    ("cache", "rm", "*"),
    ("cache", "prune"),
    ("cache", "prune", "--dry-run"),
    ("list", "--installed"),
    ("seed", "--into", "cache"),
)

_WRITING = (("cache", "verify", "--repair"), ("cache", "prune"))


@contextmanager
def closed(path: Path, mode: int = 0) -> Iterator[None]:
    """Take rights to a file or a directory away, from root too."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        with storing.no_privilege():
            yield
    finally:
        path.chmod(before)


def said(home: Path, words: tuple[str, ...]) -> str:
    """What a command says that must not end well."""
    above = home.parent if home.parent.name != "parent" else home.parent.parent
    done = gdn_aot(*words, home=above, extra={"GDN_AOT_HOME": str(home)}, code=None)
    assert done.code in (2, 9), (words, done)
    assert ": ok" not in done.out
    return done.err


@pytest.mark.parametrize("words", _READING, ids=" ".join)
@pytest.mark.parametrize("part", [".", "store", "store/artifacts"])
def test_a_directory_that_cannot_be_entered(home: Path, one: Artifact, part: str, words: tuple[str, ...]) -> None:
    storing.put(home, one)
    with closed(home / part):
        error = said(home, words)
    assert "Permission denied" in error
    assert ("right to read it" in error) == (words not in _WRITING or part == ".")


@pytest.mark.parametrize("words", _READING, ids=" ".join)
def test_a_parent_that_cannot_be_searched(tmp_path: Path, one: Artifact, words: tuple[str, ...]) -> None:
    """Nothing can be said to be there or not, which pathlib and os.path take for not."""
    home = tmp_path / "parent/home"
    storing.put(home, one)
    with closed(home.parent, 0o600):
        assert "Permission denied" in said(home, words)


@pytest.mark.parametrize("words", _READING, ids=" ".join)
def test_names_without_the_right_to_look_at_them(home: Path, one: Artifact, words: tuple[str, ...]) -> None:
    """A directory with r and without x lists names, and nothing else about them."""
    storing.put(home, one)
    with closed(home / "store/artifacts", 0o400):
        assert "Permission denied" in said(home, words)


@pytest.mark.parametrize("words", _READING, ids=" ".join)
def test_a_home_below_a_file(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "parent").write_text("")
    error = said(tmp_path / "parent/home", words)
    assert "Not a directory" in error
    assert "Hint: let GDN_AOT_HOME name another directory\n" in error


@pytest.mark.parametrize("words", _READING, ids=" ".join)
@pytest.mark.parametrize("plant", ["file", "loop", "dangling", "format"])
def test_what_is_no_store(home: Path, words: tuple[str, ...], plant: str) -> None:
    home.mkdir()
    store = home / "store"
    if plant == "file":
        store.write_text("")
    elif plant == "format":
        (store / "artifacts").mkdir(parents=True)
        (store / "format").write_text("1\n")
        with closed(store / "format"):
            assert "format" in said(home, words)
        return
    else:
        store.symlink_to("store" if plant == "loop" else "nowhere")
    error = said(home, words)
    assert str(store) in error
    assert "Hint: let GDN_AOT_HOME name another directory\n" in error


@pytest.mark.parametrize("name", ["index", "pack", "manifest.json.zst", ""])
def test_one_artifact_that_cannot_be_read(home: Path, one: Artifact, tmp_path: Path, name: str) -> None:
    """The others are listed, and the exit code says that it is not all; a repair leaves what may be sound."""
    place = storing.put(home, one)
    storing.put(home, storing.variant(tmp_path, 2, target="sm_90"))
    with closed(place / name):
        for words in (("cache", "verify"), ("cache", "verify", "--repair"), ("seed", "--into", "cache")):
            error = said(home, words)
            assert "cannot be read: Permission denied" in error, words
        done = gdn_aot("cache", "ls", home=home, code=2)
        assert sorted(line.split()[-2] for line in done.out.splitlines()[1:]) == ["preferred", "unreadable"]
        assert f"{place}" in done.err
        document = gdn_aot("cache", "ls", "--json", home=home, code=2).json
        assert sorted(item["readable"] for item in document["artifacts"]) == [False, True]
        assert document["error"]["code"] == "unreadable"
        listed = gdn_aot("list", "--installed", "--json", home=home, code=2).json
        assert sorted(item["readable"] for item in listed["artifacts"]) == [False, True]
        document = gdn_aot("cache", "verify", "--json", home=home, code=2).json
        assert (document["ok"], document["error"]["code"]) == (False, "unreadable")
        with pytest.raises(UnreadableError, match="cannot be read"):
            open_installed(str(place))
    assert len(ls(Store(str(home)))) == 2
    assert gdn_aot("cache", "verify", home=home).out.startswith(f"{home}/store: ok, 2 artifacts")


def test_where_it_is_from_cannot_be_read(home: Path, one: Artifact) -> None:
    place = storing.put(home, one, origin=storing.ORIGIN)
    with closed(place / "origin.json"):
        found = audit(Store(str(home)), repair=True)
    assert [problem.where for problem in found.hidden] == [f"{place}/origin.json"]
    assert (place / "origin.json").exists()


def test_damage_is_still_damage(home: Path, one: Artifact, tmp_path: Path) -> None:
    """A repair removes what is damaged, and says that there is more that it cannot look at."""
    place = storing.put(home, one)
    other = storing.put(home, storing.variant(tmp_path, 2))
    (other / "pack").write_bytes(b"x")
    with closed(place / "index"):
        assert gdn_aot("cache", "verify", "--json", home=home, code=5).json["error"]["code"] == "verification"
        done = gdn_aot("cache", "verify", "--repair", home=home, code=2)
    assert "removed what was damaged" in done.out
    assert (place.exists(), other.exists()) == (True, False)


def test_the_loader_says_why(home: Path, one: Artifact, caplog: pytest.LogCaptureFixture) -> None:
    storing.put(home, one)
    with closed(home / "store"):
        found, verdicts = find(str(home), None)
    assert found == []
    assert "cannot be read: Permission denied" in verdicts[0].reason
    newer = storing.put(home, one)
    with closed(newer / "pack"):
        found, verdicts = find(str(home), None)
    assert "cannot be read: Permission denied" in verdicts[0].reason


@pytest.mark.parametrize("strict", [False, True])
def test_install_says_why(home: Path, one: Artifact, strict: bool) -> None:
    """In a process of another user, as a server's is; root is everybody."""
    storing.put(home, one)
    (home / "store/artifacts").chmod(0)
    code = f"import storing\nwith storing.no_privilege():\n import gdn_aot; gdn_aot.install(strict={strict})"
    done = run([sys.executable, "-c", code], home, {"PYTHONPATH": f"{ROOT}{os.pathsep}{SUPPORT}"})
    (home / "store/artifacts").chmod(0o755)
    assert "cannot be read: Permission denied" in done.err
    assert (done.code != 0) == strict


def test_fetching_into_it(home: Path, one: Artifact) -> None:
    storing.put(home, one)
    store = Store(str(home))
    with closed(home / "store/artifacts"):
        with pytest.raises(UnreadableError):
            find_installed(store, one.sha256)
        with pytest.raises(NotWritableError, match="Permission denied"):
            install(store, one)


@pytest.mark.parametrize("remove", [shutil.rmtree, lambda home: shutil.rmtree(home / "store")])
def test_no_store_is_an_empty_one(home: Path, one: Artifact, remove: Callable[[Path], None]) -> None:
    storing.put(home, one)
    remove(home)
    assert gdn_aot("cache", "verify", home=home).out == f"there is no store at {home}/store\n"
    assert gdn_aot("cache", "ls", home=home).out == ""
    assert Store(str(home)).artifacts() == []
