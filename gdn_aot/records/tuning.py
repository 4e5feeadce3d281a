"""Tuning records: the measured choices kept in git under ``artifacts/tuning/``.

A record holds measurements of one device and driver; choices for targets that nobody measured are made from it by
`gdn_aot.choosing.transfer` and are in no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from gdn_aot.artifact.names import MAX_CHOICES
from gdn_aot.codec import Count, Digest, Record
from gdn_aot.errors import Problem
from gdn_aot.launches import Config, KernelKey, Key
from gdn_aot.records.files import AnyRecord, RecordedDevice, RecordForm
from gdn_aot.records.objective import Objective, Tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator, Sequence

KernelName = Annotated[str, Meta(pattern="^[^:]+:[^:]+$", description="module:qualname")]
Time = Annotated[float, Meta(gt=0)]
"""Microseconds."""
NotNegative = Annotated[float, Meta(ge=0)]


class Timing(Record, kw_only=True):
    """How times were taken."""

    rounds: Count
    """Rounds in which all candidates took turns; a time is the median of its rounds."""
    flush_bytes: Count
    """Bytes written before each measurement, so that the L2 cache holds nothing of the inputs."""
    clock: str


class Footprint(Record, array_like=True, kw_only=True):
    """What a candidate's binary takes, read from the binary."""

    registers: Count
    """Per thread."""
    shared: Count
    """Bytes per block."""
    local: Count
    """Bytes per thread."""
    size: Count
    """Bytes of the cubin."""


class Times(Record, kw_only=True):
    """The times of all candidates at one token count."""

    tokens: Tokens
    us: tuple[Time | None, ...]
    """Microseconds per candidate of the kernel; None where it was not measured or is not eligible."""
    noise: tuple[NotNegative | None, ...]
    """Microseconds by which a time may be off; None where the time is None."""


class Rejected(Record, kw_only=True):
    """A candidate that is not eligible for a key."""

    candidate: Count
    tokens: Tokens | None
    """The token count at which it was found out; None if that needs none, as with a compile."""
    reason: str


class MeasuredChoice(Record, kw_only=True, omit_defaults=True):
    """What was measured for one autotune key."""

    key: Key
    chosen: Count
    """Index into the kernel's candidates."""
    score: float
    """Weighted mean over the token counts of time divided by the best time."""
    worst: float
    """The largest of those ratios where a tenth of the objective's weight or more is."""
    note: str
    """Why it was chosen, in a sentence."""
    call: str
    """The call that was measured."""
    reference: Count
    """The candidate whose outputs the others' were compared with."""
    resources: tuple[Footprint | None, ...] | None = None
    """Per candidate of the kernel, None where it was not compiled; or None for all."""
    regret: dict[Tokens, NotNegative] = msgspec.field(default_factory=dict)
    """Per token count the part by which the choice is slower than the best candidate for that count."""
    unheld: tuple[Count, ...] = ()
    """By proxy: candidates of which the card held fewer blocks at a time than the target does."""
    missing: tuple[Tokens, ...] = ()
    """Token counts that the key has and that were not measured: tuning was cut short, or memory was."""
    unchecked: bool = False
    """Calls with this choice were not compared with float64: tuning was cut short."""
    times: Annotated[tuple[Times, ...], Meta(min_length=1)]
    """By tokens."""
    rejected: tuple[Rejected, ...] = ()


class MeasuredKernel(Record, kw_only=True):
    """One kernel's candidates, and its choices."""

    kernel: KernelName
    digest: Digest | UnsetType = UNSET
    """`gdn_aot.launches.Kernel.digest` of what was measured; records of before have none."""
    offered: Count
    """Number of candidates, from the start, that are the provider's own; the rest come of a wide search."""
    candidates: tuple[Config, ...]
    choices: tuple[MeasuredChoice, ...]


class Limits(Record, kw_only=True):
    """What one SM of a target holds at a time."""

    shared_per_sm: Count
    """Bytes."""
    registers_per_sm: Count
    threads_per_sm: Count
    blocks_per_sm: Count


class StoodIn(Record, kw_only=True):
    """How a card of another target stood in."""

    code: str
    """The target whose PTX was run."""
    card: str
    """The target that the card is of, for which the PTX was assembled."""
    limits: Limits
    """The record's target's: no more blocks of a candidate were let onto an SM than these allow."""


