"""A pool of forked compile workers that survives what compilers do: hang, crash, abort.

It lives in the process that imported the provider, so that workers start with everything imported. Each worker takes
one task at a time; one that passes its time limit is killed, one that dies is replaced, and the task is reported as
failed either way.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
"""``prctl`` options: the signal to get when the parent dies, and the process's name (Linux, sys/prctl.h)."""

Task = tuple[int, dict[str, Any]]
Answer = tuple[int, dict[str, Any]]


@dataclass(slots=True)
class _Worker:
    process: Any
    connection: Connection
    task: int | None = None
    deadline: float = float("inf")


class Pool:
    """Runs ``work(payload) -> answer`` in forked workers, each task for ``timeout`` seconds at most.

    What ``work`` raises is its own business: an exception that leaves it ends the worker.
    """

    def __init__(self, work: Callable[[dict[str, Any]], dict[str, Any]], jobs: int, timeout: float) -> None:
        self._work = work
        self._timeout = timeout
        self._context = multiprocessing.get_context("fork")
        self._workers = [self._start() for _ in range(jobs)]
        self._waiting: deque[Task] = deque()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(self._work, theirs, ours), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def connections(self) -> list[Connection]:
        """Return the connections on which `collect` may have something to read."""
        return [worker.connection for worker in self._workers]

    def seconds_left(self) -> float | None:
        """Return the seconds until the next task runs out of time, or None if nothing runs."""
        running = [worker.deadline for worker in self._workers if worker.task is not None]
        return max(0.0, min(running) - time.monotonic()) if running else None

    def submit(self, task: Task) -> None:
        """Queue a task and give it to an idle worker if there is one."""
        self._waiting.append(task)
        self._feed()

    def _feed(self) -> None:
        for worker in self._workers:
            if worker.task is None and self._waiting:
                number, payload = self._waiting.popleft()
                worker.task, worker.deadline = number, time.monotonic() + self._timeout
                worker.connection.send(payload)

    def collect(self) -> Iterator[Answer]:
        """Yield the answers that are there, and a failure for each worker that died or ran out of time."""
        for slot, worker in enumerate(self._workers):
            if worker.task is None:
                continue
            number = worker.task
            answer: dict[str, Any] | None = None
            try:
                if worker.connection.poll():
                    answer = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join()
                answer = {"failed": f"the compiler crashed ({ending(worker.process.exitcode)})"}
                self._workers[slot] = self._start()
            else:
                if answer is None and time.monotonic() >= worker.deadline:
                    worker.process.kill()
                    worker.process.join()
                    answer = {"failed": f"the compiler did not finish in {self._timeout:g} s and was stopped"}
                    self._workers[slot] = self._start()
            if answer is not None:
                worker.task = None
                yield number, answer
        self._feed()

    def close(self) -> None:
        """Kill every worker."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()


def ending(code: int | None) -> str:
    """Return how a process ended: ``signal SIGSEGV`` or ``exit status 1``."""
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"


def _serve(work: Callable[[dict[str, Any]], dict[str, Any]], connection: Connection, parents_end: Connection) -> None:
    parents_end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    while True:
        try:
            payload = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(work(payload))


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, however the parent dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(1)


def name_process(name: str) -> None:
    """Give this process the name that ``ps`` and ``top`` show, of which Linux keeps 15 characters."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())
