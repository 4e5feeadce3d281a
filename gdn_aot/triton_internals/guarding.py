"""The part of `gdn_aot.triton_internals` that notices functions which Triton is about to compile, served by nobody.

What is relied on beyond the list in the package: before Triton compiles the first launch of a function on a device,
``JITFunction.create_binder`` is called with that function, by its ``device_caches``, a ``defaultdict`` that takes hold
of the method when the function is made; what is raised reaches whoever launched. Later launches do not come by here.
``JITFunction.run`` looks ``_do_compile`` up in the class for every binary that it does not have yet: there functions
come by that were made before, wherever they are held.
Hooks that others set in ``triton.knobs`` are neither used nor touched.
"""

from __future__ import annotations

import sys

from gdn_aot.triton_internals.observing import GUARDED, JIT, OBSERVED

TYPE_CHECKING = False  # as in typing: this is imported while someone else imports Triton
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SERVED = "gdn_aot_served"
"""Attribute of the ``device_caches`` of functions that are served."""
_COMPILE = "_do_compile"


def guard_binders(note: Callable[[Any], None]) -> None:
    """Call ``note`` with each function that is about to be bound for a device for the first time and is not served.

    A function that was made before is noted whenever it is about to be compiled. To be called after the import of
    `JIT`; again, it does nothing. What ``note`` raises is raised by the launch.
    """
    jit: Any = sys.modules[JIT]
    original = jit.JITFunction.create_binder
    if _is_guarded(original):
        return

    def create_binder(function: Any) -> Any:
        if not hasattr(function.device_caches, SERVED):
            note(function)
        return original(function)

    setattr(create_binder, GUARDED, original)
    jit.JITFunction.create_binder = create_binder
    _guard_compilations(jit.JITFunction, note)


def _guard_compilations(kind: Any, note: Callable[[Any], None]) -> None:
    original = getattr(kind, _COMPILE, None)
    if original is None or hasattr(original, GUARDED):
        return

    def compile_noted(function: Any, *args: Any, **kwargs: Any) -> Any:
        caches = function.device_caches
        if not hasattr(caches, SERVED) and not _is_guarded(getattr(caches, "default_factory", None)):
            note(function)
        return original(function, *args, **kwargs)

    setattr(compile_noted, GUARDED, original)
    setattr(kind, _COMPILE, compile_noted)


def guard_made(jit: Any, note: Callable[[Any], None]) -> bool:
    """Do the same for one function that was made before `guard_binders`.

    Returns True if it has been launched already: further launches on those devices are not noticed.
    """
    caches = jit.device_caches
    make = getattr(caches, "default_factory", None)
    if make is None or hasattr(caches, SERVED):
        return False
    if not _is_guarded(make):

        def made() -> Any:
            if not hasattr(jit.device_caches, SERVED):
                note(jit)
            return make()

        setattr(made, GUARDED, make)
        caches.default_factory = made
    return bool(caches)


def _is_guarded(make: Any) -> bool:
    """Say whether what makes a function's binders is ours; a bound method has the attributes of its function."""
    return hasattr(make, GUARDED) or hasattr(getattr(make, OBSERVED, None), GUARDED)
