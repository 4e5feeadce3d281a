"""Make this process look like one with a card of a given target, for imports and tracing.

Providers read the device when they are imported (to build their lists of configurations), so `activate` must run
before the provider is imported, once per process. Nothing can be launched afterwards.
"""

from __future__ import annotations

import contextlib
import functools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from gdn_aot import triton_internals

if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.catalogue.targets import Target

_SMALL = 1 << 16
"""Elements above which a tensor's zero filling is skipped while tracing."""


class StubDriver:
    """Answers what Triton and the providers ask of a driver, for one target: one device, on which nothing runs."""

    stands_in = True
    """No device is behind it."""
    is_active = staticmethod(lambda: True)
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda _device: 0)
    get_active_torch_device = staticmethod(lambda: torch.device("cpu"))  # traced tensors live there
    get_device_interface = staticmethod(lambda: torch.cuda)  # whose property calls `activate` has replaced
    map_python_to_cpp_type = staticmethod(lambda kind: kind)  # no launcher is built

    def __init__(self, target: Target) -> None:
        properties = {
            "max_shared_mem": target.max_shared,
            "multiprocessor_count": target.card.sm_count,
            "warpSize": 32,
            "max_num_regs": target.registers_per_block,
        }
        self._target = target
        self.utils = SimpleNamespace(get_device_properties=lambda _device: properties)

    def get_device_capability(self, _device: int = 0) -> tuple[int, int]:
        """Return the target's compute capability."""
        return self._target.capability

    def get_current_target(self) -> Any:
        """Return Triton's description of the target."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._target.arch_number, 32)

    def get_benchmarker(self) -> Callable[..., Any]:
        """Refuse to benchmark."""
        raise RuntimeError("a benchmark was asked for on a machine without a GPU")


def activate(target: Target) -> None:
    """Install the stub driver and the property calls of ``torch.cuda`` for ``target`` in this process."""
    cuda: Any = torch.cuda
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda.device = lambda _device=None: contextlib.nullcontext()
    _replace_properties(target)
    triton_internals.set_driver(StubDriver(target))
    torch.set_num_threads(1)
    _skip_large_fills()


def disguise(target: Target) -> None:
    """Have this process report its real card as one of ``target``; tensors and launches stay on the real one.

    Providers then offer the configurations and take the ways that they do on the target, and launch keys are its own.
    """
    from gdn_aot.triton_internals.direct import pretend

    _replace_properties(target)
    stub = StubDriver(target)
    pretend(stub.utils.get_device_properties, stub.get_current_target)


def _replace_properties(target: Target) -> None:
    properties = SimpleNamespace(
        name=target.card.name,
        major=target.capability[0],
        minor=target.capability[1],
        total_memory=target.card.memory,
        multi_processor_count=target.card.sm_count,
        shared_memory_per_block=49152,
        shared_memory_per_block_optin=target.max_shared,
        shared_memory_per_multiprocessor=target.shared_per_sm,
        regs_per_multiprocessor=target.registers_per_sm,
        warp_size=32,
    )
    cuda: Any = torch.cuda
    cuda.get_device_capability = lambda _device=None: target.capability
    cuda.get_device_name = lambda _device=None: target.card.name
    cuda.get_device_properties = lambda _device=None: properties


def _skip_large_fills() -> None:
    """Let large zero tensors stay uninitialized: no kernel runs, so nobody reads them.

    A 32k-token trace would otherwise spend most of its time writing zeros. Small tensors, index tensors among
    them, are filled as usual.
    """
    anything: Any = torch
    anything.zeros = _lazy(torch.zeros, torch.empty)
    anything.zeros_like = _lazy(torch.zeros_like, torch.empty_like)
    anything.Tensor.new_zeros = _lazy(torch.Tensor.new_zeros, torch.Tensor.new_empty)


def _lazy(filled: Callable[..., Any], empty: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(filled)
    def make(*args: Any, **kwargs: Any) -> Any:
        made = empty(*args, **kwargs)
        return made if made.numel() > _SMALL else made.zero_()

    return make
