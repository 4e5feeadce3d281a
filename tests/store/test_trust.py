"""What others may do to a store: plant links and FIFOs, write files, hold its lock. Nothing outside it is touched."""

import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import storing
from helpers import gdn_aot
from planting_store import BAD_HEADERS, OTHER, bind, give_away, header_of, rewrite

from gdn_aot.artifact.verify import Artifact
from gdn_aot.errors import (
    NothingSelectedError,
    NotWritableError,
    UnknownFormatError,
    UntrustedError,
    UsageError,
    VerificationError,
)
from gdn_aot.machine.owners import TRUST
from gdn_aot.store import index
from gdn_aot.store.install import install, renew
from gdn_aot.store.store import Store, default_home
from gdn_aot.store.stored import StoredArtifact
from gdn_aot.store.upkeep import audit, ls, prune, remove
from gdn_aot.store.whole import find_installed

pytestmark = pytest.mark.usefixtures("no_hang")
_FILES = ("index", "pack", "manifest.json.zst", "origin.json")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "deeper").mkdir(parents=True)
    for name in ("precious", ".tmp-precious", "deeper/precious"):
        (folder / name).write_text("12345")
    return folder


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """All that is in a directory: modes and contents by path."""
    paths = sorted(folder.rglob("*"))
    return {str(p): (p.lstat().st_mode, p.read_text() if p.is_file() else "") for p in paths}


def change_all(home: Path, artifact: Artifact) -> list[str]:
    """Do all that changes a store; return what was refused."""
    store, said = Store(str(home)), []
    steps: list[Callable[[], object]] = [
        lambda: install(store, artifact, storing.ORIGIN),
        lambda: [renew(store, place, storing.ORIGIN) for place in store.artifacts()],
        lambda: audit(store),
        lambda: prune(store, keep=0),
        lambda: audit(store, repair=True),
        lambda: remove(store, ["*"]),
    ]
    for step in steps:
        try:
            step()
        except (NotWritableError, UsageError, UnknownFormatError, NothingSelectedError) as error:
            said.append(error.message)
    return said


@pytest.mark.parametrize(
    "planted", ["store", "store/.lock", "store/format", "store/artifacts", "store/CACHEDIR.TAG", "artifact", *_FILES]
)
@pytest.mark.parametrize("kind", ["folder", "file", "hard"])
def test_no_link_is_followed(home: Path, one: Artifact, outside: Path, planted: str, kind: str) -> None:
    place = storing.put(home, one, origin=storing.ORIGIN)
    path = home / planted if planted.startswith("store") else place if planted == "artifact" else place / planted
    target = outside if kind == "folder" else outside / "precious"
    before = state(outside)
    if path.exists():
        path.rename(home / "moved")
    if kind == "hard":
        path.hardlink_to(target)
    else:
        path.symlink_to(target)
    refused = change_all(home, one)
    assert state(outside) == before
    if planted in ("store", "store/.lock", "store/artifacts"):
        assert str(path) in refused[0]


@pytest.mark.parametrize("planted", ["store/.lock", "store/format", "store/artifacts", "artifact", *_FILES])
@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "device"])
def test_nothing_is_waited_for(home: Path, one: Artifact, planted: str, kind: str) -> None:
    place = storing.put(home, one, origin=storing.ORIGIN)
    path = home / planted if planted.startswith("store") else place if planted == "artifact" else place / planted
    path.rename(home / "moved")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        bind(path)
    change_all(home, one)
    if kind == "folder" and planted != "store/artifacts":
        assert list(home.rglob("inside")), "a directory in a directory is none of ours"


