"""Which part of a trace a shard chooses for and compiles.

Autotune keys and launches without one are dealt out kernel by kernel, because the time a compile takes depends on its
kernel more than on anything else. The deal depends on what is in the trace and not on how it is numbered, so that a
second trace with further candidates is dealt out alike.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from gdn_aot.tracing.records import Trace

_FORM = re.compile(r"0*([1-9][0-9]{0,5})/0*([1-9][0-9]{0,5})", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One of several equal parts of a build."""

    number: int
    """From 1."""
    of: int


def parse_part(text: str) -> Part:
    """Read ``K/N``.

    Raises:
        UsageError: It is not of that form, or K is not from 1 to N.
    """
    found = _FORM.fullmatch(text)
    part = Part(number=int(found[1]), of=int(found[2])) if found else None
    if part is None or part.number > part.of:
        raise UsageError(
            f"--shard {text} is not K/N with K from 1 to N and N of at most six digits",
            hint="--shard 1/4 builds the first of four parts",
        )
    return part


def deal(trace: Trace, of: int) -> tuple[dict[int, int], dict[int, int]]:
    """Return the number of the part, from 1, of each autotune key (by its place in the trace) and plain launch.

    Of each kernel every part gets the same number of compiles, as far as that goes; what is left over goes to the part
    with the fewest in all.
    """
    names = [kernel.name for kernel in trace.kernels]
    items: dict[str, list[tuple[str, str, int, int]]] = defaultdict(list)
    for index, tuning in enumerate(trace.tunings):
        items[names[tuning.kernel]].append(("key", repr(tuning.key), len(tuning.variants), index))
    for launch in trace.plain:
        found = trace.launches[launch]
        items[names[found.kernel]].append(("launch", found.key, 1, launch))
    dealt: dict[str, dict[int, int]] = {"key": {}, "launch": {}}
    total = [0] * min(of, sum(map(len, items.values())))  # of more parts than items, the last get none
    for name in sorted(items):
        least = [(0, taken, part) for part, taken in enumerate(total)]
        heapq.heapify(least)
        for kind, _, weight, index in sorted(items[name]):
            own, taken, part = least[0]
            heapq.heapreplace(least, (own + weight, taken + weight, part))
            total[part] += weight
            dealt[kind][index] = part + 1
    return dealt["key"], dealt["launch"]


def take(trace: Trace, part: Part) -> Trace:
    """Return a trace with the autotune keys and plain launches of one part. The numbers of launches stay."""
    keys, launches = deal(trace, part.of)
    return replace(
        trace,
        tunings=[tuning for index, tuning in enumerate(trace.tunings) if keys[index] == part.number],
        plain={launch: users for launch, users in trace.plain.items() if launches[launch] == part.number},
    )
