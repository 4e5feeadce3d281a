"""Ray clusters on 127.0.0.1 that belong to a test: nodes are processes, and end with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import ROOT, SUPPORT
from processes import living

MODULES = ROOT / "tests/cluster/modules"
MARK = "GDN_AOT_TEST_CLUSTER"
START_SECONDS = 300.0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class Node:
    process: subprocess.Popen[bytes]
    mark: str
    odd: bool = False
    """Not one of the two plain nodes that tests expect."""

    def kill(self) -> None:
        """End the node as a power cut does: all of its processes at once."""
        for pid in {*marked(self.mark), *in_session(self.process.pid)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class TestCluster:
    """A head without CPUs, on which drivers run, and nodes with one each."""

    __test__ = False

    port: int = field(default_factory=free_port)
    nodes: list[Node] = field(default_factory=list)
    """The head first."""

    def __enter__(self) -> TestCluster:  # noqa: PYI034 - typing.Self is not in Python 3.10
        self.folder = tempfile.TemporaryDirectory(prefix="gdn-ray-", dir="/tmp")  # sockets need a short path
        self.temporary = Path(self.folder.name) / "node"
        self.temporary.mkdir()
        self.start(cpus=0)
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            node.kill()
        self.folder.cleanup()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(
        self,
        *,
        cpus: int = 1,
        resources: Mapping[str, int] | None = None,
        path: Sequence[Path] = (),
        extra: Mapping[str, str] | None = None,
    ) -> Node:
        """Start a node and wait until it is part of the cluster."""
        mark = uuid.uuid4().hex
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "FLA_", "RAY_"))}
        env = {
            **kept,
            "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT, SUPPORT, MODULES])),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_period_ms": "500",  # of five checks, which a node that is gone must fail; else 3 s
            MARK: mark,
            "TMPDIR": str(self.temporary),
            **(extra or {}),
        }
        place = ["--address", self.address]
        if not self.nodes:
            place = ["--head", "--port", str(self.port), "--include-dashboard", "false"]
            place += ["--temp-dir", self.folder.name]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *place, "--node-ip-address", "127.0.0.1"]
        command += ["--num-cpus", str(cpus), "--num-gpus", "0", "--object-store-memory", str(100 << 20)]
        command += ["--resources", json.dumps(resources or {}), "--disable-usage-stats", "--block"]
        log = (Path(self.folder.name) / f"{mark}.log").open("wb")
        with log:
            process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        node = Node(process, mark)
        self.nodes.append(node)
        deadline = time.monotonic() + START_SECONDS
        while b"Ray runtime started" not in Path(log.name).read_bytes():
            assert process.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < deadline, Path(log.name).read_text()
            time.sleep(0.1)
        return node


def marked(mark: str) -> list[int]:
    """Return the processes that were started, directly or not, by the node with this mark."""
    return living("environ", lambda data: f"{MARK}={mark}".encode() in data.split(b"\0"))


def in_session(leader: int) -> list[int]:
    """Return the processes of a session: Ray renames its own, which can overwrite the environment that has the mark."""
    # state, parent, group, session: proc(5)
    return living("stat", lambda data: int(data.rpartition(b")")[2].split()[3]) == leader)


def workers(mark: str) -> list[int]:
    """Return those that are worker processes of this package, the compile workers that they forked included."""
    named = living("comm", lambda data: data == b"gdn-aot worker\n")
    return [pid for pid in marked(mark) if pid in named]


def ends(check: Callable[[], Any], seconds: float = 120.0) -> bool:
    """Wait until something is no more."""
    deadline = time.monotonic() + seconds
    while check() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not check()
