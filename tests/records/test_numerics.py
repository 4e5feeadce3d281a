"""Numerics records of several runs in one file."""

from itertools import permutations
from pathlib import Path

import pytest
from helpers import ROOT
from msgspec.structs import replace

from gdn_aot.records import numerics as r
from gdn_aot.records.files import RecordedDevice

RECORDS = sorted((ROOT / "artifacts/numerics").rglob("*.json"))
KIMI = "kimi-linear-48b-a3b"
KDA = (f"{KIMI} tp 1 bf16",)
PROBLEM = r.CallProblem(call="prefill(1)", why="out is off by 1")


@pytest.fixture
def made() -> r.NumericsRecord:
    found = r.load(ROOT / "artifacts/numerics/sm_80/fla-core-0.6.0.json")
    assert found is not None
    kernel = replace(found.kernels[0], launches=7, binaries=2, choices=("0" * 16, "a" * 16))
    return replace(found, models=found.models[:1], checks=found.checks[:1], kernels=(kernel,))


def run(made: r.NumericsRecord, *rows: str, **kernels: str) -> r.NumericsRecord:
    """Return what a run of these models says, those that failed with a ``!``, and of its kernels their choices."""
    names = [row.rstrip("!") for row in rows]
    checks = tuple(
        replace(made.checks[0], model=name, failed=(PROBLEM,) if row != name else ())
        for row, name in zip(rows, names, strict=True)
    )
    found = tuple(
        replace(made.kernels[0], kernel=f"m:{name}", ok="!" not in said, choices=choices(said.rstrip("!")))
        for name, said in sorted(kernels.items())
    )
    status: r.Status = "failed" if any(row.failed for row in checks) else "checked"
    models = tuple(f"{name} tp 1 bf16" for name in names)
    return replace(made, status=status, models=models, checks=checks, kernels=found)


def choices(letters: str) -> tuple[str, ...]:
    return tuple(16 * letter for letter in letters)


def said(record: r.NumericsRecord) -> tuple[r.Status, dict[str, bool], dict[str, tuple[bool, tuple[str, ...]]]]:
    """Return the status, which rows have failed, and of each kernel whether it is ok and its choices."""
    rows = {row.model: bool(row.failed) for row in record.checks}
    return record.status, rows, {one.kernel[2:]: (one.ok, one.choices) for one in record.kernels}


def test_runs_of_different_models_on_one_card_are_one_record(made: r.NumericsRecord, tmp_path: Path) -> None:
    (kernel,) = made.kernels
    same = replace(kernel, launches=3, binaries=1, choices=("0" * 16, "b" * 16))
    other = replace(same, kernel="fla.ops.kda.chunk:only_there")
    checks = (replace(made.checks[0], model=KIMI),)
    new = replace(made, date="2026-12-31", models=KDA, checks=checks, kernels=(same, other))
    both = r.merge(made, new)
    assert (both.date, both.status) == ("2026-12-31", "checked")
    assert both.models == (*made.models, *KDA)
    assert both.checks == (*made.checks, *checks)
    merged = replace(kernel, launches=10, binaries=2, choices=("0" * 16, "a" * 16, "b" * 16))
    assert both.kernels == tuple(sorted((merged, other), key=lambda one: one.kernel))
    r.save(both, tmp_path / "record.json")
    assert r.load(tmp_path / "record.json") == both


def test_runs_of_different_workloads_of_a_model_on_one_card_are_one_record(made: r.NumericsRecord) -> None:
    new = replace(made, checks=(replace(made.checks[0], workload="transformers-train"),))
    both = r.merge(made, new)
    assert both.models == made.models
    assert both.checks == (*made.checks, *new.checks)


def test_a_row_that_is_checked_again_is_the_new_one_and_others_stay(made: r.NumericsRecord) -> None:
    both = run(made, "one", "two", shared="ab", gone="c")
    again = run(made, "one", shared="bd", new="e")
    again = replace(again, date="2026-12-31", checks=(replace(again.checks[0], calls=1000),))
    merged = r.merge(both, again)
    assert (merged.date, merged.models) == ("2026-12-31", both.models)
    assert merged.checks == (again.checks[0], both.checks[1]), "in the place of the old one"
    kernels = {"gone": (True, choices("c")), "new": (True, choices("e")), "shared": (True, choices("abd"))}
    assert said(merged) == ("checked", {"one": False, "two": False}, kernels)
    assert [(one.launches, one.binaries) for one in merged.kernels] == [(7, 2), (7, 2), (14, 2)], "of both runs"


def test_what_failed_and_is_right_now_is_as_the_new_run_says(made: r.NumericsRecord) -> None:
    """What is known of a kernel from calls of which one failed is dropped, and also what other rows said of it."""
    bad = run(made, "one!", "two", bad="ab!", unused="c!", good="d")
    merged = r.merge(bad, run(made, "one", bad="b"))
    kernels = {"bad": (True, choices("b")), "good": (True, choices("d"))}
    assert said(merged) == ("checked", {"one": False, "two": False}, kernels)
    assert [one.launches for one in merged.kernels] == [7, 7]
    assert said(r.merge(bad, run(made, "one!", bad="b!")))[0] == "failed"


