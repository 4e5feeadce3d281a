"""The launches of a call, for processes under the stand-in driver."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gdn_aot import triton_internals
from gdn_aot.triton_internals import interception


def keys(run: Callable[[], object]) -> list[list[Any]]:
    """Return [kernel, launch key] of each launch that a call makes, autotuned kernels with their first candidate."""
    found: list[list[Any]] = []

    def tuned(tuner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return triton_internals.run_config(tuner, args, kwargs, tuner.configs[0])

    def launched(jit: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        found.append([triton_internals.kernel_name(jit), triton_internals.Launch(jit, args, kwargs).key])

    with interception.intercept(tuned, launched):
        run()
    return found
