"""A directory as a registry: what lies in it, what it refuses, and what is left by who is killed or finds it full."""

import hashlib
import os
import resource
import shutil
from pathlib import Path

import pytest
import storing
from making import SM_120, TARGETS, expected, make
from processes import fork, wait
from registries import all_signed, check_kills, files, kept, listed, put
from signing import Publisher

from gdn_aot import errors
from gdn_aot._files import file_sha256
from gdn_aot.artifact.archive import Written
from gdn_aot.registry.base import read_index
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import CARD, INDEX, artifact_path, signature_path
from gdn_aot.registry.publish import publish


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(root: Path) -> DirectoryRegistry:
    registry = DirectoryRegistry(str(root))
    assert registry.create(private=False)
    return registry


def test_files_lie_as_on_the_hub(root: Path, sm_120: Written) -> None:
    put(root, sm_120)
    names = {INDEX, CARD, artifact_path(SM_120), f"targets/{SM_120}.json"}
    assert {name for name in files(root) if not name.startswith("indexes/")} == names
    assert file_sha256(root / artifact_path(SM_120)) == sm_120.sha256


def test_builds_lie_beside_each_other(root: Path, sm_120: Written, tmp_path: Path) -> None:
    """So that tags, commits that a lock file pins and whoever reads now keep theirs."""
    before = put(root, sm_120)
    snapshot, index = read_index(DirectoryRegistry(str(root)), "v1")
    new = make(tmp_path, build=1)
    put(root, new, tag="v1.0.0")
    registry = DirectoryRegistry(str(root))
    assert kept(root, sm_120).name == f"{SM_120}.tar.zst"
    assert kept(root, new).name == f"{SM_120}-{new.sha256[:16]}.tar.zst"
    assert listed(registry, before) == expected(sm_120)
    assert read_index(registry, before) == (registry.resolve(before), index)
    (entry,) = index.entries
    place = registry.download(snapshot, artifact_path(SM_120), entry.size, entry.sha256)
    assert file_sha256(place) == sm_120.sha256


def test_reading_writes_nothing_and_needs_no_right_to(root: Path, sm_120: Written) -> None:
    put(root, sm_120, tag="v1.0.0")
    (root / ".lock").unlink()
    before = {path: path.stat() for path in root.rglob("*")}
    with storing.read_only(root):
        registry = DirectoryRegistry(str(root))
        assert listed(registry) == listed(registry, "v1.0.0") == expected(sm_120)
        assert publish(registry, [sm_120.path]).commit == registry.refs().tags["v1.0.0"]
        with pytest.raises(errors.NotWritableError):
            registry.tag("v1.1.0", registry.refs().tags["v1.0.0"])
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }


def test_publishing_what_is_there_repairs_it(registry: DirectoryRegistry, root: Path, sm_120: Written) -> None:
    put(root, sm_120)
    whole = files(root)
    (root / artifact_path(SM_120)).write_bytes(b"x")
    (root / CARD).unlink()
    snapshot, _ = read_index(registry, "v1")
    with pytest.raises(errors.VerificationError, match="damaged"):
        registry.download(snapshot, artifact_path(SM_120), sm_120.size, sm_120.sha256)
    put(root, sm_120)
    assert listed(registry) == expected(sm_120)
    assert files(root)[CARD] == whole[CARD]
    kept(root, sm_120).write_bytes(b"damaged again, where it lies now")
    put(root, sm_120)
    assert listed(registry) == expected(sm_120)


def test_a_damaged_index_is_an_error(registry: DirectoryRegistry, root: Path, sm_120: Written, sm_90: Written) -> None:
    put(root, sm_120)
    index = root / INDEX
    index.write_bytes(index.read_bytes().replace(b"inference", b"Inference"))
    with pytest.raises(errors.VerificationError) as caught:
        read_index(registry, "v1")
    assert caught.value.problems[0].where == "entries[0].mode"
    before = files(root)
    with pytest.raises(errors.VerificationError):
        put(root, sm_90)
    assert files(root) == before


def test_a_damaged_index_of_a_tag(registry: DirectoryRegistry, root: Path, sm_120: Written, sm_90: Written) -> None:
    put(root, sm_120, tag="v1.0.0")
    put(root, sm_90)
    (place,) = (root / "indexes").glob(f"{registry.refs().tags['v1.0.0']}.json")
    place.write_bytes(place.read_bytes() + b" ")
    with pytest.raises(errors.RevisionMissingError):
        read_index(registry, "v1.0.0")


@pytest.mark.parametrize("content", [b"", b"v1\n", b"\xff" * 40, b"0" * 41])
def test_a_tag_that_names_no_commit(registry: DirectoryRegistry, root: Path, content: bytes) -> None:
    (root / "tags").mkdir()
    (root / "tags/v1.0.0").write_bytes(content)
    with pytest.raises(errors.VerificationError) as caught:
        registry.resolve("v1")
    assert "v1.0.0" in caught.value.problems[0].where


def test_what_is_no_registry(tmp_path: Path) -> None:
    with pytest.raises(errors.RepositoryMissingError, match="there is no directory"):
        DirectoryRegistry(str(tmp_path / "none")).resolve("v1")
    registry = DirectoryRegistry(str(tmp_path))
    with pytest.raises(errors.RepositoryMissingError, match="is no registry"):
        registry.resolve("v1")
    with pytest.raises(errors.RepositoryMissingError):
        registry.commit("v1", None, [], "x")
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(errors.ConflictError):
        registry.create(private=False)
    assert [place.name for place in tmp_path.iterdir()] == ["thesis.tex"]


