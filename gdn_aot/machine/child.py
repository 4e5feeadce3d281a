"""A process that may crash, hang or run out of memory without taking its parent along: both ends.

For work on a GPU: an illegal memory access ends the whole CUDA context, and a kernel that never returns can only be
killed. Messages are JSON objects over a socket. The child also keeps a *note* of what it is about to do in a page of
shared memory, which costs it no system call and which the parent can still read when the child is gone.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gdn_aot.tracing.client import KEPT_VARIABLES

if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

_PAGE = 16384
"""Bytes of the note: a counter of 8, a length of 8, and text."""
_SECONDS_TO_END = 5.0
_TAIL = 12
"""Last lines of a child's output that are shown."""


class EndedError(Exception):
    """The child crashed, was killed or said nothing for too long.

    Attributes:
        reason: What happened, in a sentence.
        note: What it had noted last.
    """

    def __init__(self, reason: str, note: str) -> None:
        super().__init__(reason)
        self.reason, self.note = reason, note


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


class Isolated:
    """A child process that runs ``python -m MODULE FD NOTES``. Entering starts it and returns at once.

    Args:
        module: The module; its ``main`` calls `serve`.
        silence: Seconds without a message and without a new note after which the child counts as hanging.
        variables: Environment variables to add.
    """

    def __init__(self, module: str, *, silence: float, variables: Mapping[str, str] | None = None) -> None:
        self._module, self.silence = module, silence
        self._variables = dict(variables or {})

    def __enter__(self) -> Self:
        import socket

        self._scratch = tempfile.mkdtemp(prefix="gdn-aot-")
        self._log = Path(self._scratch) / "log"
        page = Path(self._scratch) / "note"
        page.write_bytes(bytes(_PAGE))
        self.notes = Notes(page)
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("wb") as log:
            self._process = self._start(theirs, page, log)
        self._connection = Connection(ours.detach())
        return self

    def _start(self, theirs: _socket.socket, page: Path, log: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", self._module, str(theirs.fileno()), str(page)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(self._scratch, self._variables),
            start_new_session=True,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0 if kind else _SECONDS_TO_END)
        self.kill()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def kill(self) -> None:
        """Kill it and all that it started, now."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; that the child is gone shows in `receive`."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """Wait for the next message; its ``event`` says what it is.

        Raises:
            EndedError: The child ended, sent ``died`` with a ``reason``, or hung and was killed.
        """
        count, since = self.notes.read()[0], time.monotonic()
        while not self._poll():
            now = self.notes.read()[0]
            if now != count:
                count, since = now, time.monotonic()
            elif time.monotonic() - since > self.silence:
                self.kill()
                raise EndedError(f"it did nothing for {self.silence:g} s and was killed", self.notes.read()[1])
        try:
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self._process.wait()
            raise EndedError(self._ending(), self.notes.read()[1]) from None
        if message["event"] == "died":
            self.kill()
            raise EndedError(message["reason"], self.notes.read()[1])
        return message

    def _poll(self) -> bool:
        try:
            return self._connection.poll(min(1.0, self.silence / 4))
        except OSError:
            return True

    def _ending(self) -> str:
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        tail = self.log_tail()
        return f"its process ended with {how}" + (f": {tail.splitlines()[-1]}" if tail else "")

    def log_tail(self) -> str:
        """Return the last lines that the child printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_TAIL:])


def _environment(scratch: str, variables: Mapping[str, str]) -> dict[str, str]:
    dropped = ("TRITON_", "FLA_", "LD_PRELOAD")
    passed_on = (*KEPT_VARIABLES, "TRITON_LIBCUDA_PATH")
    kept = {name: value for name, value in os.environ.items() if name in passed_on or not name.startswith(dropped)}
    root = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join([root, *filter(None, [kept.get("PYTHONPATH")])])
    return {
        **kept,
        "PYTHONPATH": path,
        "TRITON_CACHE_DIR": str(Path(scratch) / "triton"),
        "GDN_AOT_SCRATCH": scratch,
        "GDN_AOT": "0",
        **variables,
    }


class Channel:
    """The child's end: messages to and from the parent, and the note."""

    def __init__(self, descriptor: int, page: str) -> None:
        self._connection = Connection(descriptor)
        self.notes = Notes(page)

    def receive(self) -> dict[str, Any] | None:
        """Return the next message, or None when the parent wants no more."""
        try:
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            return None
        return message

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        self._connection.send_bytes(json.dumps(message).encode())


class Serves(Protocol):
    """What a child makes of its first message, and hands the others to."""

    def serve(self, request: dict[str, Any]) -> None:
        """Answer one message."""
        ...


def serve(make: Callable[[Channel, dict[str, Any]], Serves]) -> None:
    """Be a child of `Isolated` until the parent wants no more: ends with it, and prints to the log.

    Args:
        make: Called with the first message. An error that it or what it returns raises is sent as ``died``, and ends
            the process with status 1.
    """
    import logging

    from gdn_aot.machine.pool import end_with_parent

    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(int(sys.argv[1]), sys.argv[2])
    os.dup2(2, 1)
    logging.disable(logging.INFO)
    request = channel.receive()
    try:
        if request is not None:
            server = make(channel, request)
            while (request := channel.receive()) is not None:
                server.serve(request)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        channel.send({"event": "died", "reason": f"{type(error).__name__}: {first_line(error)}"})
        sys.exit(1)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip().splitlines() or [""])[0][:300]
