"""A Hub that lies about what it sends, or sends more than anyone wants."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants, get_token
from loopback import WRITER, LoopbackHub, Refuse
from loopback.exchange import Fault, Flood, Forge, Serve

from gdn_aot import errors
from gdn_aot.registry import guard, remote
from gdn_aot.registry.remote import RemoteRegistry

pytestmark = pytest.mark.usefixtures("client")
TARBALL = "targets/a.tar.zst"
LIMIT = 200_000


@pytest.fixture
def registry(client: None, hub: LoopbackHub, name: str, monkeypatch: pytest.MonkeyPatch) -> RemoteRegistry:
    monkeypatch.setattr(remote, "MAX_READ", LIMIT)
    made = RemoteRegistry(name, token=WRITER)
    assert made.create(private=False) is True
    hub.commit(name, "main", {"index.json": b"{}", TARBALL: bytes(100_000)})
    hub.log.clear()
    return made


@pytest.fixture
def outside(client: None, tmp_path: Path) -> Callable[[], list[str]]:
    """Return what lists the files of huggingface_hub's cache that are no snapshot, blob or mark, and all outside it."""
    cache = Path(constants.HF_HUB_CACHE)

    def found() -> list[str]:
        paths = [path for path in tmp_path.rglob("*") if path.is_file()]
        return sorted(str(path.relative_to(tmp_path)) for path in paths if path.name != "CACHEDIR.TAG")

    assert tmp_path in cache.parents
    return found


def received(hub: LoopbackHub) -> int:
    return sum(record.sent for record in hub.log)


def test_a_large_index_is_not_downloaded(
    hub: LoopbackHub, registry: RemoteRegistry, outside: Callable[[], list[str]]
) -> None:
    hub.fault("GET|HEAD", "index.json", Serve(bytes(LIMIT + 1)), times=None)
    with pytest.raises(errors.RegistryError, match="larger"):
        registry.read(registry.resolve("main"), "index.json")
    assert received(hub) < 10_000
    assert outside() == []


@pytest.mark.parametrize("size", [LIMIT + (1 << 16), None])
@pytest.mark.parametrize(
    "ask",
    [
        lambda registry, snapshot: registry.read(snapshot, "index.json"),
        lambda registry, snapshot: registry.download(snapshot, TARBALL, 100_000, ""),
        lambda registry, _: registry.resolve("v1"),
        lambda registry, _: registry.refs(),
    ],
    ids=["index", "artifact", "revision", "refs"],
)
def test_a_body_without_an_end(
    hub: LoopbackHub,
    registry: RemoteRegistry,
    outside: Callable[[], list[str]],
    ask: Callable[..., object],
    size: int | None,
) -> None:
    snapshot = registry.resolve("main")
    hub.fault("GET", "", Flood(size), times=None)
    with pytest.raises((errors.RegistryError, errors.VerificationError), match=r"larger|more than|not what the index"):
        ask(registry, snapshot)
    assert received(hub) < 8 << 20, "with what was on the way when the connection was closed"
    assert outside() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": '"../../../planted"'},
        {"ETag": '"/tmp/planted"'},
        {"ETag": '".."'},
        {"ETag": '""'},
        {"ETag": f'"{"a" * 5000}"'},
        {"X-Linked-Etag": '"../../planted"'},
        {"X-Repo-Commit": "../../planted"},
        {"X-Repo-Commit": "ab" * 20},
        {"Content-Encoding": "gzip"},
        {"X-Linked-Size": "9" * 5000},
        {"X-Linked-Size": str(1 << 40)},
    ],
    ids=lambda headers: str(headers)[:40],
)
def test_headers_that_would_become_paths(
    hub: LoopbackHub, registry: RemoteRegistry, outside: Callable[[], list[str]], headers: dict[str, str]
) -> None:
    snapshot = registry.resolve("main")
    hub.fault("GET|HEAD", "index.json", Forge(headers), times=None)
    with pytest.raises(errors.RegistryError) as caught:
        registry.read(snapshot, "index.json")
    assert len(caught.value.message) < 400
    assert outside() == []


def test_what_the_cache_has_is_bounded_too(registry: RemoteRegistry, outside: Callable[[], list[str]]) -> None:
    snapshot = registry.resolve("main")
    assert registry.read(snapshot, "index.json") == b"{}"
    (place,) = Path(constants.HF_HUB_CACHE).rglob("index.json")
    place.resolve().write_bytes(bytes(LIMIT + 1))
    with pytest.raises(errors.RegistryError, match="larger"):
        registry.read(snapshot, "index.json")
    assert [path for path in outside() if "refs" not in path] == []
    assert registry.read(snapshot, "index.json") == b"{}"


FAULTS: list[Fault] = [Refuse(400, "you sent {}"), Refuse(403, "\x1b[31mno \x9b2J{}")]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_token_of_any_form_from_a_file_is_not_repeated(
    hub: LoopbackHub, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Refuse
) -> None:
    (tmp_path / "token").write_text("corporate-0123456789\n")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    assert get_token() == "corporate-0123456789"
    message = fault.message.format("corporate-0123456789").encode().decode("latin-1")
    hub.fault("GET", "", Refuse(fault.status, message), times=None)
    with pytest.raises(errors.RegistryError) as caught:
        RemoteRegistry(name).resolve("main")
    assert "corporate" not in caught.value.message
    assert "***" in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(("token", "loopback", "times"), [(WRITER, False, 1), (WRITER, True, 0), (None, False, 0)])
def test_a_token_in_clear_is_said_once(
    hub: LoopbackHub,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    token: str | None,
    times: int,
    *,
    loopback: bool,
) -> None:
    monkeypatch.setattr(guard, "is_loopback", lambda _: loopback)
    monkeypatch.setattr(guard, "_warned", set())
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for _ in range(2):
        with pytest.raises(errors.RegistryError):
            RemoteRegistry(name, token=token).resolve("v7")
    said = [record.getMessage() for record in caplog.records if "in clear" in record.getMessage()]
    assert len(said) == times
    assert hub.url.rpartition(":")[0] in "".join(said) or not times


def test_which_hosts_are_here() -> None:
    assert all(map(guard.is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(guard.is_loopback, ("10.0.0.1", "localhost.example.com", "127.0.0.1.example.com", "")))
