"""A directory that is a registry: a new one, and what must be true of one whatever happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdn_aot._files import file_sha256
from gdn_aot.registry.base import read_index
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import CARD, INDEX, artifact_path

if TYPE_CHECKING:
    from pathlib import Path


def empty_registry(root: Path) -> DirectoryRegistry:
    """Make a registry that was not there."""
    registry = DirectoryRegistry(str(root))
    assert registry.create(private=False)
    return registry


def expect_whole(root: Path, revision: str = "v1") -> dict[str, str]:
    """Check every file of a revision against the index, and that nothing half-written is left where it is read."""
    registry = DirectoryRegistry(str(root))
    snapshot, index = read_index(registry, revision)
    for entry in index.entries:
        path = registry.download(snapshot, artifact_path(entry.identifier), entry.size)
        assert file_sha256(path) == entry.sha256
    assert registry.read(snapshot, CARD).startswith(b"---\n")
    return {entry.identifier: entry.sha256 for entry in index.entries}


def expect_shown(root: Path) -> None:
    """Check that the files to look at are those of branch v1, and no others."""
    registry = DirectoryRegistry(str(root))
    snapshot, index = read_index(registry, "v1")
    paths = {
        INDEX,
        CARD,
        *(f"targets/{entry.identifier}{end}" for entry in index.entries for end in (".json", ".tar.zst")),
    }
    assert {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and ".registry" not in p.parts} == paths
    for path in paths:
        assert (root / path).read_bytes() == registry.read(snapshot, path)
