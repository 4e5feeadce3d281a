"""What both processes that launch on a card have in common: its start, what they read, and what they free."""

from __future__ import annotations

import gc
import importlib
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gdn_aot import triton_internals
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.errors import UsageError
from gdn_aot.launches import Config, Key
from gdn_aot.machine.child import EndedError
from gdn_aot.store.index_records import BinaryRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gdn_aot.machine.child import Channel

CARD = "gdn_aot.measuring.card:Cuda"
START_SECONDS = 300.0
"""Seconds in which such a process has imported the provider."""


class Measurer(Protocol):
    """A measuring process; `gdn_aot.machine.child.Child` is one, and says what the parts mean."""

    silence: float | None

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message."""

    def receive(self) -> dict[str, Any]:
        """Wait for the next message; raises `gdn_aot.machine.child.EndedError`."""

    def end(self, *, at_once: bool) -> None:
        """End it, after its last message or at once."""


def begin(process: Measurer, what: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Have a process that was started take its card and import the provider; an error begins with ``what``.

    Raises:
        UsageError: It cannot: no device, or a broken provider.
    """
    process.send(request)
    try:
        return process.receive()
    except EndedError as error:
        hint = "check the device and the provider with gdn-aot doctor"
        raise UsageError(f"the {what}: {error.reason}", hint=hint) from None


class CardServer:
    """The child's end: the card and the provider's module that its first message names."""

    def __init__(self, channel: Channel, request: Mapping[str, Any]) -> None:
        triton_internals.check_supported()
        module, _, name = request["card"].partition(":")
        self.channel = channel
        self.card: Any = getattr(importlib.import_module(module), name)(**request["options"])
        described = self.card.describe()
        if "target" in request:
            self.card.become(get_target(request["target"]))
        self.module: Any = importlib.import_module(request["module"])
        channel.send({"event": "started", **described})


class PlannedBinary(msgspec.Struct, frozen=True):
    """What is needed to launch one binary."""

    cubin: str
    metadata: dict[str, Any]
    specialization: dict[str, Any]


class PlannedKey(msgspec.Struct):
    """One autotune key to measure: its candidates, and what is known of them."""

    key: Key
    configs: list[Config]
    offered: int
    """Candidates, from the start, that are the provider's own."""
    out: dict[int, str]
    """Candidates that are out, and why."""
    done: set[int]
    """Token counts that are settled."""


class PlannedKernel(msgspec.Struct):
    """One kernel of a plan."""

    name: str
    binaries: dict[str, PlannedBinary | str] = {}
    """By launch key; or why there is none."""
    keys: list[PlannedKey] = []
    choices: list[tuple[Key, Config]] = []
    """One configuration for each autotune key, if nothing is to be measured."""


class Plan(msgspec.Struct, dict=True):
    """What a process on a card reads: kernels, and the build cache with their cubins."""

    cache: str
    kernels: list[PlannedKernel]
    native: bool = True
    """Load cubins; else PTX."""

    def write(self, path: Path) -> str:
        """Write it. Returns the path."""
        path.write_bytes(msgspec.json.encode(self))
        return str(path)

    @classmethod
    def read(cls, path: str) -> Plan:
        """Read what `write` wrote."""
        return msgspec.json.decode(Path(path).read_bytes(), type=cls)

    @cached_property
    def _binaries(self) -> dict[str, dict[str, PlannedBinary | str]]:
        return {kernel.name: kernel.binaries for kernel in self.kernels}

    def binary(self, kernel: str, launch_key: str) -> tuple[BinaryRecord, bytes] | str:
        """Return what to load for a launch, or why there is nothing."""
        found = self._binaries.get(kernel, {}).get(launch_key, "it was not compiled for this launch")
        if isinstance(found, str):
            return found
        cache, record = BuildCache(Path(self.cache)), BinaryRecord(launch_key, *msgspec.structs.astuple(found))
        return record, cache.cubin(found.cubin) if self.native else cache.ptx(found.cubin).encode() + b"\0"


def free_memory() -> None:
    """Free what can be freed of the card; in vain while an error is handled that holds on to the tensors of a call."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def calling(device: str) -> Iterator[None]:
    """Make calls on a device: no gradients but where they ask for them, and backward passes in this thread."""
    import torch

    with torch.device(device), torch.no_grad(), torch.autograd.set_multithreading_enabled(False):
        yield
