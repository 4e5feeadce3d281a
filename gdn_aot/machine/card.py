"""The card that is about to be measured, asked without a CUDA context: through ``nvidia-smi``."""

from __future__ import annotations

import csv
import os
import subprocess
from dataclasses import dataclass

from gdn_aot.catalogue.targets import Target, get_target
from gdn_aot.errors import UsageError
from gdn_aot.machine.environment import find_program

_FIELDS = ("index", "name", "driver_version", "compute_cap", "memory.total", "utilization.gpu", "uuid")
_SECONDS = 30
_HINT = "tune on the machine with the card; --prepare --arch SM compiles the candidates without one"


@dataclass(frozen=True, kw_only=True, slots=True)
class CardUser:
    """A program that uses the card."""

    pid: int
    name: str
    memory: str
    """As nvidia-smi prints it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CardInfo:
    """The first visible card."""

    name: str
    driver: str
    target: Target
    memory: int
    """Bytes."""
    utilization: int | None
    """Per cent of the last moment, or None where it is not known."""
    processes: tuple[CardUser, ...]
    """Those that use it now."""

    def warning(self) -> str | None:
        """Return what speaks against measuring now, or None."""
        if self.processes:
            shown = ", ".join(f"{process.name} (pid {process.pid}, {process.memory})" for process in self.processes[:3])
            more = f" and {len(self.processes) - 3} more" if len(self.processes) > 3 else ""  # noqa: PLR2004
            return f"the card is in use by {shown}{more}: times will be noisy"
        return f"the card is {self.utilization} % busy: times will be noisy" if self.utilization else None


def probe() -> CardInfo:
    """Return the first card that CUDA would show this process.

    Raises:
        UsageError: There is none, or its architecture is not a target of this package.
    """
    rows = _query("--query-gpu=" + ",".join(_FIELDS))
    if not rows:
        raise UsageError("there is no NVIDIA card here: nvidia-smi lists none", hint=_HINT)
    row = dict(zip(_FIELDS, _visible(rows), strict=True))
    major, _, minor = row["compute_cap"].partition(".")
    users = _query("--query-compute-apps=pid,process_name,used_memory", "-i", row["uuid"])
    return CardInfo(
        name=row["name"],
        driver=row["driver_version"],
        target=get_target(f"sm_{major}{minor}"),
        memory=int(row["memory.total"]) * (1 << 20) if row["memory.total"].isdigit() else 0,
        utilization=int(row["utilization.gpu"]) if row["utilization.gpu"].isdigit() else None,
        processes=tuple(
            CardUser(pid=int(pid), name=os.path.basename(name), memory=f"{memory} MiB")  # noqa: PTH119
            for pid, name, memory in (user for user in users if len(user) == 3)  # noqa: PLR2004
            if pid.isdigit() and int(pid) != os.getpid()
        ),
    )


def _visible(rows: list[list[str]]) -> list[str]:
    """Return the row of the first card in ``CUDA_VISIBLE_DEVICES``, by index or UUID."""
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return rows[0]
    wanted = setting.split(",")[0].strip()
    for row in rows:
        if wanted and (wanted == row[0] or row[-1].startswith(wanted)):
            return row
    raise UsageError(f"CUDA_VISIBLE_DEVICES={setting} shows no card", hint="unset it, or name a card of nvidia-smi -L")


def _query(*arguments: str) -> list[list[str]]:
    program = find_program("nvidia-smi")
    if program is None:
        raise UsageError("there is no NVIDIA card here: nvidia-smi is not installed", hint=_HINT)
    try:
        done = subprocess.run(
            [program, *arguments, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"nvidia-smi does not answer: {error}", hint=_HINT) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UsageError(f"nvidia-smi failed: {said[-1] if said else done.returncode}", hint=_HINT)
    return [[cell.strip() for cell in row] for row in csv.reader(done.stdout.splitlines()) if row]
