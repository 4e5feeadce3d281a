"""vLLM's entry point, ``gdn_aot`` of the group ``vllm.general_plugins``.

vLLM calls `register` in every process that it starts, before it imports kernels: API server, engine core, workers, and
the short-lived one that inspects a model. Nothing of vLLM is imported here.
"""

from __future__ import annotations

import sys

from gdn_aot.plugins import engine

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any

WORKER = "vllm.v1.worker.gpu_worker"
"""The module whose ``Worker`` starts an engine on one device."""
_LOGGER = "vllm.gdn_aot"
"""Below vLLM's own logger, so that its settings apply."""
_LOGGING = "vllm.logger"
"""The module that sets up vLLM's logging: when it is imported, and from 0.31.0 on when its `_SET_UP` is called, which
in the first process comes after the plugins."""
_SET_UP = "configure_logging"

_registered = False


def register() -> None:
    """Install the loader in this process, and say in one line what it has to serve from.

    Whatever goes wrong, vLLM goes on as if this package were not installed, with one warning.

    Raises:
        GdnAotError: In strict mode only: no artifact fits.
    """
    global _registered  # noqa: PLW0603
    if _registered:
        return
    _registered = True
    engine.hold(_register, "nothing is served", strict=True)


def _register() -> None:
    state = engine.install(_LOGGER)
    from gdn_aot.serving import loader, log
    from gdn_aot.serving.settings import asked

    if asked("GDN_AOT_START_REPORT"):
        from gdn_aot.plugins import vllm_compiles

        vllm_compiles.watch()
    if asked("GDN_AOT_FIRST_REQUEST"):
        from gdn_aot.plugins import vllm_first

        loader.after_import(vllm_first.CORE, vllm_first.watch)
    if not state.active:
        return
    loader.after_import(_LOGGING, lambda name: engine.hold(lambda: _wait(name), f"{name} cannot be watched"))
    line = engine.line(state)
    if line:
        log.notice(line)
    if any(found.header.get("placed") for found in state.found):
        from gdn_aot.plugins import vllm_start

        vllm_start.place(state.found)
    if any(found.header.get("compile_cache") for found in state.found):
        from gdn_aot.plugins import vllm_cache

        vllm_cache.place(state.found)
    from gdn_aot.plugins import vllm_memory

    loader.after_import(WORKER, vllm_memory.watch)


def _wait(module: str) -> None:
    """Have messages wait for vLLM's logging, where it is set up by a call."""
    logger: Any = sys.modules[module]
    original = getattr(logger, _SET_UP, None)
    if original is None:
        return
    from gdn_aot.serving import log

    def set_up(*args: Any, **kwargs: Any) -> None:
        setattr(logger, _SET_UP, original)
        original(*args, **kwargs)
        log.release()

    log.keep()
    setattr(logger, _SET_UP, set_up)