def test_create(tmp_path: Path) -> None:
    registry = DirectoryRegistry(str(tmp_path / "a/b"))
    assert registry.create(private=True)
    assert not registry.create(private=False)
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700
    assert listed(registry) == {}
    (tmp_path / "file").touch()
    with pytest.raises(errors.NotWritableError):
        DirectoryRegistry(str(tmp_path / "file/b")).create(private=False)


@pytest.mark.parametrize("name", ["a/b", "refs/pr/1", "main"])
def test_names(registry: DirectoryRegistry, name: str) -> None:
    """A tag is a file, and there is one branch."""
    with pytest.raises(errors.UsageError):
        registry.commit(name, registry.refs().branches["v1"], [], "x")
    with pytest.raises(errors.UsageError if "/" in name else errors.RevisionMissingError):
        registry.tag(name, "0" * 40)
    with pytest.raises(errors.RevisionMissingError, match=name):
        registry.resolve(name)


def test_a_copy_of_the_files(root: Path, sm_120: Written, sm_90: Written, tmp_path: Path) -> None:
    """As the Hub's own client makes it: one state, and a registry like any other once something is published."""
    put(root, sm_120)
    place = tmp_path / "copy"
    shutil.copytree(root, place, ignore=shutil.ignore_patterns("indexes", ".lock"))
    before, copy = files(place), DirectoryRegistry(str(place))
    commit = hashlib.sha1((place / INDEX).read_bytes()).hexdigest()  # noqa: S324 - a name, not a proof
    assert copy.refs().branches == {"v1": commit}
    assert listed(copy) == listed(copy, commit) == expected(sm_120)
    assert not copy.create(private=False)
    assert files(place) == before
    put(place, sm_90, tag="v1.1.0")
    assert listed(copy) == listed(copy, "v1.1.0") == expected(sm_120, sm_90)
    assert listed(copy, commit) == expected(sm_120)


def test_killed_at_every_rename(tmp_path: Path) -> None:
    """Every step of every way to begin: ``nightly/registry/test_registry.py``."""
    assert check_kills(tmp_path, "release") > 3


def test_a_copy_that_is_published_into(
    root: Path, sm_120: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the Hub, every state of it keeps what was signed of it; the first has that under the names of the Hub."""
    publisher = Publisher()
    monkeypatch.setenv("GDN_AOT_KEYS", publisher.known_in(tmp_path / "keys")["GDN_AOT_KEYS"])
    place, new = tmp_path / "copy", make(tmp_path, build=1)
    commit = put(root, sm_120, signing=publisher.signing())
    shutil.copytree(root, place, ignore=shutil.ignore_patterns("indexes", ".lock"))
    for path in place.glob("targets/*.sig.json"):
        path.rename(place / signature_path(SM_120))
    put(place, new, tag="v1.1.0", signing=publisher.signing())
    copy = DirectoryRegistry(str(place))
    assert (listed(copy, commit), listed(copy)) == (expected(sm_120), expected(new))
    for revision in (commit, "v1"):
        all_signed(copy, tmp_path / "home", revision)


def test_disk_full(registry: DirectoryRegistry, root: Path, sm_120: Written, sm_90: Written) -> None:
    """A limit on the size of files stands for a full disk: the kernel refuses the write in the middle."""
    put(root, sm_120)
    before = listed(registry), registry.refs()

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (sm_90.size // 2,) * 2)
        with pytest.raises(errors.NotWritableError, match="File too large"):
            put(root, sm_90)

    assert wait([fork(fill)]) == [0]
    assert (listed(registry), registry.refs()) == before
    assert not [*root.rglob(".tmp-*")]
    put(root, sm_90)
    assert listed(registry) == expected(sm_120, sm_90)


def test_eight_publishers_at_once(root: Path, tmp_path: Path) -> None:
    made = [make(tmp_path, target) for target in TARGETS]
    reading, writing = os.pipe()

    def run(number: int) -> None:
        os.read(reading, 1)  # all start together
        put(root, made[number], tag=f"v1.0.{number}")

    pids = [fork(lambda number=number: run(number)) for number in range(len(made))]
    os.write(writing, b"x" * len(made))
    os.close(writing)
    assert wait(pids) == [0] * len(made)
    os.close(reading)
    registry = DirectoryRegistry(str(root))
    assert listed(registry) == expected(*made)
    for number, one in enumerate(made):
        assert expected(one).items() <= listed(registry, f"v1.0.{number}").items()


@pytest.mark.parametrize("name", ["targets", "indexes", "tags", ".lock"])
def test_nothing_is_written_or_removed_through_a_link(
    registry: DirectoryRegistry, root: Path, sm_120: Written, sm_90: Written, tmp_path: Path, name: str
) -> None:
    publish(registry, [sm_120.path], tag="v1.0.0")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".tmp-0123456789abcdef").write_text("precious")
    if (root / name).is_dir():
        (root / name).rename(tmp_path / "moved")
    else:
        (root / name).unlink()
    (root / name).symlink_to(elsewhere if name != ".lock" else elsewhere / ".tmp-0123456789abcdef")
    with pytest.raises(errors.NotWritableError, match="symbolic link"):
        publish(registry, [sm_90.path], tag="v1.1.0")
    assert [path.read_text() for path in elsewhere.iterdir()] == ["precious"]


def test_a_reader_cannot_hold_the_lock(registry: DirectoryRegistry, root: Path, sm_120: Written) -> None:
    (root / ".lock").chmod(0o666)
    publish(registry, [sm_120.path])
    assert (root / ".lock").stat().st_mode & 0o777 == 0o622
