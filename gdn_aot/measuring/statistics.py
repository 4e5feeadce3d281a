"""From repeated times to a median and how far it can be trusted."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from gdn_aot.records.objective import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation: 1 / quantile(3/4)."""
_OF_MEDIAN = math.sqrt(math.pi / 2)
"""Standard error of a median over that of a mean, for a normal distribution and many samples."""
RESOLUTION_US = 0.5
"""Resolution of CUDA events in microseconds (CUDA Runtime API, ``cudaEventElapsedTime``)."""
RUN_TO_RUN = 0.003
"""Part of a time by which another run of it differs, as a standard deviation: two runs of 464 keys on an H100 differ by
0.6 % or less at nine of ten times above 80 us, which is 0.27 % for each. They are the runs of
``benchmarks/results/tuning_repeat.json``."""


def sample(times: Sequence[float]) -> Sample:
    """Return the median of times in microseconds, and the error that another run would show.

    That is the standard error of the median within this run, estimated from the median absolute deviation, which a
    few slow outliers do not move; with what repeating does not average away: the resolution of the clock, and where
    tensors and code happen to lie in memory (`RUN_TO_RUN`).

    Raises:
        ValueError: There are no times.
    """
    if not times:
        raise ValueError("no times")
    median = statistics.median(times)
    spread = _SIGMA * statistics.median(abs(value - median) for value in times)
    within = _OF_MEDIAN * spread / math.sqrt(len(times))
    rounding = RESOLUTION_US / math.sqrt(12)  # standard deviation of a value rounded to the resolution
    return Sample(us=median, noise=math.hypot(within, rounding, RUN_TO_RUN * median))
