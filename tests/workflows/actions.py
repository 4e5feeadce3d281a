"""Stand-ins for the actions that our workflows use. Another one, or an input that is not known, stops the run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from workflows.runner import Job, Runner


class UnknownAction(Exception):  # noqa: N818 - what is written is not known here
    """There is no stand-in for an action or for one of its inputs."""


def run(runner: Runner, job: Job, uses: str, given: Mapping[str, str], log: TextIO) -> bool:
    """Do what an action would; say whether it succeeded."""
    name, _, version = uses.partition("@")
    if name not in _ACTIONS or len(version) != 40:
        raise UnknownAction(uses)
    act, inputs = _ACTIONS[name]
    if unknown := set(given) - inputs:
        raise UnknownAction(f"{name} with {sorted(unknown)}")
    try:
        act(runner, job, given)
    except _Failed as error:
        log.write(f"{error}\n")
        return False
    log.write("done\n")
    return True


class _Failed(Exception):  # noqa: N818 - the step fails
    """The action ends with an error."""


def _checkout(runner: Runner, job: Job, given: Mapping[str, str]) -> None:
    if given.get("persist-credentials") != "false":
        raise UnknownAction("a checkout that keeps its credentials")
    check_out(runner, job)


def check_out(runner: Runner, job: Job) -> None:
    """Make a repository of one commit, with the files that the working tree has here."""
    from workflows.runner import checked_out

    for name in checked_out(runner.source):
        (job.workspace / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(runner.source / name, job.workspace / name)
    for name, text in runner.extra.items():
        (job.workspace / name).write_text(text)
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "checked out")):
        subprocess.run(["git", "-C", str(job.workspace), *command], check=True, capture_output=True)


def _python(_runner: Runner, job: Job, given: Mapping[str, str]) -> None:
    """The version that is asked for if there is one here, else the one that runs this."""
    version = given["python-version"]
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    base = getattr(sys, "_base_executable", None) or sys.executable
    found = base if version == own else shutil.which(f"python{version}") or base
    folder = job.home.parent / "python"
    folder.mkdir()
    for name in ("python", "python3"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{found}" "$@"\n')
        (folder / name).chmod(0o755)
    job.path.insert(0, str(folder))


def _upload(runner: Runner, job: Job, given: Mapping[str, str]) -> None:
    """Copy a folder, or files that a pattern names, to where `_download` finds them."""
    files = _named(job, given["path"])
    if not files:
        if given.get("if-no-files-found") == "error":
            raise _Failed(f"no files were found at {given['path']}")
        return
    assert runner.uploads is not None
    place = runner.uploads / given["name"]
    if place.exists():
        raise _Failed(f"an artifact {given['name']} is there already")
    for file, name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place / name)


def _download(runner: Runner, job: Job, given: Mapping[str, str]) -> None:
    """Copy what was uploaded, all of it into one folder."""
    if given.get("merge-multiple") != "true":
        raise UnknownAction("a download that does not merge")
    assert runner.uploads is not None
    for place in sorted(runner.uploads.iterdir()):
        shutil.copytree(place, job.workspace / given["path"], dirs_exist_ok=True)


def _attest(runner: Runner, job: Job, given: Mapping[str, str]) -> None:
    """Note the subjects, which have to be there."""
    if not runner.id_token:
        raise _Failed("there is no token to attest with")
    subjects = [file for file, _ in _named(job, given["subject-path"])]
    if not subjects:
        raise _Failed(f"could not find subject at path {given['subject-path']}")
    runner.attested.extend(subjects)


def _named(job: Job, pattern: str) -> list[tuple[Path, str]]:
    """Return files with their names below the last folder that the pattern names without a star."""
    root = job.workspace / pattern
    if root.is_dir():
        return [(file, str(file.relative_to(root))) for file in sorted(root.rglob("*")) if file.is_file()]
    return [(file, file.name) for file in sorted(job.workspace.glob(pattern)) if file.is_file()]


_ACTIONS: dict[str, tuple[Callable[[Runner, Job, Mapping[str, str]], None], set[str]]] = {
    "actions/checkout": (_checkout, {"persist-credentials", "fetch-depth"}),
    "actions/setup-python": (_python, {"python-version"}),
    "actions/upload-artifact": (
        _upload,
        {"name", "path", "if-no-files-found", "compression-level", "retention-days"},
    ),
    "actions/download-artifact": (_download, {"path", "merge-multiple"}),
    "actions/attest-build-provenance": (_attest, {"subject-path"}),
}
