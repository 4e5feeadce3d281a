"""Targets: the NVIDIA architectures that artifacts are built for, and what the installed ptxas knows.

The figures and their sources are in ``catalogue/targets.toml``. Nothing here imports torch or triton; the
assembler of Triton is found by path and run as a program.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._text import suggest
from gdn_aot.catalogue import read_table
from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

BLACKWELL = 100
"""From this number on Triton assembles with ptxas-blackwell (``get_ptxas`` of its NVIDIA backend)."""
_FIRST_FEATURED = 90
"""From this number on Triton appends "a" to the name (``sm_arch_from_capability`` of its NVIDIA backend)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where some of a target's figures come from."""

    figures: tuple[str, ...]
    """The figures that this source covers."""
    text: str
    """The document, or what was read instead of one."""
    confidence: str
    """``high``, ``medium`` or ``low``; the head of the table says what each means."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One product of an architecture, which stands for it while tracing."""

    name: str
    """As ``torch.cuda.get_device_name`` prints it."""
    sm_count: int
    memory: int
    """Total device memory in bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A GPU architecture with its hardware limits."""

    name: str
    """For example ``sm_120``."""
    capability: tuple[int, int]
    """Compute capability, major and minor."""
    max_shared: int
    """Most dynamic shared memory that one block may opt in to, in bytes."""
    shared_per_sm: int
    """Shared memory of one SM, in bytes."""
    registers_per_sm: int
    """32-bit registers of one SM."""
    registers_per_block: int
    """32-bit registers that one block may use."""
    threads_per_sm: int
    """Threads that may be resident on one SM at a time."""
    blocks_per_sm: int
    """Blocks that may be resident on one SM at a time."""
    warp_size: int
    bf16: bool
    """The hardware has bf16 arithmetic."""
    tf32: bool
    """The hardware has tf32 arithmetic."""
    ptx: str
    """The PTX version that introduced this target."""
    dot: str
    """What ``tl.dot`` becomes: ``fma``, ``mma``, ``wgmma`` or ``tcgen05``."""
    card: Card
    sources: tuple[Source, ...]

    @property
    def arch_number(self) -> int:
        """The number Triton knows the target by: 120 for ``sm_120``."""
        return self.capability[0] * 10 + self.capability[1]

    @property
    def assembler_arch(self) -> str:
        """The name Triton gives to ptxas: ``sm_89``, but ``sm_90a`` and ``sm_120a``."""
        return f"{self.name}{'a' if self.arch_number >= _FIRST_FEATURED else ''}"

    @property
    def runs_on_newer(self) -> bool:
        """Whether newer cards run its PTX: not with the features that Triton assembles for from 9.0 on."""
        return self.arch_number < _FIRST_FEATURED

    def local_reserve(self, local: int, sm_count: int = 0) -> int:
        """Return the bytes of device memory that the driver keeps for ``local`` bytes of local memory per thread.

        It keeps them for every thread that the card can have resident (CUDA C++ Programming Guide, device memory
        accesses, local memory; ``docs/explanation/memory.md`` has what was measured): a card with ``sm_count`` SMs, or
        the target's.
        """
        return local * self.threads_per_sm * (sm_count or self.card.sm_count)

    def __str__(self) -> str:
        return self.name


@functools.cache
def all_targets() -> tuple[Target, ...]:
    """Return every target of the table, by compute capability."""
    targets = (
        Target(**{**row, "card": Card(**row["card"]), "sources": tuple(Source(**source) for source in row["sources"])})
        for row in read_table("targets.toml")["target"]
    )
    return tuple(sorted(targets, key=lambda target: target.capability))


def known_target(name: str) -> Target | None:
    """Return the target of a name as the table has it; None if it is in no row."""
    return next((target for target in all_targets() if target.name == name), None)


def get_target(name: str) -> Target:
    """Find a target by ``sm_120``, ``sm120``, ``120`` or ``12.0``; a feature suffix as in ``sm_90a`` is dropped.

    Raises:
        UsageError: No such target. The message lists all of them, with the nearest first if there is one.
    """
    known = {target.name: target for target in all_targets()}
    text = name.strip().lower()
    match = re.fullmatch(r"(?:(?:sm|compute)[_-]?)?(?:(\d{2,3})|(\d{1,2})\.(\d))[af]?", text)
    wanted = f"sm_{match[1] or match[2] + match[3]}" if match else text
    if wanted in known:
        return known[wanted]
    hint = suggest(wanted, known, "gdn-aot targets lists them")
    raise UsageError(f"unknown target {name!r}; known are {', '.join(known)}", hint=hint)


