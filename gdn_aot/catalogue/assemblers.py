"""What the releases of Triton assemble with, as far as it is known without installing them.

Figures and sources are in ``catalogue/assemblers.toml``. `gdn_aot.catalogue.targets.check_assembler` asks an installed
ptxas.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from gdn_aot.catalogue import read_table
from gdn_aot.catalogue.targets import BLACKWELL

if TYPE_CHECKING:
    from gdn_aot.catalogue.targets import Target


@functools.cache
def table() -> dict[str, list[dict[str, str]]]:
    """Return the rows of the releases that are known, and of the targets that newer assemblers have dropped."""
    return read_table("assemblers.toml")


def refusal(target: Target, triton: str) -> str | None:
    """Return why a release of Triton cannot assemble for a target, or None if it can or nothing is known of it."""
    release = next((row for row in table()["release"] if row["triton"] == triton), None)
    gone = next((row for row in table()["dropped"] if row["target"] == target.name), None)
    if release is None or gone is None:
        return None
    version, since = release["ptxas_blackwell" if target.arch_number >= BLACKWELL else "ptxas"], gone["since"]
    if _numbers(version) < _numbers(since):
        return None
    return f"Triton {triton} assembles with ptxas {version}, and ptxas {since} dropped {target} ({gone['source']})"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
