"""The parts of ``benchmarks/kernels.py`` that need no GPU and no compiler."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from kernels import calls, compare, pack, plan, report, run
from tune.records import KERNEL, choice, config, kernel, record, times

from gdn_aot.launches import CompiledKernel, Kernel, Specialization
from gdn_aot.measuring.client import KeyState
from gdn_aot.measuring.plan import Prepared
from gdn_aot.records import tuning as records
from gdn_aot.records.objective import Sample
from gdn_aot.tracing.records import Trace, TracedLaunch, Tuning

CONFIGS = [config(32), config(64), config(128), config(64, stages=3)]


def test_two_records_are_compared_by_configuration(tmp_path: Path) -> None:
    near, far = times(64, 10.0, 10.01, 20.0, None), times(64, 10.0, 30.0, 12.0, None)
    keys = [(1,), (2,), (3,), (4,)]
    first = [choice(row, key=key) for row, key in zip((near, near, far, near), keys, strict=True)]
    backward = list(reversed(CONFIGS))

    def turned(key: tuple[int, ...], chosen: int, row: records.Times) -> records.MeasuredChoice:
        return choice(times(64, *reversed(row.us)), key=key, chosen=chosen, reference=3)

    second = [turned((1,), 3, near), turned((2,), 2, near), turned((3,), 1, far)]
    paths = tmp_path / "a.json", tmp_path / "b.json"
    records.save(record(kernel(CONFIGS, *first)), paths[0])
    records.save(record(kernel(backward, *second)), paths[1])
    found = compare.compare(paths)
    assert (found["keys"], found["only_first"], found["only_second"]) == (3, 1, 0)
    assert (found["equal"], found["within_noise"], found["share"]) == (1, 1, 0.6667)
    (other,) = found["others"]
    assert other["key"] == [3]
    assert other["ratios"][0] == {64: 1.2}
    assert not found["goal"]["met"]
    assert "MISSED" in compare.text(found)


def test_a_trace_is_narrowed_to_the_prompts() -> None:
    trace = Trace("0.6.0", "3.6.0", "12.8")
    trace.kernels = [Kernel("m", name, "", "", (), (), ()) for name in ("a", "b")]
    trace.launches = [
        TracedLaunch(number // 4, f"launch {number}", Specialization({}, (), (), {})) for number in range(8)
    ]
    trace.tunings = [
        Tuning(0, (1,), CONFIGS[:2], 0, [[0, 1], [2, 3]], [{(0, 0)}, {(0, 0)}]),
        Tuning(1, (1,), CONFIGS[:2], 0, [[4, 5]], [{(0, 0)}]),
        Tuning(1, (2,), CONFIGS[:2], 0, [[6, 7]], [{(0, 0)}]),
    ]
    launches = [
        calls.Launched(kernel=f"m:{name}", key=(key,), first=first, moved=8)
        for name, key, first in (("a", 1, "launch 2"), ("b", 2, "launch 6"), ("b", 2, "launch 6"))
    ]
    made = calls.narrow(trace, [calls.Prompt(64, 5, tuple(launches))])
    assert [(one.kernel, one.key, one.variants) for one in made.tunings] == [(0, (1,), [[2, 3]]), (1, (2,), [[6, 7]])]
    assert made.places == [(0, 64, calls.WORKLOAD, 5, [0, 1])]


def _object(cubin: str) -> CompiledKernel:
    return CompiledKernel(cubin=cubin, metadata={"shared": 0, "num_warps": 4}, registers=32, local=0)


def test_columns_are_looked_up_in_the_samples() -> None:
    state = KeyState(KERNEL, (1,), CONFIGS, 2, [_object(cubin) for cubin in ("a", "b", "c", "b")])
    state.samples[64] = {0: Sample(10.0, 0.1), 1: Sample(12.0, 0.1), 2: Sample(9.0, 0.1)}
    other = KeyState(KERNEL, (2,), CONFIGS[:2], 2, [_object("a"), _object("b")])
    other.samples[64] = {0: Sample(5.0, 0.1), 1: Sample(4.0, 0.1)}
    prepared = Prepared(None, [], {(KERNEL, (1,)): state, (KERNEL, (2,)): other}, {}, {}, 0, {})  # type: ignore[arg-type]
    fla = run.Fla()
    fla.dummies = [{(KERNEL, (1,)): CONFIGS[0]}, {(KERNEL, (1,)): CONFIGS[3]}]
    fla.at[64] = {(KERNEL, (1,)): CONFIGS[1], (KERNEL, (2,)): CONFIGS[0]}
    shipped = records.table(record(kernel(CONFIGS, choice(times(64, 1, 1, 1, 1), key=(1,), chosen=3))))
    launches = tuple(calls.Launched(kernel=KERNEL, key=(key,), first="", moved=2000) for key in (1, 2, 2))
    found = run.Table(prepared, fla, shipped, 1e9).at(calls.Prompt(64, 0, launches))
    entry = found["kernels"][KERNEL]
    assert list(found["kernels"]) == [KERNEL, f"{KERNEL} #2", f"{KERNEL} #3"]
    assert (entry["provider_best"]["us"], entry["wide_best"]["us"], entry["floor"]) == (10, 9, pytest.approx(2))
    assert (entry["fla_tuned"]["us"], entry["pick64"]["us"]) == (12, 10)
    assert (entry["shipped"]["us"], entry["shipped"]["twin"]) == (12, str(CONFIGS[1]))
    second = found["kernels"][f"{KERNEL} #2"]
    assert second["shipped"] is None
    assert (second["pick64"]["us"], second["pick64"]["retuned"]) == (5, True)
    assert found["pick64_sums"] == [20, 22]
    assert report.total({"one": entry})["shipped"] == 12


def test_shapes_with_the_same_kernels_are_one_group() -> None:
    found = plan.groups(["qwen3.5-9b:1", "qwen3.5-27b:1", "qwen3.5-35b-a3b:1", "qwen3.5-9b:4"])
    assert [one.names for one in found] == [
        ("qwen3.5-9b tp 1", "qwen3.5-35b-a3b tp 1"),
        ("qwen3.5-27b tp 1",),
        ("qwen3.5-9b tp 4",),
    ]


def test_what_was_prepared_travels(tmp_path: Path) -> None:
    root = tmp_path / "here"
    (root / "cubins").mkdir(parents=True)
    (root / "cubins" / "x").write_bytes(b"code")
    assert pack.write(tmp_path / "p.tar.zst", root, [root / "cubins" / "x", root / "objects" / "gone"]) > 0
    pack.read(tmp_path / "p.tar.zst", tmp_path / "there")
    assert (tmp_path / "there" / "cubins" / "x").read_bytes() == b"code"


def test_what_is_shipped_is_kept_in_every_search() -> None:
    """A search at one length may drop it, and it would be missing from the table."""
    state = KeyState(KERNEL, (1,), CONFIGS, 1, [None] * 4)
    other = KeyState(KERNEL, (2,), CONFIGS, 1, [None] * 4)
    prepared = Prepared(Trace("0.6.0", "3.6.0", "12.8"), [], {(KERNEL, (1,)): state, (KERNEL, (2,)): other}, {})
    table = records.table(record(kernel(CONFIGS, choice(times(64, 4.0, 3.0, 2.0, 1.0), key=(1,), chosen=2), offered=1)))
    run.keep(prepared, table)
    assert (state.kept, other.kept) == ((2,), ())