def parse_archs(values: Sequence[str]) -> tuple[Target, ...]:
    """Turn the values of ``--arch`` into targets, in the order given and each once; commas part several in one value.

    Raises:
        UsageError: An unknown or empty name, none at all, or ``native``, which means nothing without a GPU.
    """
    chosen: dict[str, Target] = {}
    for part in (part.strip() for value in values for part in value.split(",")):
        if part.lower() == "native":
            message = "build needs an explicit target; it does not look at this machine's GPU"
            raise UsageError(message, hint="for example --arch sm_90")
        if not part:
            raise UsageError("--arch has an empty name", hint="for example --arch sm_80,sm_90")
        for target in all_targets() if part.lower() == "all" else (get_target(part),):
            chosen[target.name] = target
    if not chosen:
        raise UsageError("no target is given", hint="for example --arch sm_90, or --arch all")
    return tuple(chosen.values())


def _triton_dir() -> Path | None:
    """Find the installed Triton package without importing it."""
    spec = importlib.util.find_spec("triton")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


@functools.cache
def _release(path: str) -> str | None:
    """Return the version that a ptxas prints of itself, for example 12.9.86; None if it does not run."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\bV(\d+\.\d+\.\d+)", done.stdout)
    return match[1] if match else None


def assembler(target: Target) -> tuple[str, str] | None:
    """Find the ptxas Triton would use for a target, by its rule: the environment's if it runs, else its own.

    Returns path and version; None if there is no Triton, or none of its ptxas runs.
    """
    root = _triton_dir()
    if root is None:
        return None
    tool = "ptxas-blackwell" if target.arch_number >= BLACKWELL else "ptxas"
    configured = os.environ.get(f"TRITON_{tool.upper().replace('-', '_')}_PATH")
    own = root / "backends" / "nvidia" / "bin"
    for path in filter(None, (configured, str(own / tool))):
        if version := _release(path):
            return path, version
    return None


@functools.cache
def _refusal(path: str, target: Target) -> str | None:
    """Assemble an empty kernel; return ptxas's complaint, or None if it had none."""
    head = f".version {target.ptx}\n.target {target.assembler_arch}\n"
    source = os.memfd_create("k.ptx")
    place = f"/proc/self/fd/{source}"
    command = [path, f"-arch={target.assembler_arch}", place, "-o", os.devnull]
    try:
        os.write(source, f"{head}.address_size 64\n.entry k(){{ret;}}\n".encode("ascii"))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, pass_fds=[source])
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    finally:
        os.close(source)
    if done.returncode == 0:
        return None
    said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return said[0].replace(place, "PTX") if said else f"exit status {done.returncode}"


def check_assembler(target: Target) -> str | None:
    """Return why the ptxas that Triton would use cannot produce code for a target, or None."""
    found = assembler(target)
    if found is None:
        return "no ptxas that runs was found with the installed Triton, or Triton is not installed"
    path, version = found
    complaint = _refusal(path, target)
    return f"{Path(path).name} {version} cannot assemble {target.assembler_arch}: {complaint}" if complaint else None


def assembler_version(target: Target) -> str | None:
    """Return the version of the ptxas that Triton would use for a target, as ``12.9.86``, or None."""
    found = assembler(target)
    return found[1] if found else None


@functools.cache
def assemblers() -> dict[str, tuple[dict[str, str], ...]]:
    """Return what is known of Triton's releases without installing them, and the targets that ptxas has dropped."""
    return read_table("assemblers.toml")


def release_refusal(target: Target, triton: str) -> str | None:
    """Return why a release of Triton cannot assemble for a target, or None if it can or nothing is known of it."""
    release = next((row for row in assemblers()["release"] if row["triton"] == triton), None)
    gone = next((row for row in assemblers()["dropped"] if row["target"] == target.name), None)
    if release is None or gone is None:
        return None
    version, since = release["ptxas_blackwell" if target.arch_number >= BLACKWELL else "ptxas"], gone["since"]
    if _numbers(version) < _numbers(since):
        return None
    return f"Triton {triton} assembles with ptxas {version}, and ptxas {since} dropped {target} ({gone['source']})"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
