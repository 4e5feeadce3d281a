"""A process that has imported what is slow to import, and forks the processes that need it: it imports once for all.

`gdn_aot.machine.child` starts it and asks it, over a socket, for a child to be forked. A request is a JSON object and
three descriptors: the child's end of its connection, its log, and a pipe on which its process id is written and later
the status it ended with, four bytes each. When the asking end is closed, it kills all that it forked, removes the
scratch folder if the asking process was killed and left it, and ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import traceback
from typing import TYPE_CHECKING, NoReturn

from gdn_aot.machine import scratch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PRELOAD = ("torch", "triton.language", "torch._dynamo", "torch._inductor.compile_fx")
"""What every provider imports, whatever the device. The providers themselves look at the device when they are."""
STATUS = struct.Struct("=i")
ABSOLUTE = "import sys; sys.path[:] = [place for place in sys.path if place[:1] == '/']; "
"""The beginning of a program that imports nothing from the current directory."""
START = ABSOLUTE + "from gdn_aot.machine.zygote import main; main()"
"""The program of a zygote."""
_MOST_BYTES = 1 << 20
"""Of a request; most of it is the environment."""


def send_request(control: socket.socket, request: Mapping[str, Any], descriptors: list[int]) -> None:
    """Ask for a child: ``module``, ``argv``, and ``environment``, whose ``TMPDIR`` is its folder; three descriptors."""
    data = json.dumps(request).encode()
    socket.send_fds(control, [struct.pack("=I", len(data))], descriptors)
    control.sendall(data)


def _receive_request(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    head, descriptors, _, _ = socket.recv_fds(control, 4, 3)
    if len(head) < 4:  # noqa: PLR2004
        return None
    left, parts = struct.unpack("=I", head)[0], []
    while left and (part := control.recv(min(left, _MOST_BYTES))):
        parts.append(part)
        left -= len(part)
    request: dict[str, Any] = json.loads(b"".join(parts))
    return request, list(descriptors)


def _become(request: Mapping[str, Any], descriptors: list[int]) -> NoReturn:
    """Be the child: run its module, and end with the status that it gives."""
    from gdn_aot.machine.pool import end_with_parent, name_process

    connection, log, _ = descriptors
    status = 1
    try:
        os.setsid()
        end_with_parent()
        name_process(f"gdn-aot {request['module'].rpartition('.')[2]}")
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(os.environ["TMPDIR"])
        tempfile.tempdir = None
        sys.argv = [request["module"], str(connection), *request["argv"]]
        importlib.import_module(request["module"]).main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


class _Zygote:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, int] = {}
        """Process id -> where to write its status."""
        self._scratch: set[str] = set()
        """Folders of those that asked, which have the children's in them."""

    def serve(self) -> None:
        """Fork what is asked for, until nobody asks any more."""
        wakeup, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        try:
            while True:
                ready, _, _ = select.select([self._control.fileno(), wakeup], [], [])
                if wakeup in ready:
                    os.read(wakeup, 4096)
                    self._reap()
                if self._control.fileno() in ready and not self._fork([wakeup, signalled]):
                    return
        finally:
            for pid in self._children:
                for kill in (os.killpg, os.kill):  # it leads its group as soon as it runs
                    with contextlib.suppress(ProcessLookupError):
                        kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            for folder in self._scratch:
                scratch.remove_left(folder)

    def _fork(self, own: list[int]) -> bool:
        asked = _receive_request(self._control)
        if asked is None:
            return False
        request, descriptors = asked
        self._scratch.add(os.path.dirname(request["environment"]["TMPDIR"]))  # noqa: PTH120
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            self._control.close()
            for descriptor in [*own, *self._children.values()]:
                os.close(descriptor)
            _become(request, descriptors)
        connection, log, status = descriptors
        os.close(connection)
        os.close(log)
        self._children[pid] = status
        self._tell(status, pid)
        return True

    def _reap(self) -> None:
        for pid in list(self._children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                descriptor = self._children.pop(pid)
                self._tell(descriptor, os.waitstatus_to_exitcode(status))
                os.close(descriptor)

    @staticmethod
    def _tell(descriptor: int, number: int) -> None:
        with contextlib.suppress(OSError):  # whoever asked may not wait for it any more
            os.write(descriptor, STATUS.pack(number))


def _forks_may_use_cuda() -> bool:
    """Ask PyTorch, in a fork, whether a fork of this process may use CUDA: not if something here asked the driver."""
    torch: Any = sys.modules.get("torch")
    pid = os.fork()
    if pid == 0:
        os._exit(int(torch is not None and torch.cuda._is_in_bad_fork()))  # noqa: SLF001
    return os.waitpid(pid, 0)[1] == 0


def main() -> None:
    """Serve on the socket whose descriptor is the first argument; a second one says to import nothing ahead."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # Some of these ask whether there is a device when they are imported. With this PyTorch asks NVML and not CUDA.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    if "bare" not in sys.argv:
        for name in PRELOAD:
            with contextlib.suppress(Exception):  # whoever needs it says why it cannot be imported
                importlib.import_module(name)
        if threading.active_count() > 1 or not _forks_may_use_cuda():
            os.execv(sys.executable, [sys.executable, "-c", START, sys.argv[1], "bare"])  # noqa: S606
    gc.collect()
    gc.freeze()
    _Zygote(control).serve()
