"""Install the loader into this process: find artifacts, wait for the provider's modules, seed their kernels."""

from __future__ import annotations

import os
import sys

from gdn_aot._hooks import ImportHook
from gdn_aot.errors import GdnAotError, NoArtifactError, UnsupportedTritonError, UsageError
from gdn_aot.machine.variables import changed_code_variable
from gdn_aot.serving import log
from gdn_aot.serving.find import find
from gdn_aot.serving.settings import POLICIES, read_settings
from gdn_aot.serving.state import State

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any

    from gdn_aot.serving.find import Verdict
    from gdn_aot.serving.report import Report
    from gdn_aot.serving.settings import Settings

_NVIDIA_DRIVER = "triton.backends.nvidia.driver"
"""As in `gdn_aot.triton_internals.launching`, which takes longer to import than `install` may."""

_JIT = "triton.runtime.jit"
"""As in `gdn_aot.triton_internals.observing`."""
_INDUCTOR = "torch._inductor.codegen.wrapper"
"""As in `gdn_aot.serving.inductor`."""

_BUILD = "gdn-aot build --arch TARGET --provider PROVIDER --model NAME"
"""As `gdn_aot.catalogue.providers.build_command` has it, which takes longer to import than `install` may."""

_state = State()
_hook = ImportHook()
_sources: set[str | None] = set()
"""What was looked through already: None for the store, or a path."""


def install(artifact: str | None = None, *, strict: bool = False, on_miss: str = "nearest") -> None:
    """Serve the kernels of installed artifacts in this process, now and in modules imported later.

    Does nothing if no artifact fits, and never raises except in strict mode. Another call changes the policy, and adds
    ``artifact`` to the artifacts that are served.

    Args:
        artifact: A ``.tar.zst`` file, or a directory of them, to use instead of the store.
        strict: A compile or a benchmark of a covered kernel is an error. Also set by ``GDN_AOT_STRICT=1``.
        on_miss: What to do with an autotune key that no artifact has: ``nearest`` takes the choice of the closest
            key, ``tune`` lets Triton benchmark, ``error`` raises. Also set by ``GDN_AOT_ON_MISS``.

    Raises:
        UsageError: ``on_miss`` is none of these.
        NoArtifactError: In strict mode: no artifact fits this process, or none fits as a whole, because some kernels
            of an artifact for another version of the provider have other sources.
        UnsupportedTritonError: In strict mode: the loader does not know the internals of the installed Triton.
    """
    if on_miss not in POLICIES:
        raise UsageError(f"on_miss={on_miss!r} is none of {', '.join(POLICIES)}")
    problems: list[str] = []
    settings = read_settings(problems)
    if not settings.enabled:
        return
    asked = settings.on_miss if on_miss == "nearest" else on_miss
    with _state.lock:
        _state.strict = strict = _state.strict or strict or settings.strict
        if asked != "nearest":
            _state.on_miss = asked
        try:
            if settings.log and not log.set_level(settings.log):
                problems.append(f"GDN_AOT_LOG={settings.log} is no level of Python's logging")
            _state.installing = True
            path = artifact or settings.artifact
            _install(settings, _absolute(path) if path else None)
        except GdnAotError as error:
            _state.problem = error.message
            if strict:
                raise
            log.warn(error.message)
        except Exception as error:
            if strict:
                raise
            _state.unexpected("install", error)
        finally:
            _state.installing = False
    for problem in problems:
        log.warn(problem)


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(os.fspath(path))
    except FileNotFoundError as error:
        raise UsageError(f"{path} is relative, and the working directory is gone") from error


def _install(settings: Settings, artifact: str | None) -> None:
    if _state.active and artifact in _sources:
        return
    changed = changed_code_variable(ieee=True)  # which depends on the device, and is for the first launch to judge
    if changed:
        _give_up(f"{changed} is set, which changes what Triton compiles")
        return
    found, verdicts = find(settings.home, artifact)
    _state.verdicts += [verdict for verdict in verdicts if verdict not in _state.verdicts]
    for verdict in verdicts:
        log.info(f"artifact {verdict.artifact}: {verdict.reason}")
    if not found:
        if not _state.found:
            raise NoArtifactError(_none_fits(artifact, settings.home, verdicts))
        return
    if _state.strict and all(one.same and one.same[0] < one.same[1] for one in (*_state.found, *found)):
        raise NoArtifactError(_none_fits(artifact, settings.home, verdicts))
    _sources.add(artifact)
    _state.found += found
    _state.active, _state.problem = True, ""
    _state.native = _native()
    if _state.native is not None:
        _hook.after_import(_NVIDIA_DRIVER, _on_driver)
    _hook.after_import(_INDUCTOR, _on_inductor)
    modules = list(dict.fromkeys(module for one in found for module in one.header["modules"]))
    for module in modules:
        _hook.after_import(module, _on_module)
    _hook.after_imports_ending([module[module.index(".") :] for module in modules if "." in module], _on_module)
    _hook.after_import(_JIT, _on_jit)


