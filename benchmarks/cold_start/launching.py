"""A clock around every ``kernel[grid](...)`` of a process: what Triton, the loader or the floor take of a call.

All that a call does outside of it - the provider, PyTorch - is the same code in (e) and (f). That can be done once
before a call is measured, without the launches: see `Clock.left_out`.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Clock:
    """Counts seconds from now on, in what ``KernelInterface`` has for launching at this moment."""

    def __init__(self) -> None:
        from triton.runtime.jit import KernelInterface

        self._seconds, self._leaves_out = 0.0, False
        bind = KernelInterface.__getitem__

        def timed(kernel: Any, grid: Any) -> Callable[..., Any]:
            run = bind(kernel, grid)

            def launch(*args: Any, **kwargs: Any) -> Any:
                if self._leaves_out:
                    return None
                start = time.perf_counter()
                try:
                    return run(*args, **kwargs)
                finally:
                    self._seconds += time.perf_counter() - start

            return launch

        KernelInterface.__getitem__ = timed

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Launch nothing in this context: outputs are whatever their memory has."""
        self._leaves_out = True
        try:
            yield
        finally:
            self._leaves_out = False

    def read(self) -> float:
        """Return the seconds so far."""
        return self._seconds


@cache
def clock() -> Clock:
    """Return the clock of this process, which begins with the first call of this function."""
    return Clock()
