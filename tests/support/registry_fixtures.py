"""The loopback hub, one for each module of tests, and a new repository on it for each test."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from loopback import ORG, WRITER, LoopbackHub
from machines import Machine, Site
from making import Published, make
from registries import Here, put

from gdn_aot.artifact.archive import Written
from gdn_aot.registry.base import Registry
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.remote import RemoteRegistry

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def running_hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def hub(running_hub: LoopbackHub) -> Iterator[LoopbackHub]:
    """The module's hub, with no faults in force and nothing in its log."""
    running_hub.quiet()
    yield running_hub
    running_hub.quiet()


@pytest.fixture
def name() -> str:
    """The name of a repository that is not there yet."""
    return f"{ORG}/kernels-{next(_numbers)}"


@pytest.fixture
def client(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client in this process talks to the hub."""
    with client_of(hub, tmp_path / "huggingface", monkeypatch):
        yield


@pytest.fixture(params=["directory", "hub"])
def either(
    request: pytest.FixtureRequest, hub: LoopbackHub, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Registry]:
    """A registry of either kind that was just made."""
    if request.param == "hub":
        with client_of(hub, tmp_path / "huggingface", monkeypatch):
            remote = RemoteRegistry(name, token=WRITER)
            assert remote.create(private=False)
            yield remote
    else:
        directory = DirectoryRegistry(str(tmp_path / "registry"))
        assert directory.create(private=False)
        yield directory


@pytest.fixture
def machine(hub: LoopbackHub, tmp_path: Path) -> Machine:
    """A machine with nothing on it."""
    return Machine(home=tmp_path / "machine", endpoint=hub.url)


@pytest.fixture(scope="session")
def published(sm_90: Written, sm_120: Written, tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("published")
    old, new = sm_120, make(folder, build=1)
    with LoopbackHub() as hub:
        machine = Machine(home=folder / "machine", endpoint=hub.url)
        to = ("--repo", f"hf://{ORG}/published")
        machine.run("publish", sm_90.path, old.path, *to, "--tag", "v1.0.0", "--create")
        machine.run("publish", new.path, *to, "--tag", "v1.1.0", "--replace")
        repository = hub.state.repositories[f"{ORG}/published"]
    return Published(repository=repository, large=dict(hub.state.large), old=old, new=new)


@pytest.fixture
def repo(hub: LoopbackHub, name: str, published: Published) -> str:
    """The name of a repository of its own with what `Published` says."""
    hub.adopt(name, published.repository, published.large)
    return name


@pytest.fixture
def site(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> Site:
    return Site(hub=hub, machine=machine, repo=repo, published=published)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for artifacts that several tests make."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="session")
def sm_120(artifacts: Path) -> Written:
    return make(artifacts)


@pytest.fixture(scope="session")
def sm_90(artifacts: Path) -> Written:
    return make(artifacts, "sm_90")


@pytest.fixture
def here(tmp_path: Path, sm_120: Written, sm_90: Written) -> Here:
    put(tmp_path / "registry", sm_120, sm_90, tag="v1.0.0")
    return Here(tmp_path / "registry", tmp_path / "home")


@contextmanager
def client_of(hub: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the client use a hub and a home of its own; no token, no Xet and no pauses between its attempts.

    These are the constants that HF_ENDPOINT, HF_HOME, HF_HUB_DISABLE_XET and HF_HUB_DISABLE_PROGRESS_BARS set when the
    client is imported.
    """
    close_session()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    # Else the first client of a process without a cache asks for it: /api/agent-harnesses, without a token.
    monkeypatch.setattr("huggingface_hub.utils._detect_agent._registry", {"standardEnvVars": [], "harnesses": {}})
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    try:
        yield
    finally:
        close_session()
