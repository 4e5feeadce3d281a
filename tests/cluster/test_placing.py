"""What is decided without a cluster: which nodes measure, which launches belong together, who imports Ray."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from helpers import ROOT, python

from gdn_aot.catalogue.providers import get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.cluster import RayExecutor
from gdn_aot.compiling.versions import difference
from gdn_aot.errors import ClusterError, NothingSelectedError
from gdn_aot.machine.cluster import Node
from gdn_aot.measuring.cluster import places


@dataclass
class Cluster:
    """A list of nodes."""

    rows: list[Node]

    def nodes(self) -> list[Node]:
        return self.rows


def node(name: str, *, cpus: int = 0, gpus: int = 0, **resources: int) -> Node:
    named = {key.replace("arch_", "arch:"): float(count) for key, count in resources.items()}
    return Node(id=name, name=name, cpus=cpus, gpus=gpus, resources=named)


def test_a_node_measures_as_often_as_it_offers_and_has_gpus() -> None:
    cluster: Any = Cluster(
        [
            node("a", gpus=8, arch_sm_90=8),
            node("b", gpus=1, arch_sm_90=4),
            node("c", arch_sm_90=3),
            node("d", gpus=4, arch_sm_80=4),
            node("e", gpus=2),
        ]
    )
    assert [place.name for place in places(cluster, get_target("sm_90"))] == [*["a"] * 8, "b", "c"]
    with pytest.raises(NothingSelectedError, match=r"offers arch:sm_100: 5 nodes offer arch:sm_80, arch:sm_90"):
        places(cluster, get_target("sm_100"))


def test_a_cluster_without_cpus_compiles_nothing() -> None:
    executor = RayExecutor("auto", print)
    executor.cluster = cast("Any", Cluster([node("a", gpus=1, arch_sm_90=1)]))
    with pytest.raises(ClusterError, match="no present node offers CPUs"):
        executor.expect(get_provider("fla"), [get_target("sm_90")])


def test_large_nodes_have_several_tasks() -> None:
    executor = RayExecutor("auto", print)
    executor.cluster = cast("Any", Cluster([node("a", cpus=64), node("b", cpus=12), node("c")]))
    assert executor.cpus() == (8, 9)
    executor.cluster = cast("Any", Cluster([node("a", cpus=64), node("b", cpus=2)]))
    assert executor.cpus() == (2, 33)


def test_differences_are_named() -> None:
    here = {"triton": "3.6.0", "fla-core": "0.6.0", "code": "a"}
    assert difference(here, dict(here), "fla-core") == ""
    assert difference(here, {**here, "code": "b"}, "fla-core").startswith("the installed files")
    assert difference(here, {"triton": "3.6.0"}, "fla-core") == "fla-core is not installed, here 0.6.0"


def test_only_the_executor_imports_ray_and_only_in_functions(tmp_path: Path) -> None:
    for path in (ROOT / "gdn_aot").rglob("*.py"):
        tree = ast.parse(path.read_bytes())
        found = {
            name
            for item in ast.walk(tree)
            for name in (
                [alias.name for alias in item.names]
                if isinstance(item, ast.Import)
                else [item.module or ""]
                if isinstance(item, ast.ImportFrom) and not item.level
                else []
            )
            if name.partition(".")[0] == "ray"
        }
        assert not found or path.name == "cluster.py", path
    modules = "gdn_aot.compiling.cluster, gdn_aot.measuring.cluster, gdn_aot.cli.build, gdn_aot.cli.tune"
    code = f"import json, sys, {modules}; "
    assert python(code + "print(json.dumps('ray' in sys.modules))", home=tmp_path) is False
