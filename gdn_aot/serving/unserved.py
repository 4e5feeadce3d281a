"""Say of a GDN kernel that Triton is about to compile, and that nothing serves, why it is not served.

Kernels with other names than those of GDN providers are none of our business, and of a provider's own package what an
artifact does not have is listed by ``gdn-aot inspect``. What is left are packages that have the same kernels under
another name, those of the Hub above all: their user believes them to be served.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from gdn_aot._text import shown
from gdn_aot.catalogue.kernel_names import KERNEL_NAMES
from gdn_aot.errors import MissError
from gdn_aot.serving import log
from gdn_aot.triton_internals import layers
from gdn_aot.triton_internals.guarding import guard_made

if TYPE_CHECKING:
    from gdn_aot.serving.state import State

_NOWHERE = "it is at no place of a known provider, and gdn-aot serves kernels by place and source"
_REPLACED = "it is not the function that its module had by its name when gdn-aot looked for it there"
"""Of one that was made again, or that a module holds in something else."""


def watch(state: State, jit: Any, *, refused: bool = False) -> None:
    """See to it that a function which was made before the loader came does not go unnoticed.

    It need not have a known name if it was ``refused``. That it was launched already is said, and is no error.
    """
    if guard_made(jit, lambda one: note(state, one, refused=refused)):
        note(state, jit, refused=refused, raising=False)


def made_before(state: State) -> list[Any]:
    """Return the functions with names of GDN kernels in the modules that were imported so far.

    What modules hold otherwise is not searched for: it is noticed when it is compiled.
    """
    found, known = [], KERNEL_NAMES | _recorded(state)
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", {})
        if "tl" in names or "triton" in names:
            for name in known.intersection(names):
                try:
                    found.append(layers(names[name])[0])
                except TypeError:
                    continue
    return found


def note(
    state: State, jit: Any, *, refused: bool = False, raising: bool = True, compiler: str = "Triton", hint: str = ""
) -> None:
    """Warn of a function that is not served, once for its package, if it is a GDN kernel.

    ``compiler`` is what compiles it, ``hint`` what else has to be done for it to be served.

    Raises:
        MissError: It is one, and the loader is strict.
    """
    try:
        if not state.active or not (refused or _is_known(state, jit.fn.__name__)):
            return
        kernel = shown(f"{jit.fn.__module__}:{jit.fn.__qualname__}")
        with state.lock:
            said = _said(state, kernel, jit.fn)
    except Exception as error:  # noqa: BLE001 - someone else's launch goes on
        state.unexpected("a kernel that is not served", error)
        return
    if said is None:
        return
    package, reason, first = said
    hint = f"{first}. {hint}" if hint else first
    what = f"{kernel} is not served: {reason}"
    if state.strict and raising:
        raise MissError(f"{what} ({_place(package)})", hint=hint)
    say = log.info if package in state.told_packages else log.warn
    state.told_packages.add(package)
    say(f"{what} ({_place(package)}); {compiler} compiles it, and others of this package that are not served. {hint}")


def _is_known(state: State, name: str) -> bool:
    """Say whether a function has the name of a GDN kernel: of those known, or of an artifact whose index was read."""
    return name in KERNEL_NAMES or _is_recorded(state, name)


def _is_recorded(state: State, name: str) -> bool:
    return name in _recorded(state)


def _recorded(state: State) -> set[str]:
    return {record.qualname for found in state.found if found.is_read for record in found.index.kernels()}


def _said(state: State, kernel: str, function: Any) -> tuple[str, str, str] | None:
    """Return the package of a kernel, why it is not served, and what to do; None if there is nothing to say."""
    root, top = state.copied_from(kernel), function.__module__.partition(".")[0]
    if root is None and top in state.own_packages():
        return None
    if kernel not in state.refused:
        if root is not None and not _is_recorded(state, function.__qualname__):
            return None  # what the artifacts lack of their provider, they lack of its copies
        state.refused[kernel] = _REPLACED if root and _is_placed(state, root, function) else _NOWHERE
    reason = state.refused[kernel]
    if reason == _REPLACED:
        return root or top, reason, "Leave the kernel in its module as the package made it"
    return root or top, reason, _build(state, root) if root and reason != _NOWHERE else _other(root or top)


def _is_placed(state: State, root: str, function: Any) -> bool:
    """Say whether the artifacts have a kernel at a function's place in a package that stands for a provider's."""
    place = (function.__module__[len(root) :], function.__qualname__)
    records = (record for found in state.found if found.is_read for record in found.index.kernels())
    return any((record.module[len(record.module.partition(".")[0]) :], record.qualname) == place for record in records)


def _place(package: str) -> str:
    module = sys.modules.get(package)
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return shown(f"{package} is {file}" if file else f"package {package}", 1000)


def _build(state: State, package: str) -> str:
    """Return the command that builds for a copy of a provider."""
    seen = state.seen_capabilities()
    fitting = [found.header for found in state.found if tuple(found.header["capability"]) in seen]
    target = next(iter(fitting or [found.header for found in state.found]))["target"]
    file = getattr(sys.modules.get(package), "__file__", None)
    folder = shown(os.path.dirname(file), 1000) if file else "DIRECTORY"
    provider = state.copies[package]
    return f"Build for it: gdn-aot build --arch {target} --provider {provider} --package {folder} --model NAME"


def _other(package: str) -> str:
    """Return what covers a package that is laid out as no provider known here, or as another one."""
    from gdn_aot.catalogue.providers import PROVIDERS, build_command

    named = next((name for name, provider in PROVIDERS.items() if provider.package == package), None)
    if named is not None:
        return f"Build for it: {build_command(named, '')}"
    return "No artifact can cover it: gdn-aot builds for providers (gdn-aot providers) and for copies of their layout"
