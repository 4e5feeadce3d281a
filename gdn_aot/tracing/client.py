"""The parent's handle on a worker process: start it, trace, compile, replay, end it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gdn_aot.errors import GdnAotError, UnsupportedTritonError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.launches import Config
    from gdn_aot.tracing.captured import CapturedKernels

    Extras = Mapping[str, Sequence[Config]]

KEPT_VARIABLES = ("TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH", "TRITON_LIBDEVICE_PATH")
"""Variables of Triton that choose tools; every other ``TRITON_*`` and ``FLA_*`` changes keys and is dropped."""

_SECONDS_TO_END = 5


class WorkerError(GdnAotError):
    """The worker process ended or refused; the message holds what it printed."""

    code = "worker"


class WorkerEndedError(WorkerError):
    """The worker process is gone without a word."""


class Worker:
    """One worker process for one (provider, target).

    Entering starts it and returns at once: importing the provider goes on in the background. Leaving ends it and all
    its children, however the block was left. With ``keep_settings`` it has the caller's variables of Triton and FLA, so
    that its keys are those of other processes with the same variables; else it has none that changes a key.
    """

    def __init__(self, provider: str, target: Target, *, keep_settings: bool = False) -> None:
        self._provider, self._target = provider, target
        self._keep_settings = keep_settings
        self._started = False

    def __enter__(self) -> Self:
        self._scratch = tempfile.mkdtemp(prefix="gdn-aot-")
        self._log = Path(self._scratch) / "log"
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gdn_aot.compiling.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(self._scratch, keep_settings=self._keep_settings),
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._send({"provider": self._provider, "target": self._target.name})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0 if kind else _SECONDS_TO_END)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def trace(
        self,
        shapes: Sequence[ModelShape],
        limits: Limits,
        workloads: Iterable[str],
        ptxas: str,
        *,
        derive: str = "",
        extras: Extras | None = None,
        tokens: Sequence[int] = (),
        capture: CapturedKernels | None = None,
    ) -> bytes:
        """Trace workloads for shapes. Returns the trace as JSON.

        Args:
            shapes: Model shapes.
            limits: Bounds on the calls.
            workloads: Names; those that this version of the provider lacks are left out.
            ptxas: The assembler's version, for the trace.
            derive: Candidates beyond the provider's: none, ``smaller`` or ``wide`` ones.
            extras: Further candidates per kernel, which a tuning record names. They come right after the provider's
                own, and only where `gdn_aot.tracing.wide` makes them of these.
            tokens: Token counts; the workloads' calls for tuning at these are traced in place of their cases, and
                `Trace.workloads` has an entry ``NAME@TOKENS`` for each pair.
            capture: Kernels of a capture, whose launches become those of one more workload.
        """
        path = Path(self._scratch) / "trace.json"
        self._send(
            {
                "do": "trace",
                "shapes": [asdict(shape) for shape in shapes],
                "limits": asdict(limits),
                "workloads": list(workloads),
                "ptxas": ptxas,
                "path": str(path),
                "derive": derive,
                "tokens": list(tokens),
                "capture": {"name": capture.name, "kernels": capture.plain} if capture else None,
                "extras": msgspec.to_builtins(dict(extras or {})),
            }
        )
        self.receive("traced")
        return path.read_bytes()

    def start_pool(self, cache: BuildCache, compiler: Mapping[str, str], jobs: int, timeout: float) -> None:
        """Fork ``jobs`` compile workers, each with ``timeout`` seconds per kernel."""
        self._send(
            {
                "do": "pool",
                "cache": str(cache.root.absolute()),
                "compiler": dict(compiler),
                "jobs": jobs,
                "timeout": timeout,
            }
        )

    def submit(self, task: int, payload: dict[str, Any]) -> None:
        """Queue one kernel for compiling."""
        self._send({"do": "compile", "task": task, "payload": payload})

    def replay(self, request: dict[str, Any]) -> dict[str, Any]:
        """Replay traffic against keys; see `gdn_aot.tracing.replay`."""
        self._send({"do": "coverage", **request})
        return self.receive("covered")

    def places(self, kernels: list[dict[str, Any]]) -> dict[str, Any]:
        """Find where Triton would look for binaries and choices; see `gdn_aot.tracing.seeding`."""
        self._send({"do": "seed", "kernels": kernels})
        return self.receive("placed")

    def ready(self) -> None:
        """Wait until the provider is imported; errors are those of `receive`."""
        if not self._started:
            self._started = True
            self.receive("started")

    def receive(self, event: str) -> dict[str, Any]:
        """Wait for the next message and check that it is ``event``.

        Raises:
            WorkerEndedError: The worker ended.
            WorkerError: The worker failed.
            UnsupportedTritonError: The worker found a Triton that it does not know.
        """
        if event != "started":
            self.ready()
        try:
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self._process.wait()
            raise WorkerEndedError(
                f"the worker for {self._provider} on {self._target} ended with status "
                f"{self._process.returncode}:\n{self.log_tail()}"
            ) from None
        if message["event"] == "error":
            if message["kind"] == "UnsupportedTritonError":
                raise UnsupportedTritonError(message["message"])
            raise WorkerError(
                f"the worker for {self._provider} on {self._target} failed: {message['kind']}: "
                f"{message['message']}\n{self.log_tail()}"
            )
        if message["event"] != event:
            raise WorkerError(f"expected {event} from the worker, got {message['event']}")
        return message

    def log_tail(self) -> str:
        """Return the last lines that the worker printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-12:])

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._connection.send_bytes(json.dumps(message).encode())
        except OSError:
            self.receive("started")  # reports why it is gone


def _environment(scratch: str, *, keep_settings: bool) -> dict[str, str]:
    dropped = ("LD_PRELOAD",) if keep_settings else ("TRITON_", "FLA_", "LD_PRELOAD")
    kept = {name: value for name, value in os.environ.items() if name in KEPT_VARIABLES or not name.startswith(dropped)}
    if not keep_settings:
        kept["TRITON_DISABLE_LINE_INFO"] = "1"
    package_root = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join([package_root, *filter(None, [kept.get("PYTHONPATH")])])
    return {
        **kept,
        "PYTHONPATH": path,
        "PYTHONHASHSEED": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "TRITON_CACHE_DIR": scratch,
        "GDN_AOT_SCRATCH": scratch,
        "GDN_AOT": "0",
    }
