"""Tuning records: the measured choices kept in git under ``artifacts/tuning/``.

One file per target and provider version, ``<target>/<distribution>-<version>.json``, with
``resources/tuning.schema.json`` as its schema. It holds measurements of one device and driver; choices for targets
that nobody measured are made from it by `gdn_aot.choosing.transfer` and are in no file.

Example:
    >>> record = Record(
    ...     target="sm_90",
    ...     provider=Provider(name="fla", distribution="fla-core", version="0.6.0"),
    ...     triton="3.6.0",
    ...     ptxas="12.8.93",
    ...     device=Device(name="NVIDIA H100 80GB HBM3", driver="580.159.04", sm_count=132, memory=85029158912),
    ...     tool="gdn-aot 0.1.0",
    ...     method=Method(rounds=15, flush_bytes=104857600, clock="cuda events"),
    ...     objective=Objective(weights=((64, 0.05), (2048, 0.95)), bound=1.1),
    ...     kernels=(
    ...         KernelRecord(
    ...             kernel="fla.ops.common.chunk_o:chunk_fwd_kernel_o",
    ...             candidates=(
    ...                 Config(kwargs=(("BK", 64),), num_warps=4, num_stages=2),
    ...                 Config(kwargs=(("BK", 128),), num_warps=4, num_stages=2),
    ...             ),
    ...             offered=2,
    ...             choices=(
    ...                 ChoiceRecord(
    ...                     key=(16, 32, 128, "torch.bfloat16"),
    ...                     chosen=1,
    ...                     score=1.01,
    ...                     worst=1.03,
    ...                     note="lowest score",
    ...                     call="transformers-prefill(lengths=(2048,))",
    ...                     reference=0,
    ...                     times=(
    ...                         Times(tokens=64, us=(9.1, 9.2), noise=(0.1, 0.1)),
    ...                         Times(tokens=2048, us=(31.0, 24.5), noise=(0.3, 0.2)),
    ...                     ),
    ...                     rejected=(),
    ...                     resources=(Resources(registers=128, shared=49152, local=0, size=20480), None),
    ...                 ),
    ...             ),
    ...         ),
    ...     ),
    ... )
    >>> parse(dump(record)) == record
    True
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gdn_aot._files import write_whole
from gdn_aot.errors import NotWritableError, UsageError, VerificationError
from gdn_aot.launches import Config, Scalar
from gdn_aot.records import objective
from gdn_aot.records import tuning_json as record_json
from gdn_aot.records.tuning_form import (
    FORMAT,
    ChoiceRecord,
    Device,
    KernelRecord,
    Method,
    Objective,
    Provider,
    Record,
    Rejected,
    Resources,
    Times,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path
    from typing import TypeVar

    _T = TypeVar("_T")

__all__ = [
    "FORMAT",
    "ChoiceRecord",
    "Config",
    "Device",
    "KernelRecord",
    "Method",
    "Objective",
    "Provider",
    "Record",
    "Rejected",
    "Resources",
    "Times",
    "TunedChoice",
    "TuningTable",
    "dump",
    "extras",
    "is_usable",
    "load",
    "merge",
    "merge_kernel",
    "origin",
    "parse",
    "record_path",
    "save",
    "table",
    "without",
]

_SHOWN = 3
"""Problems of a record that a message lists."""
_HINT = "tune again, or remove it; records are not edited by hand"


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedChoice:
    """A configuration for one autotune key that comes from a record."""

    config: Config
    provenance: str
    """``measured``, ``captured`` or ``transferred``."""
    note: str
    wide: bool = False
    """The provider does not offer it: it comes of a wide search."""


TuningTable = dict[tuple[str, tuple[Scalar, ...]], TunedChoice]
"""(``module:qualname``, autotune key) -> choice."""


def record_path(root: Path, target: str, distribution: str, version: str) -> Path:
    """Return where the record of a target and provider version lies."""
    return root / target / f"{distribution}-{version}.json"


def parse(data: bytes, *, name: str = "tuning record") -> Record:
    """Read the bytes of a record.

    Args:
        data: What the file holds.
        name: How messages call it.

    Raises:
        UsageError: It is no record of this format, or contradicts itself: with the path in the file and the reason.
    """
    try:
        return record_json.parse(data)
    except ValueError as error:
        raise UsageError(f"{name} is refused: {error}", hint=_HINT) from error
    except VerificationError as error:
        shown, rest = error.problems[:_SHOWN], len(error.problems) - _SHOWN
        said = "; ".join(map(str, shown)) + (f"; and {rest} more" if rest > 0 else "")
        raise UsageError(f"{name} is refused: {said}", hint=_HINT) from error


def dump(record: Record) -> bytes:
    """Return the bytes of a record; the same for the same record. Times have two decimals, ratios four."""
    return record_json.dump(record)


def load(
    path: Path, *, target: str | None = None, distribution: str | None = None, version: str | None = None
) -> Record | None:
    """Read a record; None where there is no file.

    Args:
        path: The file.
        target: What the record must be for, if given; the same for the rest.
        distribution: Of the provider.
        version: Of that distribution.

    Raises:
        UsageError: It cannot be read, is no record, or is for something else. Records are never mixed.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"tuning record {path} cannot be read: {error.strerror}", hint=_HINT) from error
    record = parse(data, name=f"tuning record {path}")
    compared = (
        ("target", record.target, target),
        ("provider.distribution", record.provider.distribution, distribution),
        ("provider.version", record.provider.version, version),
    )
    for name, found, wanted in compared:
        if wanted is not None and found != wanted:
            raise UsageError(f"tuning record {path} is refused: {name}: {found!r} is not {wanted!r}", hint=_HINT)
    return record


