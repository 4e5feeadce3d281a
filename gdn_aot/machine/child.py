"""A process that may crash, hang or run out of memory without taking its parent along: both ends.

Messages are JSON objects over a socket. The child also keeps a *note* of what it is about to do in a page of shared
memory, which costs it no system call and which the parent can still read when the child is gone: an illegal memory
access ends a whole CUDA context, and a kernel that never returns can only be killed.

Children are forked by a `gdn_aot.machine.zygote`, so that the second one does not import PyTorch again. The current
directory of a child is its scratch folder: it runs no code of the caller's.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import mmap
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gdn_aot.errors import NotWritableError
from gdn_aot.machine import scratch, zygote
from gdn_aot.machine.environment import child_environment
from gdn_aot.machine.pool import ending

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

_PAGE = 16384
"""Bytes of the note: a counter of 8, a length of 8, and text."""
_SECONDS_TO_END = 5.0
_TAIL = 12
"""Last lines of a child's output that are shown."""
_POLL_SECONDS = 1.0


class EndedError(Exception):
    """The child crashed, was killed or said nothing for too long.

    Attributes:
        reason: What happened, in a sentence.
        note: What it had noted last.
        status: What it ended with; negative for a signal, None if it was killed here.
    """

    def __init__(self, reason: str, note: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.note, self.status = reason, note, status


class Notes:
    """The shared page; written by the child, read by the parent."""

    def __init__(self, path: str | Path) -> None:
        with open(path, "r+b") as file:  # noqa: PTH123
            self._page = mmap.mmap(file.fileno(), _PAGE)
        self._count = 0

    def write(self, text: str) -> None:
        """Note what is about to be done."""
        data = text.encode()[: _PAGE - 16]
        self._count += 1
        self._page[16 : 16 + len(data)] = data
        self._page[8:16] = len(data).to_bytes(8, "little")
        self._page[:8] = self._count.to_bytes(8, "little")

    def read(self) -> tuple[int, str]:
        """Return (number of notes so far, the last one)."""
        size = int.from_bytes(self._page[8:16], "little")
        return int.from_bytes(self._page[:8], "little"), self._page[16 : 16 + size].decode(errors="replace")


class Child:
    """A child process whose ``main`` is that of a module. Entering starts it and returns at once.

    Args:
        module: The module; its ``main`` calls `serve`, or reads ``sys.argv``: the connection's descriptor and the note.
        silence: Seconds without a message and without a new note after which the child counts as hanging; None to wait
            as long as it takes.
        variables: Environment variables to add.
        keep_settings: Leave the caller's variables of Triton, FLA and SGLang, so that the child's keys are those of
            other processes with the same variables; else it has none that changes a key.

    Raises:
        NotWritableError: On entering, where there is no room for its log and its note.
    """

    def __init__(
        self,
        module: str,
        *,
        silence: float | None = None,
        variables: Mapping[str, str] | None = None,
        keep_settings: bool = False,
    ) -> None:
        self._module, self.silence = module, silence
        self._variables, self._keep_settings = dict(variables or {}), keep_settings

    def __enter__(self) -> Self:
        self.scratch = scratch.make(self._module.rpartition(".")[2])
        self._log = Path(self.scratch) / "log"
        page = Path(self.scratch) / "note"
        try:
            page.write_bytes(bytes(_PAGE))
            self._log.touch()
        except OSError as error:
            raise NotWritableError(
                f"cannot write to {self.scratch}: {error.strerror}", hint="free space there, or set TMPDIR"
            ) from error
        self.notes = Notes(page)
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("wb") as log:
            environment = child_environment(self.scratch, self._variables, keep_settings=self._keep_settings)
            self._status = _fork(self._module, [str(page)], environment, [theirs.fileno(), log.fileno()])
        self._connection = Connection(ours.detach())
        self._pid: int | None = None
        self._ended: int | None = None
        self._ending_lock = threading.Lock()
        self.over = False
        return self

    @property
    def pid(self) -> int:
        """Its process id, as soon as it has been forked; 0 if it never was."""
        if self._pid is None:
            data = os.read(self._status, zygote.STATUS.size)
            self._pid = zygote.STATUS.unpack(data)[0] if data else 0
        return self._pid

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(at_once=kind is not None)

    def end(self, *, at_once: bool) -> None:
        """End it and all that it started, after its last message or at once."""
        if not at_once and not self.over:
            self._connection.close()
            self._wait(_SECONDS_TO_END)
        self.kill()
        with self._ending_lock:
            if not self.over:
                self.over = True
                self._connection.close()
                os.close(self._status)
        shutil.rmtree(self.scratch, ignore_errors=True)  # whatever that leaves goes with the folder it is in

    def kill(self) -> None:
        """Kill it and all that it started, now. Any thread may."""
        with self._ending_lock:
            if not self.over and self.pid:
                for kill in (os.killpg, os.kill):  # it leads its group as soon as it runs
                    with contextlib.suppress(ProcessLookupError):
                        kill(self.pid, signal.SIGKILL)
                self._wait(_SECONDS_TO_END)

    def _wait(self, seconds: float) -> int | None:
        """Wait until it has ended. Returns its status, or None if it goes on."""
        if self._ended is None and not self.over and self.pid and select.select([self._status], [], [], seconds)[0]:
            data = os.read(self._status, zygote.STATUS.size)
            self._ended = zygote.STATUS.unpack(data)[0] if data else -signal.SIGKILL  # with the zygote, which is gone
        return self._ended

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; that the child is gone shows in `receive`."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """Wait for the next message; its ``event`` says what it is.

        Raises:
            EndedError: The child ended, sent ``died`` with a ``reason``, or hung and was killed.
        """
        self._await_sign()
        try:
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            status = self._wait(_SECONDS_TO_END)
            said = self.log_tail().splitlines()[-1:]
            reason = ": ".join([f"its process ended with {ending(status)}", *said])
            raise EndedError(reason, self.notes.read()[1], status) from None
        if message["event"] == "died":
            self.kill()
            raise EndedError(message["reason"], self.notes.read()[1])
        return message

    def _await_sign(self) -> None:
        """Wait for a message for as long as there are signs of life."""
        if self.silence is None:
            return
        count, since = self.notes.read()[0], time.monotonic()
        while not self._poll(min(_POLL_SECONDS, self.silence / 4)):
            now = self.notes.read()[0]
            if now != count:
                count, since = now, time.monotonic()
            elif time.monotonic() - since > self.silence:
                self.kill()
                raise EndedError(f"it did nothing for {self.silence:g} s and was killed", self.notes.read()[1])

    def _poll(self, seconds: float) -> bool:
        try:
            return self._connection.poll(seconds)
        except OSError:
            return True

    def log_tail(self) -> str:
        """Return the last lines that the child printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_TAIL:])


