"""Which choice to take for an autotune key that the artifact lacks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_OTHER_FLAG = 4.0
"""Distance of two flags that differ: as much as a size 16 times as large."""


def nearest(key: tuple[Any, ...], known: Iterable[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """Return the known key that is closest to ``key``, or None if none may stand for it.

    Keys hold sizes, flags and the dtypes of tensors. A key of other dtypes or another form may not: its configuration
    need not fit. Sizes are compared by their ratio, so that 64 is as far from 32 as from 128; ties go to the first.
    """
    best, least = None, math.inf
    for other in known:
        distance = _distance(key, other)
        if distance < least:
            best, least = other, distance
    return best


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
