"""Which target a card is of, by its name."""

import pytest

from gdn_aot.catalogue import read_table
from gdn_aot.catalogue.cards import target_of
from gdn_aot.catalogue.targets import all_targets


def test_the_card_of_each_target_is_of_it() -> None:
    assert {target.name: target_of(target.card.name) for target in all_targets()} == {
        target.name: target.name for target in all_targets()
    }
    assert [row["target"] for row in read_table("cards.toml")["cards"]] == [target.name for target in all_targets()]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("NVIDIA TITAN V", "sm_70"),
        ("Quadro RTX 5000", "sm_75"),
        ("NVIDIA RTX 5000 Ada Generation", "sm_89"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "sm_89"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "sm_89"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "sm_120"),
        ("NVIDIA RTX A5000", "sm_86"),
        ("NVIDIA A100-SXM4-80GB", "sm_80"),
        ("NVIDIA H200", "sm_90"),
        ("NVIDIA A1000", None),
        ("Simulated 90", None),
        ("", None),
    ],
)
def test_names(name: str, target: str | None) -> None:
    assert target_of(name) == target
