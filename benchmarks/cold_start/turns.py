"""Processes that get ready together and are measured one at a time: most of what they do is to import the provider.

They take their turns in the order of their numbers, so that those which are to be compared come one after the other.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

FOLDER, COUNT, NUMBER = "COLD_START_TURNS", "COLD_START_PROCESSES", "COLD_START_TURN"
"""Variables of a process that is one of several: the folder where they wait for each other, how many they are, and
which of them this is, counted from 0."""
_READY = ".ready"
_LONGEST = 240.0
"""Seconds after which a process waits no longer for the others."""
_QUIET = 0.5
"""Seconds between the end of a process and the next turn: the driver takes down what it had on the device."""
_held: list[IO[str]] = []
"""The lock of this process's turn, which lasts until it ends."""


def take() -> None:
    """Wait until every process of the batch is ready or has failed and those before this one have ended.

    Alone, do not wait. A process that failed is not waited for.
    """
    if FOLDER not in os.environ or _held:
        return
    folder, count, number = Path(os.environ[FOLDER]), int(os.environ[COUNT]), int(os.environ[NUMBER])
    _held.append(_locked(folder, number))
    leave(folder, str(number))
    end = time.monotonic() + _LONGEST
    while len(list(folder.glob(f"*{_READY}"))) < count and time.monotonic() < end:
        time.sleep(0.05)
    for earlier in range(number):
        _locked(folder, earlier).close()
    _held.append(_locked(folder, "any"))  # should one of those before be ready only now
    time.sleep(_QUIET)


def _locked(folder: Path, number: int | str) -> IO[str]:
    """Wait for the lock of a turn, which its process has until it ends; closing the file gives it back."""
    file = (folder / f"{number}.turn").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def leave(folder: Path, name: str) -> None:
    """Note that a process is ready, or that nobody need wait for it."""
    (folder / f"{name}{_READY}").touch()
