"""Runs the jobs of a workflow here: their real ``run`` steps in bash, in order, and stand-ins for a few actions.

What GitHub does around the steps is done by hand: contexts, ``needs``, ``if``, matrices, the files of outputs, of the
environment, of the path and of the summary, permissions for ``id-token``. A key, an expression or an action that is
not known stops it, so that what is run here is what is written. Jobs run one after the other. The output of each step
is in a file of its own below ``Runner.root``.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from workflows import actions
from workflows.expressions import as_text, condition, fill

LIMIT = 900.0
"""Seconds that a step may take here."""
_KEYS = {
    "workflow": {"name", "on", "permissions", "concurrency", "defaults", "env", "jobs"},
    "job": {
        "name", "needs", "if", "runs-on", "timeout-minutes", "strategy", "permissions", "environment", "concurrency",
        "env", "outputs", "steps",
    },
    "step": {"name", "id", "if", "uses", "with", "run", "env"},
    "strategy": {"fail-fast", "max-parallel", "matrix"},
}  # fmt: skip
_SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")
"""What GitHub runs for ``shell: bash``."""
_HOST = re.compile(
    r"PIP_.*|(https?|no|all)_proxy|SSL_CERT_.*|REQUESTS_CA_BUNDLE|NODE_EXTRA_CA_CERTS|LANG|TZ|TMPDIR", re.IGNORECASE
)
"""What a machine needs to reach its package indexes, which is not the workflow's business."""

Intervention = Callable[["Job"], None]
"""Does something in the place of a step."""


class UnknownKey(Exception):  # noqa: N818 - what is written is not known here
    """The workflow has a key whose meaning the runner does not know."""


@dataclass(kw_only=True)
class Job:
    """One run of one job, with one row of its matrix."""

    id: str
    matrix: Mapping[str, Any]
    workspace: Path
    logs: Path
    home: Path
    path: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    failed: str | None = None
    """The name of the step that failed."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each step that was run."""
    cpu: dict[str, float] = field(default_factory=dict)
    """Seconds of processor time of each, with all processes that it started."""

    @property
    def temp(self) -> Path:
        """Its ``RUNNER_TEMP``."""
        return self.home.parent / "temp"

    @property
    def result(self) -> str:
        """How it ended, in GitHub's word."""
        return "failure" if self.failed else "success"

    def log(self, step: str) -> str:
        """Return what a step wrote."""
        (file,) = self.logs.glob(f"*-{slug(step)}.log")
        return file.read_text()


