"""What every registry promises, and publishing into it: to a directory, and to the Hub through its real client."""

from pathlib import Path

import factory
import pytest
from loopback import LoopbackHub
from making import SM_120, expected, indexed, make
from msgspec.structs import replace
from registries import branches, listed, send, spoil, uploads

from gdn_aot import errors
from gdn_aot.artifact import archive, names
from gdn_aot.artifact.archive import Written
from gdn_aot.registry.base import Addition, Registry, Snapshot, index_at, read_index
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import CARD, ENTRY_FORM, INDEX, INDEX_FORM, artifact_path, entry_path, make_index
from gdn_aot.registry.publish import check_tag, publish
from gdn_aot.registry.remote import RemoteRegistry

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's way to send a file


ON_THE_HUB = pytest.mark.parametrize("either", ["hub"], indirect=True)
BRANCHES = pytest.mark.parametrize(
    ("either", "branch"), [("directory", "v1"), ("hub", "v1"), ("hub", "main")], indirect=["either"]
)


def test_commits_and_tags(either: Registry, sm_120: Written) -> None:
    assert not either.create(private=False)
    path = artifact_path(SM_120)
    start = either.refs().branches.get("v1")
    additions = [Addition(path=INDEX, content=b"{}"), Addition(path=path, content=sm_120.path)]
    first = either.commit("v1", start, additions, "first")
    either.tag("v1.0.0", first)
    either.tag("v1.0.0", first)
    second = either.commit("v1", first, [Addition(path=INDEX, content=b"[]")], "second")
    assert first != second
    refs = either.refs()
    assert (refs.branches["v1"], refs.tags) == (second, {"v1.0.0": first})
    for revision, commit, content in (("v1", second, b"[]"), ("v1.0.0", first, b"{}"), (first, first, b"{}")):
        snapshot = either.resolve(revision)
        assert snapshot == Snapshot(revision=revision, commit=commit)
        assert either.read(snapshot, INDEX) == content
        place = either.download(snapshot, path, sm_120.size, sm_120.sha256)
        assert place.read_bytes() == sm_120.path.read_bytes()
    with pytest.raises(errors.ConflictError, match=first):
        either.tag("v1.0.0", second)
    for parent in (first, None):
        with pytest.raises(errors.StaleParentError):
            either.commit("v1", parent, [Addition(path=INDEX, content=b"1")], "third")
    assert either.refs() == refs


def test_what_is_missing(either: Registry) -> None:
    commit = spoil(either, b"{}")
    nowhere = Snapshot(revision="0" * 40, commit="0" * 40)
    with pytest.raises(errors.RevisionMissingError, match="v9"):
        either.resolve("v9")
    with pytest.raises(errors.RevisionMissingError, match="0" * 40):
        either.read(nowhere, INDEX)
    with pytest.raises(errors.RevisionMissingError):
        either.tag("v1.0.0", nowhere.commit)
    with pytest.raises(errors.EntryMissingError, match="other"):
        either.read(either.resolve(commit), "other.json")
    with pytest.raises(errors.EntryMissingError, match="sm_120"):
        either.download(either.resolve(commit), artifact_path(SM_120), 5, "0" * 64)
    assert not either.refs().tags


@pytest.mark.parametrize("tag", ["..", "-x", "a//b", "x.lock"])
def test_names_of_tags(either: Registry, tag: str) -> None:
    with pytest.raises(errors.UsageError):
        either.tag(tag, "0" * 40)


def test_a_file_that_changed_is_not_published(either: Registry, sm_120: Written) -> None:
    before = either.refs()
    changed = Addition(path=artifact_path(SM_120), content=sm_120.path, sha256="0" * 64)
    with pytest.raises(errors.VerificationError, match="changed"):
        either.commit("v1", before.branches.get("v1"), [changed], "x")
    assert {**before.branches, **either.refs().branches}.keys() <= {"v1", "main"}
    with pytest.raises(errors.EntryMissingError):
        either.download(either.resolve("v1"), artifact_path(SM_120), sm_120.size, "0" * 64)