def _none_fits(artifact: str | None, home: str, verdicts: list[Verdict]) -> str:
    """Return one message for all that does not fit, however much there is."""
    where = artifact or f"the store in {home or 'no home'}"
    said = f"no artifact in {where} fits this process"
    if verdicts:
        more = f" (and {len(verdicts) - 1} more)" if len(verdicts) > 1 else ""
        said += f": {verdicts[0].artifact}: {verdicts[0].reason}{more}"
    ways = "" if artifact else f"gdn-aot fetch installs one that is published, {_BUILD} makes one, "
    return f"{said}; {ways}gdn-aot doctor says why"


def after_import(module: str, callback: Any) -> None:
    """Call ``callback(module)`` when a module was imported, as long as anything is served; now, if it was already."""
    _hook.after_import(module, callback)


def _native() -> Any:
    try:
        from gdn_aot.triton_internals import _launch
    except ImportError as error:
        log.info(f"without the extension gdn_aot.triton_internals._launch ({error}) Triton's own launchers are used")
        return None
    return _launch


def _on_driver(name: str) -> None:
    del name
    try:  # no lock: whoever imports Triton holds its import locks
        from gdn_aot.triton_internals import launching

        launching.defer_cuda_utils(_state.native)
    except Exception as error:  # noqa: BLE001 - a serving process must go on
        _state.unexpected("Triton's driver", error)


def _on_jit(name: str) -> None:
    del name
    try:
        from gdn_aot.triton_internals import guarding

        guarding.guard_binders(_on_unserved)
        if _state.installing:  # Triton was imported before
            from gdn_aot.serving.unserved import made_before, watch

            for jit in made_before(_state):
                watch(_state, jit)
    except Exception as error:  # noqa: BLE001 - a serving process must go on
        _state.unexpected("Triton's functions", error)


def _on_unserved(jit: Any) -> None:
    """See a function that Triton is about to compile, while its first launch on a device waits."""
    from gdn_aot.serving.unserved import note

    note(_state, jit)


def _on_inductor(name: str) -> None:
    del name
    try:  # no lock: whoever imports Inductor holds its import locks
        from gdn_aot.serving.inductor import watch

        watch(_state)
    except Exception as error:  # noqa: BLE001 - a serving process must go on
        _state.unexpected("Inductor", error)


def _on_module(module: str) -> None:
    """Seed the kernels of a module, while someone else's import waits."""
    try:
        from gdn_aot.serving.seed import seed
        from gdn_aot.triton_internals import serving

        with _state.lock:
            seeded = seed(_state, module) and not _state.installing  # `install` is to take no time
        if seeded:
            serving.ready_binder()
    except UnsupportedTritonError as error:
        _give_up(error.message)
    except Exception as error:
        if _state.strict:
            raise
        _state.unexpected(module, error)


def _give_up(reason: str) -> None:
    """Serve nothing in this process from here on."""
    _hook.remove()
    _state.give_up(reason)


def report() -> Report:
    """Return which artifacts were found, and which kernels were seeded, answered and missed so far, and why."""
    from gdn_aot.serving.report import Report

    with _state.lock:
        return Report(
            active=_state.active,
            problem=_state.problem,
            strict=_state.strict,
            on_miss=_state.on_miss,
            native_launcher=_state.native is not None,
            artifacts=tuple(_state.artifacts()),
            seeded=tuple(_state.kernels),
            refused=dict(_state.refused),
            loaded=dict(_state.loaded),
            modules=len(_state.modules),
            chosen=_state.chosen,
            misses=tuple(_state.misses.values()),
        )


def state() -> State:
    """Return the loader's state, for `gdn_aot.serving.preload`."""
    return _state


def provider_modules() -> list[str]:
    """Return the modules that artifacts in use have kernels of and that are not imported yet."""
    wanted = {module for found in _state.found if not found.elsewhere for module in found.header["modules"]}
    return sorted(wanted - set(sys.modules))
