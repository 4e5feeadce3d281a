"""What a trace is: kernels, launches and the choices to make, as plain data that survives a pipe.

A `Trace` is written by the process that imported the provider and read by processes that import neither torch nor
Triton.
"""

from __future__ import annotations

import msgspec
from msgspec import field

from gdn_aot.launches import Config, Kernel, KernelKey, Key, Placement, Specialization

Users = set[tuple[int, int]]
"""Whose calls cause a launch: (index of the traced shape, index into `Trace.workloads`).

The shape of launches that come from a capture, or from an engine as a whole, is `NO_SHAPE`."""
NO_SHAPE = -1
MISFITS = (AttributeError, ImportError, LookupError, NameError, TypeError)
"""What Python raises where something is asked for what it does not have: the installed version of a provider is not as
its workloads take it to be. Whatever else a provider raises is its own refusal of a call."""
UNUSABLE = "it cannot be used here"
"""How the reason begins why a kernel of a capture is left out that this environment cannot import."""


class TracedLaunch(msgspec.Struct, frozen=True, array_like=True):
    """One launch key of one kernel, with what is needed to compile it."""

    kernel: int
    """Index into `Trace.kernels`."""
    key: str
    specialization: Specialization


class Tuning(msgspec.Struct, array_like=True):
    """One autotune key: the candidates for it, and the launches each candidate would cause."""

    kernel: int
    key: Key
    candidates: list[Config]
    derived: int
    """Number of candidates at the end of the list that the provider does not offer."""
    variants: list[list[int]] = field(default_factory=list)
    """Per variant of argument specialization: the launch index of each candidate, in candidate order."""
    users: list[Users] = field(default_factory=list)
    """Per variant: whose calls have it. A launch is theirs only with the candidate that the key gets."""

    @property
    def offered(self) -> int:
        """How many of the candidates, from the start, are the provider's own."""
        return len(self.candidates) - self.derived


class Trace(msgspec.Struct):
    """Everything the provider's functions launched for the traced shapes and workloads."""

    provider_version: str
    triton_version: str
    ptxas_version: str
    kernels: list[Kernel] = field(default_factory=list)
    launches: list[TracedLaunch] = field(default_factory=list)
    tunings: list[Tuning] = field(default_factory=list)
    workloads: list[str] = field(default_factory=list)
    """The wanted workloads that this version of the provider has."""
    plain: dict[int, Users] = field(default_factory=dict)
    """Launches of kernels that are not autotuned, and whose they are."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """(workload, reason) where the provider itself refused a call on this target."""
    misfits: list[tuple[str, str]] = field(default_factory=list)
    """(workload, reason) where a call failed with one of `MISFITS`."""
    lacking: list[tuple[int, str]] = field(default_factory=list)
    """(index of a traced shape, why this version of the provider makes no call for it)."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """(kernel, reason) for kernels of a capture that cannot be built here."""
    places: list[tuple[int, int, str, int, list[int]]] = field(default_factory=list)
    """Of a trace for tuning, the calls that are needed: (shape, tokens, workload, number among the workload's calls,
    indices of the autotune keys that no call before it had at so many tokens)."""
    resolved: dict[str, bool | int | float | str] = field(default_factory=dict)
    """What the engine made of the arguments of a deployment."""
    calls: int = 0
    placed: list[tuple[Placement, str]] = field(default_factory=list)
    """Files of the engine's cache with what they hold."""
    unplaced: list[tuple[str, str]] = field(default_factory=list)
    """(model class, reason) where such a file could not be made here."""

    def key_of(self, tuning: Tuning) -> KernelKey:
        """Return the kernel and the autotune key of one of the `tunings`."""
        return self.kernels[tuning.kernel].name, tuning.key

    def to_json(self) -> bytes:
        """Return the trace as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: str | bytes) -> Trace:
        """Read what `to_json` wrote."""
        return msgspec.json.decode(data, type=cls)