def test_fewer_calls_of_a_row_take_its_place_only_if_they_fail(made: r.NumericsRecord) -> None:
    """As with ``--max-tokens 64`` after all lengths: what failed in long calls is not mended by short ones."""

    def few(record: r.NumericsRecord) -> r.NumericsRecord:
        return replace(record, checks=(replace(record.checks[0], calls=1, skipped=()),))

    for before in (run(made, "one!", shared="ab!"), run(made, "one", shared="ab")):
        merged = r.merge(before, few(run(made, "one", shared="ab")))
        assert merged.checks == before.checks
        assert (merged.status, merged.kernels[0].ok) == (before.status, before.kernels[0].ok)
    before, fails = run(made, "one!", shared="ab!"), few(run(made, "one!", shared="ab!"))
    assert r.merge(before, fails).checks == before.checks, "or they would be mended by as few"
    merged = r.merge(run(made, "one", shared="ab"), fails)
    assert (merged.status, merged.checks) == ("failed", fails.checks)
    calls = before.checks[0].calls
    none = tuple(r.CallProblem(call=f"prefill({number})", why="no choice") for number in range(calls))
    left_out = replace(fails, checks=(replace(fails.checks[0], calls=0, failed=(), skipped=none),))
    assert r.merge(before, left_out).checks == before.checks, "calls that were not made show nothing"


def test_what_was_right_and_fails_now_is_failed(made: r.NumericsRecord) -> None:
    merged = r.merge(run(made, "one", "two", bad="a", good="b"), run(made, "one!", bad="c!"))
    kernels = {"bad": (False, choices("ac")), "good": (True, choices("b"))}
    assert said(merged) == ("failed", {"one": True, "two": False}, kernels)
    mended = r.merge(merged, run(made, "one", bad="d"))
    assert said(mended) == ("checked", {"one": False, "two": False}, {**kernels, "bad": (True, choices("d"))})


@pytest.mark.parametrize("again", [("one",), ("one", "three")])
def test_what_failed_in_a_row_that_stays_is_failed(made: r.NumericsRecord, again: tuple[str, ...]) -> None:
    """The record does not say which of the rows launched the kernel."""
    bad = run(made, "one!", "two!", bad="a!", good="b")
    merged = r.merge(bad, run(made, *again, bad="c", good="b"))
    kernels = {"bad": (False, choices("ac")), "good": (True, choices("b"))}
    rows = {"one": False, "two": True} | dict.fromkeys(again, False)
    assert said(merged) == ("failed", rows, kernels)
    last = r.merge(merged, run(made, "two", bad="d"))
    assert (last.status, said(last)[2]["bad"]) == ("checked", (True, choices("d")))


def test_a_run_that_did_not_get_to_its_end_fails_until_the_next(made: r.NumericsRecord) -> None:
    """No row of it need have failed."""
    died = r.merge(run(made, "one", good="a"), replace(run(made), status="failed"))
    assert said(died) == ("failed", {"one": False}, {"good": (True, choices("a"))})
    assert r.merge(died, run(made, "two", good="a")).status == "checked"


def test_runs_of_other_rows_are_the_same_in_any_order(made: r.NumericsRecord) -> None:
    runs = [run(made, "one", x="a", y="b"), run(made, "two!", x="c!", z="d"), run(made, "three", x="a", z="e")]
    found = []
    for order in permutations(runs):
        merged = None
        for one in order:
            merged = r.merge(merged, one)
        assert merged is not None
        found.append((said(merged), merged.kernels, {*merged.models}))
    assert all(one == found[0] for one in found)
    assert found[0][0][2] == {
        "x": (False, choices("ac")), "y": (True, choices("b")), "z": (True, choices("de")),
    }  # fmt: skip


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_records_are_the_same_with_themselves(path: Path, tmp_path: Path) -> None:
    record = r.load(path)
    assert record is not None
    both = r.merge(record, record)
    assert both.checks == record.checks
    twice = tuple(replace(kernel, launches=2 * kernel.launches) for kernel in record.kernels)
    assert both == replace(record, kernels=twice)
    one = record.checks[0].model
    part = replace(record, checks=tuple(row for row in record.checks if row.model == one), kernels=record.kernels[:1])
    assert r.merge(record, part).checks == record.checks
    r.save(both, tmp_path / "record.json")
    assert r.load(tmp_path / "record.json") == both


def test_a_fault_of_either_run_is_one_of_both(made: r.NumericsRecord) -> None:
    good, bad = run(made, "one", shared="a"), run(made, "two!", shared="b!")
    for both in (r.merge(good, bad), r.merge(bad, good)):
        assert said(both) == ("failed", {"one": False, "two": True}, {"shared": (False, choices("ab"))})


def test_what_is_not_alike_replaces_what_was_there(made: r.NumericsRecord) -> None:
    new = replace(made, models=KDA)
    assert r.merge(None, new) is new
    card = RecordedDevice(name="NVIDIA H100 80GB HBM3", driver="1")
    for other in ({"device": card}, {"how": "not run there"}, {"triton": "3.5.0"}, {"ptxas": "1"}, {"target": "sm_75"}):
        assert r.merge(replace(made, **other), new) is new
