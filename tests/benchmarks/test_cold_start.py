"""Processes of the cold start benchmark take turns, and the floor speaks to the driver as its header says."""

import ctypes
import itertools
import subprocess
import sys
import time
from pathlib import Path

from helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from cold_start import floor, turns

_WORKER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from cold_start import turns
time.sleep(float(sys.argv[2]))
ready = time.time()
turns.take()
start = time.time()
turns.take()
time.sleep(0.3)
print(ready, start, time.time())
"""


def workers(folder: Path, count: int, *delays: float) -> list[tuple[float, float, float]]:
    """Return when each of several processes was ready, began its turn, and ended it."""
    settings = {turns.FOLDER: str(folder), turns.COUNT: str(count)}
    command = [sys.executable, "-c", _WORKER, str(ROOT / "benchmarks")]
    started = [
        subprocess.Popen([*command, str(delay)], env=settings, stdout=subprocess.PIPE, text=True) for delay in delays
    ]
    found = [tuple(map(float, process.communicate(timeout=60)[0].split())) for process in started]
    return [(ready, start, end) for ready, start, end in found]


def test_turns_begin_when_all_are_ready_and_do_not_overlap(tmp_path: Path) -> None:
    found = workers(tmp_path, 3, 0.0, 0.2, 1.0)
    ordered = sorted(found, key=lambda row: row[1])
    assert ordered[0][1] >= max(ready for ready, _, _ in found)
    for (_, _, before), (_, start, _) in itertools.pairwise(ordered):
        assert start >= before


def test_nobody_waits_for_a_process_that_failed_or_when_alone(tmp_path: Path) -> None:
    turns.leave(tmp_path, "failed-1")
    ((ready, start, _),) = workers(tmp_path, 2, 0.0)
    assert start - ready < 10
    began = time.monotonic()
    turns.take()  # of no batch
    assert time.monotonic() - began < 0.1


def test_a_dependent_launch_has_the_layout_of_the_driver() -> None:
    """``CUlaunchConfig`` and ``CUlaunchAttribute`` of cuda.h, for 64 bits."""
    config, attribute = floor._Config, floor._Attribute
    assert (ctypes.sizeof(config), ctypes.sizeof(attribute)) == (56, 72)
    places = {
        name: getattr(config, name).offset for name in ("grid", "block", "shared", "stream", "attributes", "count")
    }
    assert places == {"grid": 0, "block": 12, "shared": 24, "stream": 32, "attributes": 40, "count": 48}
    assert (attribute.kind.offset, attribute.value.offset) == (0, 8)
