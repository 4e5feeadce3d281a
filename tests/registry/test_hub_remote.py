"""`gdn_aot.registry.remote` over the real client: what a registry promises, and which error says what happened."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants
from loopback import OUTSIDER, READER, UNKNOWN, WRITER, Cut, Drip, LoopbackHub, Refuse, Stall
from loopback.exchange import Fault
from making import make

from gdn_aot import errors
from gdn_aot.registry.base import Addition, Snapshot
from gdn_aot.registry.publish import publish
from gdn_aot.registry.remote import RemoteRegistry

pytestmark = [
    pytest.mark.usefixtures("client"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # the client's way to send a file
]
TARBALL = "targets/a.tar.zst"


@pytest.fixture
def registry(client: None, hub: LoopbackHub, name: str) -> RemoteRegistry:
    registry = RemoteRegistry(name, token=WRITER)
    assert registry.create(private=False) is True
    hub.log.clear()
    return registry


@pytest.fixture
def tarball(tmp_path: Path, name: str) -> Path:
    path = tmp_path / "a.tar.zst"
    path.write_bytes(random.Random(name).randbytes(100_000))
    return path


def download(registry: RemoteRegistry, snapshot: Snapshot, size: int = 100_000) -> bytes:
    return registry.download(snapshot, TARBALL, size, "").read_bytes()


def test_nothing_is_sent_twice(hub: LoopbackHub, registry: RemoteRegistry, name: str, tarball: Path) -> None:
    assert registry.name == f"hf://{name}"
    start = registry.resolve("main").commit
    assert registry.refs().branches == {"main": start}
    additions = [Addition(path="index.json", content=b"{}"), Addition(path=TARBALL, content=tarball)]
    first = registry.commit("v1", None, additions, "first")
    second = registry.commit("v1", first, [Addition(path="index.json", content=b"[]")], "second")
    assert registry.refs().branches == {"main": start, "v1": second}
    for commit in (first, second):
        assert download(registry, registry.resolve(commit)) == tarball.read_bytes()
    assert len(hub.requests("PUT")) == 1
    assert len(hub.requests("GET", "/storage/")) == 1, "the client's cache has it by its content"


def test_requests_are_few(hub: LoopbackHub, registry: RemoteRegistry) -> None:
    hub.commit(registry.name.removeprefix("hf://"), "main", {"index.json": b"{}"})
    snapshot = registry.resolve("main")
    assert len(hub.log) == 1
    registry.read(snapshot, "index.json")
    assert len(hub.log) == 3
    registry.read(snapshot, "index.json")
    assert registry.resolve(snapshot.commit).commit == snapshot.commit
    assert len(hub.log) == 3


def test_forgotten_files_are_fetched_again(hub: LoopbackHub, registry: RemoteRegistry, tarball: Path) -> None:
    commit = registry.commit("v1", None, [Addition(path=TARBALL, content=tarball)], "first")
    snapshot = registry.resolve(commit)
    place = registry.download(snapshot, TARBALL, 100_000, "")
    place.resolve().write_bytes(b"damaged")
    assert download(registry, snapshot) == b"damaged"
    registry.forget(snapshot, TARBALL)
    assert download(registry, snapshot) == tarball.read_bytes()
    assert len(hub.requests("GET", "/storage/")) == 2


MISSING, DENIED = errors.RepositoryMissingError, errors.AccessDeniedError


@pytest.mark.parametrize(
    ("token", "private", "reading", "writing"),
    [
        (READER, True, None, DENIED),
        (OUTSIDER, True, MISSING, MISSING),
        (UNKNOWN, True, DENIED, DENIED),
        (None, True, DENIED, DENIED),
        (OUTSIDER, False, None, DENIED),
        (UNKNOWN, False, DENIED, DENIED),
        (None, False, None, DENIED),
    ],
)
def test_access(
    hub: LoopbackHub,
    registry: RemoteRegistry,
    name: str,
    token: str | None,
    private: bool,
    reading: type[errors.RegistryError] | None,
    writing: type[errors.RegistryError],
) -> None:
    commit = hub.commit(name, "main", {"index.json": b"{}"})
    with hub.repository(name) as repository:
        repository.private = private
    other = RemoteRegistry(name, token=token)
    read: list[Callable[[], object]] = [
        lambda: other.resolve("main"),
        lambda: other.read(other.resolve(commit), "index.json"),
        other.refs,
    ]
    for ask in read:
        if reading is None:
            ask()
        else:
            with pytest.raises(reading) as caught:
                ask()
            assert str(token) not in caught.value.message + caught.value.hint
    for change in (
        lambda: other.commit("main", commit, [Addition(path="index.json", content=b"[]")], "change"),
        lambda: other.tag("v1.0.0", commit),
    ):
        with pytest.raises(writing):
            change()
    with hub.repository(name) as repository:
        assert repository.branches["main"] == commit
        assert not repository.tags


def test_no_repository(hub: LoopbackHub, registry: RemoteRegistry, name: str, tmp_path: Path) -> None:
    del registry
    other = f"{name}-other"
    with pytest.raises(errors.RepositoryMissingError):
        RemoteRegistry(other, token=WRITER).resolve("main")
    with pytest.raises(errors.RepositoryMissingError):
        publish(RemoteRegistry(other, token=WRITER), [make(tmp_path).path])
    for token in (OUTSIDER, None):
        with pytest.raises(errors.AccessDeniedError):
            RemoteRegistry(other, token=token).create(private=False)
    assert other not in hub.state.repositories
    RemoteRegistry(other, token=WRITER).create(private=True)
    with hub.repository(other) as repository:
        assert repository.private


def test_offline(hub: LoopbackHub, registry: RemoteRegistry, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit(name, "main", {"index.json": b"{}", "other.json": b"1"})
    snapshot = registry.resolve("main")
    registry.read(snapshot, "index.json")
    hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert registry.resolve("main") == snapshot
    assert registry.read(snapshot, "index.json") == b"{}"
    for ask in (
        lambda: registry.resolve("v1"),
        lambda: registry.read(snapshot, "other.json"),
        lambda: download(registry, snapshot, 1),
        registry.refs,
        lambda: registry.create(private=False),
        lambda: registry.commit("main", snapshot.commit, [Addition(path="a", content=b"")], "change"),
        lambda: registry.tag("v1.0.0", snapshot.commit),
    ):
        with pytest.raises(errors.OfflineMissError):
            ask()
    assert hub.log == []


PASSING = [
    Refuse(500),
    Refuse(503),
    Refuse(429, headers={"Retry-After": "1"}),
    Refuse(429),
    Cut(),
    Cut(reset=True),
    Cut(after=1),
    Cut(after=1, reset=True),
    Drip(piece=20_000, pause=0.01),
]
LASTING = [
    Refuse(500),
    Refuse(502, headers={"Content-Type": "text/html"}),
    Refuse(429, headers={"Retry-After": "86400"}),
    Refuse(429, headers={"RateLimit": '"api";r=0;t=300'}),
    Cut(),
    Cut(reset=True),
    Cut(after=1),
    Cut(after=1, reset=True),
    Refuse(418),
    Refuse(400, "hf_secretSECRETsecret is no good"),
]


@pytest.mark.parametrize("fault", PASSING, ids=str)
@pytest.mark.parametrize("request_", ["/revision/main", "HEAD index.json", "GET index.json", "/refs", "/storage/"])
def test_asked_again(
    hub: LoopbackHub, registry: RemoteRegistry, name: str, tarball: Path, fault: Fault, request_: str
) -> None:
    hub.commit(name, "main", {"index.json": b"{}", TARBALL: tarball.read_bytes()})
    method, _, path = request_.rpartition(" ")
    struck = hub.fault(method or "GET|HEAD", path, fault)
    snapshot = registry.resolve("main")
    assert registry.read(snapshot, "index.json") == b"{}"
    assert download(registry, snapshot) == tarball.read_bytes()
    registry.refs()
    assert struck.struck == 1


def asks(hub: LoopbackHub, registry: RemoteRegistry, tarball: Path) -> list[Callable[[], object]]:
    """Return everything that can be asked of a registry; the download of the large file comes last."""
    files = {"index.json": b"{}", TARBALL: tarball.read_bytes()}
    commit = hub.commit(registry.name.removeprefix("hf://"), "main", files)
    snapshot = Snapshot(revision="main", commit=commit)
    return [
        lambda: registry.resolve("main"),
        lambda: registry.read(snapshot, "index.json"),
        registry.refs,
        lambda: registry.tag("v1.0.0", commit),
        lambda: registry.commit("main", commit, [Addition(path="a.json", content=b"1")], "change"),
        lambda: download(registry, snapshot),
    ]


@pytest.mark.parametrize("where", ["", "/storage/"])
@pytest.mark.parametrize("fault", LASTING, ids=str)
def test_given_up(
    hub: LoopbackHub, registry: RemoteRegistry, name: str, tarball: Path, fault: Refuse | Cut, where: str
) -> None:
    asked = asks(hub, registry, tarball)[-1 if where else 0 :]
    before = registry.resolve("main")
    struck = hub.fault(".*", where, fault, times=None)
    kind = errors.RegistryError if isinstance(fault, Refuse) and fault.status in (400, 418) else errors.NetworkError
    for ask in asked:
        seen = struck.struck
        with pytest.raises(kind) as caught:
            ask()
        assert type(caught.value) is kind
        assert 0 < struck.struck - seen <= 10
        assert "SECRET" not in caught.value.message + caught.value.hint
        assert name in caught.value.message
    hub.faults.clear()
    assert registry.resolve("main") == before or isinstance(fault, Cut)


def test_somebody_else_is_always_faster(hub: LoopbackHub, registry: RemoteRegistry, name: str, tmp_path: Path) -> None:
    artifact = make(tmp_path, "sm_80", build=17)
    fault = Refuse(412, "A commit has happened since. Please refresh and try again.")
    struck = hub.fault("POST", "/commit/", fault, times=None)
    with pytest.raises(errors.StaleParentError):
        publish(registry, [artifact.path])
    assert 1 < struck.struck < 20
    assert [record.path for record in hub.requests("PUT")] == [f"/storage/{artifact.sha256}"]
    hub.faults.clear()
    assert publish(RemoteRegistry(name, token=WRITER), [artifact.path]).commit == registry.resolve("v1").commit
    assert len(hub.requests("PUT")) == 1


@pytest.mark.parametrize("where", ["", "/storage/"])
def test_no_request_waits_for_ever(
    hub: LoopbackHub, registry: RemoteRegistry, tarball: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    asked = asks(hub, registry, tarball)
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.05")
    for constant in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.setattr(constants, constant, 0.05)
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", 0.05, raising=False)
    hub.fault(".*", where, Stall(600, after=3_000 if where else -1), times=None)
    for ask in asked[-1:] if where else asked[:-1]:  # the client asks about a file with a limit of its own
        with pytest.raises(errors.NetworkError, match="in time"):
            ask()


def test_bad_card(name: str) -> None:
    """The stand-in refuses cards as the Hub does, so that none of ours is like these."""
    api = HfApi(token=WRITER)
    api.create_repo(name)

    def add(card: bytes) -> None:
        operation = CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=card)
        api.create_commit(name, [operation], commit_message="add")

    with pytest.raises(ValueError, match="Invalid metadata in README"):
        add(b"---\nlicense mit\n---\n")
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        add(b"# Card\n")
