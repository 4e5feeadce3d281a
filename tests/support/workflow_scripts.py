"""The scripts in ``.github/scripts``, as modules and as the steps of a workflow that call them."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from helpers import ROOT, Done

WORKFLOWS = ROOT / ".github/workflows"
SCRIPTS = ROOT / ".github/scripts"
LIMIT = 900.0
_MACHINE = re.compile(r"PIP_.*|(https?|no|all)_proxy|SSL_CERT_.*|REQUESTS_CA_BUNDLE|LANG|TZ|TMPDIR", re.IGNORECASE)
"""What a machine needs to reach its package indexes, which is not the workflow's business."""
_FAKE = """\
#!/bin/bash
(IFS=$'\\t'; echo "${0#%s/}"$'\\t'"$*") >> %s
%s
"""


def script(name: str) -> ModuleType:
    """Return a Python script as a module of its own."""
    known = f"github_script_{name}"
    spec = importlib.util.spec_from_file_location(known, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    spec.loader.exec_module(module)
    return module


def load(path: Path) -> dict[Any, Any]:
    """Return a workflow."""
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return found


@dataclass(kw_only=True)
class Job:
    """A job whose steps are run one by one, each as its workflow writes it; what GitHub decides is decided by the test.

    Args:
        workflow: The name of its file, without the ending.
        job: Its key there.
        root: A new directory for its checkout, which has the scripts at first, and all that it writes.
        values: What GitHub would put for the expressions of ``env``, by the names of the variables.
        machine: Environment variables that the workflow does not set.
        path: Directories of programs.
    """

    workflow: str
    job: str
    root: Path
    values: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.work, self.temp, self.programs = (self.root / name for name in ("work", "temp", "bin"))
        for folder in (self.work / ".github", self.temp, self.programs, self.root / "home"):
            folder.mkdir(parents=True)
        (self.work / ".github/scripts").symlink_to(SCRIPTS)

    def fake(self, name: str, does: str = "") -> None:
        """Put a program on the path that notes how it is called, and then does something in bash."""
        (self.programs / name).write_text(_FAKE % (self.programs, self.root / "calls", does))
        (self.programs / name).chmod(0o755)

    def calls(self) -> list[list[str]]:
        """Return how such programs were called, in order."""
        file = self.root / "calls"
        return [line.split("\t") for line in file.read_text().splitlines()] if file.exists() else []

    def written(self, name: str) -> str:
        """Return what steps wrote to ``GITHUB_ENV``, ``GITHUB_OUTPUT``, ``GITHUB_PATH`` or ``GITHUB_STEP_SUMMARY``."""
        file = self.temp / name
        return file.read_text() if file.exists() else ""

    def step(self, name: str, code: int = 0, **values: str) -> Done:
        """Run the step of that name, with the variables that the workflow gives it, and check its exit code."""
        document = load(WORKFLOWS / f"{self.workflow}.yml")
        job = document["jobs"][self.job]
        (step,) = (step for step in job["steps"] if step["name"] == name)
        given = {**self.values, **values}
        env = {
            key: given[key] if "${{" in text else text
            for key, text in {**document.get("env", {}), **job.get("env", {}), **step.get("env", {})}.items()
            if not key.startswith("PIP_")  # the workflow's package index; here it is that of the machine
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], cwd=self.work,
            env={**self._environment(), **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=LIMIT,
        )  # fmt: skip
        assert done.returncode == code, f"{name}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return Done(done.returncode, done.stdout, done.stderr)

    def _environment(self) -> dict[str, str]:
        added = reversed(self.written("GITHUB_PATH").splitlines())
        return {
            "PIP_CACHE_DIR": str(Path("~/.cache/pip").expanduser()),
            **{name: value for name, value in os.environ.items() if _MACHINE.fullmatch(name)},
            "PATH": os.pathsep.join([*added, str(self.programs), *self.path, "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(self.root / "home"),
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_ACTIONS": "true",
            "GITHUB_RUN_NUMBER": "1",
            **{
                name: str(self.temp / name)
                for name in ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")
            },
            **self.machine,
        }


def here(home: Path) -> dict[str, Any]:
    """Return what a `Job` is given that works with the package and the environment of these tests."""
    machine = {"PYTHONPATH": str(ROOT), "GDN_AOT_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return {"machine": machine, "path": (str(Path(sys.executable).parent),)}


def fill_dist(job: Job, *others: Job) -> Job:
    """Give a job what builds handed on."""
    for other in others:
        shutil.copytree(other.work / "dist", job.work / "dist", dirs_exist_ok=True)
    return job


def table(summary: str) -> list[dict[str, str]]:
    """Return the rows of the table in a summary, by the heads of its columns."""
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")] for line in summary.splitlines() if line[:1] == "|"
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder as somebody; return what it says."""
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()
