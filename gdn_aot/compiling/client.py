"""The parent's handle on the worker process of one target, which traces, compiles and replays; see `worker`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gdn_aot.errors import DeploymentError, GdnAotError, UnsupportedProviderError, UnsupportedTritonError
from gdn_aot.machine.child import Child, EndedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    from gdn_aot.catalogue.providers import ProviderCopy
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.tracing.wanted import Wanted
    from gdn_aot.tracing.wide import Extras

MODULE = "gdn_aot.compiling.worker"
_RAISED = {error.__name__: error for error in (UnsupportedProviderError, UnsupportedTritonError)}
"""Errors of a worker that are raised here as they are."""
_SETTINGS = {"CUDA_VISIBLE_DEVICES": "", "TRITON_DISABLE_LINE_INFO": "1"}


def nobody(done: int, total: int, what: str) -> None:
    """Be told nothing."""


class WorkerError(GdnAotError, code="worker"):
    """The worker process ended or refused; the message holds what it printed."""


class WorkerEndedError(WorkerError):
    """The worker process is gone without a word."""


class Worker(Child):
    """One worker process for one (provider, target).

    Entering starts it and returns at once: importing the provider goes on in the background. Leaving ends it and all
    its children, however the block was left. With ``keep_settings`` it has the caller's variables of Triton, FLA and
    SGLang, so that its keys are those of other processes with the same variables; else it has none that changes a key.
    A ``copy`` is imported in place of what is installed.
    """

    def __init__(
        self, provider: str, target: Target, *, keep_settings: bool = False, copy: ProviderCopy | None = None
    ) -> None:
        variables = {name: value for name, value in _SETTINGS.items() if not (keep_settings and "TRITON" in name)}
        super().__init__(MODULE, variables=variables, keep_settings=keep_settings)
        self._provider, self._target, self._copy = provider, target, copy
        self._started = False
        self.far: Callable[[int, int, str], None] = nobody
        """Is told how far a trace or a replay is: steps done, steps in all, the present one."""

    def __enter__(self) -> Self:
        super().__enter__()
        copy = self._copy and {"folder": self._copy.folder, "module": self._copy.module, "version": self._copy.version}
        self.send({"provider": self._provider, "target": self._target.name, "copy": copy})
        return self

    def trace(
        self, wanted: Wanted, ptxas: str, *, derive: str = "", extras: Extras | None = None, tokens: Sequence[int] = ()
    ) -> bytes:
        """Trace what is wanted, with the assembler's version. Returns the trace as JSON.

        ``derive`` asks for candidates beyond the provider's: none, ``relieved`` or ``wide`` ones. ``extras`` are
        further ones per kernel that a tuning record names: they come right after the provider's own, if
        `gdn_aot.tracing.wide` makes them. With ``tokens`` the workloads' calls for tuning at these counts are traced in
        place of their cases, and `Trace.workloads` has an entry ``NAME@TOKENS`` for each pair.
        """
        path, capture = Path(self.scratch) / "trace.json", wanted.capture
        self.send(
            {
                "do": "trace",
                "shapes": [asdict(shape) for shape in wanted.distinct_for(self._target)],
                "limits": asdict(wanted.limits),
                "workloads": list(wanted.workloads),
                "ptxas": ptxas,
                "path": str(path),
                "derive": derive,
                "tokens": list(tokens),
                "capture": {"name": capture.name, "kernels": capture.plain} if capture else None,
                "deployment": msgspec.to_builtins(wanted.deployment),
                "extras": msgspec.to_builtins(dict(extras or {})),
            }
        )
        self.expect("traced")
        return path.read_bytes()

    def start_pool(self, cache: BuildCache, compiler: Mapping[str, str], jobs: int, timeout: float) -> None:
        """Fork ``jobs`` compile workers, each with ``timeout`` seconds per kernel."""
        self.send(
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
        self.send({"do": "compile", "task": task, "payload": payload})

    def replay(self, request: dict[str, Any]) -> dict[str, Any]:
        """Replay traffic against keys; see `gdn_aot.tracing.replay`."""
        self.send({"do": "coverage", **request})
        return self.expect("covered")

    def places(self, kernels: list[dict[str, Any]]) -> dict[str, Any]:
        """Find where Triton would look for binaries and choices; see `gdn_aot.tracing.seeding`."""
        self.send({"do": "seed", "kernels": kernels})
        return self.expect("placed")

    def ready(self) -> None:
        """Wait until the provider is imported; errors are those of `expect`."""
        if not self._started:
            self._started = True
            self.expect("started")

    def expect(self, event: str) -> dict[str, Any]:
        """Wait for the next message and check that it is ``event``.

        Raises:
            WorkerEndedError: The worker ended.
            WorkerError: The worker failed.
            UnsupportedProviderError: The provider cannot be imported, or is not as its workloads take it to be.
            UnsupportedTritonError: The worker found a Triton that it does not know.
        """
        if event != "started":
            self.ready()
        who = f"the worker for {self._provider} on {self._target}"
        try:
            while (message := self.receive())["event"] == "far":
                self.far(message["done"], message["of"], message["what"])
        except EndedError as error:
            how = f" ended with status {error.status}" if error.status is not None else f": {error.reason}"
            raise WorkerEndedError(f"{who}{how}\n{self.log_tail()}") from None
        if message["event"] == "error":
            if message["kind"] == DeploymentError.__name__:
                raise DeploymentError(message["message"], hint=message["hint"])
            if message["kind"] in _RAISED:
                raise _RAISED[message["kind"]](message["message"])
            raise WorkerError(f"{who} failed: {message['kind']}: {message['message']}\n{self.log_tail()}")
        if message["event"] != event:
            raise WorkerError(f"expected {event} from the worker, got {message['event']}")
        return message
