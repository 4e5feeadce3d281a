"""Hostile files that are no artifacts: classes, and which a number stands for."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hostile import handed, stores
from hostile.containers import take_apart
from hostile.judging import tried
from hostile.places import Place
from hostile.trials import METER, Case, Outcome

Attack = Callable[[Place, Path, random.Random], str]
CLASSES: dict[str, float] = {
    "registry": 8, "lock file": 6, "capture": 6, "recorded lines": 5, "tuning record": 6, "numerics record": 4,
    "matrix": 6, "deployment": 4, "FLA's files": 3, "cache of the Hub": 5, "words": 4, "store": 25,
}  # fmt: skip
"""Weight of each class."""


def draw(seed: int, number: int) -> tuple[str, random.Random]:
    """Return the class of a case, and what decides the rest of it."""
    chosen = random.Random(f"other {seed} {number}")
    (kind,) = chosen.choices([*CLASSES], [*CLASSES.values()])
    return kind, chosen


def prepare(folder: Path, artifact: Path) -> dict[str, Attack]:
    """Write sound files; return what attacks, by class."""
    folder.mkdir(parents=True)
    handed.prepare(folder)
    stores.prepare(folder, artifact)
    names = stores.wanted(take_apart(artifact.read_bytes()))
    return {
        "registry": handed.registry,
        "lock file": handed.lock,
        "capture": handed.captured,
        "recorded lines": handed.recorded,
        "tuning record": handed.tuned,
        "numerics record": handed.checked,
        "matrix": handed.matrix,
        "deployment": handed.described,
        "FLA's files": handed.configs,
        "cache of the Hub": handed.hub,
        "words": handed.words,
        "store": partial(stores.case, artifact=artifact, names=names),
    }


def attacker(seed: int, template: Path, attacks: dict[str, Attack]) -> Callable[[Path], Case]:
    """Return what makes in a folder what runs a case by its number."""

    def make(folder: Path) -> Case:
        from huggingface_hub import constants

        place = Place(folder)
        place.settle_in()
        constants.HF_HUB_CACHE = str(place.files / "hub")
        constants.HF_HUB_OFFLINE = True

        def case(number: int) -> Outcome:
            kind, chosen = draw(seed, number)

            def attack() -> str:
                with METER:
                    return attacks[kind](place, template, chosen)

            return tried(place, number, kind, attack)

        return case

    return make
