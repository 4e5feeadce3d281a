"""A directory as a registry: history, refusals, and what is left when a writer is killed or the disk is full."""

from __future__ import annotations

import hashlib
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gdn_aot._files import file_sha256
from gdn_aot.errors import (
    ConflictError,
    EntryMissingError,
    NotWritableError,
    RepositoryMissingError,
    RevisionMissingError,
    StaleParentError,
    UsageError,
    VerificationError,
)
from gdn_aot.registry.base import Addition, Snapshot, read_index
from gdn_aot.registry.commits import Commit, File, commit_name
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import CARD, INDEX, artifact_path
from gdn_aot.registry.publish import publish
from registry import small
from registry.directories import empty_registry, expect_shown, expect_whole

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(root: Path) -> DirectoryRegistry:
    return empty_registry(root)


def state(root: Path) -> dict[str, tuple[int, int, str]]:
    """Return inode, time and content of all below a directory."""
    places = sorted(root.rglob("*"))
    return {
        str(place.relative_to(root)): (
            place.stat().st_ino,
            place.stat().st_mtime_ns,
            file_sha256(place) if place.is_file() else "",
        )
        for place in places
    }


def test_commits_branches_tags(registry: DirectoryRegistry) -> None:
    first = registry.commit("v1", None, [Addition(path="a", content=b"1"), Addition(path="d/b", content=b"2")], "one")
    second = registry.commit("v1", first, [Addition(path="a", content=b"3")], "two")
    registry.tag("v1.0.0", first)
    registry.tag("v1.0.0", first)
    refs = registry.refs()
    assert (refs.branches, refs.tags) == ({"v1": second}, {"v1.0.0": first})
    assert registry.read(registry.resolve("v1"), "a") == b"3"
    assert registry.read(registry.resolve("v1"), "d/b") == b"2"
    assert registry.read(registry.resolve("v1.0.0"), "a") == b"1"
    assert registry.read(registry.resolve(first), "a") == b"1"
    with pytest.raises(ConflictError, match=second):
        registry.tag("v1.0.0", second)
    with pytest.raises(EntryMissingError):
        registry.read(registry.resolve("v1"), "b")
    with pytest.raises(RevisionMissingError):
        registry.resolve("v2")
    with pytest.raises(RevisionMissingError):
        registry.read(registry.resolve("0" * 40), "a")
    with pytest.raises(RevisionMissingError):
        registry.tag("v1.0.1", "0" * 40)


def test_stale_parent_changes_nothing(registry: DirectoryRegistry, root: Path) -> None:
    first = registry.commit("v1", None, [Addition(path="a", content=b"1")], "one")
    before = state(root)
    for parent in (None, "0" * 40):
        with pytest.raises(StaleParentError):
            registry.commit("v1", parent, [Addition(path="a", content=b"2")], "two")
    with pytest.raises(StaleParentError):
        registry.commit("other", first, [Addition(path="a", content=b"2")], "two")
    assert state(root) == before


