"""What every registry promises, and publishing into it: to a directory, and to the Hub through its real client."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from artifact import factory

from gdn_aot.artifact import archive, names
from gdn_aot.errors import (
    ConflictError,
    EntryMissingError,
    NetworkError,
    RegistryError,
    RevisionMissingError,
    StaleParentError,
    UnknownFormatError,
    UsageError,
    VerificationError,
)
from gdn_aot.registry.base import Addition, Snapshot, index_at, read_index
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import CARD, ENTRY_FORM, INDEX, INDEX_FORM, artifact_path, entry_path, make_index
from gdn_aot.registry.publish import check_tag, publish
from gdn_aot.registry.remote import RemoteRegistry
from registry.clients import client_of
from registry.loopback import WRITER, Cut, Refuse
from registry.making import SM_120, TARGETS, expected, indexed, make
from registry.registries import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from gdn_aot.artifact.archive import Written
    from gdn_aot.registry.base import Registry
    from gdn_aot.registry.publish import PublishResult
    from registry.loopback import LoopbackHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's way to send a file


@pytest.fixture(params=["directory", "hub"])
def registry(
    request: pytest.FixtureRequest, hub: LoopbackHub, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Registry]:
    """A registry that was just made."""
    if request.param == "hub":
        with client_of(hub, tmp_path / "huggingface", monkeypatch):
            remote = RemoteRegistry(name, token=WRITER)
            assert remote.create(private=False)
            yield remote
    else:
        directory = DirectoryRegistry(str(tmp_path / "registry"))
        assert directory.create(private=False)
        yield directory


ON_THE_HUB = pytest.mark.parametrize("registry", ["hub"], indirect=True)
BRANCHES = pytest.mark.parametrize(
    ("registry", "branch"), [("directory", "v1"), ("hub", "v1"), ("hub", "main")], indirect=["registry"]
)
STEPS = [("directory", "v1"), ("directory", "v1.0.0"), ("hub", "v1"), ("hub", "v1.0.0"), ("hub", "main")]


def branches(registry: Registry) -> tuple[str, ...]:
    return ("v1", "main") if isinstance(registry, RemoteRegistry) else ("v1",)


def send(registry: Registry, *made: Written, **options: Any) -> PublishResult:
    return publish(registry, [one.path for one in made], **options)


def uploads(hub: LoopbackHub) -> list[str]:
    """Return the SHA-256 of every large file that was sent whole."""
    return [record.path.removeprefix("/storage/") for record in hub.requests("PUT") if record.status == 200]


def spoil(registry: Registry, content: bytes, branch: str = "v1", **more: bytes) -> str:
    """Put bytes where the index of a branch is."""
    additions = [Addition(path=path, content=data) for path, data in {INDEX: content, **more}.items()]
    return registry.commit(branch, registry.refs().branches.get(branch), additions, "spoil")


def test_commits_and_tags(registry: Registry, sm_120: Written) -> None:
    assert not registry.create(private=False)
    path = artifact_path(SM_120)
    start = registry.refs().branches.get("v1")
    additions = [Addition(path=INDEX, content=b"{}"), Addition(path=path, content=sm_120.path)]
    first = registry.commit("v1", start, additions, "first")
    registry.tag("v1.0.0", first)
    registry.tag("v1.0.0", first)
    second = registry.commit("v1", first, [Addition(path=INDEX, content=b"[]")], "second")
    assert first != second
    refs = registry.refs()
    assert (refs.branches["v1"], refs.tags) == (second, {"v1.0.0": first})
    for revision, commit, content in (("v1", second, b"[]"), ("v1.0.0", first, b"{}"), (first, first, b"{}")):
        snapshot = registry.resolve(revision)
        assert snapshot == Snapshot(revision=revision, commit=commit)
        assert registry.read(snapshot, INDEX) == content
        place = registry.download(snapshot, path, sm_120.size, sm_120.sha256)
        assert place.read_bytes() == sm_120.path.read_bytes()
    with pytest.raises(ConflictError, match=first):
        registry.tag("v1.0.0", second)
    for parent in (first, None):
        with pytest.raises(StaleParentError):
            registry.commit("v1", parent, [Addition(path=INDEX, content=b"1")], "third")
    assert registry.refs() == refs


def test_what_is_missing(registry: Registry) -> None:
    commit = spoil(registry, b"{}")
    nowhere = Snapshot(revision="0" * 40, commit="0" * 40)
    with pytest.raises(RevisionMissingError, match="v9"):
        registry.resolve("v9")
    with pytest.raises(RevisionMissingError, match="0" * 40):
        registry.read(nowhere, INDEX)
    with pytest.raises(RevisionMissingError):
        registry.tag("v1.0.0", nowhere.commit)
    with pytest.raises(EntryMissingError, match="other"):
        registry.read(registry.resolve(commit), "other.json")
    with pytest.raises(EntryMissingError, match="sm_120"):
        registry.download(registry.resolve(commit), artifact_path(SM_120), 5, "0" * 64)
    assert not registry.refs().tags


@pytest.mark.parametrize("tag", ["..", "-x", "a//b", "x.lock"])
def test_names_of_tags(registry: Registry, tag: str) -> None:
    with pytest.raises(UsageError):
        registry.tag(tag, "0" * 40)


def test_a_file_that_changed_is_not_published(registry: Registry, sm_120: Written) -> None:
    before = registry.refs()
    changed = Addition(path=artifact_path(SM_120), content=sm_120.path, sha256="0" * 64)
    with pytest.raises(VerificationError, match="changed"):
        registry.commit("v1", before.branches.get("v1"), [changed], "x")
    assert {**before.branches, **registry.refs().branches}.keys() <= {"v1", "main"}
    with pytest.raises(EntryMissingError):
        registry.download(registry.resolve("v1"), artifact_path(SM_120), sm_120.size, "0" * 64)


def test_another_size(registry: Registry, sm_120: Written) -> None:
    snapshot = registry.resolve(str(send(registry, sm_120).commit))
    for size in (1, sm_120.size - 1, sm_120.size + 1):
        with pytest.raises(VerificationError) as caught:
            registry.download(snapshot, artifact_path(SM_120), size, sm_120.sha256)
        assert f"{sm_120.size} bytes, expected {size}" in str(caught.value.problems[0])


# Publishing


class Meddled:
    """A registry in which something happens once, just before a commit or a tag."""

    def __init__(self, registry: Registry, meanwhile: Callable[[str], object]) -> None:
        self.registry = registry
        self.meanwhile: Callable[[str], object] | None = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self.registry, name)

    def _once(self, what: str) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            try:
                meanwhile(what)
            except LookupError:  # not yet
                self.meanwhile = meanwhile

    def commit(self, branch: str, parent: str | None, additions: Sequence[Addition], message: str) -> str:
        self._once(branch)
        return self.registry.commit(branch, parent, additions, message)

    def tag(self, name: str, commit: str) -> None:
        self._once(name)
        self.registry.tag(name, commit)


def test_what_is_there_afterwards(registry: Registry, sm_90: Written, sm_120: Written) -> None:
    result = send(registry, sm_90, sm_120, sm_90, tag="v1.2.0")
    assert [item.action for item in result.plan.items] == ["added", "added"]
    for revision in (*branches(registry), "v1.2.0", str(result.commit)):
        assert listed(registry, revision) == expected(sm_90, sm_120)
    refs = registry.refs()
    assert refs.tags == {"v1.2.0": result.commit}
    assert refs.branches == {"v1": result.commit, **({"main": result.main} if result.main else {})}
    assert (result.main is not None) == isinstance(registry, RemoteRegistry)
    snapshot, index = read_index(registry, branches(registry)[-1])
    assert snapshot.revision == "v1"
    for one in index.entries:
        assert registry.read(snapshot, entry_path(one.identifier)) == ENTRY_FORM.encode(one)
    for branch in branches(registry):
        at = registry.resolve(branch)
        assert registry.read(at, CARD) == result.plan.card
        assert index_at(registry, at).tree == (None if branch == "v1" else "v1")


def test_again_is_nothing(hub: LoopbackHub, registry: Registry, sm_120: Written) -> None:
    first = send(registry, sm_120, tag="v1.0.0")
    before = registry.refs()
    hub.log.clear()
    for tag in ("v1.0.0", None):
        again = send(registry, sm_120, tag=tag)
        assert [item.action for item in again.plan.items] == ["unchanged"]
        assert (again.commit, again.main) == (first.commit, None)
        assert registry.refs() == before
    assert not hub.requests("PUT|DELETE")
    assert not hub.requests("POST", "/(commit|branch|tag)/")


def test_dry_run_changes_nothing(hub: LoopbackHub, registry: Registry, sm_120: Written, tmp_path: Path) -> None:
    send(registry, sm_120)
    before = registry.refs()
    hub.log.clear()
    dry = send(registry, make(tmp_path, build=1), tag="v1.2.0", replace=True, dry_run=True)
    assert ([item.action for item in dry.plan.items], dry.commit) == (["replaced"], None)
    assert registry.refs() == before
    assert not hub.requests("PUT|DELETE")
    assert not hub.requests("POST", "/(commit|branch|tag|preupload)/|create|batch")


def test_more_is_added(hub: LoopbackHub, registry: Registry, tmp_path: Path) -> None:
    first, second = make(tmp_path, build=7), make(tmp_path, "sm_80", build=7)
    send(registry, first)
    hub.log.clear()
    send(registry, second, tag="v1.1.0")
    assert listed(registry) == listed(registry, "v1.1.0") == expected(first, second)
    assert uploads(hub) == ([second.sha256] if isinstance(registry, RemoteRegistry) else [])


def test_other_content_is_refused(registry: Registry, sm_120: Written, sm_90: Written, tmp_path: Path) -> None:
    new = make(tmp_path, build=1)
    send(registry, sm_120, tag="v1.0.0")
    before = registry.refs()
    with pytest.raises(ConflictError) as caught:
        send(registry, new, sm_90)
    assert sm_120.sha256 in caught.value.message
    assert new.sha256 in caught.value.message
    with pytest.raises(ConflictError, match=r"tag v1\.0\.0"):
        send(registry, new, tag="v1.0.0", replace=True)
    with pytest.raises(ConflictError, match="does not have it"):
        send(registry, sm_90, tag="v1.0.0")
    with pytest.raises(UsageError, match="needs a new tag"):
        send(registry, new, replace=True)
    assert registry.refs() == before
    assert listed(registry) == expected(sm_120)


def test_replacing_keeps_the_old_under_its_tag(registry: Registry, sm_120: Written, tmp_path: Path) -> None:
    new = make(tmp_path, build=1)
    old = send(registry, sm_120, tag="v1.0.0").commit
    result = send(registry, new, tag="v1.1.0", replace=True)
    assert [item.action for item in result.plan.items] == ["replaced"]
    for revision in (*branches(registry), "v1.1.0"):
        assert listed(registry, revision) == expected(new)
    assert listed(registry, "v1.0.0") == listed(registry, str(old)) == expected(sm_120)
    assert send(registry, sm_120, tag="v1.0.0").commit == old  # that release is there
    assert listed(registry) == expected(new)


def test_what_cannot_be_published(registry: Registry, sm_120: Written, tmp_path: Path) -> None:
    before = registry.refs()
    with pytest.raises(UsageError, match="different builds"):
        send(registry, sm_120, make(tmp_path, build=1))
    with pytest.raises(UsageError, match="no artifact"):
        send(registry)
    plain, workload = factory.make_manifest(), f"{names.CAPTURE}0123abcd"
    manifest = replace(
        plain,
        identifier=names.make_identifier("fla", "0.6.0", "3.6.0", "sm_120", [workload]),
        workloads=(*plain.workloads, workload),
    )
    captured = archive.write_artifact(manifest, factory.make_blobs(), tmp_path / names.file_name(manifest.identifier))
    with pytest.raises(UsageError, match="was built from a capture"):
        send(registry, captured)
    assert registry.refs() == before


def test_every_file_is_verified_first(
    hub: LoopbackHub, registry: Registry, sm_120: Written, sm_90: Written, tmp_path: Path
) -> None:
    bad, content = tmp_path / "bad.tar.zst", bytearray(sm_90.path.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    before = registry.refs()
    hub.log.clear()
    with pytest.raises(VerificationError):
        publish(registry, [sm_120.path, bad])
    assert not hub.requests("PUT|POST")
    assert registry.refs() == before
    with pytest.raises(VerificationError):
        publish(DirectoryRegistry(str(tmp_path / "new")), [sm_120.path, bad], create=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "tag", ["v2.0.0", "v0.1.0", "1.0.0", "v1.0", "v1.0.0-rc1", "v1.0.00", "v1.1.0\n", "../v1.0.0", ""]
)
def test_tags_refused(tag: str) -> None:
    with pytest.raises(UsageError):
        check_tag(tag)


def test_somebody_else_is_faster(hub: LoopbackHub, registry: Registry, tmp_path: Path) -> None:
    """At either branch: the index is read again and merged, and neither loses anything. Nothing is sent twice."""
    made = [make(tmp_path, "sm_70", build=9)]
    send(registry, *made)
    for number, branch in enumerate(branches(registry)):
        mine, theirs = (make(tmp_path, TARGETS[1 + 2 * number + side], build=9) for side in (0, 1))

        def meanwhile(at: str, branch: str = branch, theirs: Written = theirs) -> None:
            if at != branch:
                raise LookupError
            send(registry, theirs)

        meddled = Meddled(registry, meanwhile)
        send(meddled, mine, tag=f"v1.0.{number}")
        assert meddled.meanwhile is None
        made += [mine, theirs]
        for revision in branches(registry):
            assert listed(registry, revision) == expected(*made)
        assert expected(mine).items() <= listed(registry, f"v1.0.{number}").items()
    if isinstance(registry, RemoteRegistry):
        assert sorted(uploads(hub)) == sorted(one.sha256 for one in made)
        assert 412 in [record.status for record in hub.requests("POST", "/commit/v1$")]


def test_somebody_else_tags_later(registry: Registry, sm_120: Written, sm_90: Written) -> None:
    """What a tag names is what was committed for it, also if the branch has moved on since."""

    def meanwhile(at: str) -> None:
        if at != "v1.0.0":
            raise LookupError
        send(registry, sm_90)

    send(Meddled(registry, meanwhile), sm_120, tag="v1.0.0")
    assert listed(registry, "v1.0.0") == expected(sm_120)
    assert listed(registry) == expected(sm_120, sm_90)


def test_somebody_else_publishes_the_same_identifier(
    registry: Registry, sm_90: Written, sm_120: Written, tmp_path: Path
) -> None:
    theirs = make(tmp_path, build=1)
    result = send(Meddled(registry, lambda _: send(registry, sm_90)), sm_90)
    assert [item.action for item in result.plan.items] == ["unchanged"]
    with pytest.raises(ConflictError):
        send(Meddled(registry, lambda _: send(registry, theirs)), sm_120)
    assert listed(registry) == expected(sm_90, theirs)


def test_always_too_late(registry: Registry, sm_120: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object) -> str:
        raise StaleParentError("too late")

    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(registry, "commit", stale)
    with pytest.raises(StaleParentError):
        send(registry, sm_120)


@pytest.mark.parametrize(("registry", "step"), STEPS, indirect=["registry"])
def test_cut_off_between_the_steps(registry: Registry, sm_120: Written, step: str) -> None:
    def cut(at: str) -> None:
        if at != step:
            raise LookupError
        raise NetworkError("cut off")

    start = registry.refs().branches
    with pytest.raises(NetworkError):
        send(Meddled(registry, cut), sm_120, tag="v1.0.0")
    refs = registry.refs()
    assert (refs.branches == start, "v1.0.0" in refs.tags) == (step == "v1", step == "main")
    send(registry, sm_120, tag="v1.0.0")
    for revision in (*branches(registry), "v1.0.0"):
        assert listed(registry, revision) == expected(sm_120)


@BRANCHES
@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 2}', b'{"format": 1, "tree": null, "entries": [{}]}'])
def test_an_index_that_cannot_be_read_is_not_overwritten(
    registry: Registry, sm_120: Written, branch: str, content: bytes
) -> None:
    commit = spoil(registry, content, branch)
    with pytest.raises(VerificationError) as caught:
        send(registry, sm_120)
    assert isinstance(caught.value, UnknownFormatError) == (content == b'{"format": 2}')
    assert registry.refs().branches[branch] == commit


def test_a_branch_that_was_only_made_is_empty(registry: Registry, sm_120: Written, sm_90: Written) -> None:
    """On the Hub it starts with the files of main, whose index points elsewhere."""
    spoil(registry, INDEX_FORM.encode(make_index([indexed(sm_90)], tree="v1")))
    send(registry, sm_120)
    assert listed(registry) == expected(sm_120)


@ON_THE_HUB
def test_main_of_a_newer_layout_is_left_alone(registry: Registry, sm_120: Written) -> None:
    newer = INDEX_FORM.encode(make_index([], tree="v2"))
    commit = spoil(registry, newer, "main", **{CARD: b"---\nlicense: mit\n---\nv2"})
    assert send(registry, sm_120).main is None
    assert registry.refs().branches["main"] == commit
    assert listed(registry) == expected(sm_120)


def test_an_index_must_lead_somewhere(registry: Registry) -> None:
    for branch in branches(registry):
        spoil(registry, INDEX_FORM.encode(make_index([], tree="v1")), branch)
    for branch in branches(registry):
        with pytest.raises(VerificationError, match="points elsewhere"):
            read_index(registry, branch)


@ON_THE_HUB
def test_a_commit_of_main_is_no_pin(registry: Registry, sm_120: Written) -> None:
    """It only names the branch that has the files, which moves."""
    send(registry, sm_120)
    with pytest.raises(UsageError, match="commit of main") as caught:
        read_index(registry, registry.refs().branches["main"])
    assert "v1" in caught.value.hint


@ON_THE_HUB
@pytest.mark.parametrize("where", ["/commit/v1$", "/commit/main$", "/tag/", "/branch/"])
def test_lost_answers(hub: LoopbackHub, registry: Registry, tmp_path: Path, where: str) -> None:
    """The Hub did what it was asked for, and the answer never came: publishing again completes what is missing."""
    made = make(tmp_path, build=sum(map(ord, where)))
    struck = hub.fault("POST", where, Cut())
    with suppress(RegistryError):
        send(registry, made, tag="v1.0.0")
    assert struck.struck
    hub.faults.clear()
    send(registry, made, tag="v1.0.0")
    for revision in (*branches(registry), "v1.0.0"):
        assert listed(registry, revision) == expected(made)
    assert uploads(hub) == [made.sha256]
    before = registry.refs()
    send(registry, made, tag="v1.0.0")
    assert registry.refs() == before


@ON_THE_HUB
def test_an_upload_that_fails_at_first(hub: LoopbackHub, registry: Registry, tmp_path: Path) -> None:
    made = make(tmp_path, build=11)
    hub.fault("PUT", "/storage/", Refuse(503))
    hub.fault("POST", "/preupload/", Refuse(429, headers={"Retry-After": "0"}))
    send(registry, made)
    assert [record.status for record in hub.requests("PUT")] == [503, 200]
    assert listed(registry) == expected(made)


@ON_THE_HUB
def test_what_is_there_stays_public(hub: LoopbackHub, registry: Registry, name: str, sm_120: Written) -> None:
    for dry_run in (True, False):
        assert send(registry, sm_120, create=True, private=True, dry_run=dry_run).visibility_kept
    with hub.repository(name) as repository:
        assert not repository.private
