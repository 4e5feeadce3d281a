"""From repeated times to a median and how far it can be trusted."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from gdn_aot.tune.objective import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation: 1 / quantile(3/4)."""
_OF_MEDIAN = math.sqrt(math.pi / 2)
"""Standard error of a median over that of a mean, for a normal distribution and many samples."""
RESOLUTION_US = 0.5
"""Resolution of CUDA events in microseconds (CUDA Runtime API, ``cudaEventElapsedTime``)."""


def sample(times: Sequence[float]) -> Sample:
    """Return the median and its standard error.

    Args:
        times: Microseconds, at least one. The error is estimated from the median absolute deviation, which a few slow
            outliers do not move, and is at least what the resolution of the clock leaves open.

    Raises:
        ValueError: There are none.
    """
    if not times:
        raise ValueError("no times")
    median = statistics.median(times)
    spread = _SIGMA * statistics.median(abs(value - median) for value in times)
    least = RESOLUTION_US / math.sqrt(12)  # of a value rounded to the resolution
    return Sample(us=median, noise=_OF_MEDIAN * max(spread, least) / math.sqrt(len(times)))