class TuningRecord(AnyRecord, kw_only=True):
    """One file: what was measured on one device for one version of a provider."""

    device: RecordedDevice
    method: Timing
    objective: Objective
    proxy: StoodIn | UnsetType = UNSET
    """How the device stood in for the target, if it is none of it."""
    kernels: tuple[MeasuredKernel, ...]


def _in_order(record: TuningRecord) -> TuningRecord:
    """Return a record sorted by kernel, key and token count."""
    kernels = (
        replace(kernel, choices=tuple(sorted(map(_choice_in_order, kernel.choices), key=_written_key)))
        for kernel in sorted(record.kernels, key=lambda kernel: kernel.kernel)
    )
    goal = replace(record.objective, weights=dict(sorted(record.objective.weights.items())))
    return replace(record, objective=goal, kernels=tuple(kernels))


def _choice_in_order(choice: MeasuredChoice) -> MeasuredChoice:
    return replace(
        choice,
        regret=dict(sorted(choice.regret.items())),
        missing=tuple(sorted(choice.missing)),
        times=tuple(sorted(choice.times, key=lambda row: row.tokens)),
    )


def _written_key(choice: MeasuredChoice) -> bytes:
    return msgspec.json.encode(choice.key)


def _contradictions(record: TuningRecord) -> Iterator[Problem]:
    yield from _unordered("objective.weights", list(record.objective.weights))
    yield from _unordered("kernels", [kernel.kernel for kernel in record.kernels])
    for number, kernel in enumerate(record.kernels):
        where, count = f"kernels[{number}]", len(kernel.candidates)
        if max(count, len(kernel.choices)) > MAX_CHOICES:
            yield Problem(where, f"has more than {MAX_CHOICES} candidates or choices")
            return
        if kernel.offered > count:
            yield Problem(f"{where}.offered", f"{kernel.offered} of {count} candidates")
        yield from _twice(f"{where}.candidates", kernel.candidates)
        for place, config in enumerate(kernel.candidates):
            yield from _config_contradictions(config, f"{where}.candidates[{place}].kwargs")
        yield from _unordered(f"{where}.choices", list(map(_written_key, kernel.choices)))
        for place, choice in enumerate(kernel.choices):
            yield from _choice_contradictions(choice, count, f"{where}.choices[{place}]")


def _config_contradictions(config: Config, where: str) -> Iterator[Problem]:
    yield from _twice(where, [name for name, _ in config.kwargs])
    for number, (_, value) in enumerate(config.kwargs):
        if value is None:
            yield Problem(f"{where}[{number}][1]", "expected a value, got null")


def _choice_contradictions(choice: MeasuredChoice, count: int, where: str) -> Iterator[Problem]:
    named = {"chosen": choice.chosen, "reference": choice.reference}
    named |= {f"rejected[{number}].candidate": item.candidate for number, item in enumerate(choice.rejected)}
    for name, candidate in named.items():
        if candidate >= count:
            yield Problem(f"{where}.{name}", f"there is no candidate {candidate}, only {count} from 0")
    for item in choice.rejected:
        if item.candidate == choice.chosen:
            yield Problem(f"{where}.chosen", f"candidate {choice.chosen} was rejected: {item.reason}")
    yield from _unordered(f"{where}.unheld", choice.unheld)
    if choice.unheld and choice.unheld[-1] >= count:
        yield Problem(f"{where}.unheld", f"there is no candidate {choice.unheld[-1]}, only {count} from 0")
    if choice.resources is not None and len(choice.resources) != count:
        yield Problem(f"{where}.resources", f"{len(choice.resources)} entries for {count} candidates")
    yield from _unordered(f"{where}.regret", list(choice.regret))
    yield from _unordered(f"{where}.missing", choice.missing)
    yield from _unordered(f"{where}.times", [row.tokens for row in choice.times])
    for number, row in enumerate(choice.times):
        yield from _times_contradictions(row, choice.chosen, count, f"{where}.times[{number}]")


def _times_contradictions(row: Times, chosen: int, count: int, where: str) -> Iterator[Problem]:
    for name, values in (("us", row.us), ("noise", row.noise)):
        if len(values) != count:
            yield Problem(f"{where}.{name}", f"{len(values)} times for {count} candidates")
    for number, (time, noise) in enumerate(zip(row.us, row.noise, strict=False)):
        if (time is None) != (noise is None):
            yield Problem(f"{where}.noise[{number}]", "a time and its noise are null together")
    if chosen < len(row.us) and row.us[chosen] is None:
        yield Problem(f"{where}.us[{chosen}]", f"is null: the chosen candidate has no time at {row.tokens} tokens")


