"""Tuning on a cluster: nodes that offer an architecture, with a simulated card each."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import simulated
from commands import refused
from tuning_tasks import at_call, choices_of, interrupt, quiet, recorded

from gdn_aot.catalogue.models import parse_shape
from gdn_aot.compiling.cluster import RayExecutor
from gdn_aot.errors import ClusterError, UsageError
from gdn_aot.measuring import tuner
from gdn_aot.measuring.cards import this_card
from gdn_aot.measuring.cluster import find_cards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clusters import Node, TestCluster

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


def test_two_nodes_measure_what_one_machine_measures(
    tune: Tune, card: MakeNode, said: list[str], task: MakeTask
) -> None:
    made = two_shapes(task(tokens=(64, 512)))
    tuner.tune(made, this_card(simulated.INFO, made.job.cache), quiet, said.append)
    here = made.path.read_bytes()
    made.path.unlink()
    card()
    card()
    done = tune(made)
    assert (done.missing, done.ended, done.dropped, said) == (0, "", {}, [])
    assert done.card.name == "Simulated 90"
    assert len(done.outcomes) == 2
    assert made.path.read_bytes() == here


def test_what_a_lost_node_had_is_measured_elsewhere(
    tune: Tune, card: MakeNode, said: list[str], task: MakeTask
) -> None:
    made = two_shapes(task(tokens=(64, 512), card={"delay": 0.1}))
    first, _ = card(), card()
    done = tune(made, at_call(4, first.kill))
    assert (done.missing, done.dropped) == (0, {})
    assert any("its work goes to others" in line for line in said), said
    assert not any(choice.missing or choice.unchecked for choice in choices_of(recorded(made)))


def test_when_the_last_card_is_lost_what_was_measured_is_kept(
    tune: Tune, card: MakeNode, said: list[str], task: MakeTask
) -> None:
    made = task(card={"delay": 0.1})
    with pytest.raises(ClusterError, match="no card is left"):
        tune(made, at_call(4, card().kill))
    assert all(choice.unchecked for choice in choices_of(recorded(made)))


def test_an_interrupt_keeps_what_was_measured(tune: Tune, card: MakeNode, said: list[str], task: MakeTask) -> None:
    card()
    made = task(card={"delay": 0.1})
    with pytest.raises(KeyboardInterrupt):
        tune(made, at_call(4, interrupt))
    assert recorded(made).kernels


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ([{}, {"driver": "9.9"}], "one kind of card and one driver"),
        ([{"capability": "8.0"}], "offers arch:sm_90, but its card is sm_80"),
        ([{"there": False}], "there is no NVIDIA card here"),
    ],
)
def test_cards_that_cannot_share_a_record_are_refused(
    tune: Tune, card: MakeNode, task: MakeTask, cards: list[dict[str, object]], message: str
) -> None:
    for options in cards:
        card(**options)
    made = task()
    with pytest.raises(UsageError, match=message):
        tune(made)
    assert not made.path.exists()


def test_an_architecture_that_no_node_offers(cluster: TestCluster, tmp_path: Path) -> None:
    error = refused(
        "tune", "--arch", "sm_100", "--model", "qwen3.5-9b", "--executor", "ray", "--address", cluster.address,
        "--cache-dir", tmp_path / "cache", "-o", tmp_path / "records", home=tmp_path, code=3, kind="nothing-selected",
    )  # fmt: skip
    assert re.search(r"no node of the cluster offers arch:sm_100: \d nodes offer arch:sm_80", error["message"])
    assert "ray start" in error["hint"]
    assert not (tmp_path / "cache").exists(), "said before anything is traced"


def test_a_cluster_needs_to_be_told_the_target(tmp_path: Path) -> None:
    error = refused("tune", "--model", "qwen3.5-9b", "--executor", "ray", home=tmp_path, code=2, kind="usage")
    assert "--arch" in error["hint"]
