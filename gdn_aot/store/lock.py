"""The lock of a store: whoever changes it is alone; the loader, who reads it, takes none.

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

    Waiting = Callable[[str], None]
    """Told in words, after two seconds, which process has the store locked."""

NAME = ".lock"
PATIENCE = 2.0
"""Seconds of waiting after which the user is told."""
_PAUSE = 0.02
"""Seconds between two attempts while the user has not been told."""
_NUMBER = 20
"""Bytes of the lock file that are read: the number of the process that has it."""


@contextmanager
def locked(root: str, waiting: Waiting | None = None) -> Iterator[None]:
    """Be the only one in a store, whose directory is there. Waits for as long as others are.

    Raises:
        OSError: The lock file cannot be made or opened.
    """
    file = os.open(f"{root}/{NAME}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _wait(file, fcntl.LOCK_EX, root, waiting)
        _sign(file, str(os.getpid()))
        try:
            yield
        finally:
            _sign(file, "")
    finally:
        os.close(file)


@contextmanager
def undisturbed(root: str, waiting: Waiting | None = None) -> Iterator[None]:
    """Keep others from changing a store for as long as it is looked at, where that is possible.

    Where there is no lock file, or it cannot be opened, there is nobody who changes the store, or no way to stop them.
    """
    try:
        file = os.open(f"{root}/{NAME}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        _wait(file, fcntl.LOCK_SH, root, waiting)
        yield
    finally:
        os.close(file)


def _wait(file: int, kind: int, root: str, waiting: Waiting | None) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        if time.monotonic() >= end:
            break
        time.sleep(_PAUSE)
    if waiting is not None:
        owner = os.pread(file, _NUMBER, 0).decode("ascii", "replace").strip()
        who = f"process {owner}" if owner.isdigit() else "another process"
        waiting(f"waiting for {who}, which is using the store {root}")
    fcntl.flock(file, kind)


def _sign(file: int, owner: str) -> None:
    """Leave the number of the process that has the lock, for whoever waits. A full disk is no reason to fail."""
    with suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, owner.encode(), 0)
