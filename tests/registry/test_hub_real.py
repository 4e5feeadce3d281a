"""The same against the real Hub: left out unless there is a token and a name for repositories.

::

    HF_TOKEN_FOR_TESTS=hf_... GDN_AOT_TEST_REPO=org/gdn-aot-test pytest -m hub tests/registry/test_hub_real.py

The token needs to write in that namespace. Private repositories whose names start with ``GDN_AOT_TEST_REPO`` are made
and deleted. ``HF_ENDPOINT`` may name another Hub.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Done
from huggingface_hub import HfApi
from machines import Machine
from making import make

from gdn_aot.artifact.archive import Written

pytestmark = [pytest.mark.hub, pytest.mark.timeout(900)]

ENDPOINT = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
TOKEN = os.environ.get("HF_TOKEN_FOR_TESTS", "")


@pytest.fixture(scope="module", params=["1", "0"], ids=["http", "xet"])
def disable_xet(request: pytest.FixtureRequest) -> str:
    if request.param == "0" and not ENDPOINT.startswith("https://"):
        pytest.skip("only the Hub has Xet")
    return request.param


@pytest.fixture(scope="module")
def repo(disable_xet: str) -> Iterator[str]:
    api = HfApi(endpoint=ENDPOINT, token=TOKEN)
    name = f"{os.environ['GDN_AOT_TEST_REPO']}-{uuid.uuid4().hex[:8]}"
    yield name
    api.delete_repo(name, missing_ok=True)


@pytest.fixture(scope="module")
def builds(disable_xet: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Written, Written]:
    folder = tmp_path_factory.mktemp("builds")
    fresh = uuid.uuid4().int % 2**32  # content that the Hub has not seen
    return make(folder, build=fresh, size=3_000_000), make(folder, build=fresh + 1, size=3_000_000)


@pytest.fixture(scope="module")
def publisher(
    repo: str, builds: tuple[Written, Written], disable_xet: str, tmp_path_factory: pytest.TempPathFactory
) -> Machine:
    """A machine that has published two releases."""
    machine = Machine(home=tmp_path_factory.mktemp("publisher"), endpoint=ENDPOINT)
    publish = ("publish", "--repo", f"hf://{repo}")
    options: dict[str, Any] = {"token": TOKEN, "HF_HUB_DISABLE_XET": disable_xet}
    machine.run(*publish, builds[0].path, "--create", "--private", "--tag", "v1.0.0", **options)
    again = machine.run(*publish, builds[0].path, "--tag", "v1.0.0", "--json", **options).json
    assert [item["action"] for item in again["artifacts"]] == ["unchanged"]
    machine.run(*publish, builds[1].path, "--json", code=7, kind="conflict", **options)
    machine.run(*publish, builds[1].path, "--replace", "--tag", "v1.1.0", **options)
    return machine


@pytest.fixture
def machine(publisher: Machine, tmp_path: Path) -> Machine:
    return Machine(home=tmp_path / "machine", endpoint=ENDPOINT)


def fetch(machine: Machine, repo: str, disable_xet: str, *args: str, **options: Any) -> Done:
    return machine.fetch(repo, *args, **{"token": TOKEN, "HF_HUB_DISABLE_XET": disable_xet, **options})


def test_fetch(machine: Machine, repo: str, builds: tuple[Written, Written], disable_xet: str) -> None:
    fetch(machine, repo, disable_xet, "--revision", "v1.0.0")
    assert machine.installed() == [builds[0].sha256]
    latest = fetch(machine, repo, disable_xet, "--json").json
    assert machine.installed() == [builds[1].sha256, builds[0].sha256]
    fetch(machine, repo, disable_xet, "--revision", latest["commit"])
    fetch(machine, repo, disable_xet, HF_HUB_OFFLINE="1", token=None)
    assert len(machine.installed()) == 2


def test_private(machine: Machine, repo: str, disable_xet: str) -> None:
    for token in (None, "hf_" + "x" * 34):
        done = fetch(machine, repo, disable_xet, "--json", code=7, token=token)
        assert done.json["error"]["code"] in ("access-denied", "repository-missing")
    assert machine.installed() == []


def test_missing(machine: Machine, repo: str, disable_xet: str) -> None:
    fetch(machine, f"{repo}-other", disable_xet, "--json", code=7, kind="repository-missing")
    fetch(machine, repo, disable_xet, "--revision", "v1.9.9", "--json", code=7, kind="revision-missing")
    fetch(machine, repo, disable_xet, "--revision", "0" * 40, "--json", code=7, kind="revision-missing")


def test_publishers_at_once(publisher: Machine, repo: str, disable_xet: str, tmp_path: Path) -> None:
    targets = ("sm_80", "sm_90")
    running = [
        Machine(home=tmp_path / target, endpoint=ENDPOINT).start(
            *("publish", "--repo", f"hf://{repo}", make(tmp_path, target).path),
            token=TOKEN,
            HF_HUB_DISABLE_XET=disable_xet,
        )
        for target in targets
    ]
    for process in running:
        process.end()
    listed = publisher.run("list", "--repo", f"hf://{repo}", "--json", token=TOKEN).out
    assert all(f"-{target}" in listed for target in (*targets, "sm_120"))
