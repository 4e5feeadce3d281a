"""Let vLLM be imported where there is no GPU, as if the target were there.

vLLM decides by its ``current_platform`` which of several ways it takes, asks its compiled extensions what they support
while it is imported, and cannot load these without the CUDA runtime. A Gated Delta Net layer calls one of them at most.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gdn_aot import triton_internals
from gdn_aot.providers.absent import Absent

if TYPE_CHECKING:
    from collections.abc import Callable

_EXTENSION = re.compile(r"vllm\.(?:\w+\.)*\w*_C\w*|vllm\.cumem_allocator")
_QUESTION = re.compile(r"torch\.ops\.(\w+)\.(\w*support(?:s|ed)\w*)\(")
"""Calls in ``vllm/_custom_ops.py`` that ask an extension what it supports."""
_SINCE = {"cutlass_scaled_mm_supports_fp8": 89, "cutlass_scaled_mm_supports_block_fp8": 90}
"""Those whose answer is asked of a whole deployment, and the capability from which it is yes, with CUDA 12.8 or later
(``csrc/quantization/w8a8/cutlass/scaled_mm_entry.cu`` of vLLM)."""
_CALLED = ("fused_gdn_decode_post_conv_mtp",)
"""Operators of the extension ``_C`` that a Gated Delta Net layer calls, from 0.28 on: nothing stands in for each."""


def prepare() -> None:
    """Make ``import vllm`` work under the stand-in driver; on a real device do nothing. Call before that import."""
    if not triton_internals.stands_in() or any(isinstance(finder, Absent) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, Absent(_EXTENSION.fullmatch))
    package = importlib.util.find_spec("vllm")
    assert package is not None and package.submodule_search_locations  # noqa: S101, PT018
    text = (Path(package.submodule_search_locations[0]) / "_custom_ops.py").read_text(encoding="utf-8")
    for namespace, name in set(_QUESTION.findall(text)):
        setattr(getattr(torch.ops, namespace), name, _at_least(_SINCE[name]) if name in _SINCE else _no)
    for name in _CALLED:
        if name in text:
            setattr(torch.ops._C, name, _nothing)  # noqa: SLF001
    # Layers make a guard of the device that a tensor is on; those traced are on none.
    accelerator: Any = torch.accelerator
    accelerator.device_index = torch.cuda.device
    import vllm.platforms

    vllm.platforms.current_platform = _platform()
    helpers: Any = sys.modules.get("vllm.utils.torch_utils")
    if hasattr(helpers, "PIN_MEMORY"):  # decided by the platform before there was one
        helpers.PIN_MEMORY = False


def on_card() -> contextlib.AbstractContextManager[Any]:
    """Return a block in which every tensor says that it is on a card; on a real device it changes nothing."""
    if triton_internals.stands_in():
        return mock.patch.object(torch.Tensor, "is_cuda", True)
    return contextlib.nullcontext()


def _no(*_: object) -> bool:
    return False


def _at_least(least: int) -> Callable[[int], bool]:
    return lambda capability: capability >= least


def _nothing(*_: object) -> None: ...


def _platform() -> Any:
    from vllm.platforms.interface import DeviceCapability, Platform, PlatformEnum

    class Target(Platform):  # type: ignore[misc]
        """A CUDA platform whose device is the target, and whose tensors are on the CPU."""

        _enum = PlatformEnum.CUDA
        device_name = "cuda"
        device_type = "cuda"
        dispatch_key = "CPU"

        get_device_capability = staticmethod(
            lambda device_id=0: DeviceCapability(*torch.cuda.get_device_capability(device_id))
        )
        num_compute_units = staticmethod(
            lambda device_id=0: torch.cuda.get_device_properties(device_id).multi_processor_count
        )
        get_device_name = staticmethod(lambda device_id=0: torch.cuda.get_device_name(device_id))
        get_cuda_runtime_major = staticmethod(lambda: 13)
        """What vLLM's wheels are made with: on Blackwell it is asked before prefill is chosen."""
        is_arch_support_pdl = staticmethod(lambda: torch.cuda.get_device_capability() >= (9, 0))
        """Kernels have it as a constant: whether they start before the one ahead has ended, as from Hopper on."""
        is_pin_memory_available = staticmethod(_no)
        import_kernels = staticmethod(_nothing)

    return Target()
