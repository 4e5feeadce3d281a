"""The lock of a store: whoever changes it is alone; whoever reads it needs none.

It is an ``flock`` on ``store/.lock``, so the kernel gives it up when a process ends, however it ends. The file stays.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = ".lock"
PATIENCE = 2.0
"""Seconds of waiting after which the user is told."""
_PAUSE = 0.02
"""Seconds between two attempts while the user has not been told."""


@contextmanager
def locked(root: str, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of the store in ``root``, a directory that is there. Waits for as long as another has it.

    Args:
        root: `Store.root`.
        waiting: Told, after two seconds, who has the lock.

    Raises:
        OSError: The lock file cannot be made or opened.
    """
    file = os.open(f"{root}/{NAME}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _wait(file, root, waiting)
        _say(file, str(os.getpid()))
        try:
            yield
        finally:
            _say(file, "")
    finally:
        os.close(file)


def _wait(file: int, root: str, waiting: Callable[[str], None] | None) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE)
    if waiting is not None:
        owner = os.pread(file, 20, 0).decode("ascii", "replace").strip()
        who = f"process {owner}" if owner.isdigit() else "another process"
        waiting(f"waiting for {who}, which is changing the store {root}")
    fcntl.flock(file, fcntl.LOCK_EX)


def _say(file: int, owner: str) -> None:
    """Leave the number of the process that has the lock, for whoever waits. A full disk is no reason to fail."""
    with suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, owner.encode(), 0)
