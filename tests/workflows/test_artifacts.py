"""The steps of ``artifacts.yml`` after a build, with one small artifact: verified, covered, summed up, published.

``tests/nightly/workflows`` has the whole of it, with environments from the pins of rows and real builds.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Built
from loopback import ORG, LoopbackHub
from machines import Machine
from making import make
from provenances import DATA, beside, bundle
from signing import Publisher, new_key, pem
from workflow_scripts import WORKFLOWS, Job, fill_dist, here, load, table

from gdn_aot.registry.base import Registry, read_index
from gdn_aot.registry.layout import CARD, REPORT, provenance_path, signature_path
from gdn_aot.registry.open import open_registry
from gdn_aot.registry.publish import publish as publish_files
from gdn_aot.trust.provenance import WORKFLOW
from gdn_aot.trust.statement import Statement

CLAIMS = {"repository": "acme/gdn-aot", "workflow": "Artifacts"}


@pytest.fixture(scope="module")
def built(decode: Built, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A build job at its end. Its artifact was built before, for one workload; so is the traffic of its coverage."""
    root = tmp_path_factory.mktemp("built") / "job"
    identifier = decode.row["identifier"]
    values = {"IDENTIFIER": identifier, "MATRIX": "artifacts/small.toml", "MODELS": "qwen3.5-9b", "TP": "1"}
    job = Job(workflow="artifacts", job="build", root=root, values=values, **here(root / "store"))
    (job.temp / "built.json").write_text(json.dumps(decode.document))
    job.fake("gdn-aot", f"cp {decode.path} dist; cat {job.temp}/built.json")
    job.step("Build")
    asked = ["--only", identifier, "--matrix", "artifacts/small.toml", "-o", "dist", "--json"]
    job.fake("gdn-aot", f'exec {sys.executable} -m gdn_aot "$@" --workload transformers-decode')
    job.step("Coverage")
    file = f"dist/gdn-aot-{identifier}.tar.zst"
    traffic = ["--model", "qwen3.5-9b", "--tp", "1", "--calls", "500", "--seed", "1", "--json"]
    assert job.calls() == [["gdn-aot", "build", *asked], ["gdn-aot", "coverage", file, *traffic]]
    (job.programs / "gdn-aot").unlink()
    for name in ("Verify", "Summary"):
        job.step(name)
    return job


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    found = open_registry(str(tmp_path / "registry"))
    found.create(private=False)
    return found


def publishing(built: Job, root: Path, repo: object, tag: str = "v1.2.0", **more: str) -> Job:
    """A job that is about to publish what was built."""
    given = here(root / "store")
    given["machine"] |= more
    values = {"GDN_AOT_REPO": str(repo), "HF_OIDC_RESOURCE": "", "HF_TOKEN": "", "TAG": tag, "COUNT": "1", "MATRIX": ""}
    values |= {
        "GDN_AOT_SIGNING_KEY": "",
        "GH_TOKEN": "",
        "VISIBILITY": "public",
        "BUNDLE": str(DATA / "provenance.sigstore.json"),
    }
    given["machine"] |= {"GITHUB_REPOSITORY": "acme/gdn-aot", "GITHUB_REF": "refs/tags/artifacts-v1.2.0"}
    job = fill_dist(Job(workflow="artifacts", job="publish", root=root, values=values, **given), built)
    (job.work / "dist" / "report.html").write_text("<!doctype html>\n")  # of the step Report
    return job


def publish(job: Job) -> None:
    for name in ("Complete", "Verify and compare", "Publish"):
        job.step(name)


def fetched(machine: Machine, repo: object, decode: Built) -> None:
    """Another machine fetches what was built, byte for byte."""
    row = decode.manifest
    known = ("--provider", "fla", "--provider-version", row.provider.version, "--triton", row.triton.version)
    machine.run("fetch", "--allow-unsigned", "--repo", repo, "--arch", "sm_120", *known)
    assert machine.installed() == [decode.row["sha256"]]