@pytest.mark.parametrize("part", ["", "index", "pack"])
@pytest.mark.parametrize("how", ["owner", "group", "others"])
def test_who_may_have_written_it(
    home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch, part: str, how: str
) -> None:
    place = storing.put(home, one)
    path = place / part if part else place
    if how == "owner":
        give_away(path, monkeypatch)
    else:
        path.chmod(path.stat().st_mode | (0o020 if how == "group" else 0o002))
    with pytest.raises(UntrustedError) as caught:
        StoredArtifact(str(place))
    said = "belongs to user" if how == "owner" else "may be written by others: its mode is 0"
    assert f"{path} {said}" in caught.value.message or how == "owner"
    assert (caught.value.exit_code, TRUST in caught.value.hint) == (5, True)
    assert find_installed(Store(str(home)), one.sha256) is None
    assert said in ls(Store(str(home)))[0].problem
    monkeypatch.setenv(TRUST, "any")
    assert StoredArtifact(str(place)).read_blob(next(iter(storing.contents(place))))
    monkeypatch.setenv(TRUST, "owner")
    if how != "owner":
        assert install(Store(str(home)), one).repaired
        assert StoredArtifact(str(place))


def test_nobody_else_may_write_what_is_installed(home: Path, one: Artifact) -> None:
    before = os.umask(0)
    try:
        storing.put(home, one, origin=storing.ORIGIN)
    finally:
        os.umask(before)
    modes = {path.name: path.lstat().st_mode & 0o777 for path in [home, *home.rglob("*")]}
    assert modes.pop(".lock") == 0o600
    assert set(modes.values()) == {0o755, 0o644}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_reader_cannot_hold_the_lock(home: Path, one: Artifact, tmp_path: Path) -> None:
    storing.put(home, one)
    (home / "store/.lock").chmod(0o666)
    install(Store(str(home)), one)  # which takes the right away
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    child = os.fork()
    if child == 0:
        os.setuid(OTHER)
        try:
            os.open(home / "store/.lock", os.O_RDONLY)
        except PermissionError:
            assert audit(Store(str(home))).problems == ()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_who_is_in_no_hurry_and_who_is(home: Path, one: Artifact) -> None:
    storing.put(home, one)
    with (home / "store/.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(b"4242")
        lock.flush()
        with pytest.raises(NotWritableError, match="process 4242 is using it"):
            install(Store(str(home)), one, patience=0.05)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0", b"one", b"1 2", b"-3", "٣".encode(), b"9" * 10_000])
def test_a_damaged_format_is_written_again(home: Path, one: Artifact, content: bytes) -> None:
    storing.put(home, one)
    (home / "store/format").write_bytes(content)
    assert len(ls(Store(str(home)))) == 1
    assert StoredArtifact(Store(str(home)).artifacts()[0]).index.header["sha256"] == one.sha256
    install(Store(str(home)), one)
    assert (home / "store/format").read_bytes() == b"1\n"


def test_a_newer_format_says_what_helps(home: Path, one: Artifact) -> None:
    storing.put(home, one)
    (home / "store/format").write_text("2\n")
    with pytest.raises(UnknownFormatError) as caught:
        ls(Store(str(home)))
    assert f"remove {home}/store" in caught.value.hint


# The index: its digests are right, and what it says is not


@pytest.mark.parametrize("bad", BAD_HEADERS)
def test_a_bad_header_costs_one_artifact(home: Path, three: list[Artifact], bad: str) -> None:
    store = Store(str(home))
    first = Path(store.artifacts()[0])
    rewrite(first, BAD_HEADERS[bad](header_of(first)))
    assert [bool(item.problem) for item in ls(store)] == [True, False, False]
    with pytest.raises(VerificationError):
        StoredArtifact(str(first))
    assert [item.place for item in audit(store, repair=True).removed] == [str(first)]


@pytest.mark.parametrize(
    "record", [b"{", b"[1]", b"7", b'{"a":1}', b"[[1,2]]", b"[" * 100_000, b"\xff", b"[" + b"[[[]],[],1]," * 9]
)
def test_a_bad_record_is_damage(home: Path, one: Artifact, record: bytes) -> None:
    place = storing.put(home, one)
    names = [index.record_name(*parts) for parts in (("kernels",), ("choices", "m:k"), ("not covered",), ("blobs",))]
    records = dict.fromkeys([*names, index.binary_name("m:k", "key"), index.part_name(1)], record)
    rewrite(place, header_of(place), records)
    found = StoredArtifact(str(place)).index
    for read in (
        found.kernels,
        lambda: found.choices("m:k"),
        found.not_covered,
        found.blobs,
        lambda: found.binary_by_name(index.binary_name("m:k", "key").hex()),
    ):
        with pytest.raises(VerificationError):
            read()


def test_sizes_that_lie(home: Path, one: Artifact) -> None:
    """No memory is taken for bytes that a file does not have, or that no blob may have."""
    place = storing.put(home, one)
    blob = next(iter(storing.contents(place)))
    places = struct.pack("<32sQQ", bytes.fromhex(blob), 0, 1 << 36)
    rewrite(place, header_of(place), {index.record_name("blobs"): places})
    os.truncate(place / "pack", 1 << 37)  # sparse
    with pytest.raises(VerificationError):
        StoredArtifact(str(place)).read_blob(blob)
    fixed = (place / "index").read_bytes()[: index.FIXED.size]
    (place / "index").write_bytes(fixed[:8] + struct.pack("<II", 1 << 19, 0xFFFFFFFF) + fixed[16:])
    os.truncate(place / "index", 1 << 36)
    with pytest.raises(OSError, match="is larger than"):
        StoredArtifact(str(place))


# Where the store is


@pytest.mark.parametrize(
    "variables",
    [
        {"GDN_AOT_HOME": "here"},
        {"GDN_AOT_HOME": "~/cache"},
        {"GDN_AOT_HOME": "./"},
        {"GDN_AOT_HOME": "", "HOME": "~", "XDG_CACHE_HOME": "x"},
    ],
)
def test_no_store_is_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GDN_AOT_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="is not used as a store"):
        default_home()
    assert gdn_aot("cache", "ls", home=tmp_path, extra=variables, code=2, process=True).err.startswith("Error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_cache_directory_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GDN_AOT_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", "/somewhere")
    assert default_home() == "/somewhere/.cache/gdn-aot"


