"""Processes that an artifact serves in strict mode, up to the driver."""

from pathlib import Path
from typing import Any

from helpers import WITH_SUPPORT, python

_BEFORE = (
    WITH_SUPPORT
    + """
import json, logging
import launching, gdn_aot
gdn_aot.install(sys.argv[1], strict=True)
driver = launching.start()
counter = launching.Counter()
more = {}
"""
)
_AFTER = """
report = gdn_aot.report().to_dict()
found = {"compiled": counter.compiled, "benchmarked": counter.benchmarked, "misses": report["misses"]}
print(json.dumps({**found, **more}))
"""


def served(code: str, artifact: Path, *words: object, folder: Path) -> dict[str, Any]:
    """Run code with an artifact and an empty Triton cache; returns what Triton compiled, timed and missed.

    The code finds the ``driver``, ``words`` from ``sys.argv[2]`` on, and ``more``, a dictionary of what else to return.
    """
    extra = {"TRITON_CACHE_DIR": str(folder / "triton")}
    found: dict[str, Any] = python(_BEFORE + code + _AFTER, artifact, *words, home=folder / "home", extra=extra)
    return found
