"""A signed registry in a directory: publishing to it, fetching from it, and changing it as an attacker would."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from signing import Publisher

from gdn_aot.artifact.archive import Written
from gdn_aot.errors import VerificationError
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.fetch import Fetched, FetchOrder, FetchResult, fetch
from gdn_aot.registry.layout import INDEX
from gdn_aot.registry.publish import PublishResult, publish
from gdn_aot.registry.request import make_request
from gdn_aot.registry.signing import Signing
from gdn_aot.store.store import Store
from gdn_aot.trust.envelope import Envelope
from gdn_aot.trust.statement import IndexStatement, Statement, payload


@pytest.fixture
def org() -> Publisher:
    return Publisher()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory of a registry."""
    return tmp_path / "registry"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "home"))


@pytest.fixture
def known(org: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine knows the publisher."""
    folder = tmp_path / "keys"
    monkeypatch.setenv("GDN_AOT_KEYS", org.known_in(folder)["GDN_AOT_KEYS"])
    return folder


def put(root: Path, signing: Signing | None, *made: Written, **more: Any) -> PublishResult:
    files = [one.path for one in made]
    return publish(DirectoryRegistry(str(root)), files, signing=signing, create=True, **more)


def get(
    root: Path, store: Store, *, revision: str | None = None, arch: str = "sm_120", **more: Any
) -> tuple[FetchResult, list[Fetched], list[str]]:
    order = FetchOrder(
        repo=str(root), revision=revision, request=make_request((arch,), "fla", "0.6.0", "3.6.0"), **more
    )
    done: list[Fetched] = []
    said: list[str] = []
    return fetch(order, store, done.append, said.append), done, said


def refused(root: Path, store: Store, **more: Any) -> str:
    """Fetch, and see that nothing is installed; returns why."""
    before = store.artifacts()
    with pytest.raises(VerificationError) as caught:
        get(root, store, **more)
    assert caught.value.exit_code == 5
    assert store.artifacts() == before
    return str(caught.value)


def change(root: Path, **files: bytes) -> None:
    """Put files in the places of others, as whoever may write the registry can."""
    for path, content in files.items():
        for place in places(root, path):
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content)


def places(root: Path, path: str) -> list[Path]:
    """Return where a file is read from."""
    registry = DirectoryRegistry(str(root))
    names = registry._signatures(registry.resolve("v1"), path) if path.endswith(".sig.json") else [path]
    return [root / name for name in names if (root / name).exists()] or [root / path]


def read(root: Path, path: str) -> bytes:
    registry = DirectoryRegistry(str(root))
    return registry.read(registry.resolve("v1"), path)


def resealed(root: Path, by: Publisher, path: str, kind: type[Statement | IndexStatement], **fields: Any) -> None:
    """Sign a statement again, with other fields and another's key."""
    said, _ = kind.read(read(root, path))
    for name, value in fields.items():
        setattr(said, name, value)
    content = payload(said)
    signature = by.key.sign(Envelope(said.kind, content, {}).to_sign())
    change(root, **{path: Envelope(said.kind, content, {by.key_id: signature}).encode()})


def described(root: Path) -> dict[str, Any]:
    index = read(root, INDEX)
    return {"sha256": hashlib.sha256(index).hexdigest(), "size": len(index)}
