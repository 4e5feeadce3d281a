"""Processes that get ready together and are measured one at a time: most of what they do is to import the provider."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

FOLDER, COUNT = "COLD_START_TURNS", "COLD_START_PROCESSES"
"""Variables of a process that is one of several: the folder where they wait for each other, and their number."""
_READY = ".ready"
_LONGEST = 240.0
"""Seconds after which a process waits no longer for the others."""
_QUIET = 0.5
"""Seconds between the end of a process and the next turn: the driver takes down what it had on the device."""
_held: list[IO[str]] = []
"""The lock of this process's turn, which lasts until it ends."""


def take() -> None:
    """Wait until every process of the batch is ready or has failed, then for this one's turn. Alone, do not wait."""
    if FOLDER not in os.environ or _held:
        return
    folder, count = Path(os.environ[FOLDER]), int(os.environ[COUNT])
    leave(folder, str(os.getpid()))
    end = time.monotonic() + _LONGEST
    while len(list(folder.glob(f"*{_READY}"))) < count and time.monotonic() < end:
        time.sleep(0.05)
    _held.append((folder / "turn").open("w"))
    fcntl.flock(_held[0], fcntl.LOCK_EX)
    time.sleep(_QUIET)


def leave(folder: Path, name: str) -> None:
    """Note that a process is ready, or that nobody need wait for it."""
    (folder / f"{name}{_READY}").touch()
