"""A plugin of SGLang that writes what Triton does in its process, a line of JSON each time.

It is copied beside `counting` into a directory of ``sys.path`` and declared there, so that SGLang calls `register` in
the process that starts an engine and in each scheduler. ``SGLANG_ENGINE_COUNTS`` is the directory for the lines. With
``SGLANG_ENGINE_SAMPLE`` schedulers also note where their main thread is while a file ``sample`` is there.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

_EVERY = 0.002
"""Seconds between two looks at the main thread."""

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
    if multiprocessing.parent_process() and "SGLANG_ENGINE_SAMPLE" in os.environ:
        threading.Thread(target=sample, args=(path.parent,), daemon=True).start()


def sample(folder: Path) -> None:
    """Look at the main thread while ``folder/sample`` is there, and write then what was seen, as JSON.

    A line is the time of a look, the seconds until the next one, and the frames from the outermost on, each as
    ``module:function:line``. A call into C that keeps the interpreter's lock makes one look last as long as it does.
    """
    marker, main = folder / "sample", threading.main_thread().ident or 0
    looks: list[tuple[float, list[tuple[str, str, int]]]] = []
    usual = sys.getswitchinterval()
    while True:
        if marker.exists():
            sys.setswitchinterval(_EVERY / 4)  # how long a thread may keep the lock that others ask for
            stack, frame = [], sys._current_frames().get(main)  # noqa: SLF001
            while frame is not None:
                stack.append((str(frame.f_globals.get("__name__")), frame.f_code.co_name, frame.f_lineno))
                frame = frame.f_back
            looks.append((time.time(), stack))
        elif looks:
            sys.setswitchinterval(usual)
            with (folder / f"{os.getpid()}.looks").open("a") as file:
                for (at, stack), (after, _) in itertools.pairwise(looks):
                    frames = [":".join(map(str, one)) for one in reversed(stack)]
                    file.write(json.dumps({"at": at, "seconds": after - at, "stack": frames}) + "\n")
            looks = []
        time.sleep(_EVERY if looks else 10 * _EVERY)
