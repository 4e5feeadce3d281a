"""A plugin of SGLang that writes what Triton does in its process, a line of JSON each time.

It is copied beside `counting` into a directory of ``sys.path`` and declared there, so that SGLang calls `register` in
the process that starts an engine and in each scheduler. ``SGLANG_ENGINE_COUNTS`` is the directory for the lines.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

_done = False


def register() -> None:
    """Count in this process from now on. A second call does nothing."""
    global _done  # noqa: PLW0603
    if _done:
        return
    _done = True
    from counting import Counters, is_gdn

    path = Path(os.environ["SGLANG_ENGINE_COUNTS"], f"{os.getpid()}.jsonl")

    def tell(kind: str, module: str, kernel: str, milliseconds: float) -> None:
        line = {"at": time.time(), "kind": kind, "gdn": is_gdn(module), "kernel": kernel, "ms": round(milliseconds, 3)}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    path.touch()  # says that this process counts
    Counters(tell)
