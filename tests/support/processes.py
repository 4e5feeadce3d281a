"""Functions that run in processes of their own, and processes that are killed."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RENAMES: tuple[tuple[Any, str], ...] = ((os, "replace"),)
"""What gives files their names: each is a step after which a registry may be another one."""
ALL = (*RENAMES, (os, "mkdir"), (os, "unlink"), (os, "fsync"))


def fork(function: Callable[[], object]) -> int:
    """Run a function in a copy of this process and return its id; an exception there is exit code 1."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it is the test's to see
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pids: Sequence[int]) -> list[int]:
    """Return the exit codes of processes; one that was killed has minus the number of the signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def killed_at(step: int, function: Callable[[], object], steps: Sequence[tuple[Any, str]] = RENAMES) -> bool:
    """Run a function in a process that is killed just before its ``step``-th step; say whether it came so far."""

    def run() -> None:
        left = step

        def deadly(change: Callable[..., Any]) -> Callable[..., Any]:
            def changed(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*args, **kwargs)

            return changed

        for owner, name in steps:
            setattr(owner, name, deadly(getattr(owner, name)))
        function()

    (ended,) = wait([fork(run)])
    assert ended in (0, -signal.SIGKILL)
    return ended != 0


def living(file: str, wanted: Callable[[bytes], bool]) -> list[int]:
    """Return the processes whose file of that name in ``/proc`` is as wanted."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and wanted((entry / file).read_bytes()):
                found.append(int(entry.name))
    return found
