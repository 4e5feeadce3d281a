"""What a result was measured on, for those that need no GPU."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path


def machine(*distributions: str) -> dict[str, object]:
    """Return processor, cores, Python and the versions of distributions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": next(names, platform.machine()),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in distributions},
    }


def load() -> list[float]:
    """Return how many processes wanted a core, on average over the last 1, 5 and 15 minutes.

    Where that is more than there are cores, wall times are longer than they need be.
    """
    return [round(value, 1) for value in os.getloadavg()]
