"""The parts of ``benchmarks/kernels.py`` that need no GPU and no compiler."""

import sys

import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from kernels import compare, report
from tuning_records import KERNEL, choice, config, kernel, record, times

from gdn_aot.records import tuning as records
from gdn_aot.records.objective import DEFAULT, Sample, choose

CONFIGS = [config(32), config(64), config(128), config(64, stages=3)]


def test_two_records_are_compared_by_configuration() -> None:
    near, far = times(64, 10.0, 10.01, 20.0, None), times(64, 10.0, 30.0, 12.0, None)
    keys = [(1,), (2,), (3,), (4,)]
    first = [choice(row, key=key) for row, key in zip((near, near, far, near), keys, strict=True)]
    backward = list(reversed(CONFIGS))

    def turned(key: tuple[int, ...], chosen: int, row: records.Times) -> records.MeasuredChoice:
        return choice(times(64, *reversed(row.us)), key=key, chosen=chosen, reference=3)

    second = [turned((1,), 3, near), turned((2,), 2, near), turned((3,), 1, far)]
    found = compare.compare(record(kernel(CONFIGS, *first)), record(kernel(backward, *second)))
    assert (found["keys"], found["only_first"], found["only_second"]) == (3, 1, 0)
    assert (found["equal"], found["within_noise"], found["share"]) == (1, 1, 0.6667)
    (other,) = found["others"]
    assert (other["key"], other["chosen"]) == ([3], [str(CONFIGS[0]), str(CONFIGS[2])])
    assert not found["goal"]["met"]


def test_equivalence_of_two_runs() -> None:
    close, far = ({512: [Sample(us, 0.0) for us in (100.0, second, 110.0)]} for second in (100.3, 104.0))
    assert compare.equivalent(0, 0, far, far, DEFAULT)
    assert compare.equivalent(0, 1, close, close, DEFAULT)
    assert not compare.equivalent(0, 1, close, far, DEFAULT)
    assert not compare.equivalent(0, 2, close, close, DEFAULT)


def test_within_noise_is_wider_than_a_tie() -> None:
    """A tie gives something away, being within the noise of another run does not."""
    samples = {512: [Sample(100.0, 0.8), Sample(102.0, 0.8)]}
    verdict = choose(samples, [(2,), (1,)])
    assert verdict is not None
    assert verdict.chosen == 0
    assert compare.equivalent(0, 1, samples, samples, DEFAULT)
    assert not compare.equivalent(0, 1, samples, {512: [Sample(100.0, 0.1), Sample(102.0, 0.1)]}, DEFAULT)


def test_columns_are_looked_up_in_the_record() -> None:
    first = choice(times(64, 10.0, 12.0, 9.0, 13.0), key=(1,))
    measured = record(kernel(CONFIGS, first, choice(times(64, 5.0, 4.0, None, None), key=(2,)), offered=2))
    shipped = records.table(record(kernel(CONFIGS, choice(times(64, 1, 1, 1, 1), key=(1,), chosen=3))))
    dummies = [{(KERNEL, (1,)): CONFIGS[0]}, {(KERNEL, (1,)): CONFIGS[3]}]
    fla = {(KERNEL, (1,)): CONFIGS[1], (KERNEL, (2,)): CONFIGS[0]}
    launches = [{"kernel": KERNEL, "key": [key], "moved": 2000} for key in (1, 2, 2)]
    found = report.Lookup(measured, shipped, dummies, 1e9).at(launches, 64, fla)
    entry = found["kernels"][KERNEL]
    assert list(found["kernels"]) == [KERNEL, f"{KERNEL} #2", f"{KERNEL} #3"]
    assert (entry["provider_best"]["us"], entry["wide_best"]["us"], entry["floor"]) == (10, 9, pytest.approx(2))
    assert (entry["fla_tuned"]["us"], entry["pick64"]["us"]) == (12, 10)
    assert entry["shipped"] == {"us": 13, "config": str(CONFIGS[3])}
    second = found["kernels"][f"{KERNEL} #2"]
    assert second["shipped"] is None
    assert (second["pick64"]["us"], second["pick64"]["retuned"]) == (5, True)
    assert found["pick64_sums"] == [20, 23]
    assert report.total({"one": entry})["shipped"] == 13
    assert report.Lookup(measured, shipped, [], 1e9).at(launches, 512, {})["kernels"][KERNEL]["provider_best"] is None
