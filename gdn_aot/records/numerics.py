"""Records of numeric checks: what ran, where, and how far it was from float64. Kept under ``artifacts/numerics/``.

`summary` is what a build takes from one into the manifest.
"""

from __future__ import annotations

import hashlib
import json
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace

from gdn_aot.artifact.manifest import Numerics
from gdn_aot.catalogue.providers import same_source
from gdn_aot.codec import Count, Record
from gdn_aot.records.files import AnyRecord, RecordedDevice, RecordForm

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.launches import Config, Key
    from gdn_aot.tracing.records import Trace

_DIGITS = 16
"""Hexadecimal digits that stand for one choice."""
_CHOICE_DIGEST = f"^[0-9a-f]{{{_DIGITS}}}(?![\\s\\S])"
ChoiceDigest = Annotated[str, Meta(pattern=_CHOICE_DIGEST, description=f"{_DIGITS} hexadecimal digits")]
Status = Literal["checked", "failed", "not run"]
Day = Annotated[str, Meta(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description="a day as 2026-11-24")]


class CallProblem(Record, kw_only=True):
    """One call that went wrong, or was not made."""

    call: str
    why: str


class Worst(Record, kw_only=True):
    """The result that is nearest to its limit, or furthest past it."""

    call: str
    result: str
    error: float | None
    """None if it is no number."""
    limit: float


class Check(Record, kw_only=True):
    """All calls of one workload for one shape."""

    workload: str
    model: str
    tp: Count
    dtype: str
    calls: Count
    """Calls compared with float64."""
    worst: tuple[Worst, ...]
    """One for each kind of result."""
    failed: tuple[CallProblem, ...]
    skipped: tuple[CallProblem, ...]
    """Calls that were not made."""


class CheckedKernel(Record, kw_only=True):
    """What one kernel did in all those calls."""

    kernel: str
    """``module:qualname``."""
    launches: Count
    """Of several runs together: those of a row that was checked again are in it each time."""
    binaries: Count
    """Different binaries among them; of several runs, the most that one of them had."""
    ok: bool
    """No call that launched it failed; of several runs, none in a row that is left."""
    choices: tuple[ChoiceDigest, ...]
    """`choice_digest` of each choice that was launched, `plain_launch_digest` of each launch without one; sorted."""


class NumericsRecord(AnyRecord, kw_only=True):
    """One file."""

    status: Status
    """``failed`` if a call of these rows failed, or the last run did not get to its end or made no call."""
    how: str
    """``cubin``, ``ptx``, or why nothing was run."""
    device: RecordedDevice | None
    date: Day | None
    """Of the last run."""
    models: tuple[str, ...]
    """``NAME tp N DTYPE``, of all runs."""
    checks: tuple[Check, ...]
    kernels: tuple[CheckedKernel, ...]


FORM = RecordForm(NumericsRecord, "numerics record", hint="remove it, or check again with gdn-aot check")
record_path, load, save = FORM.path, FORM.load, FORM.save


_ALIKE = attrgetter("target", "provider", "triton", "ptxas", "how", "device")
"""What two runs have in common whose results one record may have."""
_ROW = attrgetter("workload", "model", "tp", "dtype")


def merge(old: NumericsRecord | None, new: NumericsRecord) -> NumericsRecord:
    """Return a record with what two runs checked that are alike; else ``new``.

    A row of both, of one workload, model, tensor-parallel size and dtype, is that of ``new``, unless fewer calls were
    compared, as with ``--max-tokens``; these count only if one fails where none did. Other rows stay. So do the choices
    of kernels, which were right where they were launched. A kernel is ok if it is in each run that has it; but no
    record says which rows launched a kernel. If calls failed in rows that are replaced, and in none that stay, nothing
    stays of kernels that were not ok: what ``new`` says of them is all, and those that it lacks are gone.
    """
    if old is None or _ALIKE(old) != _ALIKE(new):
        return new
    before = {_ROW(row): row for row in old.checks}
    again = {_ROW(row): row for row in new.checks if _replaces(row, before.get(_ROW(row)))}
    failed = {_ROW(row) for row in old.checks if row.failed}
    mended = bool(failed) and failed <= again.keys()
    kernels = {kernel.kernel: kernel for kernel in old.kernels if kernel.ok or not mended}
    for kernel in new.kernels:
        if (known := kernels.get(kernel.kernel)) is not None:
            kernel = replace(  # noqa: PLW2901
                kernel,
                launches=known.launches + kernel.launches,
                binaries=max(known.binaries, kernel.binaries),
                ok=known.ok and kernel.ok,
                choices=tuple(sorted({*known.choices, *kernel.choices})),
            )
        kernels[kernel.kernel] = kernel
    checks = before | again
    wrong = any(row.failed for row in checks.values()) or not all(kernel.ok for kernel in kernels.values())
    return replace(
        new,
        status="failed" if wrong else new.status,
        models=tuple(dict.fromkeys((*old.models, *new.models))),
        checks=tuple(checks.values()),
        kernels=tuple(kernels[name] for name in sorted(kernels)),
    )


def _replaces(row: Check, before: Check | None) -> bool:
    """Say whether a row takes the place of one of an earlier run."""
    return before is None or row.calls >= before.calls or bool(row.failed and not before.failed)


def choice_digest(kernel: str, key: Key, config: Config) -> str:
    """Return a short digest of the configuration chosen for one autotune key of a kernel."""
    options = [config.num_warps, config.num_stages, config.num_ctas, config.maxnreg]
    return _digest(kernel, key, sorted(config.kwargs), options)


def plain_launch_digest(kernel: str, launch_key: str) -> str:
    """Return a short digest of a launch of a kernel that is not autotuned."""
    return _digest(kernel, launch_key)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()[:_DIGITS]


def summary(
    root: Path | None, provider: ProviderInfo, target: Target, trace: Trace, packed: AbstractSet[str]
) -> Numerics:
    """Return what a manifest says of the numerics of what is packed.

    ``packed`` has the `choice_digest` of each packed choice and the `plain_launch_digest` of each launch without one.

    Raises:
        UsageError: There is a record, and it is broken or of something else.
    """
    distribution, version = provider.distribution, trace.provider_version
    versions = (version, *same_source(distribution, version))
    found = next(filter(None, (FORM.find(root, target.name, distribution, one) for one in versions)), None)
    if found is None:
        return Numerics(status="not run", detail="")
    if found.device is None or found.status == "not run":
        return Numerics(status="not run", detail=found.how)
    where = f"{found.how} on {found.device.name}, driver {found.device.driver}, {found.date}"
    if (found.triton, found.ptxas) != (trace.triton_version, trace.ptxas_version):
        detail = f"these binaries; those of Triton {found.triton} with ptxas {found.ptxas}: {found.status}, {where}"
        return Numerics(status="not run", detail=detail)
    if found.status == "failed":
        bad = ", ".join(sorted({kernel.kernel.partition(":")[2] for kernel in found.kernels if not kernel.ok}))
        return Numerics(status="failed", detail=f"{where}; in calls of {bad or 'which nothing is known'}")
    good = packed & {digest for kernel in found.kernels if kernel.ok for digest in kernel.choices}
    if good == packed:
        return Numerics(status="checked", detail=where)
    said = f"{len(good)} of the {len(packed)} choices and launches packed here were checked"
    return Numerics(status="partly checked" if good else "not run", detail=f"{said}; {where}")
