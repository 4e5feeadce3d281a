"""What is decided without a cluster: which nodes measure, which launches belong together, who imports Ray."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from gdn_aot.executors import ray_compiling
from gdn_aot.executors.ray_crew import Crew
from helpers import ROOT, python

from gdn_aot.catalogue.providers import get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.executor import CompileTask
from gdn_aot.compiling.versions import difference
from gdn_aot.errors import ClusterError, NothingSelectedError
from gdn_aot.machine.cluster import Node
from gdn_aot.measuring.cluster import places

if TYPE_CHECKING:
    from pathlib import Path


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
    cluster: Any = Cluster([node("a", gpus=1, arch_sm_90=1)])
    with pytest.raises(ClusterError, match="none offers CPUs"):
        Crew(cluster, print).expect(get_provider("fla"), "sm_90")


def test_launches_that_may_have_one_ir_are_of_one_kind() -> None:
    def task(constants: list[Any], *, kind: str = "*bf16", stages: int = 2) -> CompileTask:
        specialization = {
            "signature": {"x": kind},
            "constants": constants,
            "attributes": [[[0], [["tt.divisibility", 16]]]],
            "options": {"num_warps": 4, "num_stages": stages},
        }
        return CompileTask(number=0, module="m", qualname="k", specialization=specialization, key="", ptx=False)

    first = task([[["NB"], 1], [["D"], 64]])
    same = [task([[["NB"], 2], [["D"], 64]]), task([[["NB"], 1], [["D"], 128]])]
    others = [
        task([[["NB"], 1]]),
        task([[["NB"], 1], [["D"], 64]], kind="*fp16"),
        task([[["NB"], 1], [["D"], 64]], stages=3),
        replace(first, qualname="l"),
        replace(first, module="n"),
    ]
    assert {ray_compiling._kind(one) for one in (first, *same)} == {ray_compiling._kind(first)}
    assert len({ray_compiling._kind(one) for one in (first, *others)}) == 1 + len(others)


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
        assert not found or (path.parent.name == "executors" and path.name.startswith("ray")), path
    code = "import json, sys; import gdn_aot.executors.ray, gdn_aot.cli.build, gdn_aot.cli.tune; "
    assert python(code + "print(json.dumps('ray' in sys.modules))", home=tmp_path) is False
