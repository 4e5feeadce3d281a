"""The tuner from end to end on a simulated card: what is chosen, what is survived, what is kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import simulated
from helpers import ROOT
from tuning_records import written
from tuning_tasks import SHAPE, at_call, choices_of, interrupt, quiet, recorded

from gdn_aot.errors import UsageError
from gdn_aot.measuring import tuner
from gdn_aot.measuring.cards import this_card
from gdn_aot.measuring.plan import Preparation, TuneTask
from gdn_aot.measuring.selection import Selection
from gdn_aot.measuring.tuner import Tuned
from gdn_aot.records import tuning as records
from gdn_aot.records.verdict import chosen_again, derives

MakeTask = Callable[..., TuneTask]


def tune(task: TuneTask, progress: Callable[[int, int, str], None] = quiet) -> Tuned:
    return tuner.tune(task, this_card(simulated.INFO, task.job.cache), progress, pytest.fail)


def run(task: TuneTask) -> tuple[Tuned, records.TuningRecord]:
    return tune(task), recorded(task)


def choices(record: records.TuningRecord) -> dict[tuple[Any, ...], str]:
    """Key -> configuration."""
    return {choice.key: str(kernel.candidates[choice.chosen]) for kernel in record.kernels for choice in kernel.choices}


def reasons(record: records.TuningRecord, config: str) -> set[str]:
    """Return why a configuration is out."""
    (kernel,) = record.kernels
    out = (item for choice in kernel.choices for item in choice.rejected)
    return {item.reason for item in out if str(kernel.candidates[item.candidate]).startswith(config)}


def test_the_best_on_real_prompts_is_recorded(task: MakeTask) -> None:
    done, record = run(task())
    assert (done.missing, done.out, done.ended, done.dropped) == (0, 0, "", {})
    assert record.device.name == simulated.INFO.name
    assert record.device.sm_count == 7
    assert record.method.flush_bytes == 2 << 20
    (kernel,) = record.kernels
    assert kernel.offered == len(kernel.candidates) == 9
    assert choices(record)
    for choice in kernel.choices:
        assert str(kernel.candidates[choice.chosen]) == "BT=32 num_warps=4 num_stages=3"
        assert choice.score < 1.1
        assert choice.worst <= 1.1
        assert chosen_again(kernel, choice, record.objective) == choice, "the choice is what the recorded times come to"
        times = [one for row in choice.times for one in (*row.us, *row.noise)]
        assert times == [None if one is None else round(one, 2) for one in times]
        ratios = [choice.score, choice.worst, *choice.regret.values()]
        assert ratios == [round(one, 4) for one in ratios]
        assert all(one is not None for row in choice.times for one in row.us)
        assert choice.call.startswith("gated-norm(")
        assert choice.resources is not None
        assert all(one is not None and one.size > 0 and one.registers > 0 for one in choice.resources)
    committed = records.load(ROOT / "artifacts/tuning/sm_90/fla-core-0.6.0.json")
    assert committed is not None
    digests = {kernel.kernel: kernel.digest for kernel in committed.kernels}
    assert [kernel.digest for kernel in record.kernels] == [digests[kernel.kernel] for kernel in record.kernels]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("crash", "its process ended: its process ended with signal SIGSEGV"),
        ("exit", "its process ended: its process ended with exit status 3"),
        ("hang", "its process ended: it did nothing for 10 s and was killed"),
        ("refuse", "it cannot be launched: RuntimeError: Triton Error [CUDA]: out of resources"),
        ("wrong", "output y is off by"),
        ("nan", "output y has numbers that are not finite"),
        ("unwritten", "output y leaves 64 elements unwritten"),
    ],
)
def test_a_bad_candidate_is_out_and_the_rest_goes_on(task: MakeTask, what: str, reason: str) -> None:
    bad = "BT=32 num_warps=4"
    made = task(card={"faults": [{"config": bad, "do": what}]}, silence=10.0 if what == "hang" else 120.0)
    done, record = run(made)
    assert done.missing == 0
    assert all(not config.startswith(bad) for config in choices(record).values())
    found = reasons(record, bad)
    assert found
    assert all(text.startswith(reason) for text in found), found
    (outcome,) = done.outcomes.values()
    assert len(outcome.restarts) == (1 if what in ("crash", "exit", "hang") else 0)
    assert not outcome.skipped


def test_a_crash_while_timing_is_tried_again_and_then_costs_the_candidates_timed(task: MakeTask) -> None:
    made = task(tokens=(64,), card={"faults": [{"config": "BT=64 num_warps=16", "do": "crash", "when": "timed"}]})
    done, record = run(made)
    assert done.missing == 0
    (outcome,) = done.outcomes.values()
    assert len(outcome.restarts) == 2 * len(choices(record)), "each key once more"
    assert set(choices(record).values()) == {"BT=16 num_warps=4 num_stages=3"}, "the reference is what is left"


def test_a_crash_outside_of_candidates_gives_up_that_call_only(task: MakeTask) -> None:
    done, record = run(task(card={"crash_when_waiting_at": 512}))
    (outcome,) = done.outcomes.values()
    assert outcome.restarts
    assert list(outcome.skipped.values()) == ["its process ended with signal SIGSEGV"] * len(outcome.skipped)
    assert "the rest of the shape" not in outcome.skipped
    assert all("tokens=512" in call for call in outcome.skipped)
    assert done.missing == 0
    assert all(choice.missing == () for choice in choices_of(record))


def test_results_that_float64_does_not_confirm_leave_no_choice(task: MakeTask) -> None:
    """All candidates agree with each other, and all are wrong."""
    made = task(tokens=(64, 512))
    run(made)
    done, left = run(task(tokens=(64, 512), card={"all_wrong": True}))
    assert done.dropped
    assert choices(left) == {}, "not even the choice of the run before"


def test_the_references_crash_leaves_the_next_one(task: MakeTask) -> None:
    first = "BT=16 num_warps=4"
    _, record = run(task(card={"faults": [{"config": first, "do": "crash"}]}))
    assert all(choice.reference == 1 for choice in choices_of(record))
    assert set(choices(record).values()) == {"BT=32 num_warps=4 num_stages=3"}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"do": "memory", "when": "timed"}, "no memory left for this"),
        ({"do": "full", "when": "timed"}, "Triton Error [CUDA]: out of memory"),
        ({"do": "full"}, "Triton Error [CUDA]: out of memory"),
    ],
)
def test_out_of_memory_skips_the_call_only(task: MakeTask, fault: dict[str, str], said: str) -> None:
    done, record = run(task(card={"faults": [{"config": "BT=16 num_warps=8", "tokens": 2048, **fault}]}))
    (outcome,) = done.outcomes.values()
    assert outcome.skipped
    assert all("tokens=2048" in call for call in outcome.skipped)
    assert set(outcome.skipped.values()) == {f"out of memory: {said}"}
    assert outcome.restarts == []
    assert done.out == 0, "it says nothing against a candidate"
    assert all(choice.missing == (2048,) for choice in choices_of(record))


def test_nothing_is_launched_that_was_measured_before(task: MakeTask, tmp_path: Path) -> None:
    launches = tmp_path / "launches"
    made = task(card={"state": str(launches)})
    _, record = run(made)
    launches.unlink()
    again, same = run(replace(made, resume=True))
    assert same == record
    assert again.missing == 0
    assert again.outcomes == {}
    assert not launches.exists()


def test_going_on_measures_only_what_is_missing(task: MakeTask) -> None:
    _, small = run(task(tokens=(64, 512)))
    done, full = run(task(resume=True))
    assert done.missing == 0
    before = {choice.key: choice for choice in choices_of(small)}
    for choice in choices_of(full):
        if choice.key in before:
            assert before[choice.key].times == choice.times[: len(before[choice.key].times)]
            assert [row.tokens for row in choice.times] == [64, 512, 2048]


def test_going_on_with_a_search_for_sound_candidates_measures_keys_again_that_have_none(task: MakeTask) -> None:
    made = task(tokens=(64,))
    run(made)
    data = json.loads(made.path.read_text())
    for footprint in (one for kernel in data["kernels"] for choice in kernel["choices"] for one in choice["resources"]):
        footprint[2] = 4096  # bytes of local memory
    made.path.write_bytes(written(data))
    spilling = recorded(made)
    assert all(map(derives, choices_of(spilling)))
    assert run(replace(made, resume=True))[1] == spilling
    _, record = run(replace(made, resume=True, search="relieved"))
    assert not any(map(derives, choices_of(record)))


def test_a_choice_that_a_search_added_survives_going_on(task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its candidates are known only once they are compiled; by another search nothing can be said against it."""
    spills = 4096
    monkeypatch.setattr(Selection, "_local", lambda _, traced, index: spills * (index < traced.offered))
    monkeypatch.setattr(Selection, "_promises", lambda *_: True)
    made = task(tokens=(64,), search="relieved")
    run(made)
    data = json.loads(made.path.read_text())
    for kernel in data["kernels"]:
        assert len(kernel["candidates"]) > kernel["offered"], "the search has added some"
        for choice in kernel["choices"]:
            (us,) = (row["us"] for row in choice["times"])
            choice["chosen"] = next(index for index in range(kernel["offered"], len(us)) if us[index] is not None)
            for footprint in choice["resources"][: kernel["offered"]]:
                footprint[2] = spills
    made.path.write_bytes(written(data))
    before = recorded(made)
    assert run(replace(made, resume=True))[1] == before
    done, record = run(task(tokens=(64, 512), resume=True))
    assert (record, done.missing) == (before, 0)
    _, record = run(task(tokens=(64, 512), search="relieved", resume=True))
    assert all([row.tokens for row in choice.times] == [64, 512] for choice in choices_of(record))


