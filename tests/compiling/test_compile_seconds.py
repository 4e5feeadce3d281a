"""What a compile is said to have taken: CPU time, that of the assembler included and waiting left out."""

import contextlib
import stat
import sys
from pathlib import Path

import pytest
import triton
from jobs import make_job

from gdn_aot.building import pipeline
from gdn_aot.catalogue.providers import Limits
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.compilation import Compilation
from gdn_aot.compiling.executor import Answer, LocalCompiling

_REAL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas-blackwell"
_FAKE = """#!{python}
import os, sys, time
if "--version" not in sys.argv and "/dev/null" not in sys.argv:
    {then}
os.execv("{real}", ["{real}", *sys.argv[1:]])
"""
_WAITS, _BURNS = 4.0, 1.0
"""Seconds that the assembler sleeps, and that it computes."""


def _compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compilation:
    fake = tmp_path / "ptxas-blackwell"
    then = f"time.sleep({_WAITS})\n    while time.process_time() < {_BURNS}: pass"
    fake.write_text(_FAKE.format(python=sys.executable, real=_REAL, then=then))
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("TRITON_PTXAS_BLACKWELL_PATH", str(fake))
    shape = "heads=2,v_heads=2,k_dim=64,v_dim=64,dtype=bf16"
    limits = Limits(max_tokens=64, max_batch=1)
    job = make_job(
        tmp_path / "cache", tmp_path, shapes=[shape], workloads=["gated-norm"], limits=limits, jobs=1, timeout=300
    )
    with contextlib.ExitStack() as stack:
        target = get_target("sm_120")
        lazy = pipeline.LazyWorker(stack, "fla", target)
        return pipeline.compile_target(job, target, lazy, lambda *_: None).run


def test_computing_counts_and_waiting_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Answer] = []
    receive = LocalCompiling.receive

    def heard(workers: LocalCompiling) -> Answer:
        answers.append(receive(workers))
        return answers[-1]

    monkeypatch.setattr(LocalCompiling, "receive", heard)
    run = _compiled(tmp_path, monkeypatch)
    compiled = [answer.seconds for answer in answers if not answer.reused]
    assert compiled
    assert all(_BURNS <= seconds < _WAITS for seconds in compiled), compiled
    assert sum(answer.seconds for answer in answers) == pytest.approx(sum(run.spent.values()))
    assert all(answer.object is not None for answer in answers)
