"""What every executor must do, against each of them: real launches, the real compiler."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import MODULES, TestCluster
from msgspec import structs
from small import Reference, load, tasks, work

from gdn_aot.compiling.cache import BuildCache
from gdn_aot.compiling.cluster import RayExecutor
from gdn_aot.compiling.executor import Executor, LocalExecutor


@pytest.fixture(params=["local", "ray"])
def executor(request: pytest.FixtureRequest, said: list[str]) -> Iterator[Executor]:
    with ExitStack() as stack:
        if request.param == "local":
            yield LocalExecutor()
        else:
            cluster: TestCluster = request.getfixturevalue("cluster")
            yield stack.enter_context(RayExecutor(cluster.address, said.append))


@pytest.fixture(autouse=True)
def modules_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let compile workers here import what lies beside this file, as those on the nodes can."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(MODULES), os.environ.get("PYTHONPATH", "")]))


def test_everything_is_compiled_into_the_cache_here(executor: Executor, reference: Reference, tmp_path: Path) -> None:
    trace, order, job = load(reference, reference.traces(tmp_path / "cache"), tmp_path)
    wanted = tasks(trace, order, ptx=True)
    assert len(wanted) > 5
    options = wanted[0].specialization["options"]
    plain = {"signature": {"x": "*fp32"}, "constants": [], "attributes": [], "options": options}
    broken = structs.replace(wanted[0], number=10_000, module="gdn_aot_no_such_module", key="0" * 64)
    refused = structs.replace(
        wanted[0], number=10_001, module="refused", qualname="never", specialization=plain, key="1" * 64
    )
    answers = work(executor, order, [wanted[0], broken, refused, *wanted[1:]], job)
    assert "never for this shape" in (answers[10_001].rejected or "")
    rejected = order.cache.launch("1" * 64)
    assert rejected is not None, "a rejection is"
    assert rejected.rejected == answers.pop(10_001).rejected
    assert "No module named 'gdn_aot_no_such_module'" in (answers.pop(10_000).failed or "")
    assert order.cache.launch("0" * 64) is None, "a failure is never cached"
    known = BuildCache(reference.cache)
    for task in wanted:
        answer = answers[task.number]
        assert answer.failed is None
        assert answer.seconds > 0
        outcome, same = order.cache.launch(task.key), known.launch(task.key)
        assert outcome is not None
        assert outcome == same
        if answer.object is not None and outcome.object is not None:
            assert order.cache.object(answer.object) == outcome.object
            assert order.cache.cubin(outcome.object.cubin) == known.cubin(outcome.object.cubin)
            assert "\n.target sm_90" in order.cache.ptx(outcome.object.cubin)
    assert any(answer.object for answer in answers.values())
    assert sum(not answer.reused for answer in answers.values()) <= len(
        list((tmp_path / "cache" / "objects").rglob("*"))
    )


def test_a_slow_kernel_is_stopped_and_the_rest_goes_on(
    executor: Executor, reference: Reference, tmp_path: Path
) -> None:
    trace, order, job = load(reference, reference.traces(tmp_path / "cache"), tmp_path)
    first, *_ = tasks(trace, order)
    slow = structs.replace(first, number=10_000, module="asleep", key="2" * 64)
    answers = work(executor, replace(order, timeout=20.0), [slow, first], job)
    assert answers[10_000].failed == "the compiler did not finish in 20 s and was stopped"
    assert answers[first.number].failed is None
