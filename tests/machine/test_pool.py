"""The pool of compile workers, with real processes that answer, crash, and hang."""

import faulthandler
import os
import re
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

import pytest

from gdn_aot.machine.pool import Pool

_LONG = 60.0


def _work(payload: dict[str, Any]) -> dict[str, Any]:
    match payload["do"]:
        case "exit":
            os._exit(7)
        case "crash":
            faulthandler.disable()  # pytest's, inherited
            os.kill(os.getpid(), signal.SIGSEGV)
        case "raise":
            os.close(2)  # the traceback of the worker
            raise ValueError("a bug in the work")
        case "hang":
            time.sleep(1000)
    return {"answer": payload["value"], "pid": os.getpid()}


@pytest.fixture
def pools() -> Iterator[list[Pool]]:
    made: list[Pool] = []
    yield made
    for pool in made:
        pool.close()


def _pool(pools: list[Pool], jobs: int = 2, timeout: float = _LONG) -> Pool:
    pools.append(Pool(_work, jobs, timeout))
    return pools[-1]


def _run(pool: Pool, tasks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    for number, payload in enumerate(tasks):
        pool.submit((number, payload))
    answers: dict[int, dict[str, Any]] = {}
    while pool.seconds_left() is not None:
        assert wait(pool.connections(), pool.seconds_left()) or pool.seconds_left() == 0
        for number, answer in pool.collect():
            assert number not in answers
            answers[number] = answer
    return answers


def _ask(value: int) -> dict[str, Any]:
    return {"do": "answer", "value": value}


def test_every_task_is_answered_once(pools: list[Pool]) -> None:
    pool = _pool(pools)
    answers = _run(pool, [_ask(value) for value in range(20)])
    assert {number: answer["answer"] for number, answer in answers.items()} == {n: n for n in range(20)}
    assert os.getpid() not in {answer["pid"] for answer in answers.values()}
    assert pool.seconds_left() is None


@pytest.mark.parametrize(
    ("do", "timeout", "message"),
    [
        ("exit", _LONG, "crashed.*exit status 7"),
        ("crash", _LONG, "crashed.*signal SIGSEGV"),
        ("raise", _LONG, "crashed.*exit status 1"),
        ("hang", 3.0, "did not finish in 3 s"),
    ],
)
def test_a_worker_that_dies_or_hangs_fails_its_task_only(
    pools: list[Pool], do: str, timeout: float, message: str
) -> None:
    answers = _run(_pool(pools, timeout=timeout), [_ask(0), {"do": do}, *map(_ask, range(2, 8)), {"do": do}, _ask(9)])
    failed = {number: answer["failed"] for number, answer in answers.items() if "failed" in answer}
    assert set(failed) == {1, 8}
    assert all(re.search(message, text) for text in failed.values())
    assert {answers[n]["answer"] for n in answers if n not in failed} == {0, *range(2, 8), 9}


def test_one_worker_survives_its_own_death(pools: list[Pool]) -> None:
    answers = _run(_pool(pools, jobs=1), [{"do": "crash"}, _ask(1), {"do": "exit"}, _ask(3)])
    assert ["failed" in answers[number] for number in range(4)] == [True, False, True, False]


def _children() -> set[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:  # noqa: PTH123
        return set(map(int, file.read().split()))


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "hanging"])
def test_close_leaves_no_child(*, busy: bool) -> None:
    before = _children()
    pool = Pool(_work, 3, _LONG)
    assert len(_children() - before) == 3
    if busy:
        for number in range(5):
            pool.submit((number, {"do": "hang"}))
    pool.close()
    assert _children() - before == set()


def test_workers_end_when_their_parent_is_killed() -> None:
    ours, theirs = os.pipe()
    parent = os.fork()
    if parent == 0:  # pragma: no cover - another process
        os.close(ours)
        pool = Pool(_work, 2, _LONG)
        pool.submit((0, {"do": "hang"}))
        os.write(theirs, b"ready")
        time.sleep(1000)
        os._exit(0)
    os.close(theirs)
    assert os.read(ours, 5) == b"ready"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    # The workers hold the other end of the pipe: it closes when the last of them is gone.
    assert wait([ours], timeout=_LONG) == [ours]
    assert os.read(ours, 1) == b""
    os.close(ours)
