"""Commands that are killed at a random moment, with all that they may leave: temporaries, scratch, processes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helpers import environment, gdn_aot
from processes import living
from storing import leftovers

_PATIENCE = 20.0
"""Seconds in which what a killed process started has to end by itself."""


@dataclass(frozen=True)
class Killed:
    """What killing a command some times came to."""

    running: int
    """Kills that met it at work."""
    survivors: int
    """Processes that lived on for longer than `_PATIENCE`."""


def kill(folder: Path, words: list[object], count: int, *, reset: Callable[[], None], seed: int = 1) -> Killed:
    """Kill ``gdn-aot WORDS`` so many times in a home of its own, and let it run to its end after each.

    ``reset`` takes away what it makes. After each next run the store is whole, and nothing unfinished is left in it,
    nor anything in ``TMPDIR``.
    """
    home, scratch = folder / "home", folder / "scratch"
    scratch.mkdir(parents=True)
    extra = {"TMPDIR": str(scratch)}
    command = [sys.executable, "-m", "gdn_aot", *map(str, words)]
    usual = _seconds(lambda: gdn_aot(*words, home=home, extra=extra, process=True))
    chosen, running, survivors = random.Random(seed), 0, 0
    for _ in range(count):
        reset()
        process = subprocess.Popen(
            command, env=environment(home, extra), cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(chosen.uniform(0.2, 1) * usual)
        process.send_signal(signal.SIGKILL)
        running += process.wait() == -signal.SIGKILL
        survivors += _wait_for_children(str(scratch))
        usual = min(usual, _seconds(lambda: gdn_aot(*words, home=home, extra=extra, process=True)))
        gdn_aot("cache", "verify", home=home, extra=extra, process=True)
        assert [*scratch.iterdir()] == []
        assert not (home / "store").exists() or leftovers(home) == []
    return Killed(running=running, survivors=survivors)


def _seconds(function: Callable[[], object]) -> float:
    start = time.monotonic()
    function()
    return time.monotonic() - start


def _wait_for_children(marker: str) -> int:
    """Wait for processes that have a text in their environment; return how many do not end."""
    wanted, end = os.fsencode(marker), time.monotonic() + _PATIENCE
    while found := living("environ", lambda text: wanted in text):
        if time.monotonic() > end:
            return len(found)
        time.sleep(0.05)
    return 0
