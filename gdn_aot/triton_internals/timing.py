"""The part of `gdn_aot.triton_internals` that is told how long Triton compiled.

What is relied on: ``triton.knobs.compilation.listener`` is called for each binary with its source, the times in
microseconds, and whether it came from the cache. Whoever set one before is called first, and whoever sets one later
takes our place.
"""

from __future__ import annotations

import contextlib
import sys

TYPE_CHECKING = False  # as in typing: this is imported while someone else imports Triton
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

KNOBS = "triton.knobs"
"""The module after whose import `time_compiles` is to be called."""


def time_compiles(tell: Callable[[str, str, float], None]) -> None:
    """Call ``tell`` with (module, name of the kernel, seconds) of each binary that Triton compiled in this process."""
    knobs: Any = sys.modules[KNOBS]
    before = knobs.compilation.listener

    def listener(**told: Any) -> None:
        if before is not None:
            before(**told)
        with contextlib.suppress(Exception):  # a compile of somebody else goes on
            if not told["cache_hit"]:
                function = getattr(told["src"], "fn", None)
                name = getattr(function, "__name__", "") or str(told["src"].name)
                tell(str(getattr(function, "__module__", "")), name, told["times"].total / 1e6)

    knobs.compilation.listener = listener
