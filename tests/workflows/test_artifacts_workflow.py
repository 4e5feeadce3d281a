"""``artifacts.yml`` is run: its jobs for two identifiers, against a registry in a directory and one on the Hub.

Environments are installed from the row's own requirements, artifacts built, verified, covered and published by the
workflow's own scripts. The matrix is one of these tests, with the environments of the project's and fewer models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from helpers import ROOT
from loopback import ORG, LoopbackHub
from machines import Machine
from workflows import actions
from workflows.github import IdTokens
from workflows.runner import Job, Runner

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.registry.base import read_index
from gdn_aot.registry.open import open_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKFLOW = ROOT / ".github/workflows/artifacts.yml"
WANTED = ("fla0.6.0-triton3.6.0-sm_120", "fla0.6.0-triton3.8.0-sm_120")
MATRIX = f"""\
format = 1
[defaults]
python = "{sys.version_info.major}.{sys.version_info.minor}"
runner = "ubuntu-24.04"
models = ["qwen3.5-9b"]
tp = [1]
max_tokens = 512
[[environment]]
name = "triton-3.6.0"
provider = "fla"
version = "0.6.0"
triton = "3.6.0"
requirements = "../constraints/fla-core-0.6.0-triton-3.6.0.txt"
[[environment]]
name = "triton-3.8.0"
provider = "fla"
version = "0.6.0"
triton = "3.8.0"
requirements = "../constraints/fla-core-0.6.0-triton-3.8.0.txt"
[[artifact]]
environments = ["triton-3.6.0", "triton-3.8.0"]
targets = ["sm_90", "sm_120"]
"""
INPUTS = {"select": "*-sm_120", "matrix": "artifacts/small.toml", "tag": "v1.2.0"}
CLAIMS = {"repository": "acme/gdn-aot", "workflow": "Artifacts"}

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the environments of artifacts are for Python 3.11 or later"),
]


def runner(root: Path, **more: object) -> Runner:
    """The workflow as somebody starts it by hand. Indexes of packages are those of this machine, not the workflow's."""
    env = {
        "PIP_EXTRA_INDEX_URL": os.environ.get("PIP_EXTRA_INDEX_URL"),
        "HF_HUB_DISABLE_XET": "1",
        **more.pop("env", {}),
    }  # type: ignore[dict-item]
    given = {"source": ROOT, "inputs": INPUTS, "extra": {"artifacts/small.toml": MATRIX}, "env": env}
    return Runner(workflow=WORKFLOW, root=root, **{**given, **more})  # type: ignore[arg-type]


def logs(run: Runner) -> str:
    return "\n".join(
        f"== {file}\n{file.read_text()[-3000:]}"
        for jobs in run.jobs.values()
        for job in jobs
        if job.failed
        for file in sorted(job.logs.iterdir())
    )


@pytest.fixture(scope="module")
def issuer() -> Iterator[IdTokens]:
    with LoopbackHub() as hub, IdTokens(hub, CLAIMS) as tokens:
        yield tokens


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("registry") / "kernels"
    open_registry(str(place)).create(private=False)
    return place


