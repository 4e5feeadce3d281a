"""What differs from a commit: the few questions that are asked of git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from gdn_aot.errors import UsageError

_TIMEOUT = 120
"""Seconds that git may take."""


class Checkout:
    """The working tree that a directory is in."""

    def __init__(self, directory: Path) -> None:
        """Find it.

        Raises:
            UsageError: Git is not installed, or the directory is in no working tree.
        """
        self._directory = directory
        done = self._git("rev-parse", "--show-toplevel")
        if done.returncode:
            raise UsageError(
                f"--changed compares with a commit, but {directory} is in no working tree of git: {_said(done)}",
                hint="run in a clone of the repository, or leave --changed out",
            )
        self.root = self._directory = Path(os.fsdecode(done.stdout).rstrip("\n"))

    def commit(self, name: str) -> str:
        """Return the commit that a branch, a tag or an abbreviation means.

        Raises:
            UsageError: There is no such commit here.
        """
        done = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if not done.returncode:
            return done.stdout.decode().strip()
        if self._git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
            raise UsageError(
                f"--changed {name}: this clone is shallow and does not have it",
                hint="git fetch --unshallow, or fetch-depth: 0 where actions/checkout makes the clone",
            )
        raise UsageError(f"--changed {name}: git knows no such commit here", hint="a branch, a tag or a commit")

    def changed(self, commit: str) -> frozenset[str]:
        """Return the paths, from the root, of files that differ from a commit; untracked ones that git sees included.

        Raises:
            UsageError: Git fails.
        """
        differing = self._lines("diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", commit, "--")
        return frozenset(differing + self._lines("ls-files", "--others", "--exclude-standard", "-z"))

    def show(self, commit: str, path: str) -> bytes | None:
        """Return what a file held in a commit, or None if it was not there."""
        done = self._git("cat-file", "blob", f"{commit}:{path}")
        return None if done.returncode else done.stdout

    def path(self, path: Path) -> str | None:
        """Return a path as git writes it, or None if it is outside."""
        try:
            return path.resolve().relative_to(self.root.resolve()).as_posix()
        except ValueError:
            return None

    def _lines(self, *arguments: str) -> list[str]:
        done = self._git(*arguments)
        if done.returncode:
            raise UsageError(f"git {arguments[0]} failed: {_said(done)}", hint="see what git status says")
        return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["git", *arguments],
                cwd=self._directory,
                env={**os.environ, "LC_ALL": "C"},
                capture_output=True,
                check=False,
                timeout=_TIMEOUT,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UsageError(
                f"--changed needs git, which does not run here: {error}", hint="install git, or leave --changed out"
            ) from error


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0].removeprefix("fatal: ") if lines else f"exit status {done.returncode}"
