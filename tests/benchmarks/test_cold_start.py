"""Processes of the cold start benchmark take turns, and the floor speaks to the driver as its header says."""

import ctypes
import itertools
import json
import math
import random
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from cold_start import floor, pairs, plan, report, turns

_WORKER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from cold_start import turns
time.sleep(float(sys.argv[2]))
turns._LONGEST = float(sys.argv[3])
ready = time.time()
turns.take()
start = time.time()
turns.take()
time.sleep(2.5 if turns._LONGEST < 1 else 0.3)
print(ready, start, time.time())
"""


def workers(folder: Path, count: int, *delays: float, longest: float = 60.0) -> list[tuple[float, float, float]]:
    """Return when each of several processes was ready, began its turn, and ended it."""
    settings = {turns.FOLDER: str(folder), turns.COUNT: str(count)}
    command = [sys.executable, "-c", _WORKER, str(ROOT / "benchmarks")]
    started = [
        subprocess.Popen(
            [*command, str(delay), str(longest)],
            env={**settings, turns.NUMBER: str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, delay in enumerate(delays)
    ]
    found = [tuple(map(float, process.communicate(timeout=60)[0].split())) for process in started]
    return [(ready, start, end) for ready, start, end in found]


def test_turns_begin_when_all_are_ready_in_their_order_and_do_not_overlap(tmp_path: Path) -> None:
    found = workers(tmp_path, 3, 1.0, 0.2, 0.0)
    assert found[0][1] >= max(ready for ready, _, _ in found)
    for (_, _, before), (_, start, _) in itertools.pairwise(found):
        assert start >= before


def test_nobody_waits_for_a_process_that_failed_or_when_alone(tmp_path: Path) -> None:
    turns.leave(tmp_path, "1")
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


def test_a_process_that_comes_late_is_not_measured_beside_another(tmp_path: Path) -> None:
    """The second gives up waiting for the first, as the time for that has passed, and begins."""
    (late, second) = workers(tmp_path, 2, 2.5, 0.0, longest=0.5)
    assert second[1] < late[0] < second[2] + 1, "or this shows nothing"
    assert late[1] >= second[2]


def records(
    *differences: float, call: str = "dense", of_launches: float = 2.0, pair: tuple[str, str] = ("e", "f")
) -> list[dict[str, Any]]:
    """Records of pairs in which (e) takes so many milliseconds longer."""
    made = []
    for number, difference in enumerate(differences):
        base = 100.0 + 7 * number  # pairs differ from each other by more than their halves do
        for case, more, launches in ((pair[1], 0.0, 1.0), (pair[0], difference, 1.0 + of_launches)):
            row = {"first_ms": base + more, "launching_ms": launches}
            made.append({"case": case, "call": call, "ok": True, "round": number, call: row})
    return made


def test_pairs_are_of_one_round_and_call() -> None:
    made = records(1.0, 2.0, 3.0) + records(50.0, call="varlen")
    made += [{**made[0], "round": 9}, {**made[1], "round": 8, "ok": False}]  # no pair
    found = pairs.compare(made, "dense")
    assert {name: (row["median"], row["pairs"]) for name, row in found.items()} == {
        "first_ms": (2.0, 3),
        "launching_ms": (2.0, 3),
        "rest_ms": (0.0, 3),
    }
    assert pairs.compare(made, "small") == {}
    again = [{**record, "run": "later"} for record in records(9.0)]
    assert pairs.compare([*made, *again], "dense")["first_ms"]["pairs"] == 4, "rounds of two runs are not the same"
    after = records(4.0, pair=("e-torch", "f-torch"))
    assert pairs.compare([*made, *after], "dense") == found
    assert pairs.compared([*made, *after], ["dense"])["e-torch-f-torch"]["dense"]["first_ms"]["median"] == 4.0
    old = [{key: value for key, value in record.items() if key != "round"} for record in made]
    assert pairs.compare(old, "dense") == {}


@pytest.mark.parametrize(
    ("differences", "met"),
    [
        ([5.0] * 6, True),
        ([5.0] * 5, None),  # too few
        ([*[5.0] * 20, *[30.0] * 5], True),
        ([*[5.0] * 20, *[30.0] * 15], False),  # the median is 5, but is not known to be below 10
        ([30.0] * 20, False),
    ],
)
def test_the_goal_is_met_if_it_is_sure(differences: list[float], met: bool | None) -> None:
    document = {"pairs": pairs.compared(records(*differences), ["dense"])}
    whole, launches = pairs.goals(document, "dense")
    assert whole["met"] is met
    assert launches["met"] is (True if len(differences) > 5 else None)
    assert f"{len(differences)} pairs" in whole["found"]


def test_results_of_several_runs_are_one_document_and_goals_are_those_of_each() -> None:
    first = {
        "machine": {"date": "2026-12-01", "device": "one"},
        "provider": "fla",
        "artifact": {"identifier": "a", "sha256": "1"},
    }
    first |= {"used": {}, "steps": [{"step": "end"}], "records": full(records(*[2.0] * 6))}
    second = {
        **first,
        "machine": {"date": "2026-12-02", "device": "two"},
        "artifact": {"identifier": "a", "sha256": "2"},
    }
    second["records"] = [{**one, "run": "later"} for one in full(records(*[30.0] * 7)[1::2])]  # (e) alone
    both = report.joined([first, second])
    assert [run["run"] for run in both["runs"]] == ["2026-12-01, 1", "later"]
    assert [run["artifact"]["sha256"] for run in both["runs"]] == ["1", "2"]
    assert both["machine"]["device"] == "one"
    assert len(both["records"]) == 12 + 7
    assert both["summary"]["e"]["dense"]["processes"] == 13
    assert both["pairs"]["e-f"]["dense"]["first_ms"]["pairs"] == 6, "not those of two runs"
    whole, *_ = [one for one in both["goals"] if "above (f)" in one["goal"]]
    assert whole["met"]
    assert both["goals"] == report.derived(first)["goals"] + report.derived(second)["goals"]
    third = {**second, "records": [{**one, "run": "last"} for one in second["records"]]}
    again = report.joined([both, third])
    assert [run["run"] for run in again["runs"]] == ["2026-12-01, 1", "later", "last"]
    assert again["records"][:19] == both["records"], "each is of the run that it was of"
    assert again["goals"] == both["goals"] + report.derived(third)["goals"]
    with pytest.raises(ValueError, match="different artifacts"):
        report.joined([first, {**second, "artifact": {"identifier": "b"}}])


_MEASURED = """
import json, runpy, sys
sys.path.insert(0, sys.argv[1])
from cold_start import plan

