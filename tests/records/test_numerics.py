"""Numerics records of several runs in one file."""

from pathlib import Path

import pytest
from helpers import ROOT
from msgspec.structs import replace

from gdn_aot.records import numerics as r
from gdn_aot.records.files import RecordedDevice

KDA = ("kimi-linear-48b-a3b tp 1 bf16",)


@pytest.fixture
def made() -> r.NumericsRecord:
    found = r.load(ROOT / "artifacts/numerics/sm_80/fla-core-0.6.0.json")
    assert found is not None
    kernel = replace(found.kernels[0], launches=7, binaries=2, choices=("0" * 16, "a" * 16))
    return replace(found, models=found.models[:1], checks=found.checks[:1], kernels=(kernel,))


def test_runs_of_different_models_on_one_card_are_one_record(made: r.NumericsRecord, tmp_path: Path) -> None:
    (kernel,) = made.kernels
    same = replace(kernel, launches=3, binaries=1, choices=("0" * 16, "b" * 16))
    other = replace(same, kernel="fla.ops.kda.chunk:only_there")
    checks = (replace(made.checks[0], model="kimi-linear-48b-a3b"),)
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
    assert r.merge(both, new) is new, "one of them was checked anew"


def test_a_fault_of_either_run_is_one_of_both(made: r.NumericsRecord) -> None:
    bad = replace(made, status="failed", kernels=(replace(made.kernels[0], ok=False),))
    other = {"models": KDA, "checks": (replace(made.checks[0], model="kimi-linear-48b-a3b"),)}
    for both in (r.merge(made, replace(bad, **other)), r.merge(bad, replace(made, **other))):
        assert both.status == "failed"
        assert [kernel.ok for kernel in both.kernels] == [False]


def test_what_is_not_alike_replaces_what_was_there(made: r.NumericsRecord) -> None:
    new = replace(made, models=KDA)
    assert r.merge(None, new) is new
    assert r.merge(made, made) is made
    card = RecordedDevice(name="NVIDIA H100 80GB HBM3", driver="1")
    for other in ({"device": card}, {"how": "not run there"}, {"triton": "3.5.0"}, {"ptxas": "1"}, {"target": "sm_75"}):
        assert r.merge(replace(made, **other), new) is new