@dataclass(kw_only=True)
class Runner:
    """Runs one workflow once.

    Args:
        workflow: Its file.
        root: Everything that is written goes below this directory, which is made.
        source: What is checked out: the files of a working tree that git does not ignore.
        event: ``push``, ``pull_request`` or ``workflow_dispatch``.
        ref_name: The branch or the tag.
        payload: ``github.event``.
        inputs, variables, secrets: As somebody gave them.
        env: Environment variables of the machine; they go before those of the workflow, None takes one away.
        extra: Further files of the checkout.
        uploads: Where ``upload-artifact`` puts what it is given; a run can go on with those of another.
        instead: What to do in the place of steps, by ``job/name``.
        id_token: Environment variables for jobs that may write ``id-token``.
    """

    workflow: Path
    root: Path
    source: Path
    event: str = "workflow_dispatch"
    ref_name: str = "main"
    payload: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str | None] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)
    uploads: Path | None = None
    instead: Mapping[str, Intervention] = field(default_factory=dict)
    id_token: Mapping[str, str] = field(default_factory=dict)
    attested: list[Path] = field(default_factory=list)
    jobs: dict[str, list[Job]] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.document = load(self.workflow)
        self.uploads = self.uploads or self.root / "uploads"
        asked = (self.document["on"].get("workflow_dispatch") or {}).get("inputs", {})
        if unknown := set(self.inputs) - set(asked):
            raise UnknownKey(f"inputs {sorted(unknown)}")
        self.given = {name: about.get("default", "") for name, about in asked.items()} | dict(self.inputs)

    def run(self, only: str | None = None) -> Runner:
        """Run all jobs in the order of their needs, or only one whose needs have run (see `after`)."""
        for name, job in self.document["jobs"].items():
            if only is None or name == only:
                self._run_job(name, job)
        return self

    def after(self, other: Runner) -> Runner:
        """Go on where another run of the same workflow is: with its results, outputs and uploads."""
        self.jobs, self.outputs, self.results = dict(other.jobs), dict(other.outputs), dict(other.results)
        self.uploads = other.uploads
        return self

    def contexts(self, job: Job | None = None, env: Mapping[str, str] | None = None, needs: Any = ()) -> dict[str, Any]:
        """Return the contexts that expressions see."""
        return {
            "github": {
                "event_name": self.event,
                "ref_name": self.ref_name,
                "ref": self.ref_name,
                "event": self.payload,
            },
            "inputs": self.given if self.event == "workflow_dispatch" else {},
            "vars": self.variables,
            "secrets": self.secrets,
            "needs": {name: {"outputs": self.outputs[name], "result": self.results[name]} for name in needs},
            "matrix": job.matrix if job else {},
            "steps": job.steps if job else {},
            "env": env or {},
        }

    def _run_job(self, name: str, job: Mapping[str, Any]) -> None:
        needs = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
        seen = self.contexts(needs=needs)
        before = [self.results[need] for need in needs]
        self.outputs[name] = {}
        self.jobs[name] = []
        states = _states(set(before) <= {"success"}, "failure" in before)
        if not condition(str(job.get("if", "success()")), seen, states):
            self.results[name] = "skipped"
            return
        matrix = fill(strategy["matrix"], seen) if (strategy := job.get("strategy")) else {"include": [{}]}
        if set(matrix) != {"include"}:
            raise UnknownKey(f"{name}: a matrix that is no include list")
        for number, row in enumerate(matrix["include"]):
            place = self.root / f"{name}-{number}"
            done = Job(id=name, matrix=row, workspace=place / "work", logs=place / "logs", home=place / "home")
            self._run_steps(done, job, needs)
            self.jobs[name].append(done)
            self.outputs[name] |= done.outputs
        self.results[name] = "failure" if any(done.failed for done in self.jobs[name]) else "success"

    def _run_steps(self, done: Job, job: Mapping[str, Any], needs: list[str]) -> None:
        for folder in (done.workspace, done.logs, done.home, done.temp):
            folder.mkdir(parents=True)
        may = {**(self.document.get("permissions") or {}), **(job.get("permissions") or {})}
        allowed = self.id_token if may.get("id-token") == "write" else {}
        for index, step in enumerate(job["steps"]):
            outer = self._filled({**self.document.get("env", {})}, self.contexts(done, needs=needs))
            outer |= self._filled(job.get("env", {}), self.contexts(done, outer, needs))
            seen = self.contexts(done, outer, needs)
            if not condition(str(step.get("if", "success()")), seen, _states(not done.failed, bool(done.failed))):
                continue
            env = {**outer, **done.env, **self._filled(step.get("env", {}), seen), **allowed}
            title = step.get("name") or step.get("uses") or "run"
            start, before = time.monotonic(), _cpu()
            with (done.logs / f"{index:02}-{slug(title)}.log").open("w") as log:
                if not self._step(done, step, title, env, seen, log):
                    done.failed = done.failed or title
            done.seconds[title], done.cpu[title] = time.monotonic() - start, _cpu() - before
        done.outputs |= self._filled(job.get("outputs", {}), self.contexts(done, needs=needs))

    def _step(
        self, job: Job, step: Mapping[str, Any], title: str, env: dict[str, str], seen: Mapping[str, Any], log: Any
    ) -> bool:
        if act := self.instead.get(f"{job.id}/{title}"):
            act(job)
            return True
        if "uses" in step:
            given = {key: as_text(fill(as_text(value), seen)) for key, value in step.get("with", {}).items()}
            return actions.run(self, job, step["uses"], given, log)
        if "${{" in step["run"]:
            raise UnknownKey(f"{title}: an expression in a script can inject commands")
        files = {name: job.temp / name for name in ("OUTPUT", "ENV", "PATH", "STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        whole = {**self._machine(job), **env, **{f"GITHUB_{name}": str(file) for name, file in files.items()}}
        whole |= {name: value for name, value in self.env.items() if value is not None}
        whole = {name: value for name, value in whole.items() if self.env.get(name, "") is not None}
        code = subprocess.run(
            [*_SHELL, step["run"]], cwd=job.workspace, env=whole, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, check=False, timeout=LIMIT,
        ).returncode  # fmt: skip
        log.write(f"\nexit code {code}\n")
        if "id" in step:
            job.steps[step["id"]] = {"outputs": pairs(files["OUTPUT"].read_text())}
        job.env |= pairs(files["ENV"].read_text())
        job.path[:0] = reversed(files["PATH"].read_text().splitlines())
        job.summary += files["STEP_SUMMARY"].read_text()
        return code == 0

    def _machine(self, job: Job) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if _HOST.fullmatch(name)}
        return {
            "PIP_CACHE_DIR": str(Path("~/.cache/pip").expanduser()),
            **kept,
            "PATH": os.pathsep.join([*job.path, "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(job.home),
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(job.workspace),
            "GITHUB_EVENT_NAME": self.event,
            "GITHUB_REF_NAME": self.ref_name,
            "GITHUB_RUN_NUMBER": "1",
            "RUNNER_TEMP": str(job.temp),
        }

    def _filled(self, env: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, str]:
        return {name: as_text(fill(as_text(value), seen)) for name, value in env.items()}


def load(path: Path) -> dict[str, Any]:
    """Return a workflow.

    Raises:
        UnknownKey: It has a key that the runner does not know.
    """
    document: dict[Any, Any] = yaml.safe_load(path.read_text())
    document["on"] = document.pop(True)  # YAML 1.1 takes the word for a truth value
    _known("workflow", document, path.name)
    if document.get("defaults", {"run": {"shell": "bash"}}) != {"run": {"shell": "bash"}}:
        raise UnknownKey(f"{path.name}: defaults")
    for name, job in document["jobs"].items():
        _known("job", job, name)
        _known("strategy", job.get("strategy", {}), name)
        for step in job["steps"]:
            _known("step", step, name)
            if ("uses" in step) is ("run" in step):
                raise UnknownKey(f"{name}: a step has one of uses and run")
    return document


def pairs(text: str) -> dict[str, str]:
    """Return what a step wrote to ``$GITHUB_OUTPUT`` or ``$GITHUB_ENV``: lines ``name=value``."""
    rows = [line.partition("=") for line in text.splitlines() if line]
    if bad := [name for name, equals, _ in rows if not equals or "<<" in name]:
        raise UnknownKey(f"no name=value: {bad}")
    return {name: value for name, _, value in rows}


def _cpu() -> float:
    """Return the processor time of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def slug(title: str) -> str:
    """Return a title as part of the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def checked_out(source: Path) -> Iterator[str]:
    """Yield the files of a working tree that git does not ignore, by their paths in it."""
    command = ["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    yield from (name for name in names if name and (source / name).is_file())


def _known(kind: str, found: Mapping[str, Any], where: str) -> None:
    if unknown := set(found) - _KEYS[kind]:
        raise UnknownKey(f"{where}: {kind} has {sorted(map(str, unknown))}")


def _states(success: bool, failure: bool) -> dict[str, Callable[[], bool]]:
    return {"success": lambda: success, "failure": lambda: failure, "always": lambda: True, "cancelled": lambda: False}
