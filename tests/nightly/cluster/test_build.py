"""Builds on a cluster whose nodes are killed, differ, or hang."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import Node, TestCluster, ends, marked, workers
from helpers import ROOT, TIMEOUT, environment, expect_error, gdn_aot
from msgspec import structs
from small import ARGUMENTS, Reference, load, tasks, work

from gdn_aot.building import pipeline
from gdn_aot.compiling import cluster as cluster_executor
from gdn_aot.compiling.cluster import RayExecutor
from gdn_aot.errors import ClusterError

Build = Callable[..., dict[str, bytes]]


@pytest.fixture
def build(cluster: TestCluster, said: list[str], reference: Reference, tmp_path: Path) -> Build:
    """Build from stored traces on the cluster.

    ``half_way`` is called once, when something is compiled and more is left. What is returned are the files in which
    this differs from the local build: none, if all is well.
    """

    def build(half_way: Callable[[], None], targets: int = 1) -> dict[str, bytes]:
        called = False

        def progress(done: int, total: int, text: str) -> None:
            nonlocal called
            if not called and text.startswith("sm_90: compiling") and 2 <= done < total:
                called = True
                half_way()

        job = reference.job(reference.traces(tmp_path / "cache"), tmp_path / "out")
        job.output.mkdir()
        with RayExecutor(cluster.address, said.append) as executor:
            finished = list(pipeline.build(replace(job, executor=executor), reference.targets[:targets], progress))
        assert [bool(built.run.compiled) for built in finished] == [True] * targets
        assert called
        known = reference.files()
        made = {path.name: path.read_bytes() for path in job.output.iterdir()}
        assert len(made) == targets
        return {name: data for name, data in made.items() if data != known[name]}

    return build


def test_a_node_that_is_killed_half_way_and_one_that_comes(
    build: Build, cluster: TestCluster, nodes: list[Node], said: list[str]
) -> None:
    def half_way() -> None:
        assert workers(nodes[0].mark)
        nodes[0].kill()
        cluster.nodes.remove(nodes[0])
        cluster.start(resources={"arch:sm_80": 1})

    assert build(half_way, targets=2) == {}
    assert any("was lost" in line and "done again" in line for line in said), said


def test_a_worker_that_is_killed_half_way(build: Build, nodes: list[Node], said: list[str]) -> None:
    """Not the node, only our process there, as by a system that is out of memory."""

    def half_way() -> None:
        for pid in workers(nodes[1].mark):
            os.kill(pid, signal.SIGKILL)

    assert build(half_way) == {}
    assert any("ended with status -9" in line and "done again" in line for line in said), said


def test_a_worker_that_hangs_is_given_up(
    cluster: TestCluster,
    nodes: list[Node],
    said: list[str],
    reference: Reference,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its node answers Ray's health checks, but the process that compiles has stopped."""
    monkeypatch.setattr(cluster_executor, "MARGIN_SECONDS", 1.0)
    trace, order, job = load(reference, reference.traces(tmp_path / "cache"), tmp_path)
    stopped: list[int] = []

    def stop() -> None:
        while not any((order.cache.root / "launches").rglob("*")):
            time.sleep(0.05)
        for pid in workers(nodes[1].mark):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)

    thread = threading.Thread(target=stop, daemon=True)
    with RayExecutor(cluster.address, said.append) as executor:
        thread.start()
        wanted = tasks(trace, order)
        answers = work(executor, replace(order, timeout=60.0), wanted, job)
    thread.join()
    assert stopped
    assert [answers[task.number].failed for task in wanted] == [None] * len(wanted)
    assert any("it did nothing for 61 s and was killed" in line for line in said), said
    assert ends(lambda: [pid for pid in stopped if Path(f"/proc/{pid}").exists()]), "what hangs is killed, too"


