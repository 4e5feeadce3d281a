"""A Ray cluster for the tests of this folder, and something small to compile."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from clusters import TestCluster
from helpers import gdn_aot

from gdn_aot.build import pipeline
from gdn_aot.build.cache import BuildCache
from gdn_aot.cli.build import select_workloads
from gdn_aot.models import select_shapes
from gdn_aot.providers import Limits, get_provider
from gdn_aot.targets import get_target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clusters import Node

    from gdn_aot.targets import Target

ARGUMENTS = ("--model", "qwen3.5-9b", "--workload", "transformers-decode", "--workload", "gated-norm")
ARGUMENTS += ("--max-tokens", "8192", "--max-batch", "4")
TARGETS = ("sm_90", "sm_120")


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


@dataclass
class Reference:
    """What a local build of `ARGUMENTS` for `TARGETS` made."""

    folder: Path
    cache: Path

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def traces(self, into: Path) -> BuildCache:
        """Return a build cache that has the traces and nothing that is compiled."""
        shutil.copytree(self.cache / "traces", into / "traces")
        return BuildCache(into)

    def job(self, cache: BuildCache, output: Path) -> pipeline.Job:
        """Return the same build, as a job."""
        provider = get_provider("fla")
        return pipeline.Job(
            provider=provider,
            shapes=tuple(select_shapes(["qwen3.5-9b"], [1], [], None).shapes),
            fp16_fallback=True,
            limits=Limits(max_tokens=8192, max_batch=4, mode="inference"),
            workloads=select_workloads(provider, "inference", ("transformers-decode", "gated-norm"), ()),
            cache=cache,
            tuning_root=None,
            jobs=2,
            timeout=120,
            all_candidates=False,
            keep_going=False,
            output=output,
        )

    @property
    def targets(self) -> list[Target]:
        return [get_target(name) for name in TARGETS]


@pytest.fixture(scope="session")
def reference(session_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    made = tmp_path_factory.mktemp("reference")
    archs = [word for name in TARGETS for word in ("--arch", name)]
    gdn_aot("build", *archs, *ARGUMENTS, "--cache-dir", made / "cache", "-o", made / "out", home=session_home)
    return Reference(made / "out", made / "cache")