def save(record: Record, path: Path) -> None:
    """Write a record whole, and its directory if that is missing.

    Raises:
        NotWritableError: It cannot be written. What was at ``path`` is still there.
    """
    content = dump(record)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content, sync=True)
    except OSError as error:
        raise NotWritableError(f"cannot write the tuning record {path}: {error.strerror or error}") from error


def merge(old: Record | None, new: Record) -> Record:
    """Return ``old`` with the choices of ``new``: those replace old ones of the same key, the others stay.

    The candidates of a kernel are united, the provider's own first.

    Raises:
        UsageError: The records were not measured alike: another target, provider version, Triton, assembler, device,
            driver, method or objective.
    """
    if old is None:
        return new
    compared = {
        "target": (old.target, new.target),
        "provider": (_version(old), _version(new)),
        "triton": (old.triton, new.triton),
        "ptxas": (old.ptxas, new.ptxas),
        "device.name": (old.device.name, new.device.name),
        "device.driver": (old.device.driver, new.device.driver),
        "method": (old.method, new.method),
        "objective": (old.objective, new.objective),
    }
    for name, (before, now) in compared.items():
        if before != now:
            raise UsageError(
                f"these measurements do not belong into the tuning record: its {name} is {before}, this is {now}",
                hint="write to another directory with -o, or remove the record and tune everything again",
            )
    kernels = {kernel.kernel: kernel for kernel in old.kernels}
    for kernel in new.kernels:
        before_kernel = kernels.get(kernel.kernel)
        kernels[kernel.kernel] = kernel if before_kernel is None else merge_kernel(before_kernel, kernel)
    return replace(new, kernels=tuple(kernels[name] for name in sorted(kernels)))


def _version(record: Record) -> str:
    return f"{record.provider.name} ({record.provider.distribution} {record.provider.version})"


def merge_kernel(old: KernelRecord, new: KernelRecord) -> KernelRecord:
    """Return the choices of two records of one kernel over the union of their candidates, the provider's own first."""
    offered = list(dict.fromkeys([*old.candidates[: old.offered], *new.candidates[: new.offered]]))
    united = list(dict.fromkeys([*offered, *old.candidates, *new.candidates]))
    choices = {choice.key: _remap(choice, old.candidates, united) for choice in old.choices}
    choices |= {choice.key: _remap(choice, new.candidates, united) for choice in new.choices}
    return KernelRecord(
        kernel=new.kernel,
        candidates=tuple(united),
        offered=len(offered),
        choices=tuple(choices.values()),
    )


def _remap(choice: ChoiceRecord, before: Sequence[Config], united: list[Config]) -> ChoiceRecord:
    """Return a choice whose candidates are numbered as in ``united``."""
    places = [united.index(config) for config in before]

    def spread(values: Sequence[_T | None]) -> tuple[_T | None, ...]:
        found: list[_T | None] = [None] * len(united)
        for place, value in zip(places, values, strict=True):
            found[place] = value
        return tuple(found)

    return replace(
        choice,
        chosen=places[choice.chosen],
        reference=places[choice.reference],
        times=tuple(replace(row, us=spread(row.us), noise=spread(row.noise)) for row in choice.times),
        rejected=tuple(replace(item, candidate=places[item.candidate]) for item in choice.rejected),
        resources=None if choice.resources is None else spread(choice.resources),
    )


def origin(record: Record, triton: str | None = None) -> str:
    """Return the device and driver that measured, and the Triton if it is not the one given."""
    other = f", Triton {record.triton}" if triton not in (None, record.triton) else ""
    return f"{record.device.name}, driver {record.device.driver}{other}"


def table(record: Record | None, triton: str | None = None) -> TuningTable:
    """Return the choices of a record, for the build; without a record there are none.

    Args:
        record: Of the target that is built for.
        triton: The Triton that builds; notes say if the record was measured with another one.
    """
    if record is None:
        return {}
    where = origin(record, triton)
    return {
        (kernel.kernel, choice.key): TunedChoice(
            config=kernel.candidates[choice.chosen],
            provenance="measured",
            note=f"on {where}: {choice.note}",
            wide=choice.chosen >= kernel.offered,
        )
        for kernel in record.kernels
        for choice in kernel.choices
        if is_usable(choice, record.objective)
    }


def without(record: Record, places: Collection[tuple[str, tuple[Scalar, ...]]]) -> Record:
    """Return a record without the choices of these kernels and keys."""
    kernels = (
        replace(kernel, choices=tuple(one for one in kernel.choices if (kernel.kernel, one.key) not in places))
        for kernel in record.kernels
    )
    return replace(record, kernels=tuple(kernel for kernel in kernels if kernel.choices))


def is_usable(choice: ChoiceRecord, goal: Objective) -> bool:
    """Say whether a choice was measured at what counts: at half of the objective's weight or more.

    One that tuning was interrupted at after the short lengths is kept in the record, to go on from, but builds leave it
    out: what is best at 64 tokens can take three times the best time at 8192.
    """
    counts = [*(row.tokens for row in choice.times), *choice.missing]
    shares = objective.Objective(dict(goal.weights), goal.bound).shares(counts)
    return sum(shares[tokens] for tokens in choice.missing) <= 0.5  # noqa: PLR2004


def extras(choices: TuningTable) -> dict[str, list[Config]]:
    """Return, by kernel, the chosen configurations that the provider does not offer: a trace must be told of them."""
    found: dict[str, list[Config]] = {}
    for (kernel, _), choice in choices.items():
        if choice.wide and choice.config not in found.setdefault(kernel, []):
            found[kernel].append(choice.config)
    return found