def test_a_store_that_cannot_be_read(home: Path, one: Artifact) -> None:
    """Filled by root with umask 077, looked at by somebody else: not the same as an empty one."""
    storing.put(home, one)
    (home / "store").chmod(0)
    with storing.no_privilege():
        for words in (("verify",), ("ls",), ("prune",), ("rm", "*")):
            code = 9 if words == ("prune",) else 2
            error = gdn_aot("cache", *words, home=home, code=code).err
            assert "Permission denied" in error, words
    (home / "store").chmod(0o755)


def test_a_repair_leaves_what_is_sound_for_somebody_else(
    home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = storing.put(home, one)
    give_away(place, monkeypatch)
    (home / "store/artifacts").chmod(0o777)
    found = audit(Store(str(home)), repair=True)
    assert sorted(problem.where for problem in found.problems) == [str(place.parent), str(place)]
    assert found.removed == ()
    assert "chown" in found.error().hint
    monkeypatch.setenv(TRUST, "any")
    assert audit(Store(str(home))).problems == ()


def test_a_manifest_that_is_another(home: Path, one: Artifact, tmp_path: Path) -> None:
    places = [storing.put(home, artifact) for artifact in (one, storing.variant(tmp_path, 2))]
    content = (places[1] / "manifest.json.zst").read_bytes()
    (places[0] / "manifest.json.zst").write_bytes(content)
    with pytest.raises(VerificationError, match="is not the manifest that the index was made of"):
        _ = StoredArtifact(str(places[0])).manifest
    (places[1] / "manifest.json.zst").chmod(0o666)  # whoever wrote it: the index, which is ours, has its digest
    assert StoredArtifact(str(places[1])).manifest.identifier


def test_names_that_are_none_of_ours(home: Path, one: Artifact) -> None:
    storing.put(home, one)
    for name in ("x\x1b[2J\nok, 1 artifact", "\udcff", "é-0123456789abcdef"):
        (home / "store/artifacts" / name).mkdir()
    assert len(ls(Store(str(home)))) == 1


def test_a_group_that_trusts_all_fills_a_store_together(
    home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUST, "any")
    before = os.umask(0o002)
    try:
        place = storing.put(home, one)
        give_away(place, monkeypatch)
        assert not install(Store(str(home)), one).new
    finally:
        os.umask(before)
    assert place.stat().st_mode & 0o777 == 0o775
