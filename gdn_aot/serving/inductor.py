"""Notice kernels that Inductor, the compiler of ``torch.compile``, compiles itself instead of asking Triton.

Inductor writes the text of a kernel that it meets in compiled code into a module of its own, specializes it in its own
way (an argument of 1 is a constant, floats are of 64 bits, alignment is what it can prove) and compiles it in processes
of its own. No artifact has such a binary, and none of ours is the same code: these launches are not served.

What is relied on: ``PythonWrapperCodegen.define_user_defined_triton_kernel`` is called with the ``JITFunction`` when
Inductor is about to compile it (torch/_inductor/codegen/wrapper.py, since PyTorch 2.6). Code that it finds in its own
cache passes unnoticed, for nothing is compiled then.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from gdn_aot._text import shown
from gdn_aot.errors import MissError
from gdn_aot.serving import log, unserved
from gdn_aot.serving.state import Miss

if TYPE_CHECKING:
    from gdn_aot.serving.state import State

MODULE = "torch._inductor.codegen.wrapper"
"""The module after whose import `watch` is to be called."""
_METHOD = "define_user_defined_triton_kernel"
_WATCHED = "_gdn_aot_watched"
_REASON = "Inductor (torch.compile) compiles it itself"
_HINT = "Keep it out of Inductor's code as docs/how-to/compiled.md shows, or compile with another backend"


def watch(state: State) -> None:
    """Have Inductor tell us of every kernel that it is about to compile, unless it is not as known."""
    codegen = getattr(sys.modules[MODULE], "PythonWrapperCodegen", None)
    define = getattr(codegen, _METHOD, None)
    if define is None or hasattr(define, _WATCHED):
        return

    @functools.wraps(define)
    def told(self: Any, kernel: Any, *args: Any, **kwargs: Any) -> Any:
        _tell(state, kernel)
        return define(self, kernel, *args, **kwargs)

    setattr(told, _WATCHED, True)
    setattr(codegen, _METHOD, told)


def _tell(state: State, kernel: Any) -> None:
    """Note a kernel of ours as missed; say of another one with the name of ours that it is not served.

    Raises:
        MissError: In strict mode.
    """
    if not state.active:
        return
    with state.lock:
        name, refusal = _ours(state, kernel)
    if name is None:
        unserved.note(state, kernel, compiler="Inductor (torch.compile)", hint=_HINT)
        return
    reason = f"{refusal}; {_REASON}" if refusal else _REASON
    answer = "error" if state.strict else "inductor"
    with state.lock:
        state.misses.setdefault((name, "binary", _REASON), Miss(name, "binary", "torch.compile", reason, answer))
    if answer == "error":
        raise MissError(f"{name}: {reason}", hint=_HINT)
    log.warn(f"{name}: {reason}, so it is not served in compiled code. {_HINT}")


def _ours(state: State, kernel: Any) -> tuple[str | None, str]:
    """Return the name of a kernel that is served, or that a provider itself has and is refused, and why the latter."""
    for name, served in state.kernels.items():
        if served.jit is kernel:
            return name, ""
    function = getattr(kernel, "fn", None)
    module, qualname = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    name = shown(f"{module}:{qualname}")
    if name in state.refused and str(module).partition(".")[0] in state.own_packages():
        return name, state.refused[name]
    return None, ""
