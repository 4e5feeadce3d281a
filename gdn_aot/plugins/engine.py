"""What the entry points of all engines share: how one installs the loader, and keeps what goes wrong to itself.

Nothing of an engine is imported here, and nothing of ours before it is needed: what cannot be imported must not reach
the engine either.
"""

from __future__ import annotations

import sys

from gdn_aot._text import plural, shown

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gdn_aot.serving.state import State

    Ends = tuple[type[BaseException], ...]

ENDS: Ends = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What is not held back: it is to end more than what raised it. vLLM's signal handlers raise ``SystemExit``."""
ONLY_INTERRUPT: Ends = (KeyboardInterrupt,)
"""The same for an engine that raises no other itself."""


def hold(function: Callable[[], None], what: str, after: str = "", *, ends: Ends = ENDS, strict: bool = False) -> None:
    """Call a function, and make one warning of whatever it raises.

    Args:
        function: What may go wrong.
        what: What the warning says before the error: ``nothing is served``.
        after: What it says after it.
        ends: What is not held back.
        strict: Nor is an error of ours in strict mode, which the user asked for.
    """
    try:
        function()
    except ends:
        raise
    except BaseException as error:
        if strict and _asked_for(error):
            raise
        messages: Any = sys.modules.get("gdn_aot.serving.log")
        if messages is not None:  # else it is what cannot be imported
            try:
                messages.warn(f"{what}: {_told(error, ends)}{after}")
                messages.detail(error)
            except ends:
                raise
            except BaseException:  # noqa: BLE001, S110 - a handler of the engine's logger: nobody is left to tell
                pass


def _told(error: BaseException, ends: Ends) -> str:
    """Return the name of an error and its words, if it has any that can be had."""
    name = type(error).__name__
    try:
        return f"{name}: {shown(error)}"
    except ends:
        raise
    except BaseException:  # noqa: BLE001 - its ``__str__`` may raise anything
        return name


def _asked_for(error: BaseException) -> bool:
    errors: Any = sys.modules.get("gdn_aot.errors")
    loader: Any = sys.modules.get("gdn_aot.serving.loader")
    return bool(errors and loader and isinstance(error, errors.GdnAotError) and loader.state().strict)


def install(logger: str) -> State:
    """Install the loader, with its messages going to a logger of the engine; return its state.

    Raises:
        GdnAotError: In strict mode only: no artifact fits.
    """
    from gdn_aot.serving import log

    log.send_to(logger)
    from gdn_aot.serving import loader

    loader.install()
    return loader.state()


def line(state: State) -> str:
    """Return what one line says of all artifacts together, or nothing if none is for a device that was seen.

    A device was seen if kernels ran on it in this process: none where it just started. No device is asked for here, as
    that would start CUDA.
    """
    artifacts, seen = [(found.header, found.same) for found in state.found], state.seen_capabilities()
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
