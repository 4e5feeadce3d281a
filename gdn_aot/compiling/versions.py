"""What two machines must have in common so that one can compile or measure for the other."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._version import __version__
from gdn_aot.catalogue.targets import assembler_version, get_target
from gdn_aot.machine import installed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gdn_aot.catalogue.providers import ProviderInfo

_MISSING = "not installed"
_CODE = "code"
_OUR_FILES = ("launches.py", "artifact/elf.py")
_OUR_FOLDERS = ("catalogue", "machine", "triton_internals", "reference", "providers", "tracing", "compiling")
"""Of this package, what decides what a trace holds."""


def code_digest(provider: ProviderInfo) -> str:
    """Return a digest of all Python files of a provider's package, and of ours that decide what is traced."""
    if provider.copy:
        theirs = Path(provider.copy.folder)
    else:
        distribution = importlib.metadata.distribution(provider.distribution)
        theirs = Path(str(distribution.locate_file(provider.package)))
    ours = Path(__file__).parent.parent
    hasher = hashlib.sha256()
    own = [ours / name for name in _OUR_FILES] + [path for name in _OUR_FOLDERS for path in (ours / name).rglob("*.py")]
    for root, files in ((theirs, theirs.rglob("*.py")), (ours, own)):
        for path in sorted(files):
            hasher.update(f"{path.relative_to(root)}\0".encode())
            hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


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
        found[_CODE] = code_digest(provider)
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
