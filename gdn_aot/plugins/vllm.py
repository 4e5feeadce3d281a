"""vLLM's entry point, ``gdn_aot`` of the group ``vllm.general_plugins``.

vLLM calls `register` in every process that it starts, before it imports kernels: API server, engine core, workers, and
the short-lived one that inspects a model. Nothing of vLLM is imported here.
"""

from __future__ import annotations

import os
import sys

from gdn_aot._text import plural, shown

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any

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
    try:
        _register()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if _strict(error):
            raise
        messages: Any = sys.modules.get("gdn_aot.serving.log")
        if messages is not None:  # else it is what cannot be imported
            messages.warn(f"nothing is served: {type(error).__name__}: {shown(error)}")


def _register() -> None:
    from gdn_aot.serving import log

    log.send_to(_LOGGER)
    from gdn_aot.serving import loader

    loader.install()
    if os.environ.get("GDN_AOT_START_REPORT"):
        from gdn_aot.plugins import vllm_compiles

        if vllm_compiles.asked():
            vllm_compiles.watch()
    state = loader.state()
    if not state.active:
        return
    line = _line([(found.header, found.same) for found in state.found], state.seen_capabilities())
    if line:
        log.notice(line)
    if any(found.header.get("placed") for found in state.found):
        from gdn_aot.plugins import vllm_start

        vllm_start.place(state.found)
    from gdn_aot.plugins import vllm_memory

    loader.after_import(WORKER, vllm_memory.watch)


def _line(artifacts: list[tuple[Any, tuple[int, int] | None]], seen: set[tuple[int, int]]) -> str:
    """Return what one line says of all artifacts together, or nothing if none is for a device that was seen.

    ``seen`` has the compute capabilities of devices that kernels ran on in this process: none where it just started. No
    device is asked for here, as that would start CUDA.
    """
    if seen:
        artifacts = [pair for pair in artifacts if tuple(pair[0]["capability"]) in seen]
    if not artifacts:
        return ""
    count = f"{len(artifacts)} artifacts: " if len(artifacts) > 1 else ""
    targets = sorted({header["target"] for header, _ in artifacts})
    which = f"served if the device is {targets[0]}" if len(targets) == 1 else "the device decides which are served"
    return f"{count}{'; '.join(_coverage(*pair) for pair in artifacts)}{'' if seen else f'; {which}'}"


def _coverage(header: Any, same: tuple[int, int] | None) -> str:
    kernels, choices = plural(header["kernels"], "kernel"), plural(header["choices"], "choice")
    if same is not None:
        kernels = f"{same[0]} of its {kernels}"
    binaries, models = plural(header["binaries"], "binary", "binaries"), plural(len(header["models"]), "model")
    return f"{shown(header['identifier'])}: {kernels}, {choices} and {binaries} for {models}"


def _strict(error: BaseException) -> bool:
    """Say whether the user asked for errors, and this is one of ours."""
    errors: Any = sys.modules.get("gdn_aot.errors")
    loader: Any = sys.modules.get("gdn_aot.serving.loader")
    return bool(errors and loader and isinstance(error, errors.GdnAotError) and loader.state().strict)