def test_published_in_one_commit(built: Job, decode: Built, registry: Registry, tmp_path: Path) -> None:
    job = publishing(built, tmp_path / "job", tmp_path / "registry")
    before = registry.refs()
    job.step("Complete")
    job.step("Report")
    page = (job.work / "dist" / "report.html").read_bytes()
    assert decode.row["sha256"].encode() in page
    job.step("Verify and compare")
    assert registry.refs() == before
    job.step("Publish")
    summary = job.written("GITHUB_STEP_SUMMARY")
    assert table(summary.partition("### Published")[0]) == table(built.written("GITHUB_STEP_SUMMARY"))
    snapshot, index = read_index(registry, "v1.2.0")
    assert [entry.identifier for entry in index.entries] == [decode.row["identifier"]]
    assert registry.refs().branches["v1"] == snapshot.commit
    assert registry.read(snapshot, REPORT) == page
    assert b"](report.html)" in registry.read(snapshot, CARD)
    assert json.loads((job.work / "published.json").read_text())["commit"] == snapshot.commit
    assert f"commit `{snapshot.commit}`, tag `v1.2.0`" in summary
    fetched(Machine(home=tmp_path / "machine", endpoint="http://127.0.0.1:9"), tmp_path / "registry", decode)


def test_what_is_signed_was_attested_in_this_workflow_of_this_ref(built: Job, decode: Built, tmp_path: Path) -> None:
    """GitHub's bundle is for all artifacts of a run, so it is put beside each."""
    job = publishing(built, tmp_path / "job", tmp_path / "registry")
    (file,) = (job.work / "dist").glob("*.tar.zst")
    shutil.copy(file, other := file.with_name("another.tar.zst"))
    job.fake("gdn-aot")
    job.step("Provenance")
    asked = ["--provenance", "acme/gdn-aot", "--ref", "refs/tags/artifacts-v1.2.0"]
    files = [f"dist/{path.name}" for path in sorted((file, other))]
    assert job.calls() == [["gdn-aot", "verify", path, *asked] for path in files]
    assert beside(file).name == f"gdn-aot-{decode.row['identifier']}.sigstore.json"
    assert [beside(path).read_bytes() for path in (file, other)] == [bundle("provenance")] * 2
    assert f".github/workflows/{job.workflow}.yml" == WORKFLOW, "which is the default of --workflow"


def test_what_was_attested_elsewhere_ends_the_job(built: Job, tmp_path: Path) -> None:
    """The bundle is GitHub's, of other files that another repository built."""
    job = publishing(built, tmp_path / "job", tmp_path / "registry")
    said = job.step("Provenance", code=5).err
    for what in ("subject: is for other files", "repository: is trailofbits/pypi-attestations, expected acme/gdn-aot"):
        assert what in said
    for broken in ("", str(tmp_path / "none")):
        job.step("Provenance", code=1, BUNDLE=broken)


@pytest.mark.parametrize("visibility", ["private", "internal", ""])
def test_a_repository_that_not_everybody_sees(visibility: str, built: Job, tmp_path: Path) -> None:
    """There GitHub is asked, which alone knows its keys: nothing is signed that was not attested."""
    job = publishing(built, tmp_path / "job", tmp_path / "registry")
    (file,) = (job.work / "dist").glob("*.tar.zst")
    shutil.copy(file, other := file.with_name("another.tar.zst"))
    job.fake("gdn-aot", "exit 1")
    job.fake("gh", 'test "$GH_TOKEN" = "of the job"')
    job.step("Provenance", VISIBILITY=visibility, GH_TOKEN="of the job")  # noqa: S106 - none
    workflow = f"acme/gdn-aot/{WORKFLOW}"
    asked = ["--repo", "acme/gdn-aot", "--signer-workflow", workflow, "--source-ref", "refs/tags/artifacts-v1.2.0"]
    files = [f"dist/{path.name}" for path in sorted((file, other))]
    assert job.calls() == [["gh", "attestation", "verify", path, *asked] for path in files]
    assert not [*(job.work / "dist").glob("*.sigstore.json")]
    assert "attested to those alone" in job.written("GITHUB_STEP_SUMMARY")
    job.step("Provenance", code=1, VISIBILITY=visibility, GH_TOKEN="of nobody")  # noqa: S106 - none


