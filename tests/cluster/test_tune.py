"""Tuning on a cluster: nodes that offer an architecture, with a simulated card each."""

import re
from pathlib import Path

import pytest
import simulated
from cluster_fixtures import MakeNode, MakeTask, Tune, two_shapes
from clusters import TestCluster
from commands import refused
from tuning_tasks import quiet

from gdn_aot.errors import UsageError
from gdn_aot.measuring import tuner
from gdn_aot.measuring.cards import this_card


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
