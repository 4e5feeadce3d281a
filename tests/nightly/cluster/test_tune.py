"""Tuning on a cluster whose nodes are lost, or that is interrupted."""

import pytest
from cluster_fixtures import MakeNode, MakeTask, Tune, two_shapes
from tuning_tasks import at_call, choices_of, interrupt, recorded

from gdn_aot.errors import ClusterError


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
