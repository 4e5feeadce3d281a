"""Autotune keys compared: which known key may stand for another.

Keys hold sizes, flags and the dtypes of tensors. Sizes are compared by their ratio: 64 is as far from 32 as from 128.
"""

from __future__ import annotations

import math

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from gdn_aot.triton_internals.relaxing import Relaxation

_OTHER_FLAG = 4.0
"""Distance of two flags that differ: as much as a size 16 times as large."""
MOST_VALUES = 4096
"""Values of a relaxed constant that `with_alike` goes up to."""


def alike(key: tuple[Any, ...], known: Iterable[tuple[Any, ...]], relaxations: Iterable[Relaxation]) -> Any:
    """Return the known autotune key that is ``key`` but for relaxed constants, the one with the nearest; None if none.

    Ties go to the smaller.
    """
    places = [place for _, _, place in relaxations if place is not None and place < len(key)]
    if not places:
        return None

    def rest(one: tuple[Any, ...]) -> list[Any]:
        return [(type(part), part) for place, part in enumerate(one) if place not in places]

    wanted = rest(key)
    fitting = [other for other in known if len(other) == len(key) and rest(other) == wanted]
    return min(fitting, key=lambda other: _far(key, other, places), default=None)


def with_alike(choices: Iterable[tuple[Any, Any]], relaxations: Iterable[Relaxation]) -> list[tuple[Any, Any]]:
    """Return (key, choice) for all keys with another value of a relaxed constant, up to the largest that is known.

    For readers of choices that look keys up as they are.
    """
    made = dict(choices)
    for relaxation in relaxations:
        place = relaxation[2]
        if place is None:
            continue
        known = dict(made)
        for key in known:
            for value in range(1, min(key[place], MOST_VALUES)):
                other = (*key[:place], value, *key[place + 1 :])
                if other not in made:
                    made[other] = known[alike(other, known, [relaxation])]
    return list(made.items())


def _far(key: tuple[Any, ...], other: tuple[Any, ...], places: list[int]) -> tuple[float, list[Any]]:
    ratios = []
    for place in places:
        pair = key[place], other[place]
        positive = all(isinstance(value, int) and value > 0 for value in pair)
        ratios.append(max(pair) / min(pair) if positive else 1.0 if pair[0] == pair[1] else float("inf"))
    return max(ratios), [other[place] for place in places]


def nearest(key: tuple[Any, ...], known: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the known keys that may stand for ``key``, the closest first.

    A key of other dtypes or another form may not: its configuration need not fit. Ties go to the first.
    """
    ranked = [(_distance(key, other), place, other) for place, other in enumerate(known)]
    return [other for distance, _, other in sorted(ranked, key=lambda item: item[:2]) if distance < math.inf]


def _distance(key: tuple[Any, ...], other: tuple[Any, ...]) -> float:
    return sum(map(_part, key, other)) if len(key) == len(other) else math.inf


def _part(wanted: Any, known: Any) -> float:
    if wanted == known and type(wanted) is type(known):
        return 0.0
    if not all(value is None or isinstance(value, (int, float)) for value in (wanted, known)):
        return math.inf
    flags = isinstance(wanted, bool) or isinstance(known, bool) or wanted is None or known is None
    return _OTHER_FLAG if flags or min(wanted, known) <= 0 else abs(math.log2(wanted) - math.log2(known))
