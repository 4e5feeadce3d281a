"""A driver for machines without a GPU that loads and "launches": it notes what it is asked for.

Under it Triton and FLA run unchanged, on CPU tensors, up to the CUDA driver.
"""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from gdn_aot import triton_internals
from gdn_aot.catalogue.targets import get_target
from gdn_aot.tracing import stub


class LaunchingDriver(stub.StubDriver):
    """Loads any binary and launches nothing. Devices beyond the ``targets`` are as the last one."""

    def __init__(self, *targets: str) -> None:
        self.cards = [get_target(name) for name in targets]
        super().__init__(self.cards[0])
        self.loaded: list[tuple[str, int]] = []
        """(entry, bytes of code) of each module loaded."""
        self.launched: list[tuple[str, tuple[int, ...]]] = []
        """(entry, grid) of each launch."""
        self._here = threading.local()
        properties = [stub.StubDriver(card).utils.get_device_properties(0) for card in self.cards]
        self.utils = SimpleNamespace(
            get_device_properties=lambda device: properties[self._card(device)],
            load_binary=self._load,
            unload_module=lambda _: None,
        )

    @property
    def device(self) -> int:
        """The current device, of this thread as in CUDA."""
        return getattr(self._here, "device", 0)

    @device.setter
    def device(self, device: int) -> None:
        self._here.device = device

    def _card(self, device: int) -> int:
        return min(device, len(self.cards) - 1)

    def get_current_device(self) -> int:
        return self.device

    def get_device_capability(self, device: Any = None) -> tuple[int, int]:
        """As PyTorch's, of a number or of a device: one without a number is the current one."""
        number = device if isinstance(device, int) else getattr(device, "index", None)
        return self.cards[self._card(self.device if number is None else number)].capability

    def get_current_target(self) -> Any:
        return stub.StubDriver(self.cards[self._card(self.device)]).get_current_target()

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


def start(*targets: str) -> LaunchingDriver:
    """Make this process one with a card of each of ``targets``. Before the provider is imported."""
    driver = LaunchingDriver(*targets or ("sm_90",))
    stub.activate(driver.cards[0])
    triton_internals.set_driver(driver)
    cuda: Any = torch.cuda
    cuda.device_count = lambda: len(driver.cards)
    cuda.current_device = driver.get_current_device
    cuda.get_device_capability = driver.get_device_capability
    return driver


STUBBED = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "triton_versions")!r})
from gdn_aot import triton_internals
from gdn_aot.triton_internals import interception
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target("sm_90"))
import torch, triton
import triton.language as tl
from triton import knobs
import kernels
storage = kernels.STORAGE
"""
"""What code of the tests in ``triton_versions`` begins with: the stub driver, and their kernels."""

PRELUDE = (
    f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
"""
    """
import gdn_aot

def install(**more):
    gdn_aot.install(sys.argv[1], **more)

def become(*targets):
    global driver, counter
    import launching
    driver = launching.start(*targets)
    counter = launching.Counter()

def inputs(tokens, batch=1, heads=16, v_heads=32, dtype="bfloat16"):
    import torch
    qk, kind = (batch, tokens, heads, 128), getattr(torch, dtype)
    return dict(
        q=torch.empty(qk, dtype=kind), k=torch.empty(qk, dtype=kind),
        v=torch.empty(batch, tokens, v_heads, 128, dtype=kind),
        g=torch.empty(batch, tokens, v_heads), beta=torch.empty(batch, tokens, v_heads, dtype=kind),
    )

def prefill(tokens=128, ends=None, state=False, **more):
    import torch
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    sequences = len(ends) - 1 if ends else 1
    heads = more.get("v_heads", 32)
    with torch.inference_mode():
        return chunk_gated_delta_rule(
            **inputs(tokens, **more), output_final_state=True, use_qk_l2norm_in_kernel=True,
            initial_state=torch.empty(sequences, heads, 128, 128) if state else None,
            cu_seqlens=torch.tensor(ends) if ends else None,
        )

def decode(batch=2, **more):
    import torch
    from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule
    heads = more.get("v_heads", 32)
    with torch.inference_mode():
        return fused_recurrent_gated_delta_rule(
            **inputs(1, batch, **more), initial_state=torch.empty(batch, heads, 128, 128), output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )

def done(**more):
    report = gdn_aot.report().to_dict()
    print(json.dumps({
        "report": report, "compiled": counter.compiled, "benchmarked": counter.benchmarked,
        "launched": [name for name, _ in driver.launched], "loaded": [name for name, _ in driver.loaded], **more,
    }))
"""
)
"""What code of a test can say in a process of its own, whose first argument is an artifact."""

TOLD = """
try:
    {}
    error = ""
except Exception as raised:
    error = type(raised).__name__
done(error=error)
"""
"""Runs a statement, and prints the kind of error that it raises."""
