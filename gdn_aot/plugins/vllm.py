"""vLLM's entry point, ``gdn_aot`` of the group ``vllm.general_plugins``.

vLLM calls `register` in every process that it starts, before it imports kernels: API server, engine core, workers, and
the short-lived one that inspects a model. Nothing of vLLM is imported here.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any

WORKER = "vllm.v1.worker.gpu_worker"
"""The module whose ``Worker`` measures memory for the KV cache."""
_LOGGER = "vllm.gdn_aot"
"""Below vLLM's own logger, so that its settings apply."""

_registered = False


def register() -> None:
    """Install the loader in this process, and say in one line what it serves.

    Whatever goes wrong, vLLM goes on as if this package were not installed, with one warning.

    Raises:
        GdnAotError: In strict mode only: no artifact fits.
    """
    global _registered  # noqa: PLW0603
    if _registered:
        return
    _registered = True
    try:
        _register()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if _strict(error):
            raise
        _say("warning", f"nothing is served: {type(error).__name__}: {error}")


def _register() -> None:
    from gdn_aot.runtime import loader

    loader.install()
    state = loader.state()
    if not state.active:
        return
    for found in state.found:
        header = found.index.header
        models = len(header["models"])
        _say(
            "info",
            f"{header['identifier']}: {header['kernels']} kernels, {header['choices']} choices and "
            f"{header['binaries']} binaries for {models} model{'s' * (models != 1)}",
        )
    from gdn_aot.plugins import vllm_memory

    loader.after_import(WORKER, vllm_memory.watch)


def _strict(error: BaseException) -> bool:
    """Say whether the user asked for errors, and this is one of ours."""
    errors: Any = sys.modules.get("gdn_aot.errors")
    loader: Any = sys.modules.get("gdn_aot.runtime.loader")
    return bool(errors and loader and isinstance(error, errors.GdnAotError) and loader.state().strict)


def _say(level: str, message: str) -> None:
    """Log where vLLM's messages go, if vLLM has set that up, and else as the loader does."""
    if "vllm.logger" in sys.modules:
        import logging

        getattr(logging.getLogger(_LOGGER), level)(f"gdn-aot: {message}")
        return
    from gdn_aot.runtime import log

    (log.warn if level == "warning" else log.info)(message)