def test_another_size(hub: LoopbackHub, either: Registry, sm_120: Written) -> None:
    """It is not downloaded at all; what was downloaded is not asked about again."""
    snapshot = either.resolve(str(send(either, sm_120).commit))
    hub.log.clear()
    for size in (1, sm_120.size - 1, sm_120.size + 1):
        with pytest.raises(errors.VerificationError) as caught:
            either.download(snapshot, artifact_path(SM_120), size, sm_120.sha256)
        (problem,) = caught.value.problems
        assert str(problem).endswith(f"{sm_120.size} bytes, expected {size}")
    assert hub.requests("GET") == []
    for _ in range(2):
        hub.log.clear()
        place = either.download(snapshot, artifact_path(SM_120), sm_120.size, sm_120.sha256)
        assert place.read_bytes() == sm_120.path.read_bytes()
    assert hub.log == []


# Publishing


def test_what_is_there_afterwards(either: Registry, sm_90: Written, sm_120: Written) -> None:
    result = send(either, sm_90, sm_120, sm_90, tag="v1.2.0")
    assert [item.action for item in result.plan.items] == ["added", "added"]
    for revision in (*branches(either), "v1.2.0", str(result.commit)):
        assert listed(either, revision) == expected(sm_90, sm_120)
    refs = either.refs()
    assert refs.tags == {"v1.2.0": result.commit}
    assert refs.branches == {"v1": result.commit, **({"main": result.main} if result.main else {})}
    assert (result.main is not None) == isinstance(either, RemoteRegistry)
    snapshot, index = read_index(either, branches(either)[-1])
    assert snapshot.revision == "v1"
    for one in index.entries:
        assert either.read(snapshot, entry_path(one.identifier)) == ENTRY_FORM.encode(one)
    for branch in branches(either):
        at = either.resolve(branch)
        assert either.read(at, CARD) == result.plan.card
        assert index_at(either, at).tree == (None if branch == "v1" else "v1")


def test_again_is_nothing(hub: LoopbackHub, either: Registry, sm_120: Written) -> None:
    first = send(either, sm_120, tag="v1.0.0")
    before = either.refs()
    hub.log.clear()
    for tag in ("v1.0.0", None):
        again = send(either, sm_120, tag=tag)
        assert [item.action for item in again.plan.items] == ["unchanged"]
        assert (again.commit, again.main) == (first.commit, None)
        assert either.refs() == before
    assert not hub.requests("PUT|DELETE")
    assert not hub.requests("POST", "/(commit|branch|tag)/")


def test_dry_run_changes_nothing(hub: LoopbackHub, either: Registry, sm_120: Written, tmp_path: Path) -> None:
    send(either, sm_120)
    before = either.refs()
    hub.log.clear()
    dry = send(either, make(tmp_path, build=1), tag="v1.2.0", replace=True, dry_run=True)
    assert ([item.action for item in dry.plan.items], dry.commit) == (["replaced"], None)
    assert either.refs() == before
    assert not hub.requests("PUT|DELETE")
    assert not hub.requests("POST", "/(commit|branch|tag|preupload)/|create|batch")


def test_more_is_added(hub: LoopbackHub, either: Registry, tmp_path: Path) -> None:
    first, second = make(tmp_path, build=7), make(tmp_path, "sm_80", build=7)
    send(either, first)
    hub.log.clear()
    send(either, second, tag="v1.1.0")
    assert listed(either) == listed(either, "v1.1.0") == expected(first, second)
    assert uploads(hub) == ([second.sha256] if isinstance(either, RemoteRegistry) else [])


def test_other_content_is_refused(either: Registry, sm_120: Written, sm_90: Written, tmp_path: Path) -> None:
    new = make(tmp_path, build=1)
    send(either, sm_120, tag="v1.0.0")
    before = either.refs()
    with pytest.raises(errors.ConflictError) as caught:
        send(either, new, sm_90)
    assert sm_120.sha256 in caught.value.message
    assert new.sha256 in caught.value.message
    with pytest.raises(errors.ConflictError, match=r"tag v1\.0\.0"):
        send(either, new, tag="v1.0.0", replace=True)
    with pytest.raises(errors.ConflictError, match="does not have it"):
        send(either, sm_90, tag="v1.0.0")
    with pytest.raises(errors.UsageError, match="needs a new tag"):
        send(either, new, replace=True)
    assert either.refs() == before
    assert listed(either) == expected(sm_120)


def test_replacing_keeps_the_old_under_its_tag(either: Registry, sm_120: Written, tmp_path: Path) -> None:
    new = make(tmp_path, build=1)
    old = send(either, sm_120, tag="v1.0.0").commit
    result = send(either, new, tag="v1.1.0", replace=True)
    assert [item.action for item in result.plan.items] == ["replaced"]
    for revision in (*branches(either), "v1.1.0"):
        assert listed(either, revision) == expected(new)
    assert listed(either, "v1.0.0") == listed(either, str(old)) == expected(sm_120)
    assert send(either, sm_120, tag="v1.0.0").commit == old  # that release is there
    assert listed(either) == expected(new)


