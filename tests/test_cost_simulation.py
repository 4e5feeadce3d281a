"""The simulation of schedules, and the page on the cost of the matrix that is made of its figures."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from cost import document, layouts
from cost.simulate import Order, Plan, bound, schedule

from gdn_aot.matrix import load

ROOT = Path(__file__).parents[1]


def _single(*seconds: float) -> Plan:
    return Plan(seconds=seconds, walks=tuple(((task,),) for task in range(len(seconds))))


def test_the_tasks_are_taken_as_they_were_asked_for() -> None:
    """3 and 3 on two cores, then 2 and 2, then 4 alone: 9; longest first 4+2+2 and 3+3; the best is 4+3 and 3+2+2."""
    plan = _single(3, 3, 2, 2, 4)
    assert schedule(plan, 2) == 9
    assert schedule(plan, 2, "longest") == 8
    assert bound(plan, 2) == 7
    assert schedule(plan, 1) == bound(plan, 1) == 14
    assert schedule(plan, 5) == bound(plan, 5) == 4


def test_a_candidate_that_does_not_fit_makes_the_next_one_wait() -> None:
    plan = Plan(seconds=(2, 3, 5), walks=(((0,), (1,), (2,)),))
    assert schedule(plan, 8) == bound(plan, 8) == 10


def test_a_step_waits_for_all_of_the_one_before() -> None:
    plan = Plan(seconds=(1, 4, 2), walks=(((0, 1), (2,)),))
    assert schedule(plan, 2) == 6
    assert schedule(plan, 1) == 7


def test_what_two_keys_ask_for_runs_once() -> None:
    plan = Plan(seconds=(5, 1, 1), walks=(((0,), (1,)), ((2,), (0,))))
    assert schedule(plan, 1) == 7
    assert schedule(plan, 3) == 6
    done_before = Plan(seconds=(1, 9), walks=(((0,),), ((1,), (0,), (0, 1))))
    assert schedule(done_before, 2) == 9


def test_a_core_starts_for_each_kind() -> None:
    plan = replace(_single(1, 1, 1, 1), kinds=(0, 0, 1, 1), start=10)
    assert schedule(plan, 1) == 24
    assert schedule(plan, 2) == 22, "both start for the first kind, then both for the second"
    assert schedule(plan, 4) == 11
    assert bound(plan, 1) == 24
    assert bound(plan, 4) == 11


def test_a_core_that_takes_its_own_kind_first_starts_less_often() -> None:
    plan = replace(_single(1, 1, 1, 1), kinds=(0, 1, 0, 1), start=10)
    assert schedule(plan, 1) == 4 * 11
    assert schedule(plan, 1, "own") == 24
    assert schedule(plan, 2, "own") == 12, "a core for each kind"
    assert schedule(plan, 4, "own") == 12, "more would start longer than the two need"
    assert schedule(plan, 4) == 11
    long = replace(plan, seconds=(50, 50, 50, 50))
    assert schedule(long, 4, "own") == 60


def test_nothing_takes_no_time() -> None:
    empty = Plan(seconds=(), walks=())
    assert schedule(empty, 3) == bound(empty, 3) == 0


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 12))
    seconds = tuple(draw(st.lists(st.integers(0, 20), min_size=count, max_size=count)))
    task = st.integers(0, count - 1)
    steps = st.lists(st.lists(task, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(tuple)
    walks = draw(st.lists(steps, max_size=5))
    asked = {item for walk in walks for step in walk for item in step}
    walks += [((item,),) for item in range(count) if item not in asked]
    kinds = draw(st.just(()) | st.lists(st.integers(0, 2), min_size=count, max_size=count).map(tuple))
    return Plan(seconds=seconds, walks=tuple(walks), kinds=kinds, start=draw(st.integers(0, 5)) if kinds else 0)


@settings(max_examples=300)
@given(plans(), st.integers(1, 6), st.sampled_from(("asked", "longest", "own")))
def test_no_schedule_is_below_the_bound_or_above_one_core(plan: Plan, cores: int, order: Order) -> None:
    found = schedule(plan, cores, order)
    assert bound(plan, cores) <= found + 1e-9
    worst = sum(plan.seconds) + plan.start * (len(plan.seconds) if plan.kinds else 0)
    assert found <= worst + 1e-9


@given(plans())
def test_one_core_without_starts_is_the_sum_and_many_are_the_longest_chain(plan: Plan) -> None:
    plain = replace(plan, kinds=(), start=0)
    assert schedule(plain, 1) == sum(plain.seconds)
    assert schedule(plain, len(plain.seconds)) == bound(plain, len(plain.seconds))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 8))
def test_independent_tasks_keep_grahams_bounds(seconds: list[int], cores: int) -> None:
    """R. L. Graham, Bounds on Multiprocessing Timing Anomalies, 1969: 2 - 1/m for a list, 4/3 - 1/(3m) longest first.

    Both are of the best schedule, which is at least the bound; so the first is checked with the sum and the longest
    task, of which its proof is, and the second only to be no worse than the first's.
    """
    plan = _single(*seconds)
    most = sum(seconds) / cores + (1 - 1 / cores) * max(seconds)
    assert schedule(plan, cores) <= most + 1e-9
    assert schedule(plan, cores, "longest") <= most + 1e-9


ROW = {
    "identifier": "fla0.6.0-triton3.6.0-sm_80", "provider": "fla", "target": "sm_80", "part": [1, 2],
    "keys": {"all": 6, "part": 3}, "plain": {"all": 2, "part": 1}, "start": 2.0, "trace": 10.0, "pack": 1.0,
    "bytes": 1000, "kernels": ["fwd_h", "norm"], "tasks": [[0, 8.0, 0], [0, 6.0, 9000], [1, 1.0, 700]],
    "chains": [[[0], [1]]],
}  # fmt: skip


def test_a_row_is_taken_so_many_times_with_its_chains() -> None:
    row = layouts.read_row(ROW)
    assert (row.copies, row.seconds, row.longest) == (2, 30.0, ("fwd_h", 8.0))
    plan = layouts.row_plan(row, 2)
    assert plan.seconds == (8, 6, 1, 8, 6, 1)
    assert set(plan.walks) == {((2,),), ((0,), (1,)), ((5,),), ((3,), (4,))}
    assert schedule(plan, 100) == 8 + 6 == bound(plan, 100)
    # asked for: 1, 8, 1, 8, then each 6 when its 8 is done. Two cores: 1 1 8 6 and 8 6
    assert layouts.job_seconds(row, 2, 60.0) == 60 + 2 + 10 + (1 + 1 + 8 + 6) + 1


def test_a_trace_comes_before_the_compiles_of_its_artifact() -> None:
    row = layouts.read_row(ROW)
    plan = layouts.joined([(row, 1), (row, 1)], traces=True)
    assert plan.seconds == (10, 8, 6, 1, 10, 8, 6, 1)
    assert plan.kinds == (0,) * 4 + (1,) * 4
    assert schedule(replace(plan, start=0), 100) == 10 + 8 + 6


def test_jobs_on_runners_of_two_cores() -> None:
    assert layouts.jobs([5, 5, 5], 2) == 15
    assert layouts.jobs([5, 5, 5], 4) == 10
    assert layouts.jobs([1, 2, 3], 1000) == 3
    assert layouts.jobs([5], 1) == 5, "one core is a runner too"


def test_a_cluster_builds_one_target_after_the_other() -> None:
    row = layouts.read_row(ROW)
    compiling = schedule(layouts.row_plan(row, row.copies), 1000)
    alone = 60 + row.start + row.trace + compiling + row.pack
    assert layouts.in_turn([[row]], 1000, 60.0) == pytest.approx(alone)
    assert layouts.in_turn([[row], [row]], 1000, 60.0) == pytest.approx(2 * alone), "environments do not overlap"
    both = alone + max(compiling, row.start + row.trace)
    assert layouts.in_turn([[row, row]], 1000, 60.0) == pytest.approx(both), "the second is traced meanwhile"


def test_what_stands_for_an_artifact_that_was_not_measured() -> None:
    rows = [
        layouts.read_row({**ROW, "identifier": f"{provider} {target}", "provider": provider, "target": target})
        for provider, target in (("fla", "sm_75"), ("fla", "sm_80"), ("fla", "sm_120"), ("vllm", "sm_90"))
    ]
    found = {
        (provider, target): layouts.stand_in(rows, provider, target).identifier
        for provider, target in (
            ("fla", "sm_75"), ("fla", "sm_70"), ("fla", "sm_86"), ("fla", "sm_121"), ("vllm", "sm_75"),
        )
    }  # fmt: skip
    assert found == {
        ("fla", "sm_75"): "fla sm_75", ("fla", "sm_70"): "fla sm_75", ("fla", "sm_86"): "fla sm_80",
        ("fla", "sm_121"): "fla sm_120", ("vllm", "sm_75"): "vllm sm_90",
    }  # fmt: skip
    every = layouts.matrix(rows)
    assert [(provider, target) for provider, target, _ in every] == [
        (row.environment.provider, row.target) for row in load(layouts.MATRIX).rows
    ]
    assert ("vllm", "sm_70") not in {(provider, target) for provider, target, _ in every}


def test_no_layout_beats_the_bound() -> None:
    found = layouts.compare([layouts.read_row(ROW)], 60.0)
    artifacts = len(load(layouts.MATRIX).rows)
    assert found["artifacts"] == artifacts
    assert found["cpu_seconds"] == artifacts * (10 + 30)
    for row in found["cores"].values():
        times = [row["jobs"], row["jobs_longest_first"], row["shards"]["seconds"], row["cluster"], row["in_turn"]]
        assert all(seconds > row["bound"] for seconds in times)


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "cost.json").read_text())
    return loaded


def test_the_page_is_that_of_the_figures(results: dict[str, Any]) -> None:
    assert (ROOT / "docs" / "explanation" / "cost.md").read_text() == document.page(results)


def test_the_schedules_are_those_of_the_rows(results: dict[str, Any]) -> None:
    """The small ones, worked out again: the large take seconds each."""
    rows = [layouts.read_row(row) for row in results["rows"]]
    every = layouts.matrix(rows)
    found = results["matrix"]
    assert found["artifacts"] == len(every)
    assert found["cpu_seconds"] == pytest.approx(sum(row.seconds + row.trace for _, _, row in every), abs=1)
    assert set(found["cores"]) == set(map(str, layouts.CORES))
    row = min(rows, key=lambda row: row.seconds)
    alone = layouts.job_seconds(row, row.copies, 0.0)
    assert found["one_job"][row.identifier]["asked"] == pytest.approx(alone, abs=0.1)
    for schedules in found["cores"].values():
        assert min(schedules["jobs"], schedules["cluster"]) >= schedules["bound"]
