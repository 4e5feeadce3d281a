"""A Ray cluster for the tests of this folder, and a local build to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from clusters import TestCluster
from helpers import gdn_aot
from small import ARGUMENTS, TARGETS, Reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clusters import Node


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