def test_content_is_stored_once(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    artifact = small.artifact(tmp_path)
    publish(registry, [artifact])
    shown = root / artifact_path("fla0.6.0-triton3.6.0-sm_120")
    sha256 = file_sha256(artifact)
    assert shown.samefile(root / f".registry/objects/{sha256[:2]}/{sha256}")
    assert not shown.samefile(artifact)
    assert shown.stat().st_mode & 0o222 == 0


def test_without_hard_links(
    registry: DirectoryRegistry, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    publish(registry, [small.artifact(tmp_path)])
    expect_shown(root)
    before = state(root)
    publish(registry, [small.artifact(tmp_path)])
    assert state(root) == before


def test_reading_writes_nothing_and_needs_no_right_to(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    publish(registry, [small.artifact(tmp_path)], tag="v1.0.0")
    places = [root, *root.rglob("*")]
    for place in places:
        place.chmod(place.stat().st_mode & ~0o222)
    before = state(root)
    try:
        assert expect_whole(root) == expect_whole(root, "v1.0.0") == expect_whole(root, "main")
        DirectoryRegistry(str(root)).refs()
        assert state(root) == before
    finally:
        for place in places:
            place.chmod(place.stat().st_mode | (0o200 if place.is_dir() else 0))


def test_damage_is_noticed_and_repaired(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    artifact = small.artifact(tmp_path)
    publish(registry, [artifact])
    snapshot, index = read_index(registry, "v1")
    sha256 = index.entries[0].sha256
    place = root / f".registry/objects/{sha256[:2]}/{sha256}"
    place.chmod(0o644)
    place.write_bytes(b"x")  # through the link the file to look at is gone too
    with pytest.raises(VerificationError):
        registry.download(snapshot, artifact_path(index.entries[0].identifier), index.entries[0].size)
    publish(registry, [artifact])
    expect_whole(root)
    expect_shown(root)


def test_damaged_index_is_an_error(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    publish(registry, [small.artifact(tmp_path)])
    index = root / INDEX
    index.chmod(0o644)
    index.write_bytes(index.read_bytes().replace(b"inference", b"Inference"))
    with pytest.raises(VerificationError) as caught:
        read_index(registry, "v1")
    assert caught.value.problems[0].where == INDEX
    with pytest.raises(VerificationError):
        publish(registry, [small.artifact(tmp_path, "sm_90")])


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a/../../b", "", "a\\b"])
def test_a_commit_cannot_name_other_files(registry: DirectoryRegistry, root: Path, path: str) -> None:
    content = Commit(parent=None, message="", files=(File(path=path, sha256="0" * 64, size=1),)).to_bytes()
    commit = commit_name(content)
    (root / ".registry/commits" / commit).write_bytes(content)
    with pytest.raises(VerificationError) as caught:
        registry.read(Snapshot(revision="v1", commit=commit), path)
    assert caught.value.problems[0].where == "files[0].path"


def test_a_changed_commit_is_noticed(registry: DirectoryRegistry, root: Path) -> None:
    commit = registry.commit("v1", None, [Addition(path="a", content=b"1")], "one")
    path = root / ".registry/commits" / commit
    path.write_bytes(path.read_bytes().replace(b"one", b"two"))
    with pytest.raises(VerificationError):
        registry.read(registry.resolve("v1"), "a")


def test_of_another_format(registry: DirectoryRegistry, root: Path) -> None:
    (root / ".registry/format").write_text("2\n")
    with pytest.raises(VerificationError, match="another format"):
        registry.refs()


def test_what_is_no_registry(tmp_path: Path) -> None:
    with pytest.raises(RepositoryMissingError, match="there is no directory"):
        DirectoryRegistry(str(tmp_path / "none")).resolve("v1")
    with pytest.raises(RepositoryMissingError, match="is no registry"):
        DirectoryRegistry(str(tmp_path)).resolve("v1")
    with pytest.raises(RepositoryMissingError):
        DirectoryRegistry(str(tmp_path)).commit("v1", None, [], "x")
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConflictError):
        DirectoryRegistry(str(tmp_path)).create(private=False)
    assert [place.name for place in tmp_path.iterdir()] == ["thesis.tex"]


def test_create(tmp_path: Path) -> None:
    registry = DirectoryRegistry(str(tmp_path / "a/b"))
    assert registry.create(private=True)
    assert not registry.create(private=False)
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(NotWritableError):
        DirectoryRegistry(str(tmp_path / "file/b")).create(private=False)


@pytest.mark.parametrize("name", ["a/b", "..", "-x", "refs/pr/1"])
def test_branches_and_tags_are_files(registry: DirectoryRegistry, name: str) -> None:
    with pytest.raises(UsageError):
        registry.commit(name, None, [], "x")
    with pytest.raises(UsageError):
        registry.tag(name, "0" * 40)


def test_a_file_that_changed_is_not_published(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    artifact = small.artifact(tmp_path)
    with pytest.raises(VerificationError, match="changed"):
        registry.commit("v1", None, [Addition(path="a", content=artifact, sha256="0" * 64)], "x")
    assert registry.refs().branches == {}


def copy_of_files(root: Path, target: Path) -> Path:
    shutil.copytree(root, target, ignore=shutil.ignore_patterns(".registry"))
    return target


def test_a_copy_of_the_files_is_read_and_adopted(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    publish(registry, [small.artifact(tmp_path)])
    place = copy_of_files(root, tmp_path / "copy")
    copy = DirectoryRegistry(str(place))
    before = state(place)
    expected = hashlib.sha1((place / INDEX).read_bytes()).hexdigest()  # noqa: S324 - a name, not a proof
    assert copy.resolve("v1").commit == expected
    assert expect_whole(place) == expect_whole(root) == expect_whole(place, expected)
    with pytest.raises(RevisionMissingError):
        copy.resolve("main")
    with pytest.raises(RevisionMissingError):
        copy.read(Snapshot(revision="x", commit="0" * 40), INDEX)
    with pytest.raises(EntryMissingError):
        copy.read(copy.resolve("v1"), "targets/none.json")
    assert state(place) == before
    assert not copy.create(private=False)
    publish(copy, [small.artifact(tmp_path, "sm_90")], tag="v1.1.0")
    assert len(expect_whole(place)) == 2
    expect_shown(place)
    assert set(copy.refs().branches) == {"v1", "main"}


def test_a_damaged_copy_is_not_adopted(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    publish(registry, [small.artifact(tmp_path)])
    for number, spoil in enumerate((lambda path: path.unlink(), lambda path: path.write_bytes(b"x"))):
        place = copy_of_files(root, tmp_path / f"copy-{number}")
        tarball = place / artifact_path("fla0.6.0-triton3.6.0-sm_120")
        tarball.chmod(0o644)
        spoil(tarball)
        copy = DirectoryRegistry(str(place))
        with pytest.raises((EntryMissingError, VerificationError)):
            publish(copy, [small.artifact(tmp_path, "sm_90")])
        assert copy.resolve("v1").commit == commit_name((place / INDEX).read_bytes())


def killed_at(step: int, function: Callable[[], object]) -> int:
    """Run a function in a process that is killed at its ``step``-th change of a name; return how it ended."""

    def run() -> None:
        small.die_at(step)
        function()

    return small.wait([small.fork(run)])[0]


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_killed_at_every_step(tmp_path: Path, first: bool) -> None:
    """The revision before stays readable and whole, and publishing again brings all to where it was to be."""
    old, new, third = (small.artifact(tmp_path, target) for target in ("sm_80", "sm_90", "sm_120"))
    start = tmp_path / "start"
    DirectoryRegistry(str(start)).create(private=False)
    before = {}
    if not first:
        publish(DirectoryRegistry(str(start)), [old], tag="v1.0.0")
        before = expect_whole(start)
    after = before | {entry.identifier: entry.sha256 for entry in map(small.entry, (new, third))}
    outcomes = set()
    for step in range(200):
        root = tmp_path / f"root-{step}"
        shutil.copytree(start, root)
        ended = killed_at(step, lambda root=root: publish(DirectoryRegistry(str(root)), [new, third], tag="v1.1.0"))
        registry = DirectoryRegistry(str(root))
        if registry.refs().branches:
            found = expect_whole(root)
            assert found in (before, after)
            outcomes.add(found == after)
        else:
            assert first
        if not first:
            assert expect_whole(root, "v1.0.0") == before
        publish(registry, [new, third], tag="v1.1.0")
        assert expect_whole(root) == expect_whole(root, "v1.1.0") == expect_whole(root, "main") == after
        expect_shown(root)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        shutil.rmtree(root)
    else:
        pytest.fail("it never came to its end")
    assert step > 20
    assert outcomes == ({True} if first else {True, False})


def test_killed_while_adopting(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    publish(registry, [small.artifact(tmp_path)])
    new = small.artifact(tmp_path, "sm_90")
    for step in range(200):
        place = copy_of_files(root, tmp_path / f"copy-{step}")
        ended = killed_at(step, lambda place=place: publish(DirectoryRegistry(str(place)), [new]))
        assert expect_whole(place).items() >= expect_whole(root).items()
        publish(DirectoryRegistry(str(place)), [new])
        assert len(expect_whole(place)) == 2
        expect_shown(place)
        if ended == 0:
            return
        shutil.rmtree(place)
    pytest.fail("it never came to its end")


def test_publishing_what_is_there_repairs_the_files_to_look_at(
    registry: DirectoryRegistry, root: Path, tmp_path: Path
) -> None:
    artifact = small.artifact(tmp_path)
    publish(registry, [artifact])
    (root / CARD).unlink()
    (root / artifact_path("fla0.6.0-triton3.6.0-sm_120")).unlink()
    (root / INDEX).unlink()
    (root / INDEX).write_text("{}")
    assert expect_whole(root)
    publish(registry, [artifact])
    expect_shown(root)