@pytest.fixture(scope="module")
def first(registry: Path, issuer: IdTokens, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """All jobs, published to a directory."""
    root = tmp_path_factory.mktemp("first")
    return runner(root, variables={"GDN_AOT_REPO": str(registry)}, id_token=issuer.env).run()


def test_everything_is_built_and_published_in_one_commit(first: Runner, registry: Path, tmp_path: Path) -> None:
    assert first.results == {"matrix": "success", "build": "success", "publish": "success"}, logs(first)
    assert [job.matrix["identifier"] for job in first.jobs["build"]] == list(WANTED)
    there = open_registry(str(registry))
    snapshot, index = read_index(there, "v1.2.0")
    assert [entry.identifier for entry in index.entries] == list(WANTED)
    assert there.refs().branches["v1"] == snapshot.commit
    (publish,) = first.jobs["publish"]
    assert json.loads((publish.workspace / "published.json").read_text())["commit"] == snapshot.commit
    assert f"commit `{snapshot.commit}`, tag `v1.2.0`" in publish.summary
    fetched(Machine(home=tmp_path / "machine", endpoint="http://127.0.0.1:9"), str(registry), first)


def fetched(machine: Machine, repo: str, run: Runner) -> None:
    """Another machine fetches what the run built, byte for byte."""
    built = {}
    for job in run.jobs["build"]:
        (file,) = (job.workspace / "dist").glob("*.tar.zst")
        built[open_artifact(file).sha256] = job.matrix["triton"]
    for version in built.values():
        known = ("--provider", "fla", "--provider-version", "0.6.0", "--triton", version)
        machine.run("fetch", "--repo", repo, "--arch", "sm_120", *known)
    assert sorted(machine.installed()) == sorted(built)


def test_artifacts_name_the_commit_that_was_checked_out(first: Runner) -> None:
    for job in first.jobs["build"]:
        (file,) = (job.workspace / "dist").glob("*.tar.zst")
        manifest = open_artifact(file).manifest
        head = (job.workspace / ".git/refs/heads").iterdir()
        assert manifest.build.commit == next(head).read_text().strip()
        assert not manifest.build.dirty
        assert manifest.triton.version == job.matrix["triton"]
        assert [row.name for row in manifest.models] == ["qwen3.5-9b"]


def test_what_is_published_is_attested(first: Runner) -> None:
    assert [file.name for file in first.attested] == [f"gdn-aot-{name}.tar.zst" for name in WANTED]


def test_summaries_say_size_provenance_and_coverage(first: Runner) -> None:
    (publish,) = first.jobs["publish"]
    for job in (*first.jobs["build"], publish):
        head, _, *rows = [line for line in job.summary.splitlines() if line.startswith("|")]
        names = [cell.strip() for cell in head.strip("|").split("|")]
        assert [row.split("|")[1].strip(" `") for row in rows] == (
            list(WANTED) if job is publish else [job.matrix["identifier"]]
        )
        for row in rows:
            cells = dict(zip(names, (cell.strip().replace(",", "") for cell in row.strip("|").split("|")), strict=True))
            assert int(cells["KiB"]) > 0
            assert int(cells["launches"]) > 0
            assert cells["misses"] == "0"
            assert sum(int(cells[name]) for name in ("measured", "captured", "transferred", "default")) > 0


def test_to_the_hub_without_a_secret(first: Runner, issuer: IdTokens, tmp_path: Path) -> None:
    """What the first run built is published by a token that the Hub gives this workflow, for one repository."""
    name = f"{ORG}/kernels"
    machine = Machine(home=tmp_path / "machine", endpoint=issuer.hub.url)
    with issuer.hub.state.lock:
        issuer.hub.state.create(name, private=False)
        issuer.hub.state.publishers[name] = CLAIMS
    issuer.hub.quiet()
    variables = {"GDN_AOT_REPO": f"hf://{name}", "HF_OIDC_RESOURCE": name}
    env = {"HF_ENDPOINT": issuer.hub.url, "NO_PROXY": "*"}
    run = runner(tmp_path / "hub", variables=variables, id_token=issuer.env, env=env).after(first).run("publish")
    assert run.results["publish"] == "success", logs(run)
    commits = [record for record in issuer.hub.requests("POST", ".*/commit/.*") if record.path.endswith("/v1")]
    assert [record.user for record in commits] == ["ci:acme/gdn-aot"]
    fetched(machine, f"hf://{name}", first)
    again = runner(tmp_path / "again", variables=variables, id_token=issuer.env, env=env).after(first).run("publish")
    assert again.results["publish"] == "success", logs(again)


def test_a_workflow_that_the_hub_does_not_trust(first: Runner, issuer: IdTokens, tmp_path: Path) -> None:
    name = f"{ORG}/others"
    with issuer.hub.state.lock:
        issuer.hub.state.create(name, private=False)
        issuer.hub.state.publishers[name] = {**CLAIMS, "repository": "acme/another"}
    variables = {"GDN_AOT_REPO": f"hf://{name}", "HF_OIDC_RESOURCE": name}
    env = {"HF_ENDPOINT": issuer.hub.url, "NO_PROXY": "*"}
    run = runner(tmp_path, variables=variables, id_token=issuer.env, env=env).after(first).run("publish")
    assert run.jobs["publish"][0].failed == "Verify and compare"
    assert "trusted publisher" in run.jobs["publish"][0].log("Verify and compare")
    with issuer.hub.repository(name) as repository:
        assert set(repository.branches) == {"main"}
        assert not repository.tags


def as_built_before(first: Runner, change: bytes) -> dict[str, object]:
    """Steps of a build that take what the first run made, with other bytes at the end."""

    def environment(job: Job) -> None:
        job.path.insert(0, str(first.jobs["build"][0].workspace / ".venv/bin"))

    def build(job: Job) -> None:
        (before,) = (one for one in first.jobs["build"] if one.matrix == job.matrix)
        (job.workspace / "dist").mkdir()
        for file in (before.workspace / "dist").iterdir():
            content = file.read_bytes()
            if file.name.endswith(".tar.zst") and job.matrix["triton"] == "3.6.0":
                content += change
            (job.workspace / "dist" / file.name).write_bytes(content)

    def publishing(job: Job) -> None:
        job.path.insert(0, str(first.jobs["matrix"][0].workspace / ".venv/bin"))

    return {
        "matrix/Install": publishing,
        "publish/Install": publishing,
        "build/Environment": environment,
        "build/Build": build,
        "build/Coverage": lambda _job: None,
    }


def test_a_build_that_fails_its_verification_stops_the_publishing(
    first: Runner, registry: Path, issuer: IdTokens, tmp_path: Path
) -> None:
    before = open_registry(str(registry)).refs()
    more = {"variables": {"GDN_AOT_REPO": str(registry)}, "id_token": issuer.env, "inputs": {**INPUTS, "tag": "v1.3.0"}}
    broken = runner(tmp_path / "broken", instead=as_built_before(first, b"x"), **more).run()
    assert [job.failed for job in broken.jobs["build"]] == ["Verify", None], logs(broken)
    assert "exit code 5" in broken.jobs["build"][0].log("Verify")
    assert broken.results == {"matrix": "success", "build": "failure", "publish": "skipped"}
    assert not broken.attested
    assert open_registry(str(registry)).refs() == before
    whole = runner(tmp_path / "whole", instead=as_built_before(first, b""), **more).run()
    assert whole.results["publish"] == "success", logs(whole)
    assert open_registry(str(registry)).refs().tags["v1.3.0"]


def test_a_build_that_is_missing_stops_the_publishing(first: Runner, registry: Path, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    for file in (first.uploads or tmp_path).glob(f"{WANTED[0]}/*"):
        (uploads / WANTED[0]).mkdir(parents=True, exist_ok=True)
        (uploads / WANTED[0] / file.name).write_bytes(file.read_bytes())
    run = runner(tmp_path / "run", variables={"GDN_AOT_REPO": str(registry)}, instead=as_built_before(first, b""))
    run.after(first).uploads = uploads
    run.run("publish")
    assert run.jobs["publish"][0].failed == "Complete"
    assert "1 artifacts are in dist, expected 2" in run.jobs["publish"][0].log("Complete")


def test_nothing_is_published_where_no_registry_is_named(first: Runner, tmp_path: Path) -> None:
    run = runner(tmp_path, instead=as_built_before(first, b"")).after(first).run("publish")
    assert run.jobs["publish"][0].failed == "Complete"
    assert "set the variable GDN_AOT_REPO" in run.jobs["publish"][0].log("Complete")


@pytest.mark.parametrize(
    ("more", "published"),
    [
        ({"event": "pull_request", "inputs": {}}, "skipped"),
        ({"inputs": {**INPUTS, "tag": ""}}, "skipped"),
        ({"event": "push", "ref_name": "artifacts-v1.4.0", "inputs": {}}, "success"),
    ],
)
def test_when_there_is_something_to_publish(
    more: dict[str, object], published: str, first: Runner, issuer: IdTokens, registry: Path, tmp_path: Path
) -> None:
    variables = {"GDN_AOT_REPO": str(registry)}
    run = runner(tmp_path, variables=variables, id_token=issuer.env, instead=as_built_before(first, b""), **more)
    run.after(first).run("publish")
    assert run.results["publish"] == published, logs(run)
    assert ("v1.4.0" in open_registry(str(registry)).refs().tags) is (published == "success")


def test_nothing_that_changed_is_nothing_to_do(first: Runner, tmp_path: Path) -> None:
    run = runner(tmp_path, instead=as_built_before(first, b""))
    run.after(first).outputs["matrix"] = {"matrix": '{"include":[]}', "count": "0"}
    run.run("build").run("publish")
    assert (run.results["build"], run.results["publish"]) == ("skipped", "skipped")


def test_a_pull_request_builds_what_it_touches(first: Runner, tmp_path: Path) -> None:
    """One environment is changed on top of the base: its rows are built, and no other."""
    base: dict[str, dict[str, dict[str, str]]] = {}

    def check_out(job: Job) -> None:
        actions.check_out(run, job)
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=job.workspace, capture_output=True, check=True)
        base["pull_request"] = {"base": {"sha": head.stdout.decode().strip()}}
        pins = job.workspace / "constraints/fla-core-0.6.0-triton-3.8.0.txt"
        pins.write_text(pins.read_text() + "# another line\n")
        subprocess.run(["git", *who, "commit", "-qam", "change"], cwd=job.workspace, check=True)

    instead = {**as_built_before(first, b""), "matrix/Check out": check_out}
    run = runner(tmp_path, event="pull_request", inputs={}, payload=base, instead=instead)
    run.run("matrix")
    assert run.results["matrix"] == "success", logs(run)
    rows = json.loads(run.outputs["matrix"]["matrix"])["include"]
    assert {row["requirements"] for row in rows} == {"constraints/fla-core-0.6.0-triton-3.8.0.txt"}
    assert len(rows) == int(run.outputs["matrix"]["count"]) == 10