def test_signed_with_the_key_of_the_environment(built: Job, decode: Built, registry: Registry, tmp_path: Path) -> None:
    """Its keyring is there. Signature and bundle are published beside the artifact; another key signs nothing."""
    publisher = Publisher()
    publish_files(registry, [], signing=publisher.signing())
    job = publishing(built, tmp_path / "job", tmp_path / "registry")
    (file,) = (job.work / "dist").glob("*.tar.zst")
    beside(file).write_bytes(bundle("provenance"))
    before = registry.refs()
    for key, code in (("", 2), (pem(new_key()).decode(), 5)):
        job.step("Publish", code=code, GDN_AOT_SIGNING_KEY=key)
        assert registry.refs() == before
    secret = pem(publisher.key).decode()
    job.step("Verify and compare")
    for name in ("Verify and compare", "Publish"):
        done = job.step(name, GDN_AOT_SIGNING_KEY=secret)
        assert secret.splitlines()[1] not in done.out + done.err + job.written("GITHUB_STEP_SUMMARY")
    snapshot, _ = read_index(registry, "v1.2.0")
    identifier = decode.row["identifier"]
    statement, envelope = Statement.read(registry.read(snapshot, signature_path(identifier)))
    assert (statement.sha256, [*envelope.signatures]) == (decode.row["sha256"], [publisher.key_id])
    assert registry.read(snapshot, provenance_path(identifier)) == bundle("provenance")


def test_summaries_say_size_provenance_and_coverage(built: Job, decode: Built) -> None:
    (row,) = table(built.written("GITHUB_STEP_SUMMARY"))
    assert row["artifact"] == decode.row["identifier"]
    assert int(row["KiB"]) == decode.row["size"] // 1024
    assert int(row["launches"].replace(",", "")) > 0
    assert row["misses"] == "0"


def test_another_build_under_another_tag(built: Job, registry: Registry, tmp_path: Path) -> None:
    """The branch moves on, an earlier tag stays, and no tag gets other content. A push names its own tag, of GitHub."""
    publish(publishing(built, tmp_path / "first", tmp_path / "registry"))
    job = publishing(built, tmp_path / "second", tmp_path / "registry", "artifacts-v1.4.0")
    (file,) = (job.work / "dist").glob("*.tar.zst")
    file.write_bytes(make(tmp_path, build=1).path.read_bytes())
    job.step("Verify and compare")
    job.step("Publish")
    refs = registry.refs()
    assert set(refs.tags) == {"v1.2.0", "v1.4.0"}
    assert refs.branches["v1"] == refs.tags["v1.4.0"] != refs.tags["v1.2.0"]
    for name in ("Verify and compare", "Publish"):
        job.step(name, code=7, TAG="v1.2.0")
    assert registry.refs() == refs


def test_a_file_that_fails_its_verification(built: Job, registry: Registry, tmp_path: Path) -> None:
    """The build ends with it, and nothing would be published."""
    broken = fill_dist(
        Job(workflow="artifacts", job="build", root=tmp_path / "build", values=built.values, **here(tmp_path)), built
    )
    (file,) = (broken.work / "dist").glob("*.tar.zst")
    file.write_bytes(file.read_bytes() + b"x")
    broken.step("Verify", code=5)
    assert "is not the file that its build reported" in broken.step("Summary", code=1).err
    job = publishing(broken, tmp_path / "job", tmp_path / "registry")
    before = registry.refs()
    job.step("Complete", code=1)
    job.step("Verify and compare", code=5)
    job.step("Publish", code=5)
    assert registry.refs() == before


@pytest.mark.parametrize("name", ["Build", "Coverage"])
def test_a_command_that_fails_ends_its_step(name: str, built: Job, tmp_path: Path) -> None:
    """As coverage does with 5 if a launch would miss, though its report is written."""
    job = Job(workflow="artifacts", job="build", root=tmp_path / "job", values=built.values)
    (job.work / "dist").mkdir()
    job.fake("gdn-aot", "echo report; exit 5")
    job.step(name, code=5)
    assert [file.read_text() for file in (job.work / "dist").iterdir()] == ["report\n"]


def test_a_build_that_is_missing(built: Job, tmp_path: Path) -> None:
    job = publishing(built, tmp_path / "job", tmp_path)
    assert "1 artifacts are in dist, expected 2" in job.step("Complete", code=1, COUNT="2").err
    assert job.written("GITHUB_STEP_SUMMARY") == ""


