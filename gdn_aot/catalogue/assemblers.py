"""What the releases of Triton assemble with, as far as it is known without installing them.

Figures and sources are in ``catalogue/assemblers.toml``. `gdn_aot.catalogue.targets.check_assembler` asks an installed
ptxas.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot.catalogue.targets import BLACKWELL

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from gdn_aot.catalogue.targets import Target

_TABLE = Path(__file__).parent / "assemblers.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """One release of Triton."""

    triton: str
    ptxas: str
    """Version of its ``ptxas``."""
    ptxas_blackwell: str
    """Version of its ``ptxas-blackwell``, which it uses from sm_100 on."""
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A target that newer assemblers do not know any more."""

    target: str
    since: str
    """The first version of ptxas that refuses it."""
    source: str


@functools.cache
def table() -> tuple[tuple[Release, ...], tuple[Dropped, ...]]:
    """Return the releases that are known, and the targets that were dropped."""
    rows = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return tuple(Release(**row) for row in rows["release"]), tuple(Dropped(**row) for row in rows["dropped"])


def refusal(target: Target, triton: str) -> str | None:
    """Return why a release of Triton cannot assemble for a target, or None if it can or nothing is known of it."""
    releases, dropped = table()
    release = next((one for one in releases if one.triton == triton), None)
    gone = next((one for one in dropped if one.target == target.name), None)
    if release is None or gone is None:
        return None
    version = release.ptxas_blackwell if target.arch_number >= BLACKWELL else release.ptxas
    if _numbers(version) < _numbers(gone.since):
        return None
    return f"Triton {triton} assembles with ptxas {version}, and ptxas {gone.since} dropped {target} ({gone.source})"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
