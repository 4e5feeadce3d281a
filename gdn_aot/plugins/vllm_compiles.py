"""Say in vLLM's log how long Triton compiled until an engine was warm, which vLLM itself says nowhere.

Asked for by ``GDN_AOT_START_REPORT=1``, with and without an artifact; ``gdn-aot doctor --start`` reads the line.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from gdn_aot._text import plural, shown
from gdn_aot.serving import loader, log

VARIABLE = "GDN_AOT_START_REPORT"
WORKER = "vllm.v1.worker.gpu_worker"
METHOD = "compile_or_warm_up_model"
"""Of ``Worker``: the last thing that an engine calls before it is ready."""
_MARK = "_gdn_aot_counted"
_NAMED = 5
"""Kernels that the line names: those that took longest."""

_compiled: dict[tuple[bool, str], list[float]] = {}
"""(of a linear-attention layer, name of the kernel) -> seconds of each binary."""


def watch() -> None:
    """Count what Triton compiles in this process from here on, and say it when the worker is warm."""
    from gdn_aot.triton_internals.timing import KNOBS

    loader.after_import(KNOBS, _time)
    loader.after_import(WORKER, _watch_worker)


def line() -> str:
    """Return what was compiled so far, as `gdn_aot.doctor.start` reads it."""
    said = []
    for ours, what in ((True, "kernels of linear attention"), (False, "others")):
        times = [one for (own, _), found in _compiled.items() if own == ours for one in found]
        said.append(f"{len(times)} binaries of {what} in {sum(times):.2f} s")
    longest = sorted(_compiled.items(), key=lambda item: -sum(item[1]))[:_NAMED]
    named = [
        f"{shown(name)} {sum(times):.2f} s ({plural(len(times), 'binary', 'binaries')})" for (_, name), times in longest
    ]
    return f"Triton compiled {', '.join(said)}{'; longest: ' if named else ''}{', '.join(named)}"


def _time(name: str) -> None:
    del name
    try:  # no lock: whoever imports Triton holds its import locks
        from gdn_aot.triton_internals.timing import time_compiles

        time_compiles(_tell)
    except Exception as error:  # noqa: BLE001 - vLLM's start goes on
        log.warn(f"{VARIABLE}: {type(error).__name__}: {shown(error)}; what Triton compiles is not counted")


def _tell(module: str, kernel: str, seconds: float) -> None:
    from gdn_aot.catalogue.kernel_names import KERNEL_NAMES
    from gdn_aot.providers.vllm.engine import is_of_layer

    _compiled.setdefault((kernel in KERNEL_NAMES or is_of_layer(module), kernel), []).append(seconds)


def _watch_worker(module: str) -> None:
    worker: Any = getattr(sys.modules.get(module), "Worker", None)
    original = vars(worker).get(METHOD) if isinstance(worker, type) else None
    if not callable(original):
        log.notice(f"{module} has no {METHOD} that is known; {VARIABLE} says nothing")
        return
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def compile_or_warm_up_model(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            log.notice(line())

    setattr(compile_or_warm_up_model, _MARK, True)
    setattr(worker, METHOD, compile_or_warm_up_model)
