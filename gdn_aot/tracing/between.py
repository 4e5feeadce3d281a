"""Autotune keys that stand for keys between others: which launches need their choice.

Two keys may differ in relaxed constants alone, as the row buckets of a norm do, and one that no call of a trace had
gets the choice of the nearest that is known (`gdn_aot.triton_internals.autotune_keys.alike`). Models of one artifact
share their keys: 48 may be known from one model, and stand for 40 of another whose own are 32 and 64.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gdn_aot.tracing.records import Trace, Tuning, Users

    Group = list[tuple[list[int], Tuning]]
    """Keys that differ in relaxed constants alone, each with its values of these."""


def complete(trace: Trace) -> None:
    """Add to each autotune key the variants, with their users, that keys on both sides of it have."""
    groups: defaultdict[str, Group] = defaultdict(list)
    for tuning in trace.tunings:
        relaxed = {one.place for one in trace.kernels[tuning.kernel].relaxations}
        values = [part for place, part in enumerate(tuning.key) if place in relaxed]
        rest = [None if place in relaxed else part for place, part in enumerate(tuning.key)]
        numbers = [value for value in values if isinstance(value, int)]
        if values and numbers == values:
            groups[repr((tuning.kernel, rest, tuning.candidates))].append((numbers, tuning))
    for group in groups.values():
        _complete(group)


def _complete(group: Group) -> None:
    having: defaultdict[int, list[tuple[list[int], list[int], Users]]] = defaultdict(list)
    for values, tuning in group:
        for variant, users in zip(tuning.variants, tuning.users, strict=True):
            having[variant[0]].append((values, variant, users))
    for first, rows in having.items():
        ranges = [(min(column), max(column)) for column in zip(*(values for values, _, _ in rows), strict=True)]
        users = set().union(*(users for _, _, users in rows))
        for values, tuning in group:
            between = all(low <= value <= high for value, (low, high) in zip(values, ranges, strict=True))
            if between and all(variant[0] != first for variant in tuning.variants):
                tuning.variants.append(rows[0][1])
                tuning.users.append(set(users))