def test_what_spills_far_too_much_with_one_key_is_out_for_others(
    task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not compiled for them, and the record says so: each candidate of the provider is timed or rejected."""

    def local(self: Selection, traced: Any, index: int) -> float:
        return 0 if index == traced.offered - 1 else inf

    monkeypatch.setattr(Selection, "_local", local)
    _, record = run(task(tokens=(64,), search="relieved", shapes=[SHAPE, SHAPE.replace("v_dim=64", "v_dim=128")]))
    for kernel in record.kernels:
        first, *others = sorted(kernel.choices, key=lambda choice: len(choice.rejected))
        assert not first.rejected
        for choice in others:
            assert {row.candidate for row in choice.rejected} == {*range(kernel.offered - 1)}
            assert {row.reason for row in choice.rejected} == {
                "it spills far too much with another key, and was not compiled"
            }
            assert choice.times[0].us[-1] is not None
        assert others


def test_a_spent_budget_keeps_what_was_measured(task: MakeTask) -> None:
    made = task(card={"delay": 0.4}, budget=0.6)
    done = tune(made)
    assert done.ended == "the budget is spent"
    record = records.load(made.path)
    if record is not None:
        assert any(choice.missing for choice in choices_of(record))
    _, full = run(task(resume=True))
    assert all(choice.missing == () for choice in choices_of(full))


def test_an_interrupt_keeps_what_was_measured(task: MakeTask) -> None:
    made = task()
    with pytest.raises(KeyboardInterrupt):
        tune(made, at_call(4, interrupt))
    assert all(choice.unchecked for choice in choices_of(recorded(made)))
    done, record = run(replace(made, resume=True))
    assert done.missing == 0
    assert not any(choice.unchecked for choice in choices_of(record))


def test_an_interrupt_before_anything_is_compiled_keeps_the_record(
    task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = task()
    with pytest.raises(KeyboardInterrupt):
        tune(made, at_call(4, interrupt))
    before = recorded(made)
    monkeypatch.setattr(Preparation, "compile", lambda _self, *_numbers: interrupt())
    with pytest.raises(KeyboardInterrupt):
        tune(replace(made, resume=True))
    assert recorded(made) == before


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        (("device", "name"), "NVIDIA H200", "device.name"),
        (("device", "driver"), "9.9", "device.driver"),
        (("triton",), "3.5.0", "triton"),
        (("provider", "version"), "0.5.2", "provider.version"),
        (("target",), "sm_100", "target"),
        (("format",), 7, "format"),
        (("kernels", 0, "digest"), "0" * 64, "has another source there"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_record_of_something_else_is_refused_and_stays(
    task: MakeTask, field: tuple[str | int, ...], value: object, named: str, resume: bool
) -> None:
    made = task(resume=resume)
    run(replace(made, resume=False))
    data = json.loads(made.path.read_bytes())
    inner = data
    for step in field[:-1]:
        inner = inner[step]
    inner[field[-1]] = value
    text = written(data)
    made.path.write_bytes(text)
    with pytest.raises(UsageError, match=named):
        tune(made)
    assert made.path.read_bytes() == text


def test_a_worker_that_cannot_start_is_an_error_of_its_own(task: MakeTask) -> None:
    made = task()
    broken = replace(made, method=replace(made.method, card="simulated:Missing"))
    with pytest.raises(UsageError, match="cannot start"):
        tune(broken)