def _unordered(where: str, values: Sequence[Any]) -> Iterator[Problem]:
    for number, (before, value) in enumerate(pairwise(values), start=1):
        if not before < value:
            yield Problem(f"{where}[{number}]", "is in the list twice" if before == value else "is not in order")


def _twice(where: str, values: Sequence[Hashable]) -> Iterator[Problem]:
    seen: set[Hashable] = set()
    for number, value in enumerate(values):
        if value in seen:
            yield Problem(f"{where}[{number}]", "is in the list twice")
        seen.add(value)


PROXY = "proxy"
"""The folder, below that of records, which has those of cards that stood in."""
SECOND = "second"
"""The folder which has those of a second GPU of a target, for keys that the first one's record lacks."""
FORM = RecordForm(
    TuningRecord,
    "tuning record",
    hint="tune again, or remove it; records are not edited by hand",
    order=_in_order,
    check=_contradictions,
)
record_path, load, save = FORM.path, FORM.load, FORM.save


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedChoice:
    """A configuration for one autotune key that comes from a record."""

    config: Config
    provenance: str
    """``measured``, ``proxy``, ``captured`` or ``transferred``."""
    note: str
    wide: bool = False
    """The provider does not offer it: it comes of a wide search."""
    elsewhere: bool = False
    """Another release was measured, which may offer what this one does not."""


TuningTable = dict[KernelKey, TunedChoice]
"""(``module:qualname``, autotune key) -> choice."""


def origin(record: TuningRecord, triton: str | None = None, version: str | None = None) -> str:
    """Return the device and driver that measured, and the Triton and the release if they are not those given."""
    other = f", Triton {record.triton}" if triton not in (None, record.triton) else ""
    code = f", by proxy with PTX of {record.proxy.code}" if record.proxy else ""
    of = record.provider
    release = f", {of.distribution} {of.version}" if version not in (None, of.version) else ""
    return f"{record.device.name}, driver {record.device.driver}{other}{code}{release}"


def provenance(record: TuningRecord) -> str:
    """Return what the choices of a record are, for its target: ``measured`` or ``proxy``."""
    return "proxy" if record.proxy else "measured"


def table(record: TuningRecord | None, triton: str | None = None, version: str | None = None) -> TuningTable:
    """Return the choices of a record, for the build; without a record there are none.

    Notes say if the record was measured with another Triton or release than those that build.
    """
    if record is None:
        return {}
    where = origin(record, triton, version)
    return {
        (kernel.kernel, choice.key): TunedChoice(
            config=kernel.candidates[choice.chosen],
            provenance=provenance(record),
            note=f"on {where}: {choice.note}",
            wide=choice.chosen >= kernel.offered,
            elsewhere=version not in (None, record.provider.version),
        )
        for kernel in record.kernels
        for choice in kernel.choices
        if is_usable(choice, record.objective)
    }


def without(record: TuningRecord, places: Collection[KernelKey]) -> TuningRecord:
    """Return a record without the choices of these kernels and keys."""
    kernels = (
        replace(kernel, choices=tuple(one for one in kernel.choices if (kernel.kernel, one.key) not in places))
        for kernel in record.kernels
    )
    return replace(record, kernels=tuple(kernel for kernel in kernels if kernel.choices))


def is_usable(choice: MeasuredChoice, goal: Objective) -> bool:
    """Say whether a choice was measured at what counts: at half of the objective's weight or more.

    One that tuning was interrupted at after the short lengths is kept in the record, to go on from, but builds leave it
    out: what is best at 64 tokens can take three times the best time at 8192.
    """
    counts = [*(row.tokens for row in choice.times), *choice.missing]
    shares = goal.shares(counts)
    return sum(shares[tokens] for tokens in choice.missing) <= 0.5  # noqa: PLR2004


def extras(choices: TuningTable) -> dict[str, list[Config]]:
    """Return, by kernel, the chosen configurations that the provider does not offer: a trace must be told of them."""
    found: dict[str, list[Config]] = {}
    for (kernel, _), choice in choices.items():
        if choice.wide and choice.config not in found.setdefault(kernel, []):
            found[kernel].append(choice.config)
    return found
