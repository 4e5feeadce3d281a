"""Starts measured processes, lets one at a time measure, and collects what they say."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "cold_start.py"
_DROPPED = ("TRITON_", "FLA_", "GDN_AOT", "LD_PRELOAD", "PYTHONDONTWRITEBYTECODE")
_SECONDS_TO_END = 20
_TAIL = 2500
"""Characters of stderr that are kept of a failed process."""


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment without settings of Triton, FLA and the loader, and with ``settings``.

    A setting that is empty is unset.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    full = {**kept, "PYTHONPATH": path, **settings}
    return {name: value for name, value in full.items() if value or name not in settings}


@dataclass(frozen=True)
class Task:
    """One process to run."""

    case: str
    call: str
    spec: Mapping[str, Any]
    env: Mapping[str, str] = field(default_factory=dict)
    scratch: bool = False
    """Give it an empty directory of its own as ``TRITON_CACHE_DIR``."""
    seconds: float = 120.0
    """Limit for getting ready, and again for measuring."""


class _Running:
    """A started process."""

    def __init__(self, task: Task, stack: ExitStack) -> None:
        self.task = task
        env = environment(**task.env)
        if task.scratch:
            env["TRITON_CACHE_DIR"] = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="cold-start-triton-", ignore_cleanup_errors=True)
            )
        with ExitStack() as opened:
            self._stderr: IO[str] = opened.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
            stack.push(opened.pop_all())
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "--worker", json.dumps(dict(task.spec))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=env,
            cwd=ROOT,
        )
        self._rest = b""

    def line(self) -> dict[str, Any]:
        """Return the next message.

        Raises:
            RuntimeError: None came in time, or the process ended.
        """
        assert self._process.stdout is not None  # noqa: S101
        end = time.monotonic() + self.task.seconds
        while b"\n" not in self._rest:
            if not select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise RuntimeError(f"said nothing for {self.task.seconds:.0f} s")
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise RuntimeError(f"ended with status {self._process.wait()}")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def go(self) -> None:
        """Let it measure."""
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it at once, so that it is in nobody's way."""
        self._process.kill()
        self._process.wait()

    def release(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None  # noqa: S101
        with suppress(OSError):
            self._process.stdin.close()

    def close(self) -> str:
        """Wait for its end and return the end of what it wrote to stderr."""
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.kill()
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdout.close()
        self._stderr.seek(0)
        return self._stderr.read()[-_TAIL:]


def run_together(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Start all processes at once, wait until each is ready, then let them measure one after the other.

    Those not measuring wait in a ``read``, before their turn and after it, so that no process starts or ends while
    another measures.

    Returns:
        A record for each task, in order: ``case``, ``call``, ``ok``, and the result or ``error`` and ``stderr``.
    """
    with ExitStack() as stack:
        running = [_Running(task, stack) for task in tasks]
        errors: dict[int, str] = {}
        results: dict[int, dict[str, Any]] = {}
        for number, one in enumerate(running):
            try:
                one.line()
            except (RuntimeError, OSError, ValueError) as error:
                errors[number] = f"while getting ready: {error}"
                one.kill()
        for number, one in enumerate(running):
            if number in errors:
                continue
            try:
                one.go()
                results[number] = one.line()
            except (RuntimeError, OSError, ValueError) as error:
                errors[number] = f"while measuring: {error}"
                one.kill()
        for one in running:
            one.release()
        records = []
        for number, one in enumerate(running):
            record = {"case": one.task.case, "call": one.task.call, "ok": number in results}
            stderr = one.close()
            record |= results[number] if number in results else {"error": errors[number], "stderr": stderr}
            records.append(record)
        return records


def command(*args: str, env: Mapping[str, str], seconds: float = 300.0) -> dict[str, Any]:
    """Run a command to its end. Returns ``ok``, ``seconds``, and ``stdout`` or ``error`` and ``stderr``."""
    start = time.perf_counter()
    try:
        done = subprocess.run(
            args, env=environment(**env), cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"ok": False, "seconds": time.perf_counter() - start, "error": str(error)[-_TAIL:], "stderr": ""}
    found: dict[str, Any] = {"ok": done.returncode == 0, "seconds": time.perf_counter() - start}
    if done.returncode:
        return {**found, "error": f"ended with status {done.returncode}", "stderr": done.stderr[-_TAIL:]}
    return {**found, "stdout": done.stdout}
