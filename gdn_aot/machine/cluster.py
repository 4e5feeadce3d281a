"""A Ray cluster: reached in bounded time or not at all, its nodes, and calls to actors on them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gdn_aot.errors import ClusterError, UsageError
from gdn_aot.machine import zygote

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from typing_extensions import Self

CONNECT_SECONDS = 4.0
"""In which something must take a connection at the address."""
ANSWER_SECONDS = 9.0
"""In which it must then let a client of Ray in. Both together are less than the 15 s that are promised."""
_END_SECONDS = 5.0
_ADDRESS = re.compile(r"[^:/\s]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Ray reads them when it is imported: nothing is reported to anyone."""
_PROBE = f"""{zygote.ABSOLUTE}
import json, logging
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
except BaseException as error:
    print(json.dumps([type(error).__name__, str(error)]))
    sys.exit(1)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node that is alive."""

    id: str
    name: str
    """Host name, and the start of the id: there may be more than one on a host."""
    cpus: int
    gpus: int
    resources: Mapping[str, float]
    """Its own resources, as ``arch:sm_90``, and how many it offers."""


def check_address(address: str) -> None:
    """Check the form of an address.

    Raises:
        UsageError: It is neither ``HOST:PORT`` nor ``auto``.
    """
    if address != "auto" and not _ADDRESS.fullmatch(address):
        raise UsageError(
            f"--address {address} is neither HOST:PORT nor auto",
            hint="give the address that ray start printed, from a machine that is a node of the cluster",
        )


class Cluster:
    """A connection to a cluster. Leaving it ends what was started through it.

    While it is there, what Python prints on stdout goes to stderr: Ray prints there what its nodes report.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._streams = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if importlib.util.find_spec("ray") is None:
            raise UsageError("--executor ray needs Ray, which is not installed", hint="pip install 'gdn-aot[ray]'")
        check_address(self.address)
        if self.address != "auto":
            self._connect()
        os.environ.update(_SETTINGS)
        self._probe()
        import logging

        import ray

        self._ray: Any = ray
        with contextlib.ExitStack() as streams:
            streams.enter_context(contextlib.redirect_stdout(sys.stderr))
            with _elsewhere():
                ray.init(address=self.address, log_to_driver=False, logging_level=logging.CRITICAL)
            self._streams = streams.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._streams:
            self._ray.shutdown()

    def _connect(self) -> None:
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(
                f"nothing answers at {self.address}: {error}",
                hint="start the cluster with ray start --head, and check host, port and firewall",
            ) from error

    def _probe(self) -> None:
        """Let another process try first: a client that gets no answer cannot be stopped."""
        hint = (
            "this machine must be a node of the cluster: ray start --address HOST:PORT, with --num-cpus 0 to stay idle"
        )
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PROBE, self.address],
                capture_output=True,
                text=True,
                timeout=ANSWER_SECONDS,
                stdin=subprocess.DEVNULL,
                cwd="/",
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(
                f"what listens at {self.address} does not answer as a Ray cluster does", hint=hint
            ) from None
        if done.returncode:
            kind, text = _said(done.stdout, done.stderr)
            message = f"the Ray cluster at {self.address} cannot be used: {text}"
            if "ersion mismatch" in text:
                raise UsageError(message, hint="use the same versions of Python and Ray here and on the nodes")
            raise ClusterError(f"{message} ({kind})" if kind else message, hint=hint)

    def place(self) -> str:
        """Return where the cluster's head is, as ``HOST:PORT``: as it was given, or what ``auto`` has found."""
        if self.address != "auto":
            return self.address
        return str(self._ray.get_runtime_context().gcs_address)

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive, in a fixed order."""
        found = []
        for row in self._ray.nodes():
            if row["Alive"]:
                resources = row["Resources"]
                found.append(
                    Node(
                        id=row["NodeID"],
                        name=f"{row['NodeManagerHostname']}/{row['NodeID'][:6]}",
                        cpus=int(resources.get("CPU", 0)),
                        gpus=int(resources.get("GPU", 0)),
                        resources={name: count for name, count in resources.items() if name.startswith("arch:")},
                    )
                )
        return sorted(found, key=lambda node: node.id)

    def name(self, node: str) -> str:
        """Return the name of a node by its id; one that is gone is called by its id."""
        return next((one.name for one in self.nodes() if one.id == node), node[:6])

    def task(
        self, function: Callable[..., Any], arguments: Sequence[Any], *, cpus: int, tries: int, without: Collection[str]
    ) -> Any:
        """Have a function, of a module that nodes have, called on some node that is not one of ``without``.

        It takes so many CPUs of the node, and is called again, ``tries`` times at the most, where that is lost or it
        raises.
        """
        limits = {"label_selector": {"ray.io/node-id": f"!in({','.join(sorted(without))})"}} if without else {}
        made = self._ray.remote(_here).options(
            num_cpus=cpus, max_retries=tries - 1, retry_exceptions=tries > 1, **limits
        )
        return made.remote(function, *arguments)

    def first(self, calls: list[Any], seconds: float) -> Any | None:
        """Wait for one of these calls to come back. Returns it, or None if none does in this time."""
        if not calls:
            time.sleep(seconds)
            return None
        done, _ = self._ray.wait(calls, num_returns=1, timeout=seconds)
        return done[0] if done else None

    def get(self, call: Any) -> tuple[str, Any]:
        """Return (id of its node, what the function returned there) of a task that came back; raises what it raised."""
        found: tuple[str, Any] = self._ray.get(call)
        return found

    def cancel(self, calls: list[Any]) -> None:
        """End tasks where they run, at once."""
        for call in calls:
            with contextlib.suppress(Exception):
                self._ray.cancel(call, force=True)

    def on_every_node(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function on each node, whatever else runs there, and wait a moment for it."""
        made = self._ray.remote(function)
        self.end(
            [
                made.options(num_cpus=0, max_retries=0, scheduling_strategy=_only(node)).remote(*arguments)
                for node in self.nodes()
            ]
        )

    def actor(self, kind: type, node: Node, arguments: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Start an actor on a node. That this fails shows when it is called.

        ``options`` are Ray's: what the actor takes of the node.
        """
        made = self._ray.remote(kind).options(
            scheduling_strategy=_only(node), max_restarts=0, max_task_retries=0, **options
        )
        return made.remote(**(arguments or {}))

    def kill(self, actor: Any) -> None:
        """Kill an actor; one that is gone already is none the worse."""
        self._ray.kill(actor)

    def end(self, calls: list[Any]) -> None:
        """Wait a moment for calls that end something."""
        if calls:
            self._ray.wait(calls, num_returns=len(calls), timeout=_END_SECONDS)


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Leave the current directory for a moment: Ray has processes on the nodes import from the one it is started in."""
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.chdir("/")
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _here(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """Return the id of this node and what a function returns on it."""
    import ray

    return ray.get_runtime_context().get_node_id(), function(*arguments)


def _only(node: Node) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def reason(error: BaseException) -> str:
    """Return what happened to an actor, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Error: " in line and not line.startswith("File ")] or lines
    return (told[-1] if "RayTaskError" in type(error).__name__ else (lines or [""])[0])[:300] or type(error).__name__


def _said(out: str, err: str) -> tuple[str, str]:
    lines = out.strip().splitlines()
    try:
        kind, text = json.loads(lines[-1])
    except (IndexError, ValueError):
        return "", " ".join((err.strip().splitlines() or ["it ended without a word"])[-1].split())
    return kind, " ".join(text.split())[:600]
