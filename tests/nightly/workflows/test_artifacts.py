"""``artifacts.yml`` by its steps, for two rows: environments from their pins alone, built from a commit, published."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT
from machines import Machine
from matrices import toml
from provenances import DATA
from workflow_scripts import Job, fill_dist, git

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.registry.base import read_index
from gdn_aot.registry.open import open_registry

WANTED = ["fla0.6.0-triton3.6.0-sm_120", "fla0.6.0-triton3.8.0-sm_120"]
MATRIX = {
    "format": 1,
    "defaults": {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}", "runner": "ubuntu-24.04",
        "models": ["qwen3.5-9b"], "tp": [1], "max_tokens": 512,
    },
    "environment": [
        {
            "name": triton, "provider": "fla", "version": "0.6.0", "triton": triton,
            "requirements": f"../constraints/fla-core-0.6.0-triton-{triton}.txt",
        }
        for triton in ("3.6.0", "3.8.0")
    ],
    "artifact": [{"environments": ["3.6.0", "3.8.0"], "targets": ["sm_90", "sm_120"]}],
}  # fmt: skip

pytestmark = [
    pytest.mark.timeout(2400),
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the environments of artifacts are for Python 3.11 or later"),
]


@dataclass
class Run:
    """What a run of the workflow left."""

    rows: list[dict[str, Any]]
    publish: Job
    builds: list[Job] = field(default_factory=list)


def checked_out(job: Job) -> Job:
    """Give a job a commit of the files here that git does not ignore, the small matrix among them, and a Python."""
    (job.work / ".github/scripts").unlink()
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (job.work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, job.work / name)
    (job.work / "artifacts/small.toml").write_bytes(toml(MATRIX))
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "checked out")):
        git(job.work, *words)
    base = getattr(sys, "_base_executable", sys.executable)
    (job.programs / "python").write_text(f'#!/bin/sh\nexec "{base}" "$@"\n')
    (job.programs / "python").chmod(0o755)
    return job


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("run")
    repo = root / "registry"
    open_registry(str(repo)).create(private=False)
    values = {"MATRIX": "artifacts/small.toml", "EVENT": "workflow_dispatch", "SELECT": "*-sm_120"}
    matrix = checked_out(Job(workflow="artifacts", job="matrix", root=root / "matrix", values=values))
    matrix.step("Install")
    matrix.step("Rows")
    outputs = dict(line.split("=", 1) for line in matrix.written("GITHUB_OUTPUT").splitlines())
    values |= {"GDN_AOT_REPO": str(repo), "HF_OIDC_RESOURCE": "", "HF_TOKEN": "", "GDN_AOT_SIGNING_KEY": ""}
    values |= {"BUNDLE": str(DATA / "provenance.sigstore.json"), "VISIBILITY": "public"}
    values |= {"TAG": "artifacts-v1.2.0", "COUNT": outputs["count"]}
    here = {"GITHUB_REPOSITORY": "acme/gdn-aot", "GITHUB_REF": "refs/tags/artifacts-v1.2.0"}
    publish = checked_out(Job(workflow="artifacts", job="publish", root=root / "publish", values=values, machine=here))
    found = Run(json.loads(outputs["matrix"])["include"], publish)
    for row in found.rows:
        values = {"MATRIX": "artifacts/small.toml", **{key.upper(): str(value) for key, value in row.items()}}
        job = Job(workflow="artifacts", job="build", root=root / row["identifier"], values=values)
        found.builds.append(checked_out(job))
        for name in ("Environment", "Build", "Verify", "Coverage", "Summary"):
            job.step(name)
    fill_dist(publish, *found.builds)
    for name in ("Install", "Complete", "Verify and compare", "Publish"):
        publish.step(name)
    return found


def artifact_of(job: Job) -> Path:
    (file,) = (job.work / "dist").glob("*.tar.zst")
    return file


def test_rows_are_built_and_published_in_one_commit(run: Run, tmp_path: Path) -> None:
    """Another machine fetches them, byte for byte."""
    assert [row["identifier"] for row in run.rows] == WANTED
    repo = run.publish.values["GDN_AOT_REPO"]
    registry = open_registry(repo)
    snapshot, index = read_index(registry, "v1.2.0")
    assert [entry.identifier for entry in index.entries] == WANTED
    assert registry.refs().branches["v1"] == snapshot.commit
    assert json.loads((run.publish.work / "published.json").read_text())["commit"] == snapshot.commit
    assert f"commit `{snapshot.commit}`, tag `v1.2.0`" in run.publish.written("GITHUB_STEP_SUMMARY")
    machine = Machine(home=tmp_path / "machine", endpoint="http://127.0.0.1:9")
    for row in run.rows:
        known = ("--provider", "fla", "--provider-version", "0.6.0", "--triton", row["triton"])
        machine.run("fetch", "--allow-unsigned", "--repo", repo, "--arch", "sm_120", *known)
    assert sorted(machine.installed()) == sorted(open_artifact(artifact_of(job)).sha256 for job in run.builds)


def test_the_environment_that_publishes_can_verify_who_built_artifacts(run: Run) -> None:
    """The bundle is one of GitHub's, but of other files."""
    said = run.publish.step("Provenance", code=5).err
    assert "subject: is for other files" in said
    assert "repository: is trailofbits/pypi-attestations, expected acme/gdn-aot" in said


def test_artifacts_name_the_commit_that_was_checked_out(run: Run) -> None:
    for job, row in zip(run.builds, run.rows, strict=True):
        manifest = open_artifact(artifact_of(job)).manifest
        assert manifest.build.commit == git(job.work, "rev-parse", "HEAD")
        assert not manifest.build.dirty
        assert manifest.triton.version == row["triton"]
        assert [model.name for model in manifest.models] == ["qwen3.5-9b"]
