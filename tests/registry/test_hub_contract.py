"""The loopback hub by itself: the unmodified client finds in it what it finds in the Hub."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub import errors as client_errors
from loopback import OUTSIDER, READER, UNKNOWN, WRITER, Cut, Damage, LoopbackHub, Refuse, Serve

if TYPE_CHECKING:
    pass

pytestmark = [
    pytest.mark.usefixtures("client"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # the client's way to send a file
]

TARBALL = "targets/a.tar.zst"


@pytest.fixture
def big(name: str) -> bytes:
    """Content that the storage does not have yet."""
    return random.Random(name).randbytes(300_000)


@pytest.fixture
def api() -> HfApi:
    return HfApi(token=WRITER)


@pytest.fixture
def repo(api: HfApi, name: str) -> str:
    api.create_repo(name)
    return name


def add(api: HfApi, repo: str, files: dict[str, bytes | Path], **options: Any) -> str:
    operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in files.items()]
    return api.create_commit(repo, operations, commit_message="add", **options).oid


def download(hub: LoopbackHub, repo: str, path: str, cache: Path, token: str | bool = WRITER, **options: Any) -> bytes:
    return Path(
        huggingface_hub.hf_hub_download(repo, path, endpoint=hub.url, token=token, cache_dir=cache, **options)
    ).read_bytes()


def test_create(api: HfApi, name: str) -> None:
    assert api.create_repo(name).repo_id == name
    assert api.create_repo(name, exist_ok=True).repo_id == name
    with pytest.raises(client_errors.HfHubHTTPError, match="already created"):
        api.create_repo(name)
    assert api.list_repo_files(name) == [".gitattributes"]
    assert api.model_info(name, revision="main").private is False
    for token, status in ((READER, 403), (OUTSIDER, 403), (False, 401)):
        with pytest.raises(client_errors.HfHubHTTPError) as caught:
            HfApi(token=token).create_repo(f"{name}-other")
        assert caught.value.response.status_code == status


def test_commit_small_and_large_files(hub: LoopbackHub, api: HfApi, repo: str, big: bytes, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(big)
    card = b"---\nlicense: mit\ntags:\n- triton\n---\n# Card\n"
    commit = add(api, repo, {"README.md": card, "index.json": b"{}", TARBALL: tmp_path / "big"})
    assert api.model_info(repo, revision="main").sha == commit
    files = {entry.path: entry for entry in api.list_repo_tree(repo, recursive=True)}
    assert set(files) == {".gitattributes", "README.md", "index.json", TARBALL}
    assert files[TARBALL].lfs.sha256 == hashlib.sha256(big).hexdigest()
    assert files["index.json"].lfs is None
    put = hub.requests("PUT")
    assert [(record.host, record.user, record.received) for record in put] == [("storage", None, len(big))]
    # The same again: nothing is sent and no commit is made.
    assert add(api, repo, {"README.md": card, TARBALL: tmp_path / "big"}) == commit
    assert len(hub.requests("PUT")) == 1
    # Content that the storage has is not sent again for another file.
    add(api, repo, {"b.tar.zst": tmp_path / "big"})
    assert len(hub.requests("PUT")) == 1


def test_bad_card(api: HfApi, repo: str) -> None:
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        add(api, repo, {"README.md": b"---\nlicense mit\n---\n"})
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        add(api, repo, {"README.md": b"# Card\n"})


def test_stale_parent(api: HfApi, repo: str) -> None:
    first = api.model_info(repo, revision="main").sha
    second = add(api, repo, {"a.json": b"1"}, parent_commit=first)
    with pytest.raises(client_errors.HfHubHTTPError) as caught:
        add(api, repo, {"a.json": b"2"}, parent_commit=first)
    assert caught.value.response.status_code == 412
    assert api.model_info(repo, revision="main").sha == second


def test_branches_and_tags(api: HfApi, repo: str) -> None:
    start = api.model_info(repo, revision="main").sha
    with pytest.raises(client_errors.RevisionNotFoundError):
        add(api, repo, {"a.json": b"1"}, revision="v1")
    api.create_branch(repo, branch="v1")
    with pytest.raises(client_errors.HfHubHTTPError, match="already exists"):
        api.create_branch(repo, branch="v1")
    api.create_branch(repo, branch="v1", exist_ok=True)
    tip = add(api, repo, {"a.json": b"1"}, revision="v1")
    api.create_tag(repo, tag="v1.0.0", revision="v1")
    with pytest.raises(client_errors.HfHubHTTPError) as caught:
        api.create_tag(repo, tag="v1.0.0", revision="main")
    assert caught.value.response.status_code == 409
    refs = api.list_repo_refs(repo)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": start, "v1": tip}
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1.0.0": tip}
    assert {api.model_info(repo, revision=revision).sha for revision in ("v1", "v1.0.0", tip)} == {tip}
    with pytest.raises(client_errors.RevisionNotFoundError):
        api.model_info(repo, revision="v9")


def test_download(hub: LoopbackHub, api: HfApi, repo: str, big: bytes, tmp_path: Path) -> None:
    commit = add(api, repo, {"index.json": b"{}", TARBALL: big})
    hub.log.clear()
    for revision in ("main", commit):
        assert download(hub, repo, "index.json", tmp_path / revision, revision=revision) == b"{}"
        assert download(hub, repo, TARBALL, tmp_path / revision, revision=revision) == big
    storage = [record for record in hub.requests() if record.host == "storage"]
    assert {record.user for record in storage} == {None}, "a token went to the storage"
    assert {record.user for record in hub.requests() if record.host == "hub"} == {"writer"}
    seen = len(hub.log)
    assert download(hub, repo, TARBALL, tmp_path / commit, revision=commit) == big
    assert len(hub.log) == seen, "a file in the cache was asked for again"


def test_private(hub: LoopbackHub, api: HfApi, name: str, tmp_path: Path) -> None:
    api.create_repo(name, private=True)
    add(api, name, {"index.json": b"{}"})
    assert download(hub, name, "index.json", tmp_path / "reader", READER) == b"{}"
    with pytest.raises(client_errors.HfHubHTTPError) as caught:
        add(HfApi(token=READER), name, {"index.json": b"[]"})
    assert caught.value.response.status_code == 403
    for token, status in ((False, 401), (OUTSIDER, 404)):
        with pytest.raises(client_errors.RepositoryNotFoundError) as missing:
            download(hub, name, "index.json", tmp_path / str(status), token)
        assert missing.value.response.status_code == status
    with pytest.raises(client_errors.HfHubHTTPError, match="Invalid credentials") as wrong:
        download(hub, name, "index.json", tmp_path / "wrong", UNKNOWN)
    assert not isinstance(wrong.value, client_errors.RepositoryNotFoundError)


def test_missing(hub: LoopbackHub, repo: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(client_errors.RepositoryNotFoundError):
        download(hub, f"{name}-other", "index.json", tmp_path)
    with pytest.raises(client_errors.RevisionNotFoundError):
        download(hub, repo, "index.json", tmp_path, revision="v9")
    with pytest.raises(client_errors.RemoteEntryNotFoundError):
        download(hub, repo, "index.json", tmp_path)


PASSING = {
    "cut": ("GET", "/storage/", Cut(after=100_000), 1),
    "cut twice": ("GET", "/storage/", Cut(after=100_000), 2),
    "unavailable head": ("HEAD", TARBALL, Refuse(503), 2),
    "too many": ("GET", "/storage/", Refuse(429, headers={"Retry-After": "3"}), 1),
}


@pytest.mark.parametrize("trouble", PASSING)
def test_trouble_that_the_client_gets_over(
    hub: LoopbackHub, api: HfApi, repo: str, big: bytes, tmp_path: Path, trouble: str
) -> None:
    add(api, repo, {TARBALL: big})
    method, path, fault, times = PASSING[trouble]
    struck = hub.fault(method, path, fault, times=times)
    assert download(hub, repo, TARBALL, tmp_path) == big
    ranges = [record.range for record in hub.requests("GET", "/storage/") if record.status in (200, 206)]
    assert ranges == [None] * (1 + times * isinstance(fault, Cut))
    assert struck.struck == times


def test_resumed(hub: LoopbackHub, api: HfApi, repo: str, tmp_path: Path) -> None:
    """The client keeps what it got in pieces of 10 MiB, and starts anew below that."""
    large = random.Random(repo).randbytes(11 << 20)
    add(api, repo, {TARBALL: large})
    hub.fault("GET", "/storage/", Cut(after=(10 << 20) + 1000))
    assert download(hub, repo, TARBALL, tmp_path) == large
    assert [record.range for record in hub.requests("GET", "/storage/")] == [None, f"bytes={10 << 20}-"]


def test_upload_is_tried_again(hub: LoopbackHub, api: HfApi, repo: str, big: bytes, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(big)
    hub.fault("PUT", "/storage/", Refuse(503))
    hub.fault("POST", "/preupload/", Cut())
    add(api, repo, {TARBALL: tmp_path / "big"})
    assert [record.status for record in hub.requests("PUT")] == [503, 200]
    assert download(hub, repo, TARBALL, tmp_path / "cache") == big


def test_upload_of_other_bytes_is_refused(hub: LoopbackHub, api: HfApi, repo: str, big: bytes) -> None:
    addition = CommitOperationAdd(path_in_repo=TARBALL, path_or_fileobj=big)
    addition.path_or_fileobj = big[:-1] + b"!"
    with pytest.raises(RuntimeError, match="Error while uploading") as caught:
        api.create_commit(repo, [addition], commit_message="add")
    assert "SHA-256" in str(caught.value.__cause__)
    assert (
        hashlib.sha256(big).hexdigest() not in hub.state.large
        or hub.state.large[hashlib.sha256(big).hexdigest()] == big
    )


def test_the_client_does_not_see_wrong_bytes(
    hub: LoopbackHub, api: HfApi, repo: str, big: bytes, tmp_path: Path
) -> None:
    """Why nothing is installed that was not verified here."""
    add(api, repo, {TARBALL: big, "index.json": b"{}"})
    hub.fault("GET", "/storage/", Damage())
    damaged = download(hub, repo, TARBALL, tmp_path / "damaged")
    assert len(damaged) == len(big)
    assert sum(left != right for left, right in zip(damaged, big, strict=True)) == 1
    hub.fault("HEAD|GET", TARBALL, Serve(b"another file"), times=None)
    hub.fault("HEAD|GET", "index.json", Serve(b"[1]"), times=None)
    assert download(hub, repo, TARBALL, tmp_path / "swapped") == b"another file"
    assert download(hub, repo, "index.json", tmp_path / "swapped") == b"[1]"


def test_answer_lost(hub: LoopbackHub, api: HfApi, repo: str) -> None:
    """A commit is made although its sender never hears so."""
    before = api.model_info(repo, revision="main").sha
    hub.fault("POST", "/commit/", Cut())
    with pytest.raises(Exception, match="disconnected"):
        add(api, repo, {"a.json": b"1"})
    assert api.model_info(repo, revision="main").sha != before


def test_reset(hub: LoopbackHub, api: HfApi, repo: str, big: bytes, tmp_path: Path) -> None:
    """A connection that is reset is not one that the client tries again by itself."""
    add(api, repo, {TARBALL: big})
    hub.fault("GET", "/storage/", Cut(after=100_000, reset=True))
    with pytest.raises(Exception, match="reset"):
        download(hub, repo, TARBALL, tmp_path)
    assert download(hub, repo, TARBALL, tmp_path) == big


def test_commit_by_somebody_else(hub: LoopbackHub, api: HfApi, repo: str, big: bytes) -> None:
    commit = hub.commit(repo, "main", {"a.json": b"1", TARBALL: big, ".gitattributes": None})
    assert api.model_info(repo, revision="main").sha == commit
    assert api.list_repo_files(repo) == ["a.json", TARBALL]
