"""Which artifacts a serving process may use, and why not: nothing is waited for, one that is bad costs itself."""

import fcntl
import os
import time
from pathlib import Path

import pytest
import storing
from helpers import python
from planting_store import BAD_HEADERS, bind, give_away, header_of, rewrite

from gdn_aot.artifact.verify import Artifact
from gdn_aot.machine.owners import TRUST, policy
from gdn_aot.serving.find import find
from gdn_aot.serving.settings import read_settings
from gdn_aot.store import stored
from gdn_aot.store.stored import UnpackedArtifact

pytestmark = pytest.mark.usefixtures("no_hang")


def refusal(home: Path, only: Path) -> str:
    """Why the one artifact there is may not be used."""
    start = time.monotonic()
    found, (verdict,) = find(str(home), str(only))
    assert time.monotonic() - start < 2
    assert not found
    return verdict.reason


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "sparse", "fifo in a folder", "empty", "cut"])
def test_what_is_no_artifact(home: Path, one: Artifact, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "folder" / "file.tar.zst"
    path.parent.mkdir()
    if kind.startswith("fifo"):
        os.mkfifo(path)
    elif kind == "socket":
        bind(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(one.path.read_bytes()[: 1000 if kind == "cut" else 0])
    if kind == "sparse":
        os.truncate(path, 64 << 30)
    said = refusal(home, path.parent if "folder" in kind else path)
    expected = {"sparse": "is larger than", "empty": "missing", "cut": "truncated"}.get(kind, "is not a regular file")
    assert expected in said
    assert not home.exists()


@pytest.mark.parametrize("how", ["owner", "group"])
def test_a_file_that_others_may_have_written(
    home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "owner":
        give_away(one.path, monkeypatch)
    else:
        one.path.chmod(0o664)
    said = "belongs to user" if how == "owner" else "may be written by others: its mode is 0664"
    assert said in refusal(home, one.path)
    monkeypatch.setenv(TRUST, "any")
    found, _ = find(str(home), str(one.path))
    assert len(found) == 1


@pytest.mark.parametrize("why", ["busy", "file", "newer", "no home", "read-only"])
def test_what_no_store_takes_is_unpacked_in_memory(home: Path, one: Artifact, tmp_path: Path, why: str) -> None:
    """Where the store cannot be used at once; nothing of it is unpacked before a blob is asked for."""
    storing.put(home, storing.variant(tmp_path, 2))
    with (home / "store/.lock").open("rb") as lock:
        if why == "busy":
            fcntl.flock(lock, fcntl.LOCK_EX)
        elif why == "file":
            home = one.path
        elif why == "newer":
            (home / "store/format").write_text("2")
        elif why == "read-only":
            (home / "store/artifacts").rename(home / "moved")
            (home / "store/artifacts").write_text("")
        start = time.monotonic()
        (found,), _ = find("" if why == "no home" else str(home), str(one.path))
        assert time.monotonic() - start < 2
    assert isinstance(found, UnpackedArtifact)
    assert {name: found.read_blob(name) for name, _ in one.iter_blobs()} == dict(one.iter_blobs())


def test_a_copy_in_the_store_that_is_damaged_is_not_used(home: Path, one: Artifact) -> None:
    place = storing.put(home, one)
    for name in ("index", "pack"):
        os.truncate(place / name, 200)
        (found,), _ = find(str(home), str(one.path))
        assert found.place == str(place)
        assert [found.read_blob(blob) for blob, _ in one.iter_blobs()], "it was installed again"


@pytest.mark.parametrize("bad", BAD_HEADERS)
def test_a_bad_index_costs_one_artifact(home: Path, tmp_path: Path, bad: str) -> None:
    places = [storing.put(home, storing.variant(tmp_path, number), 1000 * number) for number in (1, 2)]
    rewrite(places[1], BAD_HEADERS[bad](header_of(places[1])))
    found, verdicts = find(str(home), None)
    assert [item.place for item in found] == [str(places[0])]
    assert [verdict.accepted for verdict in verdicts] == [False, True]


def test_settings_of_an_odd_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDN_AOT_HOME", "~/store")
    monkeypatch.setenv(TRUST, "everybody")
    problems: list[str] = []
    assert read_settings(problems).home == ""
    assert "GDN_AOT_TRUST=everybody is none of owner, signed, any; using owner" in problems
    assert any("'~/store' is not used as a store" in problem for problem in problems)
    problems.clear()
    monkeypatch.setenv(TRUST, "Signed")  # which is used as it was meant, without a word
    read_settings(problems)
    assert policy() == "signed"
    assert not any(TRUST in problem for problem in problems)


@pytest.mark.parametrize("variable", ["GDN_AOT_HOME", "GDN_AOT_ARTIFACT"])
def test_a_working_directory_that_is_gone(tmp_path: Path, variable: str) -> None:
    code = f"""
import os, sys
gone = sys.argv[1] + "/gone"
os.mkdir(gone); os.chdir(gone); os.rmdir(gone)
os.environ["{variable}"] = "relative"
import gdn_aot.auto, gdn_aot, json
print(json.dumps(gdn_aot.report().problem))
"""
    assert python(code, tmp_path, home=tmp_path)


def test_names_steer_no_terminal(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a\x1b[2J\nFAKE: line.tar.zst").write_bytes(b"x")
    (verdict,) = find(str(home), str(folder))[1]
    assert f"{verdict.artifact}{verdict.reason}".isprintable()


def test_of_a_large_artifact_what_is_asked_for_is_kept(
    home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_KEPT", 10)
    (found,), _ = find("", str(one.path))
    (first, content), *_ = one.iter_blobs()
    assert found.read_blob(first) == content
    assert [*found._blobs] == [first]


def test_for_another_version_it_serves_copies(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library is installed that loads such copies; else it is of no use."""
    place = storing.put(home, storing.variant(tmp_path, 1))
    rewrite(place, {**header_of(place), "version": "0.0.1"})
    found, (verdict,) = find(str(home), None)
    assert (found, verdict.accepted) == ([], False)
    (tmp_path / "site" / "kernels-0.17.2.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "site")
    (one,), (verdict,) = find(str(home), None)
    assert one.elsewhere.startswith("made for fla-core 0.0.1, installed is ")
    assert verdict.reason == f"fits packages of the same source alone: {one.elsewhere}"
    rewrite(place, {**header_of(place), "triton": "3.0.0"})
    found, (verdict,) = find(str(home), None)
    assert (found, verdict.reason[:21]) == ([], "made for triton 3.0.0")


def test_what_was_built_from_a_copy_serves_copies(home: Path, tmp_path: Path) -> None:
    place = storing.put(home, storing.variant(tmp_path, 1))
    rewrite(place, {**header_of(place), "copy": True, "distribution": "org/name", "version": "0+1"})
    (one,), (verdict,) = find(str(home), None)
    assert one.elsewhere == "built from a copy of fla"
    assert verdict.accepted
