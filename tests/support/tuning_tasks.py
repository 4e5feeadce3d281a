"""Tasks for the tuner on the simulated card, with kernels that are really compiled, and what it made of them."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import SUPPORT
from jobs import make_job

from gdn_aot.catalogue.providers import Limits
from gdn_aot.catalogue.targets import get_target
from gdn_aot.measuring.client import Method
from gdn_aot.measuring.plan import TuneTask
from gdn_aot.records.objective import DEFAULT
from gdn_aot.records.tuning import MeasuredChoice, TuningRecord, load, record_path

SHAPE = "heads=2,v_heads=4,k_dim=64,v_dim=64,dtype=bf16"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build cache that all tests share: the same kernels are compiled once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def task(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TuneTask]:
    """Make a task: the gated norm of one small shape, or of ``shapes``."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]))

    def make(*, tokens: tuple[int, ...] = (64, 512, 2048), silence: float = 120.0, **changes: Any) -> TuneTask:
        options = {"target": "sm_90", **changes.pop("card", {})}
        limits, every = Limits(max_tokens=max(tokens), max_batch=1), {"all_candidates": True, "keep_going": True}
        shapes = changes.pop("shapes", [SHAPE])
        made = TuneTask(
            job=make_job(compiled, tmp_path, shapes=shapes, workloads=["gated-norm"], limits=limits, **every),
            target=get_target("sm_90"),
            method=Method(
                provider="fla",
                limits=limits,
                tokens=tokens,
                gate_tokens=(37,),
                rounds=6,
                search_seconds=2.0,
                silence=silence,
                card="simulated:Card",
                options=options,
            ),
            objective=DEFAULT,
            search="provider",
            budget=None,
            resume=False,
            path=record_path(tmp_path / "tuning", "sm_90", "fla-core", "0.6.0"),
        )
        return replace(made, **changes)

    return make


def quiet(done: int, total: int, text: str) -> None:
    del done, total, text


def at_call(number: int, act: Callable[[], object]) -> Callable[[int, int, str], None]:
    """Return a progress that acts once so many calls were told of."""
    calls = 0

    def progress(done: int, total: int, text: str) -> None:
        nonlocal calls
        del done, total
        calls += " calls" in text
        if calls == number and " calls" in text:
            act()

    return progress


def interrupt() -> None:
    raise KeyboardInterrupt


def recorded(task: TuneTask) -> TuningRecord:
    """Return the record that a task has written."""
    found = load(task.path)
    assert found is not None
    return found


def choices_of(record: TuningRecord) -> list[MeasuredChoice]:
    return [choice for kernel in record.kernels for choice in kernel.choices]
