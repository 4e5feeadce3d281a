"""Smaller candidates for targets on which none of the provider's own fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from gdn_aot.launches import Config

MIN_BLOCK = 16
"""Smallest block that ``tl.dot`` accepts on every target."""


def smaller(candidates: list[Config]) -> list[Config]:
    """Return configurations that need less shared memory than ``candidates``, gentlest change first.

    Fewer pipeline stages come first, because they keep the tile; then halved blocks (a keyword that starts with
    ``B`` and holds a power of two) with one stage. Nothing in the input is repeated.
    """
    seen = set(candidates)
    made: list[Config] = []

    def add(config: Config) -> None:
        if config not in seen:
            seen.add(config)
            made.append(config)

    for config in candidates:
        for stages in range(config.num_stages - 1, 0, -1):
            add(replace(config, num_stages=stages))
    frontier = list(candidates)
    while frontier:
        halved = [shrunk for config in frontier for shrunk in _halve(config)]
        frontier = [config for config in dict.fromkeys(halved) if config not in seen]
        for config in frontier:
            add(config)
    return made


def _halve(config: Config) -> list[Config]:
    """Halve each block of ``config`` in turn, largest first."""
    numbers = config.numbers
    blocks = [name for name in numbers if name.startswith("B") and _halvable(numbers[name])]
    return [
        replace(
            config,
            num_stages=1,
            kwargs=tuple((name, numbers[name] // 2 if name == block else value) for name, value in config.kwargs),
        )
        for block in sorted(blocks, key=lambda name: -numbers[name])
    ]


def _halvable(value: int) -> bool:
    return value > MIN_BLOCK and value & (value - 1) == 0