class Run:
    def __init__(self, options, folder, save):
        self.save = save
    def all(self):
        document = {"records": made, "steps": [], "artifact": {"identifier": "a"}}
        self.save(document)
        return document

made, plan.Run, sys.argv = json.loads(sys.argv[2]), Run, sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_program_prints_and_keeps_what_it_measured_and_puts_runs_together(tmp_path: Path) -> None:
    made = json.dumps([{**one, "run": "now"} for one in full(records(*[2.0] * 6))])
    program, one, both = str(ROOT / "benchmarks/cold_start.py"), tmp_path / "one.json", tmp_path / "both.json"
    given = [sys.executable, "-c", _MEASURED, str(ROOT / "benchmarks"), made, program, "--artifact", __file__]
    join = [sys.executable, program, "--join", str(one), str(one)]
    for command, out in ((given, one), (join, both)):
        done = subprocess.run(
            [*command, "--out", str(out)], capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path
        )
        assert "| (e) gdn-aot loader |" in done.stdout
        assert "met  dense: (e) at most 10 ms above (f): 2 ms, 2 to 2 ms, in 6 pairs" in done.stdout
    document = json.loads(one.read_text())
    assert {name: document[name] for name in ("summary", "pairs", "goals")} == report.derived(document)
    assert len(json.loads(both.read_text())["runs"]) == 2


def full(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give records what every process measures."""
    counts: dict[str, Any] = {"compiled": 0, "benchmarked": 0, "built": 0, "modules": 1}
    more = {**counts, "digest": {"output": {"sha256": "0" * 64}}}
    return [{**one, one["call"]: {**one[one["call"]], **more}} for one in made]


def test_the_interval_of_a_median_holds_it() -> None:
    """Of ten, 11 in 512 have fewer than two on one side, and 56 in 512 fewer than three; then draws."""
    assert pairs.interval([*range(1, 11)]) == (2, 9)
    assert pairs.interval([*range(6)]) == (0, 5)
    assert pairs.interval([*range(5)]) == ()
    rng = random.Random(0)
    drawn = [pairs.interval([rng.expovariate(1.0) for _ in range(25)]) for _ in range(2000)]
    share = sum(low <= math.log(2) <= high for low, high in drawn) / len(drawn)
    assert 0.94 <= share <= 0.985


def run(**options: Any) -> plan.Run:
    given = {"calls": ["dense", "varlen"], "cases": ["b", "e", "nocc", "f"], "provider": "fla", "seconds": math.inf}
    made = plan.Run(Namespace(**{**given, **options}), Path(), lambda _: None)
    made._usable |= {"b", "f"}
    return made


def test_processes_that_are_compared_are_neighbours() -> None:
    orders = set()
    for number in range(20):
        units = run()._round(number)
        tasks = [task for unit in units for task in unit]
        assert sorted(tasks) == sorted(
            (number, state, call) for state in ("b", "e", "nocc", "f") for call in ("dense", "varlen")
        )
        for call in ("dense", "varlen"):
            places = [tasks.index((number, state, call)) for state in ("e", "f")]
            assert abs(places[0] - places[1]) == 1
            orders.add(places[0] < places[1])
        for most in (1, 3, 8):
            batches = [*plan._batches(units, most)]
            assert [task for batch in batches for task in batch] == tasks
            assert all(len(batch) <= max(most, 2) for batch in batches)
            assert all(set(unit) <= set(batch) or not set(unit) & set(batch) for unit in units for batch in batches)
    assert orders == {False, True}, "each of them is the first in some rounds"
    assert {len(unit) for unit in run(cases=["e", "nocc"])._round(0)} == {1}
    four = run(cases=["e", "f", "e-torch", "f-torch"])
    four._usable |= {*plan.FLOORS}
    assert {frozenset(task.state for task in unit) for unit in four._round(0)} == {*map(frozenset, plan.PAIRS)}


_CLOCKED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from triton.runtime.jit import KernelInterface
from cold_start import launching

class Slow(KernelInterface):
    def run(self, seconds, *, grid, warmup):
        assert grid == (3,) and not warmup
        time.sleep(seconds)
        if seconds > 0.1:
            raise ValueError
        return "launched"

clock = launching.clock()
assert launching.clock() is clock and clock.read() == 0
time.sleep(0.2)
assert Slow()[(3,)](0.1) == "launched"
try:
    Slow()[(3,)](0.11)
except ValueError:
    pass
with clock.left_out():
    assert Slow()[(3,)](5.0) is None
print(clock.read())
"""


def test_the_clock_of_launches_counts_these_alone() -> None:
    command = [sys.executable, "-c", _CLOCKED, str(ROOT / "benchmarks")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert 0.21 <= float(done.stdout) < 0.4
