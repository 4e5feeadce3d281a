"""Records of numeric checks: what ran, where, and how far it was from float64.

One file per target and provider version, ``<target>/<distribution>-<version>.json`` below ``artifacts/numerics/``, with
``resources/numerics.schema.json`` as its schema. The JSON keys are the field names. `summary` is what a build takes
from it into the manifest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from gdn_aot._files import write_whole
from gdn_aot.artifact.manifest import Numerics
from gdn_aot.errors import NotWritableError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.choosing.choose import Choices
    from gdn_aot.launches import Config, Scalar
    from gdn_aot.tracing.records import Trace

FORMAT = 1
"""The format version written, and the only one read."""
_DIGITS = 16
"""Hexadecimal digits that stand for one choice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One call that went wrong, or was not made."""

    call: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Worst:
    """The result that is nearest to its limit, or furthest past it."""

    call: str
    result: str
    error: float | None
    """None if it is no number."""
    limit: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """All calls of one workload for one shape."""

    workload: str
    model: str
    tp: int
    dtype: str
    calls: int
    """Calls compared with float64."""
    worst: tuple[Worst, ...]
    """One for each kind of result."""
    failed: tuple[Problem, ...]
    skipped: tuple[Problem, ...]
    """Calls that were not made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedKernel:
    """What one kernel did in all those calls."""

    kernel: str
    """``module:qualname``."""
    launches: int
    binaries: int
    """Different binaries among them."""
    ok: bool
    """No call that launched it failed."""
    choices: tuple[str, ...]
    """`choice_digest` of each choice that was launched, `launch_digest` of each launch without one; sorted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """Whose kernels were checked."""

    name: str
    distribution: str
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """The card that ran them."""

    name: str
    driver: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One file."""

    target: str
    provider: Provider
    triton: str
    ptxas: str
    tool: str
    status: str
    """``checked``, ``failed`` or ``not run``."""
    how: str
    """``cubin``, ``ptx``, or why nothing was run."""
    device: Device | None
    date: str | None
    """Day, as 2026-11-24."""
    models: tuple[str, ...]
    """``NAME tp N DTYPE``."""
    checks: tuple[Check, ...]
    kernels: tuple[CheckedKernel, ...]


def choice_digest(kernel: str, key: tuple[Scalar, ...], config: Config) -> str:
    """Return a short digest of the configuration chosen for one autotune key of a kernel."""
    options = [config.num_warps, config.num_stages, config.num_ctas, config.maxnreg]
    return _digest(kernel, key, sorted(config.kwargs), options)


def launch_digest(kernel: str, launch_key: str) -> str:
    """Return a short digest of a launch of a kernel that is not autotuned."""
    return _digest(kernel, launch_key)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()[:_DIGITS]


def digests(trace: Trace, choices: Choices) -> set[str]:
    """Return the digests of everything that is packed."""
    tuned = {choice_digest(trace.kernels[c.tuning.kernel].name, c.tuning.key, c.config) for c in choices.chosen}
    plain = [trace.launches[index] for index in choices.plain]
    return tuned | {launch_digest(trace.kernels[launch.kernel].name, launch.key) for launch in plain}


def record_path(root: Path, target: str, distribution: str, version: str) -> Path:
    """Return where the record of a target and provider version lies."""
    return root / target / f"{distribution}-{version}.json"


def dump(record: Record) -> bytes:
    """Return the file: JSON with one line per check, kernel and problem."""
    return (_dump({"format": FORMAT, **asdict(record)}, 0) + "\n").encode()


def _dump(value: Any, depth: int) -> str:
    """Write lists of objects and objects of them over several lines, everything else on one."""
    pad, end = " " * (depth + 1), " " * depth
    if isinstance(value, dict) and depth < 3:  # noqa: PLR2004
        rows = [f"{pad}{json.dumps(name)}: {_dump(item, depth + 1)}" for name, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{end}}}"
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        rows = [f"{pad}{_dump(item, depth + 1)}" for item in value]
        return "[\n" + ",\n".join(rows) + f"\n{end}]"
    return json.dumps(value)