def test_what_cannot_be_published(either: Registry, sm_120: Written, tmp_path: Path) -> None:
    before = either.refs()
    with pytest.raises(errors.UsageError, match="different builds"):
        send(either, sm_120, make(tmp_path, build=1))
    with pytest.raises(errors.UsageError, match="no artifact"):
        send(either)
    plain, workload = factory.make_manifest(), f"{names.CAPTURE}0123abcd"
    manifest = replace(
        plain,
        identifier=names.make_identifier("fla", "0.6.0", "3.6.0", "sm_120", [workload]),
        workloads=(*plain.workloads, workload),
    )
    captured = archive.write_artifact(manifest, factory.make_blobs(), tmp_path / names.file_name(manifest.identifier))
    with pytest.raises(errors.UsageError, match="was built for one deployment"):
        send(either, captured)
    assert either.refs() == before


def test_every_file_is_verified_first(
    hub: LoopbackHub, either: Registry, sm_120: Written, sm_90: Written, tmp_path: Path
) -> None:
    bad, content = tmp_path / "bad.tar.zst", bytearray(sm_90.path.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    before = either.refs()
    hub.log.clear()
    with pytest.raises(errors.VerificationError):
        publish(either, [sm_120.path, bad])
    assert not hub.requests("PUT|POST")
    assert either.refs() == before
    with pytest.raises(errors.VerificationError):
        publish(DirectoryRegistry(str(tmp_path / "new")), [sm_120.path, bad], create=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "tag", ["v2.0.0", "v0.1.0", "1.0.0", "v1.0", "v1.0.0-rc1", "v1.0.00", "v1.1.0\n", "../v1.0.0", ""]
)
def test_tags_refused(tag: str) -> None:
    with pytest.raises(errors.UsageError):
        check_tag(tag)


@BRANCHES
@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 2}', b'{"format": 1, "tree": null, "entries": [{}]}'])
def test_an_index_that_cannot_be_read_is_not_overwritten(
    either: Registry, sm_120: Written, branch: str, content: bytes
) -> None:
    commit = spoil(either, content, branch)
    with pytest.raises(errors.VerificationError) as caught:
        send(either, sm_120)
    assert isinstance(caught.value, errors.UnknownFormatError) == (content == b'{"format": 2}')
    assert either.refs().branches[branch] == commit


def test_a_branch_that_was_only_made_is_empty(either: Registry, sm_120: Written, sm_90: Written) -> None:
    """On the Hub it starts with the files of main, whose index points elsewhere."""
    spoil(either, INDEX_FORM.encode(make_index([indexed(sm_90)], tree="v1")))
    send(either, sm_120)
    assert listed(either) == expected(sm_120)


@ON_THE_HUB
def test_main_of_a_newer_layout_is_left_alone(either: Registry, sm_120: Written) -> None:
    newer = INDEX_FORM.encode(make_index([], tree="v2"))
    commit = spoil(either, newer, "main", **{CARD: b"---\nlicense: mit\n---\nv2"})
    assert send(either, sm_120).main is None
    assert either.refs().branches["main"] == commit
    assert listed(either) == expected(sm_120)


def test_an_index_must_lead_somewhere(either: Registry) -> None:
    for branch in branches(either):
        spoil(either, INDEX_FORM.encode(make_index([], tree="v1")), branch)
    for branch in branches(either):
        with pytest.raises(errors.VerificationError, match="points elsewhere"):
            read_index(either, branch)


@ON_THE_HUB
def test_a_commit_of_main_is_no_pin(either: Registry, sm_120: Written) -> None:
    """It only names the branch that has the files, which moves."""
    send(either, sm_120)
    with pytest.raises(errors.UsageError, match="commit of main") as caught:
        read_index(either, either.refs().branches["main"])
    assert "v1" in caught.value.hint


@ON_THE_HUB
def test_what_is_there_stays_public(hub: LoopbackHub, either: Registry, name: str, sm_120: Written) -> None:
    for dry_run in (True, False):
        assert send(either, sm_120, create=True, private=True, dry_run=dry_run).visibility_kept
    with hub.repository(name) as repository:
        assert not repository.private
