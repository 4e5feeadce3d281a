"""Publishing into a directory: what is refused, what is a no-op, and that nobody's files are lost."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from artifact import factory

from gdn_aot.artifact import archive, names
from gdn_aot.artifact.names import CAPTURE
from gdn_aot.errors import (
    ConflictError,
    NetworkError,
    StaleParentError,
    UnknownFormatError,
    UsageError,
    VerificationError,
)
from gdn_aot.registry.base import Addition, read_index
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import CARD, INDEX, entry_bytes, entry_path, make_index, to_bytes
from gdn_aot.registry.publish import check_tag, publish
from registry import small

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(root: Path) -> DirectoryRegistry:
    registry = DirectoryRegistry(str(root))
    registry.create(private=False)
    return registry


def listed(registry: DirectoryRegistry, revision: str = "v1") -> dict[str, str]:
    return {entry.identifier: entry.sha256 for entry in read_index(registry, revision)[1].entries}


def expected(*paths: Path) -> dict[str, str]:
    return {entry.identifier: entry.sha256 for entry in map(small.entry, paths)}


def tree(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_what_a_capture_made_is_refused(registry: DirectoryRegistry, tmp_path: Path) -> None:
    plain = factory.make_manifest()
    workload = f"{CAPTURE}0123abcd"
    manifest = replace(
        plain,
        identifier=names.make_identifier("fla", "0.6.0", "3.6.0", "sm_120", [workload]),
        workloads=(*plain.workloads, workload),
    )
    path = archive.write_artifact(manifest, factory.make_blobs(), tmp_path / names.file_name(manifest.identifier)).path
    with pytest.raises(UsageError, match="was built from a capture"):
        publish(registry, [path])
    assert "v1" not in registry.refs().branches


class Meddled(DirectoryRegistry):
    """A directory in which something happens once, just before a commit or a tag."""

    def __init__(self, root: Path, meanwhile: Callable[[str], None]) -> None:
        super().__init__(str(root))
        self.meanwhile: Callable[[str], None] | None = meanwhile

    def _once(self, what: str) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            try:
                meanwhile(what)
            except LookupError:  # not yet
                self.meanwhile = meanwhile

    def commit(self, branch: str, parent: str | None, additions: Sequence[Addition], message: str) -> str:
        self._once(branch)
        return super().commit(branch, parent, additions, message)

    def tag(self, name: str, commit: str) -> None:
        self._once(name)
        super().tag(name, commit)


def test_what_is_there_afterwards(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    paths = [small.artifact(tmp_path, target) for target in ("sm_90", "sm_120")]
    outcome = publish(registry, [*paths, paths[0]], tag="v1.2.0")
    assert [item.action for item in outcome.plan.items] == ["added", "added"]
    assert listed(registry) == listed(registry, "v1.2.0") == listed(registry, "main") == expected(*paths)
    assert registry.refs().tags == {"v1.2.0": outcome.commit}
    assert registry.refs().branches == {"v1": outcome.commit, "main": outcome.main}
    snapshot, index = read_index(registry, "main")
    assert snapshot.revision == "v1"
    for entry in index.entries:
        assert registry.read(snapshot, entry_path(entry.identifier)) == entry_bytes(entry)
    main = registry.resolve("main")
    assert json.loads(registry.read(main, INDEX))["tree"] == "v1"
    assert registry.read(main, CARD) == registry.read(snapshot, CARD) == outcome.plan.card


def test_again_is_nothing(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    path = small.artifact(tmp_path)
    first = publish(registry, [path], tag="v1.0.0")
    before = tree(root)
    for tag in ("v1.0.0", None):
        again = publish(registry, [path], tag=tag)
        assert [item.action for item in again.plan.items] == ["unchanged"]
        assert (again.commit, again.main) == (first.commit, None)
        assert tree(root) == before


def test_other_content_is_refused(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    old, new, other = small.artifact(tmp_path), small.artifact(tmp_path, build=1), small.artifact(tmp_path, "sm_90")
    publish(registry, [old], tag="v1.0.0")
    before = tree(root)
    with pytest.raises(ConflictError) as caught:
        publish(registry, [new, other])
    assert small.entry(old).sha256 in caught.value.message
    assert small.entry(new).sha256 in caught.value.message
    with pytest.raises(ConflictError, match=r"tag v1\.0\.0"):
        publish(registry, [new], tag="v1.0.0", replace=True)
    with pytest.raises(ConflictError, match="does not have it"):
        publish(registry, [other], tag="v1.0.0")
    with pytest.raises(UsageError, match="needs a new tag"):
        publish(registry, [new], replace=True)
    assert tree(root) == before


def test_replacing_keeps_the_old_under_its_tag(registry: DirectoryRegistry, tmp_path: Path) -> None:
    old, new = small.artifact(tmp_path), small.artifact(tmp_path, build=1)
    publish(registry, [old], tag="v1.0.0")
    outcome = publish(registry, [new], tag="v1.1.0", replace=True)
    assert [item.action for item in outcome.plan.items] == ["replaced"]
    assert listed(registry) == listed(registry, "v1.1.0") == listed(registry, "main") == expected(new)
    assert listed(registry, "v1.0.0") == expected(old)
    assert publish(registry, [old], tag="v1.0.0").commit == registry.refs().tags["v1.0.0"]  # that release is there
    assert listed(registry) == expected(new)


def test_two_builds_of_one_identifier(registry: DirectoryRegistry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="different builds"):
        publish(registry, [small.artifact(tmp_path), small.artifact(tmp_path, build=1)])
    with pytest.raises(UsageError, match="no artifact"):
        publish(registry, [])
    assert registry.refs().branches == {}


def test_every_file_is_verified_before_anything_is_made(root: Path, tmp_path: Path) -> None:
    good, bad = small.artifact(tmp_path), tmp_path / "bad.tar.zst"
    content = bytearray(small.artifact(tmp_path, "sm_90").read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    with pytest.raises(VerificationError):
        publish(DirectoryRegistry(str(root)), [good, bad], create=True)
    assert not root.exists()


@pytest.mark.parametrize(
    "tag", ["v2.0.0", "v0.1.0", "1.0.0", "v1.0", "v1.0.0-rc1", "v1.0.00", "v1.1.0\n", "../v1.0.0", ""]
)
def test_tags_refused(tag: str) -> None:
    with pytest.raises(UsageError):
        check_tag(tag)


def test_somebody_else_is_faster(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    """At either branch: the index is read again and merged, and neither loses anything."""
    first = small.artifact(tmp_path, "sm_70")
    publish(registry, [first])
    paths = [first]
    for number, branch in enumerate(("v1", "main")):
        mine, theirs = (small.artifact(tmp_path, small.TARGETS[1 + 2 * number + side]) for side in (0, 1))

        def meanwhile(at: str, branch: str = branch, theirs: Path = theirs) -> None:
            if at != branch:
                raise LookupError
            publish(registry, [theirs])

        meddled = Meddled(root, meanwhile)
        publish(meddled, [mine], tag=f"v1.0.{number}")
        assert meddled.meanwhile is None
        paths += [mine, theirs]
        assert listed(registry) == listed(registry, "main") == expected(*paths)
        assert expected(mine).items() <= listed(registry, f"v1.0.{number}").items()


def test_somebody_else_publishes_the_same_identifier(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    same, mine, theirs = small.artifact(tmp_path, "sm_90"), small.artifact(tmp_path), small.artifact(tmp_path, build=1)
    outcome = publish(Meddled(root, lambda _: void(publish(registry, [same]))), [same])
    assert [item.action for item in outcome.plan.items] == ["unchanged"]
    with pytest.raises(ConflictError):
        publish(Meddled(root, lambda _: void(publish(registry, [theirs]))), [mine])
    assert listed(registry) == expected(same, theirs)


def void(_: object) -> None:
    """Return nothing."""


def test_always_too_late(registry: DirectoryRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object) -> str:
        raise StaleParentError("too late")

    monkeypatch.setattr("time.sleep", void)
    monkeypatch.setattr(registry, "commit", stale)
    with pytest.raises(StaleParentError):
        publish(registry, [small.artifact(tmp_path)])


@pytest.mark.parametrize("step", ["v1", "v1.0.0", "main"])
def test_cut_off_between_the_steps(registry: DirectoryRegistry, root: Path, tmp_path: Path, step: str) -> None:
    def cut(at: str) -> None:
        if at != step:
            raise LookupError
        raise NetworkError("cut off")

    path = small.artifact(tmp_path)
    with pytest.raises(NetworkError):
        publish(Meddled(root, cut), [path], tag="v1.0.0")
    found = registry.refs()
    assert ("v1" in found.branches, "v1.0.0" in found.tags, "main" in found.branches) == {
        "v1": (False, False, False),
        "v1.0.0": (True, False, False),
        "main": (True, True, False),
    }[step]
    publish(registry, [path], tag="v1.0.0")
    assert listed(registry) == listed(registry, "v1.0.0") == listed(registry, "main") == expected(path)


@pytest.mark.parametrize("branch", ["v1", "main"])
@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 2}', b'{"format": 1, "tree": null, "entries": [{}]}'])
def test_an_index_that_cannot_be_read_is_not_overwritten(
    registry: DirectoryRegistry, tmp_path: Path, branch: str, content: bytes
) -> None:
    commit = registry.commit(branch, None, [Addition(path=INDEX, content=content)], "spoil")
    with pytest.raises(VerificationError) as caught:
        publish(registry, [small.artifact(tmp_path)])
    assert isinstance(caught.value, UnknownFormatError) == (content == b'{"format": 2}')
    assert registry.refs().branches[branch] == commit


def test_a_branch_that_was_only_made_is_empty(registry: DirectoryRegistry, tmp_path: Path) -> None:
    """On the Hub it starts with the files of main, whose index points elsewhere."""
    elsewhere = make_index([small.entry(small.artifact(tmp_path, "sm_90"))], tree="v1")
    registry.commit("v1", None, [Addition(path=INDEX, content=to_bytes(elsewhere))], "made")
    path = small.artifact(tmp_path)
    publish(registry, [path])
    assert listed(registry) == expected(path)


def test_main_of_a_newer_layout_is_left_alone(registry: DirectoryRegistry, tmp_path: Path) -> None:
    newer = [Addition(path=INDEX, content=to_bytes(make_index([], tree="v2"))), Addition(path=CARD, content=b"v2")]
    commit = registry.commit("main", None, newer, "newer")
    path = small.artifact(tmp_path)
    assert publish(registry, [path]).main is None
    assert registry.refs().branches["main"] == commit
    assert listed(registry) == expected(path)


def test_index_of_main_must_lead_somewhere(registry: DirectoryRegistry) -> None:
    for branch in ("main", "v1"):
        registry.commit(branch, None, [Addition(path=INDEX, content=to_bytes(make_index([], tree="v1")))], "loop")
    with pytest.raises(VerificationError, match="points elsewhere"):
        read_index(registry, "main")
