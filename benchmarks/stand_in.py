"""A process without a GPU that goes through the same code: Triton compiles for a target and nothing is launched."""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def start(target: str = "sm_90") -> str:
    """Pretend to have a card. Returns the device that tensors live on. After torch, before the provider is imported."""
    sys.path.insert(0, str(ROOT / "tests/support"))
    import launching
    import torch

    driver: Any = launching.start(target)

    def benchmark(call: Any, **_: Any) -> list[float]:
        call()
        return [1.0, 1.0, 1.0]

    driver.get_benchmarker = lambda: benchmark
    cuda: Any = torch.cuda
    for name in ("init", "synchronize", "reset_peak_memory_stats"):
        setattr(cuda, name, lambda *_: None)
    for name in ("memory_reserved", "memory_allocated", "max_memory_allocated"):
        setattr(cuda, name, lambda *_: 0)
    cuda.mem_get_info = lambda *_: (1 << 30, 1 << 30)
    cuda.current_stream = lambda *_: SimpleNamespace(cuda_stream=0)
    torch.random.fork_rng = lambda *_, **__: contextlib.nullcontext()
    return "cpu"


def build_driver(folder: Path) -> Path:
    """Compile the tests' stand-in for ``libcuda.so.1`` and return it."""
    sys.path.insert(0, str(ROOT / "tests/support"))
    import fake_cuda

    found: Path = fake_cuda.build(folder) / "libcuda.so.1"
    return found
