"""Make one capture of what processes have written.

Each file (`gdn_aot.capture.recorder`) begins with ``{"format", "tool", "triton"}``. Then come, in the order that they
were first seen: ``{"kernel": {...}}``, numbered from 0; ``{"launch": {...}}``, which names a kernel by number;
``{"package": {...}}``; and ``{"left_out": [kernel, reason]}``. A process that was killed may have left its last line
unfinished.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.json import decode, encode

from gdn_aot._files import read_regular
from gdn_aot._version import __version__
from gdn_aot.capture.form import FORM, Capture
from gdn_aot.capture.recorder import ENDING, FORMAT

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Merged:
    """A capture, and what of the files could not be used."""

    capture: Capture
    notes: list[str]


class _Line(msgspec.Struct):
    """One line of a file: the header, or one of the rest."""

    format: int | None = None
    triton: str | None = None
    kernel: dict[str, Any] | None = None
    number: int | None = None
    launch: dict[str, Any] | None = None
    package: dict[str, Any] | None = None
    left_out: tuple[str, str] | None = None


_LINES = msgspec.json.Decoder(_Line)


@dataclass(slots=True)
class _Process:
    """One file. Launches, each with its kernel in front, and packages are JSON, whose form the capture checks."""

    name: str
    triton: str
    launches: list[tuple[bytes, bytes]] = field(default_factory=list)
    packages: set[bytes] = field(default_factory=set)
    left_out: set[tuple[str, str]] = field(default_factory=set)
    damaged: int = 0


def merge_folder(folder: Path) -> Merged:
    """Merge the files of a folder. Damaged lines are counted, other versions of Triton left out.

    Raises:
        VerificationError: What the files hold makes no capture.
    """
    read = {path.name: _read(path) for path in sorted(folder.glob(f"*{ENDING}"))}
    processes = [process for process in read.values() if isinstance(process, _Process)]
    notes = [f"{one.name}: {one.damaged} damaged lines are left out" for one in processes if one.damaged]
    notes += [f"{name} is left out: {why}" for name, why in read.items() if isinstance(why, str)]
    # The version that most launches are of; a helper process in another environment is not what is served.
    counts: Counter[str] = Counter()
    for process in processes:
        counts[process.triton] += len(process.launches)
    triton = max(sorted(counts), key=counts.__getitem__, default="")
    used = [process for process in processes if process.triton == triton]
    reason = f"most launches are of Triton {triton}"
    left_out = {(f"process with Triton {other}", reason) for other in counts if other != triton}
    left_out.update(*(process.left_out for process in used))
    plain = {
        "format": FORMAT,
        "tool": f"gdn-aot {__version__}",
        "triton": triton,
        "processes": sum(bool(process.launches) for process in used),
        "packages": list(map(decode, sorted(set().union(*(process.packages for process in used))))),
        "kernels": _kernels(used),
        "left_out": [{"what": what, "reason": why} for what, why in sorted(left_out)],
    }
    return Merged(FORM.convert(plain, "what was recorded"), notes)


def _read(path: Path) -> _Process | str:
    """Return what a file holds, or why it is left out."""
    try:
        content = read_regular(path, FORM.limit)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    lines, damaged = [], 0
    for line in filter(None, content.split(b"\n")):
        try:
            lines.append(_LINES.decode(line))
        except (ValueError, RecursionError):
            damaged += 1
    if not lines or lines[0].format != FORMAT or lines[0].triton is None:
        return "it has no header"
    process = _Process(path.stem, lines[0].triton, damaged=damaged)
    kernels: dict[str, bytes] = {}
    for found in lines[1:]:
        if found.kernel is not None and found.number is not None:
            kernels[str(found.number)] = encode(found.kernel)
        elif found.launch is not None and (kernel := kernels.get(str(found.launch.pop("kernel", None)))):
            process.launches.append((kernel, encode(found.launch)))
        elif found.package is not None:
            process.packages.add(encode(found.package))
        elif found.left_out is not None:
            process.left_out.add(found.left_out)
        else:
            process.damaged += 1
    return process


def _kernels(processes: list[_Process]) -> list[dict[str, Any]]:
    """Return kernels with their launches; equal ones of several processes once, with their number."""
    found: dict[bytes, Counter[bytes]] = {}
    for process in processes:
        for kernel, launch in process.launches:
            found.setdefault(kernel, Counter())[launch] += 1
    return [
        {**decode(kernel), "launches": [{**decode(text), "processes": count} for text, count in sorted(rows.items())]}
        for kernel, rows in sorted(found.items())
    ]
