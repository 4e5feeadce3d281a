"""Which choice to take for an autotune key that the artifact lacks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_OTHER_FLAG = 4.0
"""Distance of two flags that differ: as much as a size 16 times as large."""


def nearest(key: tuple[Any, ...], known: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the known keys that may stand for ``key``, the closest first.

    Keys hold sizes, flags and the dtypes of tensors. A key of other dtypes or another form may not: its configuration
    need not fit. Sizes are compared by their ratio, so that 64 is as far from 32 as from 128; ties go to the first.
    """
    ranked = [(_distance(key, other), place, other) for place, other in enumerate(known)]
    return [other for distance, _, other in sorted(ranked, key=lambda item: item[:2]) if distance < math.inf]


def _distance(key: tuple[Any, ...], other: tuple[Any, ...]) -> float:
    if len(key) != len(other):
        return math.inf
    return sum(map(_part, key, other))


def _part(wanted: Any, known: Any) -> float:
    if wanted == known and type(wanted) is type(known):
        return 0.0
    if isinstance(wanted, str) or isinstance(known, str):
        return math.inf
    if isinstance(wanted, bool) or isinstance(known, bool) or wanted is None or known is None:
        return _OTHER_FLAG
    if wanted <= 0 or known <= 0:
        return _OTHER_FLAG
    return abs(math.log2(wanted / known))
