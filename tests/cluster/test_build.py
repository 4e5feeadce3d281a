"""Builds on a cluster, and clusters that are not there."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from clusters import Node, TestCluster, ends, free_port, workers
from commands import refused
from helpers import ROOT, gdn_aot
from small import ARGUMENTS, TARGETS, Reference


def test_the_command_makes_the_same_bytes_and_leaves_nothing(
    cluster: TestCluster, nodes: list[Node], reference: Reference, tmp_path: Path
) -> None:
    archs = [word for name in TARGETS for word in ("--arch", name)]
    before = set(cluster.temporary.glob("gdn-aot-*"))
    arguments = ["build", *archs, *ARGUMENTS, "-o", tmp_path / "out", "--json"]
    done = gdn_aot(*arguments, "--executor", "ray", "--address", cluster.address, home=tmp_path)
    assert {Path(row["path"]).name for row in done.json["artifacts"]} == set(reference.files())
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == reference.files()
    assert all(row["compiled"] for row in done.json["artifacts"])
    assert ends(lambda: [pid for node in nodes for pid in workers(node.mark)])
    assert set(cluster.temporary.glob("gdn-aot-*")) == before
    first, *rest = done.err.splitlines()
    assert first == f"working on the Ray cluster at {cluster.address} with {len(cluster.nodes)} nodes"
    assert not [line for line in rest if "ray" in line.lower()], "Ray's own words"


@contextmanager
def silent() -> Iterator[str]:
    """Something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:

        def accept() -> None:
            while True:
                try:
                    stack.enter_context(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("listens", [False, True])
def test_an_address_that_does_not_answer(tmp_path: Path, listens: bool) -> None:
    with ExitStack() as stack:
        address = stack.enter_context(silent()) if listens else f"127.0.0.1:{free_port()}"
        start = time.monotonic()
        arguments = ("build", "--arch", "sm_90", *ARGUMENTS, "--executor", "ray", "--address", address)
        error = refused(*arguments, home=tmp_path, code=7, kind="cluster")
    assert address in error["message"]
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--address", "127.0.0.1:6379"), "--address is of --executor ray", "--executor ray"),
        (("--executor", "ray", "--address", "nonsense"), "neither HOST:PORT nor auto", "ray start"),
        (("--executor", "ray", "--address", "ray://127.0.0.1:10001"), "neither HOST:PORT nor auto", "ray start"),
        (("--executor", "ray", "--jobs", "4"), "--jobs is of --executor local", "--num-cpus"),
    ],
)
@pytest.mark.parametrize("command", ["build", "tune"])
def test_options_that_do_not_fit(
    tmp_path: Path, command: str, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    whole = (command, "--arch", "sm_90", "--model", "qwen3.5-9b", *arguments)
    error = refused(*whole, home=tmp_path, code=2, kind="usage")
    assert message in error["message"]
    assert hint in error["hint"]


def test_without_ray_it_says_what_to_install(tmp_path: Path) -> None:
    """Ray is hidden, as in an environment without the extra."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'ray' else find(name, *rest)\n"
    )
    extra = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    arguments = ("build", "--arch", "sm_90", *ARGUMENTS, "--executor", "ray")
    error = refused(*arguments, home=tmp_path, extra=extra, code=2, kind="usage")
    assert error["hint"] == "pip install 'gdn-aot[ray]'"
