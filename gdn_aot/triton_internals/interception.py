"""Take over Triton's autotuning and launching for a while."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def intercept(
    on_autotune: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
    on_launch: Callable[[Any, tuple[Any, ...], dict[str, Any]], None],
) -> Iterator[None]:
    """Replace autotuning and launching for the duration of a ``with`` block, on a machine without a device.

    As `intercept_live`, but ``on_launch`` is not told the grid.
    """
    with intercept_live(on_autotune, lambda jit, args, kwargs, _grid: on_launch(jit, args, kwargs)):
        yield


@contextlib.contextmanager
def intercept_live(
    on_autotune: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
    on_launch: Callable[[Any, tuple[Any, ...], dict[str, Any], Any], Any],
) -> Iterator[None]:
    """Replace autotuning and launching for the duration of a ``with`` block.

    ``on_autotune`` is called with (autotuner, args, kwargs with ``grid`` and ``warmup``) in place of ``Autotuner.run``,
    and its result is returned to the caller; ``on_launch`` with (JIT function, args, kwargs without these, grid as the
    caller wrote it) in place of ``JITFunction.run``.
    """
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    def jit_run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        del warmup
        return on_launch(self, args, kwargs, grid)

    saved = Autotuner.run, JITFunction.run
    Autotuner.run, JITFunction.run = (lambda self, *args, **kwargs: on_autotune(self, args, kwargs)), jit_run
    try:
        yield
    finally:
        Autotuner.run, JITFunction.run = saved
