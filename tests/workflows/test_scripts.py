"""The steps that make environments, tune, propose records and release, with programs that note how they are called."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT
from workflow_scripts import SCRIPTS, WORKFLOWS, Job, git, here, load

PYTHON = """
if [ "$1 $2" = "-m venv" ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; fi
if [ "$1" = -c ]; then pwd; exit "${FAILS:-0}"; fi
"""
"""Makes an environment in which it is Python again; code that it is given fails if it is told so."""
ROW = {"PROVIDER": "fla", "ARCH": "sm_90", "MODELS": "all", "TP": "1,2"}
RECORDS = ["artifacts/numerics/sm_90/fla-core-0.6.0.json", "artifacts/tuning/sm_90/fla-core-0.6.0.json"]


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    def job(workflow: str, name: str, **values: str) -> Job:
        made = Job(workflow=workflow, job=name, root=tmp_path / f"{workflow}-{name}", values=values)
        made.fake("python", PYTHON)
        return made

    return job


def test_bash_can_read_them_and_workflows_call_them() -> None:
    files = {file.name for file in SCRIPTS.iterdir() if file.is_file()}
    called = [
        (step["run"].split()[0], Path(step["run"].split()[1]).name)
        for path in WORKFLOWS.glob("*.yml")
        for job in load(path)["jobs"].values()
        for step in job["steps"]
        if ".github/scripts/" in step.get("run", "")
    ]
    assert {name for _, name in called} == files
    assert set(called) == {("bash" if name.endswith(".sh") else "python", name) for name in files}
    for file in SCRIPTS.glob("*.sh"):
        assert file.read_text().startswith("#!/usr/bin/env bash\n# ")
        assert "\nset -euo pipefail\n" in file.read_text()
        subprocess.run(["bash", "-n", file], check=True)


@pytest.mark.parametrize(
    "place", [("artifacts", "matrix"), ("artifacts", "publish"), ("tune", "matrix"), ("tune", "propose")]
)
def test_an_environment_that_lists_and_publishes(place: tuple[str, str], job: Callable[..., Job]) -> None:
    made = job(*place, MATRIX="", GDN_AOT_REPO="", HF_OIDC_RESOURCE="", TAG="")
    made.step("Install")
    pip = [".venv/bin/python", "-m", "pip", "install", "--no-deps"]
    assert [" ".join(call).split() for call in made.calls()] == [
        ["python", "-m", "venv", ".venv"], [*pip, "-r", "constraints/publish.txt"], [*pip, "-e", "."],
    ]  # fmt: skip
    assert made.written("GITHUB_PATH") == f"{made.work}/.venv/bin\n"


def test_an_environment_of_a_row(job: Callable[..., Job]) -> None:
    made = job("artifacts", "build", MATRIX="", IDENTIFIER="", REQUIREMENTS="constraints/x.txt")
    made.step("Environment")
    assert made.calls()[1] == [".venv/bin/python", "-m", "pip", "install", "--no-deps", "-r", "constraints/x.txt"]


@pytest.mark.parametrize("pins", [file.name for file in sorted((ROOT / "constraints").glob("*-0.*.txt"))])
def test_an_environment_with_a_gpu(pins: str, job: Callable[..., Job]) -> None:
    """The row's provider and Triton, with whatever torch asks for that Triton."""
    made = job("tune", "tune", REQUIREMENTS=str(ROOT / "constraints" / pins), **ROW)
    made.step("Environment")
    kept = [line.partition("==")[0] for line in (made.temp / "pins.txt").read_text().splitlines()]
    engine = next((name for name in ("vllm", "sglang") if pins.startswith(name)), "fla-core")
    assert sorted(kept) == sorted([engine, "triton"])
    venv, install = made.calls()
    assert venv == ["python", "-m", "venv", "--clear", ".venv"]
    assert install[1:] == ["-m", "pip", "install", "-r", f"{made.temp}/pins.txt", "torch", "-e", "."]


@pytest.mark.parametrize("workflow", [("ci", "test"), ("nightly", "nightly")])
def test_a_browser_that_is_there(workflow: tuple[str, str], job: Callable[..., Job]) -> None:
    made = job(*workflow)
    made.fake("chromium")
    made.step("Browser")
    assert made.calls() == [["chromium", "--version"]]
    assert made.written("GITHUB_ENV") == f"GDN_AOT_TEST_BROWSER={made.programs}/chromium\n"


def test_requirements_without_a_provider(job: Callable[..., Job]) -> None:
    made = job("tune", "tune", REQUIREMENTS=str(ROOT / "constraints/publish.txt"), **ROW)
    made.step("Environment", code=1)
    assert made.calls() == []


@pytest.mark.parametrize("afresh", ["false", "true"])
def test_tuning(afresh: str, job: Callable[..., Job]) -> None:
    made = job("tune", "tune", BUDGET="2h", AFRESH=afresh, **ROW)
    made.fake("gdn-aot")
    for arch in ("sm_90", "sm_100"):
        (made.work / f"artifacts/tuning/{arch}").mkdir(parents=True)
    made.step("Tune")
    made.step("Check")
    row = ["--provider", "fla", "--arch", "sm_90", "--model", "all", "--tp", "1,2"]
    assert made.calls() == [["gdn-aot", "tune", *row, "--budget", "2h", "--resume"], ["gdn-aot", "check", *row]]
    left = ["sm_100"] if afresh == "true" else ["sm_100", "sm_90"]
    assert sorted(path.name for path in (made.work / "artifacts/tuning").iterdir()) == left


def test_nothing_is_removed_where_no_architecture_is_named(job: Callable[..., Job]) -> None:
    made = job("tune", "tune", BUDGET="2h", AFRESH="true", **{**ROW, "ARCH": ""})
    made.fake("gdn-aot")
    (made.work / "artifacts/tuning/sm_90").mkdir(parents=True)
    made.step("Tune", code=1)
    assert (made.work / "artifacts/tuning/sm_90").is_dir()
    assert made.calls() == []


@pytest.fixture
def proposing(tmp_path: Path) -> Job:
    """A checkout of records with a remote, in a job to which a GPU machine handed records."""
    values = {"GH_TOKEN": "secret", "BRANCH": "records/1-1"}
    made = Job(workflow="tune", job="propose", root=tmp_path / "job", values=values, **here(tmp_path / "store"))
    made.fake("gh", 'test "$GH_TOKEN" = secret')
    for kind in ("tuning", "numerics"):
        for folder in ("artifacts", "incoming"):
            shutil.copytree(ROOT / "artifacts" / kind, made.work / folder / kind, ignore=shutil.ignore_patterns("*.md"))
    (made.work / ".gitignore").write_text("incoming\n.github\n")
    git(tmp_path, "init", "-q", "--bare", "remote")
    git(made.work, "init", "-q")
    git(made.work, "add", "-A")
    git(made.work, "commit", "-q", "-m", "records")
    git(made.work, "remote", "add", "origin", str(tmp_path / "remote"))
    (made.work / "left").write_text("by another step")
    return made


def test_records_are_proposed(proposing: Job, tmp_path: Path) -> None:
    for name in RECORDS:
        record = proposing.work / "incoming" / Path(name).relative_to("artifacts")
        record.write_bytes(record.read_bytes().replace(b'"tool": "', b'"tool": "other '))
    proposing.step("Accept")
    proposing.step("Propose")
    remote = tmp_path / "remote"
    assert git(remote, "branch", "--format", "%(refname:short)") == "records/1-1"
    assert git(remote, "show", "--format=%an: %s", "--name-only", "records/1-1").split("\n\n") == [
        "github-actions[bot]: Tuning records", "\n".join(RECORDS),
    ]  # fmt: skip
    body = proposing.temp / "body.md"
    for name in RECORDS:
        assert f"- `{name.removeprefix('artifacts/')}`: NVIDIA" in body.read_text()
    assert proposing.calls() == [
        ["gh", "auth", "setup-git"],
        ["gh", "pr", "create", "--title", "Tuning records", "--body-file", str(body), "--head", "records/1-1"],
    ]
    assert proposing.written("GITHUB_STEP_SUMMARY") == ""


def test_records_that_are_there_are_not_proposed(proposing: Job, tmp_path: Path) -> None:
    """Every record of the repository is accepted, and is written as it is there."""
    proposing.step("Accept")
    assert len((proposing.temp / "body.md").read_text().splitlines()) >= 8
    proposing.step("Propose")
    assert proposing.written("GITHUB_STEP_SUMMARY") == "nothing new was measured\n"
    assert proposing.calls() == []
    assert git(tmp_path / "remote", "branch") == ""


def test_sdist_and_wheel(job: Callable[..., Job]) -> None:
    for name, tool, arguments in (
        ("sdist", "build", ["--sdist", "--outdir", "dist"]),
        ("wheel", "cibuildwheel", ["--output-dir", "dist"]),
    ):
        made = job("release", name)
        made.step("Build")
        _, install, run = made.calls()
        assert install[:-1] == [".venv/bin/python", "-m", "pip", "install"]
        assert install[-1].startswith(f"{tool}==")
        assert run == [".venv/bin/python", "-m", tool, *arguments]


def test_a_wheel_for_every_system(job: Callable[..., Job]) -> None:
    """It is built without a compiler and named anew; one with compiled code in it is refused."""
    for inside, code in (("gdn_aot/__init__.py", 0), ("gdn_aot/triton_internals/_launch.abi3.so", 1)):
        made = job("release", "sdist")
        shutil.rmtree(made.work / "pure", ignore_errors=True)
        (made.work / "pure").mkdir()
        (made.work / "pure/gdn_aot-0.2.0-py3-none-any.whl").touch()
        made.fake("python", f'{PYTHON}\nif [ "$2" = zipfile ]; then echo "{inside}"; fi\n')
        made.step("Wheel for every system", code=code)
        built, named = (call for call in made.calls() if call[1:3] in (["-m", "build"], ["-m", "wheel"]))
        assert built[3:] == ["--wheel", "--outdir", "pure"]
        assert named[3:10] == ["tags", "--python-tag", "py3", "--abi-tag", "none", "--platform-tag", "any"]
        assert (made.work / "dist/gdn_aot-0.2.0-py3-none-any.whl").exists() == (code == 0)
        shutil.rmtree(made.root)


def test_a_release_has_the_version_of_its_tag(job: Callable[..., Job]) -> None:
    made = job("release", "sdist")
    (made.work / "dist").mkdir()
    (made.work / "dist/gdn_aot-0.2.0.tar.gz").touch()
    for tag, code in (("v0.2.0", 0), ("v0.2.1", 1)):
        made.machine = {"GITHUB_REF_NAME": tag}
        made.step("Is it the version of the tag", code=code)


def test_a_wheel_without_the_launcher(job: Callable[..., Job]) -> None:
    """The import is tried away from the checkout."""
    made = job("release", "wheel")
    wheel = made.work / "dist/gdn_aot-0.2.0-cp310-abi3-manylinux_2_28_x86_64.whl"
    wheel.parent.mkdir()
    wheel.touch()
    done = made.step("Has it the launcher")
    assert done.out == f"{made.temp}\n"
    assert made.calls()[-2][-1] == str(wheel.relative_to(made.work))
    assert "gdn_aot.triton_internals._launch" in made.calls()[-1][-1]
    made.machine = {"FAILS": "1"}
    made.step("Has it the launcher", code=1)
