"""What a trace is: kernels, launches and the choices to make, as plain data that survives a pipe.

A `Trace` is written by the process that imported the provider and read by processes that import neither torch nor
Triton.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from gdn_aot.launches import Config, Kernel, Scalar, config_from_json

if TYPE_CHECKING:
    from gdn_aot.launches import Json

Users = set[tuple[int, int]]
"""Whose calls cause a launch: (index of the traced shape, index into `Trace.workloads`).

The shape of launches that come from a capture is `NO_SHAPE`."""
NO_SHAPE = -1
UNUSABLE = "it cannot be used here"
"""How the reason begins why a kernel of a capture is left out that this environment cannot import."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch key of one kernel, with what is needed to compile it."""

    kernel: int
    """Index into `Trace.kernels`."""
    key: str
    specialization: dict[str, Json]


@dataclass(slots=True)
class Tuning:
    """One autotune key: the candidates for it, and the launches each candidate would cause."""

    kernel: int
    key: tuple[Scalar, ...]
    candidates: list[Config]
    derived: int
    """Number of candidates at the end of the list that the provider does not offer."""
    variants: list[list[int]] = field(default_factory=list)
    """Per variant of argument specialization: the launch index of each candidate, in candidate order."""
    users: list[Users] = field(default_factory=list)
    """Per variant: whose calls have it. A launch is theirs only with the candidate that the key gets."""


@dataclass(slots=True)
class Trace:
    """Everything the provider's functions launched for the traced shapes and workloads."""

    provider_version: str
    triton_version: str
    ptxas_version: str
    kernels: list[Kernel] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    tunings: list[Tuning] = field(default_factory=list)
    workloads: list[str] = field(default_factory=list)
    """The wanted workloads that this version of the provider has."""
    plain: dict[int, Users] = field(default_factory=dict)
    """Launches of kernels that are not autotuned, and whose they are."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """(workload, reason) where the provider itself refused a call on this target."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """(kernel, reason) for kernels of a capture that cannot be built here."""
    places: list[tuple[int, int, str, int, list[int]]] = field(default_factory=list)
    """Of a trace for tuning, the calls that are needed: (shape, tokens, workload, number among the workload's calls,
    indices of the autotune keys that no call before it had at so many tokens)."""
    calls: int = 0
    seconds: float = 0.0

    def to_json(self) -> str:
        """Return the trace as JSON. Launches, of which there are many, are lists."""
        plain = {
            **{name: getattr(self, name) for name in _PLAIN_FIELDS},
            "kernels": [asdict(kernel) for kernel in self.kernels],
            "launches": [[launch.kernel, launch.key, launch.specialization] for launch in self.launches],
            "tunings": [
                [
                    tuning.kernel,
                    tuning.key,
                    list(map(asdict, tuning.candidates)),
                    tuning.derived,
                    tuning.variants,
                    list(map(sorted, tuning.users)),
                ]
                for tuning in self.tunings
            ],
            "plain": [[launch, sorted(users)] for launch, users in self.plain.items()],
        }
        return json.dumps(plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Trace:
        """Read what `to_json` wrote. The text is our own: it is not validated."""
        data = json.loads(text)
        pairs = ("sources", "dependencies", "globals", "relaxations")
        return cls(
            **{name: data[name] for name in _PLAIN_FIELDS if name not in ("refused", "left_out", "places")},
            refused=[tuple(item) for item in data["refused"]],
            left_out=[tuple(item) for item in data["left_out"]],
            places=[tuple(item) for item in data["places"]],
            kernels=[
                Kernel(**{**kernel, **{name: tuple(map(tuple, kernel[name])) for name in pairs}})
                for kernel in data["kernels"]
            ],
            launches=[Launch(*launch) for launch in data["launches"]],
            tunings=[
                Tuning(
                    kernel,
                    tuple(key),
                    [config_from_json(config) for config in candidates],
                    derived,
                    variants,
                    [set(map(tuple, pairs)) for pairs in users],
                )
                for kernel, key, candidates, derived, variants, users in data["tunings"]
            ],
            plain={launch: set(map(tuple, users)) for launch, users in data["plain"]},
        )


_PLAIN_FIELDS = (
    "provider_version",
    "triton_version",
    "ptxas_version",
    "workloads",
    "refused",
    "left_out",
    "places",
    "calls",
    "seconds",
)
