"""Let SGLang be imported and run where there is no GPU, as if the target were there.

SGLang asks PyTorch for its device while it is imported, takes several of its ways by what device a tensor is on, and
makes tensors on ``cuda``. Its compiled extension and FlashInfer, which a Gated Delta Net layer on Triton's kernels
never calls, cannot be loaded without the CUDA runtime, and a machine with a GPU may lack them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from gdn_aot import triton_internals
from gdn_aot.providers.absent import Absent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PACKAGES = ("sgl_kernel", "flashinfer", "torchvision")
_ANYTHING = ("torchvision", "sgl_kernel.scalar_type", "flashinfer.fused_moe")
"""Of these, modules have whatever is asked of them while models are imported."""
_CUDA = "13.0"
"""What SGLang's wheels are made with; that PyTorch says one at all is how SGLang knows a CUDA card."""


def prepare() -> None:
    """Make ``import sglang`` work under the stand-in driver, and on a real device without what is not installed there.

    Call before that import.
    """
    if any(isinstance(finder, Absent) for finder in sys.meta_path):
        return
    absent: tuple[str, ...] = _PACKAGES
    if triton_internals.stands_in():
        version: Any = torch.version
        version.cuda = _CUDA
    else:
        absent = tuple(name for name in _PACKAGES if importlib.util.find_spec(name) is None)
    if not absent:
        return
    if "flashinfer" in absent:
        os.environ["SGLANG_IS_FLASHINFER_AVAILABLE"] = "false"
    anything = [name for name in _ANYTHING if name.partition(".")[0] in absent]
    sys.meta_path.insert(0, Absent(_is_of(absent), _is_of(anything)))
    if "sgl_kernel" in absent:
        library: Any = torch.library
        library.register_fake = _of_what_is_there(library.register_fake)


def _of_what_is_there(register: Callable[..., Any]) -> Callable[..., Any]:
    """Return what registers a fake for an operator, unless it is one of the extension that is not there."""

    def register_fake(operator: Any, function: Any = None, /, **named: Any) -> Any:
        if isinstance(operator, str) and operator.startswith("sgl_kernel::"):
            return function if function is not None else lambda fake: fake
        return register(operator, function, **named)

    return register_fake


def _is_of(modules: Sequence[str]) -> Callable[[str], bool]:
    return lambda name: any(f"{name}.".startswith(f"{module}.") for module in modules)


def on_target() -> contextlib.AbstractContextManager[Any]:
    """Return a block in which SGLang finds tensors on a card; on a real device it changes nothing."""
    return _OnTarget() if triton_internals.stands_in() else contextlib.nullcontext()


_DEVICE: Any = torch.Tensor.device
_IS_CUDA: Any = torch.Tensor.is_cuda
_ANSWERS = {_DEVICE.__get__: torch.device("cuda", 0), _IS_CUDA.__get__: True}
_HOST = torch.device("cpu")


class _OnTarget(TorchFunctionMode):  # type: ignore[misc]
    """In its block every tensor says that it is on the card, and those made there are on the CPU."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Answer for the device, or run the function on the CPU."""
        del types
        if func in _ANSWERS:
            return _ANSWERS[func]
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        moved = {name: _moved(value) for name, value in (kwargs or {}).items() if name != "pin_memory"}
        return func(*map(_moved, args), **moved)


def _moved(value: Any) -> Any:
    if isinstance(value, torch.device):
        return _HOST if value.type == "cuda" else value
    return _HOST if isinstance(value, str) and value.partition(":")[0] == "cuda" else value
