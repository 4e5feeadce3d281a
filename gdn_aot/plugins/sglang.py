"""SGLang's entry point, ``gdn_aot`` of the group ``sglang.srt.plugins``, which releases from 0.5.11 on load.

SGLang calls `register` in the process that is started, before it reads its arguments, and first thing in every
scheduler that it spawns (``run_scheduler_process``), which is where kernels run; from 0.5.22 on in the detokenizer and
the controller of data parallelism too. Ray's actors (``--use-ray``) and ``bench_one_batch`` make schedulers and runners
themselves, and load no plugins in any release from 0.5.11 to 0.5.23. A scheduler has imported most of SGLang by then,
kernels among it, and has launched none: those are seeded at once. SGLang sets its logging up after that, so that what
is served is said when it is loaded. Nothing of SGLang is imported here, nor by its ``HookRegistry``, which imports what
it is to change.

SGLang catches an ``Exception`` of a plugin, and nothing else. Here only Ctrl-C passes: no signal handler of SGLang's
raises ``SystemExit`` in a process that loads plugins.
"""

from __future__ import annotations

from gdn_aot.plugins import engine

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any, NoReturn

RUNNER = "sglang.srt.model_executor.model_runner"
"""The module whose ``ModelRunner`` loads the model, before memory is measured for the pools."""
_LOGGER = "sglang.gdn_aot"

_registered = False


def register() -> None:
    """Install the loader in this process. A second call does nothing.

    Whatever goes wrong, SGLang goes on as if this package were not installed, with one warning.

    Raises:
        SystemExit: In strict mode only: no artifact fits. SGLang would go on after any other error.
    """
    global _registered  # noqa: PLW0603
    if _registered:
        return
    _registered = True
    try:
        engine.hold(_register, "nothing is served", ends=engine.ONLY_INTERRUPT, strict=True)
    except Exception as error:  # noqa: BLE001 - in strict mode alone
        _end(error)


def _register() -> None:
    state = engine.install(_LOGGER)
    if not state.active:
        return
    from gdn_aot.plugins import sglang_memory
    from gdn_aot.serving import loader

    loader.after_import(RUNNER, sglang_memory.watch)


def _end(error: Any) -> NoReturn:
    """End the process with the exit code of an error, and say why."""
    from gdn_aot.serving import log

    log.warn(f"{error.message}; GDN_AOT_STRICT is set, so SGLang is not started: {error.hint}")
    raise SystemExit(error.exit_code) from error
