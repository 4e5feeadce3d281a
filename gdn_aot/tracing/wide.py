"""Candidates beyond the provider's list: relieved ones, and other block sizes, warps, stages and register caps.

Relieved ones are for targets on which none of the provider's own fits and is sound. The others are neighbours of what
the provider offers, nearest first, because it knows its kernels; what a kernel cannot be launched with is found out
later, by compiling and by comparing its outputs.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.launches import Config

    Extras = Mapping[str, Sequence[Config]]
    """Digest or name of a kernel -> configurations that a tuning record names and its provider does not offer."""

MIN_BLOCK = 16
"""Smallest block that ``tl.dot`` accepts on every target."""
MOST = 120
"""Most candidates per list; the farthest from the provider's are cut."""
_MAX_BLOCK = 256
_REACH = 4
"""Blocks go this factor beyond the provider's range."""
_MAX_WARPS, _MAX_STAGES = 16, 5
_CAPS = (168, 128, 96, 64, 48, 32)
"""Registers per thread, multiples of 8 as ptxas allots them: 3, 4, 5, 8, 10 and 16 blocks of 128 threads per SM."""
MAX_REGISTERS = 255
"""Per thread, on every target (CUDA C++ Programming Guide, technical specifications table)."""
_CAP_DISTANCE = 2
_WARP_LIMITED_FROM = 100
"""From this architecture number on no more warps than the provider offers: it leaves out configurations of 8 there,
because Triton before 3.8 has a race with them (triton-lang/triton#10590)."""
_ASYNC_COPIES_FROM = 80
"""Below this number there is no asynchronous copy, and stages beyond 2 pipeline nothing."""


def relieved(offered: Sequence[Config], target: Target) -> list[Config]:
    """Return configurations that ask less of a thread or of shared memory than one of ``offered``, gentlest first.

    They have blocks that are halved once or more, down to 16, or more warps, up to what `candidates` tries on the
    target, or fewer pipeline stages. Blocks are as in `candidates`; all else stays. The gentlest keep the tile: those
    with fewer halvings come first, then those with fewer changes of warps and stages, then those of the configuration
    that is offered first. Below sm_80, where stages pipeline nothing, all have one. Nothing in ``offered`` is repeated.
    """
    own = tuple(dict.fromkeys(offered))
    names = _block_names(own)
    found: dict[Config, tuple[int, int, int]] = {}
    for index, config in enumerate(own):
        held = config.numbers
        blocks = [_doubled(min(MIN_BLOCK, held[name]), held[name]) for name in names]
        warps = _doubled(config.num_warps, max(config.num_warps, _most_warps(own, target)))
        stages = range(1, config.num_stages + 1) if target.arch_number >= _ASYNC_COPIES_FROM else (1,)
        for sizes, num_warps, num_stages in itertools.product(itertools.product(*blocks), warps, stages):
            sized = dict(zip(names, sizes, strict=True))
            kwargs = tuple((name, sized.get(name, value)) for name, value in config.kwargs)
            made = replace(config, kwargs=kwargs, num_warps=num_warps, num_stages=num_stages)
            halvings = sum(held[name].bit_length() - size.bit_length() for name, size in sized.items())
            place = halvings, _steps(made, config, ()), index
            found[made] = min(place, found.get(made, place))
    return sorted((made for made in found if made not in own), key=lambda made: (found[made], _order(made)))


def candidates(offered: Sequence[Config], target: Target) -> list[Config]:
    """Return configurations that the provider does not offer, the nearest to one that it does first.

    Blocks are the keywords that start with ``B`` and hold a power of two in each of the provider's configurations.
    They take the powers of two within a factor of four of the provider's range, from 16 to 256, as far as the shared
    memory of the target holds the tile. Warps are 1 to 16, stages 1 to 5. A cap on registers is set only on the
    provider's own, where it would let more blocks share an SM. Other keywords keep the provider's values.

    The distance is the number of doublings, halvings and stages from the nearest offered configuration, and two for a
    cap. At most `MOST` are returned.
    """
    return list(_candidates(tuple(dict.fromkeys(offered)), target))


def beyond(offered: list[Config], extras: Sequence[Config], kind: str, target: Target) -> list[Config]:
    """Return the candidates to record after the provider's own: ``extras``, then ``relieved`` or ``wide`` ones or none.

    Extras are what a tuning record names. Those that no search makes of ``offered`` are left out, so that no choice can
    name them.
    """
    known = [config for config in searched(offered, target) if config in extras] if extras else []
    if kind == "relieved":
        known += relieved(offered, target)
    elif kind == "wide":
        known += candidates(offered, target)
    return list(dict.fromkeys(known))


def searched(offered: Sequence[Config], target: Target) -> list[Config]:
    """Return every configuration that the provider does not offer and a search makes: `candidates` and `relieved`."""
    return list(dict.fromkeys([*candidates(offered, target), *relieved(offered, target)]))


def registers(config: Config, target: Target) -> int:
    """Return the most registers that a thread of ``config`` can have on a target."""
    per_thread = target.registers_per_block // (config.num_warps * target.warp_size)
    return min(config.maxnreg or MAX_REGISTERS, per_thread)


