"""vLLM's entry point, ``gdn_aot`` of the group ``vllm.general_plugins``.

vLLM calls `register` in every process that it starts, before it imports kernels: API server, engine core, workers, and
the short-lived one that inspects a model. Nothing of vLLM is imported here.
"""

from __future__ import annotations

from gdn_aot.plugins import engine

WORKER = "vllm.v1.worker.gpu_worker"
"""The module whose ``Worker`` measures memory for the KV cache."""
_LOGGER = "vllm.gdn_aot"
"""Below vLLM's own logger, so that its settings apply."""

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
