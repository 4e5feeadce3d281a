"""What two machines must have in common so that one can compile or measure for the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdn_aot._version import __version__
from gdn_aot.catalogue.targets import assembler_version, get_target
from gdn_aot.machine import installed
from gdn_aot.tracing import sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gdn_aot.catalogue.providers import ProviderInfo

_MISSING = "not installed"
_CODE = "code"


def versions(provider: ProviderInfo, target: str) -> dict[str, str]:
    """Return what decides the bytes of a target's kernels on this machine, by name."""
    distribution = provider.distribution
    found = {
        "gdn-aot": __version__,
        "triton": installed.version("triton") or _MISSING,
        f"ptxas for {target}": assembler_version(get_target(target)) or _MISSING,
        distribution: installed.version(distribution) or _MISSING,
    }
    if found[distribution] != _MISSING:
        found[_CODE] = sources.code_digest(provider)
    return found


def difference(here: Mapping[str, str], there: Mapping[str, str], distribution: str) -> str:
    """Return in what another machine differs from this one; nothing if it does not."""
    found = [
        f"{name} is {there.get(name, _MISSING)}, here {value}"
        for name, value in here.items()
        if name != _CODE and there.get(name) != value
    ]
    if not found and here.get(_CODE) != there.get(_CODE):
        found.append(f"the installed files of gdn-aot or {distribution} are not those here")
    return ", ".join(found)
