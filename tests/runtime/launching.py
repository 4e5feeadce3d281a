"""A driver for machines without a GPU that loads and "launches": it notes what it is asked for.

Under it Triton and FLA run unchanged, on CPU tensors, up to the CUDA driver.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gdn_aot import triton_internals
from gdn_aot.build import stub
from gdn_aot.targets import get_target


class LaunchingDriver(stub.StubDriver):
    """Loads any binary and launches nothing."""

    def __init__(self, target: str) -> None:
        super().__init__(get_target(target))
        self.loaded: list[tuple[str, int]] = []
        """(entry, bytes of code) of each module loaded."""
        self.launched: list[tuple[str, tuple[int, ...]]] = []
        """(entry, grid) of each launch."""
        self.device = 0
        self.utils = SimpleNamespace(
            get_device_properties=self.utils.get_device_properties, load_binary=self._load, unload_module=lambda _: None
        )

    def get_current_device(self) -> int:
        return self.device

    def _load(self, name: str, code: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        assert shared >= 0
        assert device == self.device
        self.loaded.append((name, len(code)))
        number = len(self.loaded)
        return number, number, 32, 0, 1024

    def launcher_cls(self, src: Any, metadata: Any) -> Any:
        """Return a launcher for a kernel, as Triton's drivers do."""
        expected = len(src.fn.arg_names)

        def launch(x: int, y: int, z: int, _stream: int, function: int, *rest: Any) -> None:
            _, launch_metadata, enter, leave, *args = rest
            assert len(args) == expected
            assert self.loaded[function - 1][0] == metadata.name
            if enter is not None:
                enter(launch_metadata)
            self.launched.append((metadata.name, (x, y, z)))
            if leave is not None:
                leave(launch_metadata)

        return launch


class Counter:
    """Counts what Triton compiles, finds compiled, and benchmarks in this process."""

    def __init__(self) -> None:
        import triton
        from triton.runtime.autotuner import Autotuner

        self.compiled: list[str] = []
        self.found = 0
        self.benchmarked = 0

        def on_compile(*, src: Any, metadata: Any, metadata_group: Any, times: Any, cache_hit: bool) -> None:
            if cache_hit:
                self.found += 1
            else:
                self.compiled.append(metadata["name"])

        def bench(_tuner: Any, *_args: Any, **_kwargs: Any) -> list[float]:
            self.benchmarked += 1
            return [1.0, 1.0, 1.0]

        triton.knobs.compilation.listener = on_compile
        Autotuner._bench = bench


def start(target: str = "sm_90") -> LaunchingDriver:
    """Make this process one with a card of ``target``. Before the provider is imported."""
    stub.activate(get_target(target))
    driver = LaunchingDriver(target)
    triton_internals.set_driver(driver)
    return driver
