"""A Ray cluster for tests, nodes with a card, and a local build to compare with."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import Node, TestCluster
from helpers import gdn_aot
from small import ARGUMENTS, TARGETS, Reference
from tuning_tasks import quiet

from gdn_aot.catalogue.models import parse_shape
from gdn_aot.compiling.cluster import RayExecutor
from gdn_aot.measuring import tuner
from gdn_aot.measuring.cluster import find_cards
from gdn_aot.measuring.plan import TuneTask
from gdn_aot.measuring.tuner import Tuned

MakeTask = Callable[..., TuneTask]
MakeNode = Callable[..., Node]
Tune = Callable[..., Tuned]
SHAPES = ("heads=2,v_heads=4,k_dim=64,v_dim=64,dtype=bf16", "heads=2,v_heads=8,k_dim=64,v_dim=128,dtype=bf16")
CARD = "0, Simulated 90, {driver}, {capability}, 1024, 0, GPU-1a"


@pytest.fixture
def card(cluster: TestCluster, tmp_path: Path) -> Iterator[MakeNode]:
    """Start a node that offers ``arch:sm_90``, on which ``nvidia-smi`` names this card."""
    made: list[Node] = []

    def start(driver: str = "1.2.3", capability: str = "9.0", *, there: bool = True) -> Node:
        folder = tmp_path / f"bin{len(made)}"
        folder.mkdir()
        program = folder / "nvidia-smi"
        row = CARD.format(driver=driver, capability=capability) if there else ""
        program.write_text(f'#!/bin/sh\ncase "$1" in *compute-apps*) ;; *) echo "{row}" ;; esac\n')
        program.chmod(0o755)
        path = os.pathsep.join([str(folder), os.environ["PATH"]])
        node = cluster.start(cpus=0, resources={"arch:sm_90": 1}, extra={"PATH": path})
        made.append(node)
        node.odd = True
        return node

    yield start
    for node in made:
        node.kill()
        cluster.nodes.remove(node)


def two_shapes(made: TuneTask) -> TuneTask:
    shapes = tuple(parse_shape(text).shape(1) for text in SHAPES)
    return replace(made, job=replace(made.job, wanted=replace(made.job.wanted, shapes=shapes)))


@pytest.fixture
def tune(cluster: TestCluster, said: list[str]) -> Tune:
    """Tune on the cluster."""

    def tune(made: TuneTask, progress: Callable[[int, int, str], None] = quiet) -> Tuned:
        with RayExecutor(cluster.address, said.append) as executor:
            cards = find_cards(executor.cluster, made.method, made.job.cache, made.target, said.append)
            return tuner.tune(replace(made, job=replace(made.job, executor=executor)), cards, progress, said.append)

    return tune


@pytest.fixture(scope="session")
def whole_cluster() -> Iterator[TestCluster]:
    with TestCluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(whole_cluster: TestCluster) -> TestCluster:
    """A head without CPUs and two nodes with one each, whatever the test before did to them."""
    for node in [node for node in whole_cluster.nodes[1:] if node.process.poll() is not None or node.odd]:
        node.kill()
        whole_cluster.nodes.remove(node)
    while len(whole_cluster.nodes) < 3:
        whole_cluster.start(resources={"arch:sm_80": 1})
    return whole_cluster


@pytest.fixture
def nodes(cluster: TestCluster) -> list[Node]:
    """Those with CPUs."""
    return cluster.nodes[1:]


@pytest.fixture
def said() -> list[str]:
    """What an executor says of nodes."""
    return []


@pytest.fixture(scope="session")
def reference(session_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    made = tmp_path_factory.mktemp("reference")
    archs = [word for name in TARGETS for word in ("--arch", name)]
    gdn_aot("build", *archs, *ARGUMENTS, "--cache-dir", made / "cache", "-o", made / "out", home=session_home)
    return Reference(made / "out", made / "cache")