def test_no_registry_is_named(built: Job, tmp_path: Path) -> None:
    job = publishing(built, tmp_path / "job", "")
    for name in ("Verify and compare", "Publish"):
        assert "set the variable GDN_AOT_REPO" in job.step(name, code=1).err


@pytest.fixture(scope="module")
def running_hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as found:
        yield found


def trusted(hub: LoopbackHub, name: str, claims: dict[str, str], built: Job, root: Path) -> Job:
    """A job of `CLAIMS` that publishes, without a secret, to a repository that trusts whoever has these claims."""
    token = f"id-{root.name}"
    with hub.state.lock:
        if name not in hub.state.publishers:
            hub.state.create(name, private=False)
        hub.state.publishers[name] = claims
        hub.state.issued[token] = {**CLAIMS, "aud": hub.url}
    job = publishing(built, root, f"hf://{name}", HF_ENDPOINT=hub.url, NO_PROXY="*", HF_OIDC_ID_TOKEN=token)
    job.values = {**job.values, "HF_OIDC_RESOURCE": name}
    return job


def test_to_the_hub_without_a_secret(built: Job, decode: Built, running_hub: LoopbackHub, tmp_path: Path) -> None:
    """A token that the Hub gives this workflow is for one repository. A second run finds everything there."""
    name = f"{ORG}/kernels"
    for run in ("first", "again"):
        publish(trusted(running_hub, name, CLAIMS, built, tmp_path / run))
    commits = [record for record in running_hub.requests("POST", ".*/commit/.*") if record.path.endswith("/v1")]
    assert [record.user for record in commits] == ["ci:acme/gdn-aot"]
    fetched(Machine(home=tmp_path / "machine", endpoint=running_hub.url), f"hf://{name}", decode)


def test_a_workflow_that_the_hub_does_not_trust(built: Job, running_hub: LoopbackHub, tmp_path: Path) -> None:
    name = f"{ORG}/others"
    job = trusted(running_hub, name, {**CLAIMS, "repository": "acme/another"}, built, tmp_path / "job")
    assert "no trusted publisher of this repository" in job.step("Verify and compare", code=7).err
    with running_hub.repository(name) as repository:
        assert set(repository.branches) == {"main"}
        assert not repository.tags


def test_what_is_published_and_when() -> None:
    """GitHub decides by these words, which are not run here."""
    jobs = load(WORKFLOWS / "artifacts.yml")["jobs"]
    assert jobs["build"]["if"] == "needs.matrix.outputs.count != '0'"
    publish = jobs["publish"]
    assert publish["if"] == "github.event_name == 'push' || inputs.tag != ''"  # and all that it needs succeeded
    assert publish["needs"] == ["matrix", "build"]
    assert publish["environment"] == "hub"
    assert publish["permissions"]["id-token"] == "write"
    order = ["Collect", "Complete", "Report", "Hand on the report", "Verify and compare"]
    order += ["Attest", "Provenance", "Publish"]
    assert [step["name"] for step in publish["steps"]][-8:] == order
    assert not [step for job in jobs.values() for step in job["steps"] if "if" in step]
    steps = {step["name"]: step for job in jobs.values() for step in job["steps"]}
    assert steps["Attest"]["with"]["subject-path"] == "dist/*.tar.zst"
    attested = {"BUNDLE": f"${{{{ steps.{steps['Attest']['id']}.outputs.bundle-path }}}}"}
    asked = {"VISIBILITY": "${{ github.event.repository.visibility }}", "GH_TOKEN": "${{ github.token }}"}
    assert steps["Provenance"]["env"] == {**attested, **asked}
    keys = [step["name"] for job in jobs.values() for step in job["steps"] if "SIGNING_KEY" in str(step)]
    assert keys == ["Publish"]
    assert steps["Publish"]["env"]["GDN_AOT_SIGNING_KEY"] == "${{ secrets.GDN_AOT_SIGNING_KEY }}"
    assert "SIGNING_KEY" not in str([job.get("env") for job in jobs.values()])
    assert steps["Hand on"]["with"]["if-no-files-found"] == "error"
    assert steps["Hand on"]["with"]["path"] == steps["Collect"]["with"]["path"] == "dist"