def test_a_task_that_kills_its_workers_fails_alone(
    cluster: TestCluster, said: list[str], reference: Reference, tmp_path: Path
) -> None:
    trace, order, job = load(reference, reference.traces(tmp_path / "cache"), tmp_path)
    wanted = tasks(trace, order)
    poison = structs.replace(wanted[0], number=10_000, module="poison", key="3" * 64)
    with RayExecutor(cluster.address, said.append) as executor:
        answers = work(executor, order, [*wanted[:2], poison, *wanted[2:]], job)
    assert "it ended its worker 3 times" in (answers.pop(10_000).failed or "")
    assert order.cache.launch("3" * 64) is None
    assert [answers[task.number].failed for task in wanted] == [None] * len(wanted)
    assert sum("done again" in line for line in said) == 1, said


def test_a_cluster_that_is_gone_is_said_at_once(build: Build, nodes: list[Node]) -> None:
    start = 0.0

    def half_way() -> None:
        nonlocal start
        for node in nodes:
            node.kill()
        start = time.monotonic()

    with pytest.raises(ClusterError, match="no node of the cluster is left"):
        build(half_way)
    assert time.monotonic() - start < 60


@contextmanager
def odd_node(cluster: TestCluster, path: Path) -> Iterator[Node]:
    """A node on which something else is installed: what lies at ``path`` is found first."""
    node = cluster.start(path=[path], resources={"arch:sm_70": 1})
    node.odd = True
    yield node
    node.kill()
    cluster.nodes.remove(node)


def other_triton(folder: Path) -> None:
    made = folder / "triton-3.8.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: triton\nVersion: 3.8.0\n")


def other_code(folder: Path) -> None:
    shutil.copytree(ROOT / "gdn_aot", folder / "gdn_aot", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "gdn_aot" / "catalogue" / "models.py").open("a") as file:
        file.write("# another line\n")


def broken_dependency(folder: Path) -> None:
    (folder / "einops.py").write_text("raise ImportError('not on this node')\n")


@pytest.mark.parametrize(
    ("differ", "code", "kind", "text"),
    [
        (other_triton, 2, "usage", "triton is 3.8.0, here 3.6.0"),
        (other_code, 2, "usage", "files of gdn-aot or fla-core are not those here"),
        (broken_dependency, 1, "worker", "raise ImportError('not on this node')"),
    ],
)
def test_a_node_on_which_something_else_is_installed(
    cluster: TestCluster,
    reference: Reference,
    tmp_path: Path,
    differ: Callable[[Path], None],
    code: int,
    kind: str,
    text: str,
) -> None:
    (tmp_path / "other").mkdir()
    differ(tmp_path / "other")
    reference.traces(tmp_path / "cache")
    with odd_node(cluster, tmp_path / "other"):
        arguments = ("--arch", "sm_90", *ARGUMENTS, "--cache-dir", tmp_path / "cache", "-o", tmp_path / "out", "--json")
        done = gdn_aot("build", *arguments, "--executor", "ray", "--address", cluster.address, home=tmp_path, code=None)
    error = expect_error(done, code, kind) if kind == "usage" else done.json["error"]
    assert (done.code, error["code"]) == (code, kind)
    assert "node " in error["message"]
    assert text in error["message"], "with the last lines of the log there"
    assert list((tmp_path / "out").iterdir()) == []


def test_control_c_ends_everything_on_the_nodes(
    cluster: TestCluster, nodes: list[Node], reference: Reference, tmp_path: Path
) -> None:
    reference.traces(tmp_path / "cache")
    before = set(cluster.temporary.glob("gdn-aot-*"))
    command = [sys.executable, "-m", "gdn_aot", "build", "--arch", "sm_90", *ARGUMENTS, "--executor", "ray"]
    command += ["--address", cluster.address, "--cache-dir", str(tmp_path / "cache"), "-o", str(tmp_path / "out")]
    with subprocess.Popen(
        command, env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert ends(lambda: all(len(workers(node.mark)) < 2 for node in nodes), 60), "nobody compiles"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130, err
    assert out == ""
    assert "Error: interrupted" in err
    assert "Traceback" not in err
    assert ends(lambda: [pid for node in nodes for pid in workers(node.mark)])
    assert set(cluster.temporary.glob("gdn-aot-*")) == before
    assert list((tmp_path / "out").iterdir()) == []
    assert all(marked(node.mark) for node in nodes), "the nodes themselves go on"
