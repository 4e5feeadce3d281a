"""What a tuning record holds, as frozen data. The JSON keys are the field names; see `gdn_aot.records.tuning`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gdn_aot.launches import Config, Scalar

FORMAT = 2
"""The format version written, and the only one read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """Whose kernels were measured."""

    name: str
    distribution: str
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """The card that measured."""

    name: str
    """As ``torch.cuda.get_device_name`` prints it."""
    driver: str
    sm_count: int
    memory: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """How times were taken."""

    rounds: int
    """Rounds in which all candidates took turns; a time is the median of its rounds."""
    flush_bytes: int
    """Bytes written before each measurement, so that the L2 cache holds nothing of the inputs."""
    clock: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """What makes one candidate better than another."""

    weights: tuple[tuple[int, float], ...]
    """(tokens, weight), by tokens."""
    bound: float
    """Largest ratio to the best time that a choice may have at any token count, if some candidate keeps to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What a candidate's binary takes, read from the binary."""

    registers: int
    """Per thread."""
    shared: int
    """Bytes per block."""
    local: int
    """Bytes per thread."""
    size: int
    """Bytes of the cubin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """The times of all candidates at one token count."""

    tokens: int
    us: tuple[float | None, ...]
    """Microseconds per candidate of the kernel; None where it was not measured or is not eligible."""
    noise: tuple[float | None, ...]
    """Microseconds by which a time may be off; None where the time is None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A candidate that is not eligible for a key."""

    candidate: int
    tokens: int | None
    """The token count at which it was found out; None if that needs none, as with a compile."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceRecord:
    """What was measured for one autotune key."""

    key: tuple[Scalar, ...]
    chosen: int
    """Index into the kernel's candidates."""
    score: float
    """Weighted mean over the token counts of time divided by the best time."""
    worst: float
    """The largest of those ratios."""
    note: str
    """Why it was chosen, in a sentence."""
    call: str
    """The call that was measured."""
    reference: int
    """The candidate whose outputs the others' were compared with."""
    times: tuple[Times, ...]
    """By tokens."""
    rejected: tuple[Rejected, ...] = ()
    resources: tuple[Resources | None, ...] | None = None
    """Per candidate of the kernel, None where it was not compiled; or None for all."""
    regret: tuple[tuple[int, float], ...] = ()
    """Per token count the part by which the choice is slower than the best candidate for that count."""
    missing: tuple[int, ...] = ()
    """Token counts that the key has and that were not measured: tuning was cut short, or memory was."""
    unchecked: bool = False
    """Calls with this choice were not compared with float64: tuning was cut short."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelRecord:
    """One kernel's candidates, and its choices."""

    kernel: str
    """``module:qualname``."""
    candidates: tuple[Config, ...]
    offered: int
    """Number of candidates, from the start, that are the provider's own; the rest come of a wide search."""
    choices: tuple[ChoiceRecord, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One file: what was measured on one device for one version of a provider."""

    target: str
    provider: Provider
    triton: str
    ptxas: str
    device: Device
    tool: str
    method: Method
    objective: Objective
    kernels: tuple[KernelRecord, ...]
