"""What a provider is to the rest of the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

    from gdn_aot.models import ModelShape


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderVersion:
    """One release of a provider's distribution and what is known about it here."""

    version: str
    status: str
    """``reference`` (every test runs on it), ``tested`` (traced and compiled in the tests) or ``known``."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderInfo:
    """A provider, described without importing it."""

    name: str
    distribution: str
    license: str
    """SPDX identifier of the licence that its kernels are under."""
    package: str
    """Top-level import package."""
    module: str
    """Our module that knows its functions and workloads; imported only under the stub driver."""
    workloads: tuple[tuple[str, str], ...]
    """(name, mode it belongs to) of the workloads that ``module`` defines; older versions may lack some."""
    versions: tuple[ProviderVersion, ...]
    install: str
    """The command that installs it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds on the traffic that an artifact covers."""

    max_tokens: int = 32768
    """Most tokens in one call, all sequences of the batch together."""
    max_batch: int = 64
    """Most sequences in one dense (padded) prefill batch."""
    mode: str = "inference"
    """``inference`` or ``train``; ``train`` adds the backward kernels."""


SMALL = Limits(max_tokens=256, max_batch=1)
"""Bounds on the calls that warm a process up."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one workload: plain numbers and flags, so that it can be printed and sent."""

    workload: str
    arguments: tuple[tuple[str, object], ...]

    @classmethod
    def of(cls, workload: str, **arguments: object) -> Call:
        """Build a call from keyword arguments."""
        return cls(workload, tuple(arguments.items()))

    def __str__(self) -> str:
        return f"{self.workload}({', '.join(f'{name}={value}' for name, value in self.arguments)})"


class Workload(Protocol):
    """One call pattern of a provider's public functions that real traffic makes."""

    @property
    def name(self) -> str:
        """Name used in manifests and on the command line."""
        ...

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield calls that together cause every launch the workload can cause within ``limits``."""
        ...

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield small calls after which real ones find every kernel loaded, and some of ``tokens`` tokens if given.

        Small ones are for PyTorch's kernels too: it loads them when they are first used, and has several for one
        operation by size. Large ones are for the memory that its pool then holds.
        """
        ...

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return one random call, as traffic makes it."""
        ...

    def run(self, shape: ModelShape, call: Call) -> None:
        """Make the call through the provider's public function, on tensors of PyTorch's default device."""
        ...


class ProviderModule(Protocol):
    """A module that `ProviderInfo.module` names."""

    WORKLOADS: Mapping[str, Callable[[], Workload]]
    """Name -> factory, for the workloads that the installed version can make."""
