"""Make one capture of what processes have written.

Each file (`gdn_aot.capture.recorder`) begins with ``{"format", "tool", "triton"}``. Then come, in the order that they
were first seen: ``{"kernel": {...}}``, numbered from 0; ``{"launch": {...}}``, which names a kernel by number;
``{"package": {...}}``; and ``{"left_out": [kernel, reason]}``. A process that was killed may have left its last line
unfinished.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from gdn_aot._version import __version__
from gdn_aot.capture.form import FORM, Capture
from gdn_aot.capture.recorder import ENDING, FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@dataclass(slots=True)
class Merged:
    """A capture, and what of the files could not be used."""

    capture: Capture
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Process:
    """One file."""

    name: str
    triton: str
    kernels: dict[int, dict[str, Any]] = field(default_factory=dict)
    launches: list[dict[str, Any]] = field(default_factory=list)
    packages: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    damaged: int = 0


def merge_folder(folder: Path) -> Merged:
    """Merge the files of a folder. Damaged lines are counted, other versions of Triton left out.

    Raises:
        VerificationError: What the files hold makes no capture.
    """
    files = sorted(folder.glob(f"*{ENDING}"))
    processes = [process for process in map(_read, files) if process is not None]
    notes = [
        f"{process.name}: {process.damaged} damaged lines are left out" for process in processes if process.damaged
    ]
    notes += [
        f"{path.name} is left out: it has no header" for path in files if path.stem not in {p.name for p in processes}
    ]
    # The version that most launches are of; a helper process in another environment is not what is served.
    counts = Counter({process.triton: 0 for process in processes})
    for process in processes:
        counts[process.triton] += len(process.launches)
    triton = max(sorted(counts), key=lambda version: counts[version]) if counts else ""
    used = [process for process in processes if process.triton == triton]
    left_out = {(name, reason) for process in used for name, reason in process.left_out}
    left_out |= {
        (f"process with Triton {process.triton}", f"most launches are of Triton {triton}")
        for process in processes
        if process.triton != triton
    }
    plain = {
        "format": FORMAT,
        "tool": f"gdn-aot {__version__}",
        "triton": triton,
        "processes": sum(bool(process.launches) for process in used),
        "packages": _unique(row for process in used for row in process.packages),
        "kernels": list(_kernels(used)),
        "left_out": [{"what": what, "reason": reason} for what, reason in sorted(left_out)],
    }
    return Merged(FORM.convert(plain, "what was recorded"), notes)


def _read(path: Path) -> _Process | None:
    rows, damaged = [], 0
    for line in path.read_bytes().split(b"\n"):
        try:
            row = msgspec.json.decode(line) if line else None
        except (ValueError, RecursionError):
            row, damaged = None, damaged + 1
        if isinstance(row, dict):
            rows.append(row)
    if not rows or rows[0].get("format") != FORMAT or not isinstance(rows[0].get("triton"), str):
        return None
    process = _Process(path.stem, rows[0]["triton"], damaged=damaged)
    for row in rows[1:]:
        match row:
            case {"kernel": dict(value), "number": int(number)}:
                process.kernels[number] = value
            case {"launch": {"kernel": int(number), **_rest}} if number in process.kernels:
                process.launches.append(row["launch"])
            case {"package": dict(value)}:
                process.packages.append(value)
            case {"left_out": [str(name), str(reason)]}:
                process.left_out.append((name, reason))
            case _:
                process.damaged += 1
    return process


def _unique(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in sorted({json.dumps(row) for row in rows})]


def _kernels(processes: list[_Process]) -> Iterator[dict[str, Any]]:
    """Yield kernels with their launches; equal ones of several processes once, with their number."""
    found: dict[str, Counter[str]] = {}
    for process in processes:
        for launch in process.launches:
            kernel = json.dumps(process.kernels[launch["kernel"]])
            rest = {name: value for name, value in launch.items() if name != "kernel"}
            found.setdefault(kernel, Counter())[json.dumps(rest)] += 1
    for kernel in sorted(found):
        launches = [{**json.loads(text), "processes": count} for text, count in sorted(found[kernel].items())]
        yield {**json.loads(kernel), "launches": launches}
