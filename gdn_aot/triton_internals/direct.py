"""Launch given binaries with the real arguments of a provider's own calls, on a real device.

For the tuner and the numeric check: a provider's function is called as usual, `intercept_live` of
`gdn_aot.triton_internals.interception` hands over each launch with its arguments, and `Ready` launches whichever binary
is to be tried with them. Triton compiles nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdn_aot.triton_internals import Launch, active_driver, launching

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gdn_aot.store.index_records import BinaryRecord

Grid = tuple[int, int, int]


class BoundLaunch:
    """One launch, bound: which binary it wants, and what that is to be launched with."""

    def __init__(
        self,
        jit: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        grid: Any,
        constants: Callable[[Any, Callable[[], Any]], Mapping[str, int | None]],
    ) -> None:
        """Bind it. ``constants`` is as `gdn_aot.tracing.relax.Relaxer.constants`."""
        launch = Launch(jit, args, kwargs, constants(jit, lambda: Launch(jit, args, kwargs).specialization()))
        self.jit = jit
        self.key = launch.key
        self.arguments: dict[str, Any] = launch.arguments
        """Every parameter of the kernel by name, in order, constexprs included."""
        made = grid(self.arguments) if callable(grid) else grid
        x, y, z = (*map(int, made), 1, 1)[:3]
        self.grid: Grid = (x, y, z)


class Ready:
    """One binary, loaded on the current device, of which ``device`` is the ordinal.

    ``native`` is `gdn_aot.triton_internals._launch`, or None to launch through Triton's own launcher; ``code`` a cubin,
    or PTX text, which the driver then compiles for the device.

    Raises:
        RuntimeError: The CUDA driver refused.
    """

    def __init__(self, native: Any, jit: Any, record: BinaryRecord, code: bytes, device: int) -> None:
        self.loaded = launching.load_binary(native, record, code, device)
        self._kernel = launching.make_kernel(native, jit, record, code, self.loaded)

    def launch(self, grid: Grid, arguments: Mapping[str, Any], stream: int) -> None:
        """Launch it on a stream, and return without waiting.

        Raises:
            RuntimeError: The CUDA driver refused.
        """
        kernel = self._kernel
        kernel.run(*grid, stream, kernel.function, kernel.packed_metadata, None, None, None, *arguments.values())


def pretend(properties: Callable[[int], dict[str, int]], target: Callable[[], Any]) -> None:
    """Have Triton's active driver answer with these properties and this target, for configurations and launch keys.

    Loading and launching are not touched: they take no part of the answer.
    """
    driver = active_driver()
    driver.utils.get_device_properties, driver.get_current_target = properties, target


def declared_zero(tuner: Any) -> tuple[str, ...]:
    """Return the arguments that an ``Autotuner`` sets to zero before each launch."""
    return tuple(tuner.reset_to_zero or ())


def current_stream(device: int) -> int:
    """Return the handle of PyTorch's current stream on a device."""
    return int(active_driver().get_current_stream(device))
