"""Stand-ins for what vLLM's engine needs of a machine with cards, beside what a single layer needs.

All of them are gone when the block is left, so that what is traced besides is as without an engine.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import torch._dynamo
import vllm.platforms
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from vllm import _custom_ops  # noqa: F401 - what it registers must be there before operators are stood in for
from vllm.distributed import parallel_state
from vllm.distributed.device_communicators.base_device_communicator import DeviceCommunicatorBase
from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
from vllm.platforms.cuda import NonNvmlCudaPlatform
from vllm.utils import torch_utils
from vllm.v1.worker.gpu import buffer_utils

from gdn_aot.providers.absent import without_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from typing_extensions import Self
    from vllm.config import VllmConfig

_NAMESPACE: Any = torch._ops._OpNamespace  # noqa: SLF001
_CARDS = 1024
"""Cards that vLLM finds: as many as any deployment asks for."""
_OURS = "vllm"
"""Namespace of the operators that vLLM has in Python."""


class _Stream:
    """A stream or an event that nobody waits for."""

    cuda_stream = 0

    def __init__(self, *_: object, **__: object) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def _nothing(*_: object, **__: object) -> None: ...


def _same(tensor: torch.Tensor, *_: object) -> torch.Tensor:
    return tensor


def _pageable(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return what makes tensors whose pages are not locked, which takes a card."""

    def made(*args: Any, **options: Any) -> torch.Tensor:
        return make(*args, **{**options, "pin_memory": False})

    return made


class Launching(TorchDispatchMode):  # type: ignore[misc]
    """In its block, vLLM's own operators run their code on tensors of the meta device, too: it launches kernels."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator."""
        del types
        if func.namespace == _OURS:
            with self:
                return func._op_dk(torch._C.DispatchKey.CPU, *args, **(kwargs or {}))  # noqa: SLF001
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def card(name: str, variables: Mapping[str, str]) -> Iterator[None]:
    """Have vLLM find one CUDA card with a product name, whose compiled operators do nothing.

    The Triton sampler is the one that is used, whatever vLLM would take: where FlashInfer's cannot serve a request,
    vLLM takes it too. Plugins are not loaded.
    """
    current = vllm.platforms.current_platform
    kind = type(current)
    alone = DeviceCommunicatorBase
    own = {
        "current_device": staticmethod(lambda: torch.device("cpu")),
        "device_count": staticmethod(lambda: _CARDS),
        "get_device_communicator_cls": staticmethod(lambda: f"{alone.__module__}.{alone.__qualname__}"),
        "manual_seed_all": staticmethod(_nothing),
    }
    found = {"VLLM_PLUGINS": "", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **variables}
    properties: Any = torch.cuda.get_device_properties
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {**found, "VLLM_USE_FLASHINFER_SAMPLER": "0"}))
        for place, names in (
            (torch.cuda, {"Stream": _Stream, "Event": _Stream, "stream": _Stream, "current_stream": _Stream}),
            (torch, {"Event": _Stream}),
            (torch.cuda, {"synchronize": _nothing, "get_device_name": lambda _device=None: name}),
            (torch_utils, {"prev_set_stream": _nothing}),
            (torch.accelerator, {"synchronize": _nothing, "empty_cache": _nothing}),
            (properties(), {"name": name}),
            (torch, {"zeros": _pageable(torch.zeros), "tensor": _pageable(torch.tensor)}),
            (torch.Tensor, {"pin_memory": _same}),
            (
                buffer_utils,
                {"is_uva_available": lambda: True, "get_accelerator_view_from_cpu_tensor": lambda host: host},
            ),
        ):
            for attribute, value in names.items():
                stack.enter_context(mock.patch.object(place, attribute, value))
        stack.enter_context(torch._dynamo.config.patch(disable=True))  # what it compiles is Inductor's  # noqa: SLF001
        stack.enter_context(mock.patch.object(_NAMESPACE, "__getattr__", _operator(_NAMESPACE.__getattr__)))
        stack.enter_context(without_images())
        current.__class__ = type(kind.__name__, (kind, NonNvmlCudaPlatform), own)
        try:
            yield
        finally:
            current.__class__ = kind


def _operator(usual: Callable[..., Any]) -> Callable[..., Any]:
    """Return what finds an operator, or something that does nothing for one of vLLM's compiled extensions."""

    def find(namespace: Any, name: str) -> Any:
        try:
            return usual(namespace, name)
        except AttributeError:
            if "_C" not in namespace.name or name.startswith("__"):
                raise
            return _Operator()

    return find


class _Operator:
    """A compiled operator: it writes to tensors that nobody reads."""

    def __init__(self) -> None:
        self.default = self

    def __call__(self, *_: object, **__: object) -> None: ...


@contextlib.contextmanager
def ranks(config: VllmConfig) -> Iterator[None]:
    """Be the first of as many processes as a deployment has ranks; the others are not there, and nobody waits."""
    parallel = config.parallel_config
    world = parallel.world_size
    new_group = torch.distributed.new_group
    made = torch.distributed.is_initialized()
    if not made:
        torch.distributed.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    try:
        with (
            mock.patch.object(
                torch.distributed, "new_group", lambda ranks=None, *_, **__: new_group(ranks, backend="fake")
            ),
            mock.patch.object(MessageQueue, "create_from_process_group"),
            mock.patch.object(parallel_state, "in_the_same_node_as", return_value=[True] * world),
        ):
            parallel_state.init_distributed_environment(
                world_size=world, rank=0, local_rank=0, backend="fake", distributed_init_method="fake://"
            )
            parallel_state.initialize_model_parallel(
                parallel.tensor_parallel_size, parallel.pipeline_parallel_size, backend="fake"
            )
        yield
    finally:
        parallel_state.destroy_model_parallel()
        parallel_state.destroy_distributed_environment()
        if not made and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
