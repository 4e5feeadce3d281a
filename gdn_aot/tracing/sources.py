"""What a provider's installed files are: the digest of its code. Imports nothing of it."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gdn_aot.catalogue.providers import ProviderInfo

_OUR_SOURCES = (
    "launches.py",
    "catalogue",
    "machine",
    "artifact/elf.py",
    "triton_internals",
    "reference",
    "providers",
    "tracing",
    "compiling",
)
"""Files and folders of this package that decide what a trace holds."""


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