_AT_START = ("PYTHON", "LD_", "OMP_", "MKL_", "KMP_", "GOMP_", "TORCH")
"""Variables that count when an interpreter starts or PyTorch is imported: each set of them has a zygote of its own."""
_zygotes: dict[tuple[tuple[str, str], ...], tuple[socket.socket, subprocess.Popen[bytes]]] = {}
_lock = threading.Lock()


def _fork(module: str, argv: list[str], environment: dict[str, str], descriptors: list[int]) -> int:
    """Have a child forked. Returns what its process id and then its status can be read from, when it is there."""
    request = {"module": module, "argv": argv, "environment": environment}
    key = tuple(sorted((name, value) for name, value in environment.items() if name.startswith(_AT_START)))
    status, theirs = os.pipe2(os.O_CLOEXEC)
    with _lock:
        if key in _zygotes and _zygotes[key][1].poll() is not None:
            _end_zygote(*_zygotes.pop(key))
        if key not in _zygotes:
            _zygotes[key] = _start_zygote(environment)
        with contextlib.suppress(OSError):  # that it is gone shows when something is received
            zygote.send_request(_zygotes[key][0], request, [*descriptors, theirs])
    os.close(theirs)
    return status


def _start_zygote(environment: Mapping[str, str]) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", zygote.START, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**environment, "TMPDIR": str(Path(environment["TMPDIR"]).parent)},
            cwd="/",
            start_new_session=True,
        )
    return ours, process


def _end_zygote(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@atexit.register
def _end_all() -> None:
    scratch.end()  # a zygote removes what is left of it, and need not wait for it
    while _zygotes:
        _end_zygote(*_zygotes.popitem()[1])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_zygotes.clear)


class Channel:
    """The child's end: messages to and from the parent, and the note."""

    def __init__(self, descriptor: int, page: str) -> None:
        self.connection = Connection(descriptor)
        self.notes = Notes(page)

    def receive(self) -> dict[str, Any] | None:
        """Return the next message, or None when the parent wants no more."""
        try:
            message: dict[str, Any] = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None
        return message

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        self.connection.send_bytes(json.dumps(message).encode())


class Serves(Protocol):
    """What a child makes of its first message, and hands the others to."""

    def serve(self, request: dict[str, Any]) -> None:
        """Answer one message."""
        ...


def serve(make: Callable[[Channel, dict[str, Any]], Serves]) -> None:
    """Be the child of a `Child` until the parent wants no more: ends with it, and prints to the log.

    Args:
        make: Called with the first message. An error that it or what it returns raises is sent as ``died``, and ends
            the process with status 1.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(int(sys.argv[1]), sys.argv[2])
    logging.disable(logging.INFO)
    request = channel.receive()
    try:
        if request is not None:
            server = make(channel, request)
            while (request := channel.receive()) is not None:
                server.serve(request)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        channel.send(
            {"event": "died", "kind": type(error).__name__, "reason": f"{type(error).__name__}: {first_line(error)}"}
        )
        sys.exit(1)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip().splitlines() or [""])[0][:300]
