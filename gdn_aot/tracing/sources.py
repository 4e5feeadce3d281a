"""What a provider's installed files are: version, digest of its code, licence texts. Imports nothing of it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot.errors import ProviderMissingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gdn_aot.catalogue.providers import ProviderInfo

_LICENSE_NAME = re.compile(r"^(licen[cs]e|copying|notice)", re.IGNORECASE)
_OUR_SOURCES = (
    "launches.py",
    "catalogue",
    "triton_internals",
    "reference",
    "providers",
    "tracing",
    "compiling",
    "artifact/elf.py",
)
"""Files and folders of this package that decide what a trace holds."""


def license_texts(provider: ProviderInfo) -> list[tuple[str, bytes]]:
    """Return (file name, text) of the licence files in a provider's distribution, sorted by name.

    Raises:
        ProviderMissingError: The distribution carries none, so that what is compiled from it could not be shipped.
    """
    distribution = importlib.metadata.distribution(provider.distribution)
    found = {
        file.name: file.locate().read_bytes()  # type: ignore[attr-defined]
        for file in distribution.files or []
        if _LICENSE_NAME.match(file.name) and ".dist-info" in file.parts[0]
    }
    if not found:
        raise ProviderMissingError(
            f"{provider.distribution} {distribution.version} as installed carries no licence text",
            hint=f"install it from its wheel: {provider.install}",
        )
    return sorted(found.items())


def code_digest(provider: ProviderInfo) -> str:
    """Return a digest of all Python files of a provider's package, and of ours that decide what is traced."""
    distribution = importlib.metadata.distribution(provider.distribution)
    theirs = Path(str(distribution.locate_file(provider.package)))
    ours = Path(__file__).parent.parent
    hasher = hashlib.sha256()
    for root, files in ((theirs, theirs.rglob("*.py")), (ours, _our_files(ours))):
        for path in sorted(files):
            hasher.update(f"{path.relative_to(root)}\0".encode())
            hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


def _our_files(root: Path) -> Iterable[Path]:
    for name in _OUR_SOURCES:
        path = root / name
        yield from path.rglob("*.py") if path.is_dir() else [path]