def save(record: Record, path: Path) -> None:
    """Write a record whole, in place of one that is there.

    Raises:
        NotWritableError: It cannot be written; what was there stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, dump(record), sync=True)
    except OSError as error:
        raise NotWritableError(f"cannot write {path}: {error.strerror}") from error


def load(path: Path) -> Record | None:
    """Read a record; None if there is none.

    Raises:
        UsageError: The file is not a record of this format.
    """
    try:
        data = json.loads(path.read_bytes())
        if data.pop("format") != FORMAT:
            raise _refused(path, f"it is not of format {FORMAT}")
        return _record(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused(path, f"it is not a record of a numeric check ({type(error).__name__}: {error})") from error


def _record(data: dict[str, Any]) -> Record:
    checks = tuple(
        Check(
            **{
                **row,
                "worst": tuple(Worst(**item) for item in row["worst"]),
                "failed": tuple(Problem(**item) for item in row["failed"]),
                "skipped": tuple(Problem(**item) for item in row["skipped"]),
            }
        )
        for row in data["checks"]
    )
    kernels = tuple(CheckedKernel(**{**row, "choices": tuple(row["choices"])}) for row in data["kernels"])
    device = data["device"]
    made = Record(
        **{
            **data,
            "provider": Provider(**data["provider"]),
            "device": None if device is None else Device(**device),
            "models": tuple(data["models"]),
            "checks": checks,
            "kernels": kernels,
        }
    )
    texts = [field.name for field in fields(Record) if field.type == "str"]
    wrong = [name for name in texts if not isinstance(getattr(made, name), str)]
    if wrong:
        raise TypeError(f"{wrong[0]} is no text")
    return made


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(f"{path} is refused: {why}", hint="remove it, or check again with gdn-aot check")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a record says of binaries that are built now: exactly one of ``final`` and ``where`` is set."""

    final: Numerics | None = None
    """What a manifest says, whatever is packed."""
    where: str = ""
    """On what the choices in ``good`` were checked, and when."""
    good: frozenset[str] = frozenset()


def summary(root: Path | None, provider: ProviderInfo, target: Target, trace: Trace, choices: Choices) -> Numerics:
    """Return what a manifest says of the numerics of the choices that are packed.

    Raises:
        UsageError: There is a record, and it is broken or of something else.
    """
    found = verdict(root, provider, target, trace)
    packed = digests(trace, choices)
    return found.final or counted(found.where, len(packed), len(packed & found.good))


def verdict(root: Path | None, provider: ProviderInfo, target: Target, trace: Trace) -> Verdict:
    """Return what the record of a target says.

    Raises:
        UsageError: There is a record, and it is broken or of something else.
    """
    path = record_path(root, target.name, provider.distribution, trace.provider_version) if root else None
    found = load(path) if path else None
    if path is None or found is None:
        return Verdict(final=Numerics(status="not run", detail=""))
    if (found.target, found.provider.distribution, found.provider.version) != (
        target.name, provider.distribution, trace.provider_version,
    ):  # fmt: skip
        raise _refused(path, f"it is of {found.target} and {found.provider.distribution} {found.provider.version}")
    return _verdict(found, trace)


def _verdict(found: Record, trace: Trace) -> Verdict:
    if found.device is None or found.status == "not run":
        return Verdict(final=Numerics(status="not run", detail=found.how))
    where = f"{found.how} on {found.device.name}, driver {found.device.driver}, {found.date}"
    if (found.triton, found.ptxas) != (trace.triton_version, trace.ptxas_version):
        detail = f"these binaries; those of Triton {found.triton} with ptxas {found.ptxas}: {found.status}, {where}"
        return Verdict(final=Numerics(status="not run", detail=detail))
    if found.status == "failed":
        bad = ", ".join(sorted({kernel.kernel.partition(":")[2] for kernel in found.kernels if not kernel.ok}))
        detail = f"{where}; in calls of {bad or 'which nothing is known'}"
        return Verdict(final=Numerics(status="failed", detail=detail))
    good = frozenset(digest for kernel in found.kernels if kernel.ok for digest in kernel.choices)
    return Verdict(where=where, good=good)


def counted(where: str, packed: int, good: int) -> Numerics:
    """Return what a manifest says if so many of the choices and launches that are packed were checked."""
    if good == packed:
        return Numerics(status="checked", detail=where)
    return Numerics(
        status="partly checked" if good else "not run",
        detail=f"{good} of the {packed} choices and launches packed here are those that were checked; {where}",
    )