def load(config: Config, target: Target) -> float:
    """Return the elements of a tile of all blocks of ``config`` for each register of the thread block.

    It compares configurations of one kernel: what a thread has to hold grows with it. Registers count as they are
    allotted to a thread, in multiples of 8.
    """
    elements = math.prod(config.numbers[name] for name in _block_names([config]))
    return elements / (config.num_warps * target.warp_size * -(-registers(config, target) // 8) * 8)


def covers(config: Config, other: Config) -> bool:
    """Say whether ``config`` has all that ``other`` has: blocks at least as large, and at least as many stages."""
    held = config.numbers
    blocks = all(held.get(name, 0) >= other.numbers[name] for name in _block_names([other]))
    return blocks and config.num_stages >= other.num_stages


@functools.lru_cache(maxsize=256)
def _candidates(own: tuple[Config, ...], target: Target) -> tuple[Config, ...]:
    names = _block_names(own)
    found = {config: _distance(config, own, names) for config in _grid(own, names, target)}
    for index, config in enumerate(own):
        found.update(dict.fromkeys(_capped(config, target), (_CAP_DISTANCE, index)))
    new = [config for config in found if config not in own]
    return tuple(sorted(new, key=lambda config: (*found[config], _order(config)))[:MOST])


def _block_names(own: Sequence[Config]) -> tuple[str, ...]:
    values: dict[str, list[object]] = {}
    for config in own:
        for name, value in config.kwargs:
            values.setdefault(name, []).append(value)
    return tuple(
        name
        for name, held in values.items()
        if name.startswith("B") and len(held) == len(own) and all(map(_power_of_two, held))
    )


def _power_of_two(value: object) -> bool:
    return type(value) is int and value > 0 and value.bit_count() == 1


def _grid(own: Sequence[Config], names: tuple[str, ...], target: Target) -> Iterator[Config]:
    if not own:
        return
    blocks = [_powers({config.numbers[name] for config in own}) for name in names]
    warps = _doubled(1, _most_warps(own, target))
    most_stages = _MAX_STAGES if target.arch_number >= _ASYNC_COPIES_FROM else 2
    stages = range(1, max(most_stages, *(config.num_stages for config in own)) + 1)
    largest = max(target.max_shared, *(_tile_bytes(config, names) for config in own))
    templates = {(_others(config, names), config.num_ctas): config for config in reversed(own)}
    for template in reversed(templates.values()):
        for sizes in itertools.product(*blocks):
            held = dict(zip(names, sizes, strict=True))
            kwargs = tuple((name, held.get(name, value)) for name, value in template.kwargs)
            for num_warps, num_stages in itertools.product(warps, stages):
                made = replace(template, kwargs=kwargs, num_warps=num_warps, num_stages=num_stages, maxnreg=None)
                if _tile_bytes(made, names) <= largest:
                    yield made


def _most_warps(own: Sequence[Config], target: Target) -> int:
    offered = max((config.num_warps for config in own), default=1)
    return max(offered, _MAX_WARPS) if target.arch_number < _WARP_LIMITED_FROM else offered


def _doubled(low: int, high: int) -> list[int]:
    """Return ``low`` and what it becomes by doubling, up to ``high``."""
    return [low << power for power in range((high // low).bit_length())]


def _powers(used: set[int]) -> list[int]:
    """Return the block sizes to try. What the provider uses beyond the limits stays within them."""
    low = min(*used, max(MIN_BLOCK, min(used) // _REACH))
    high = max(*used, min(_MAX_BLOCK, max(used) * _REACH), MIN_BLOCK)
    return _doubled(low, high)


def _tile_bytes(config: Config, names: tuple[str, ...]) -> int:
    """Return the size of a tile of the two largest blocks, of two-byte numbers."""
    held = config.numbers
    return 2 * math.prod(sorted((held[name] for name in names), reverse=True)[:2])


def _others(config: Config, names: tuple[str, ...]) -> tuple[tuple[str, object], ...]:
    return tuple((name, value) for name, value in config.kwargs if name not in names)


def _distance(config: Config, own: Sequence[Config], names: tuple[str, ...]) -> tuple[int, int]:
    """Return the steps to the nearest offered configuration with the same other keywords, and its index."""
    same = (_others(config, names), config.num_ctas)
    return min(
        (_steps(config, other, names), index)
        for index, other in enumerate(own)
        if (_others(other, names), other.num_ctas) == same
    )


def _steps(one: Config, other: Config, names: tuple[str, ...]) -> int:
    ours, theirs = one.numbers, other.numbers
    doublings = sum(abs(ours[name].bit_length() - theirs[name].bit_length()) for name in names)
    doublings += abs(one.num_warps.bit_length() - other.num_warps.bit_length())
    return doublings + abs(one.num_stages - other.num_stages)


def _capped(config: Config, target: Target) -> Iterator[Config]:
    each = target.registers_per_sm // (config.num_warps * target.warp_size)
    blocks = each // (config.maxnreg or MAX_REGISTERS)
    for cap in _CAPS:
        if each // cap > blocks:
            blocks = each // cap
            yield replace(config, maxnreg=cap)


def _order(config: Config) -> tuple[object, ...]:
    values = tuple((len(str(value)), str(value)) for _, value in config.kwargs)  # numbers by size; a few are words
    return (values, config.num_warps, config.num_stages, -(config.maxnreg or 0))
