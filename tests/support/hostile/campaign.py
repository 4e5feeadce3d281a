"""All that attacks, by name: how many cases a whole run has, and running some of them."""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gdn_aot.cli.main import COMMANDS
from hostile import artifacts, judging, others
from hostile.containers import originals
from hostile.trials import Case, Outcome, Tally, attack

SIZES = {"artifacts": 10_000, "others": 5_000}
"""Cases of a whole run."""


def run(
    what: str,
    seed: int,
    numbers: Sequence[int],
    folder: Path,
    real: Path,
    *,
    jobs: int = 2,
    tell: Callable[[Outcome], object] = lambda _: None,
) -> Tally:
    """Run cases of one kind and count them. ``real`` is a real artifact, ``folder`` a new one to work in.

    ``tell`` hears of each.
    """
    make, kind_of = _prepare(what, seed, folder, real)
    tally = Tally()
    for outcome in attack(make, numbers, scratch=folder / "children", kind_of=kind_of, jobs=jobs):
        tally.add(outcome)
        tell(outcome)
    return tally


def _prepare(what: str, seed: int, folder: Path, real: Path) -> tuple[Callable[[Path], Case], Callable[[int], str]]:
    """Return what makes cases in children, and what says the class of one. Children need no new imports."""
    for name in COMMANDS:
        importlib.import_module(f"gdn_aot.cli.{name}")
    if what == "artifacts":
        return judging.attacker(seed, originals([real])), lambda number: artifacts.draw(seed, number)[0]
    template = folder / "sound"
    attacks = others.prepare(template, real)
    return others.attacker(seed, template, attacks), lambda number: others.draw(seed, number)[0]


def scratch() -> str | None:
    """Return a folder in memory, if there is one: nothing waits for a disk there."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
