"""Artifacts small enough for a test, and directories to publish them to."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from artifact import factory
from helpers import gdn_aot

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact import names
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.catalogue.targets import get_target
from gdn_aot.registry.base import open_registry
from gdn_aot.registry.publish import publish

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from helpers import Done

SM_120, SM_90 = "fla0.6.0-triton3.6.0-sm_120", "fla0.6.0-triton3.6.0-sm_90"
WANTED = ("--provider", "fla", "--provider-version", "0.6.0", "--triton", "3.6.0")
"""Options that ask for what `write` writes, whatever is installed."""


def write(
    folder: Path, target: str = "sm_120", *, version: str = "0.6.0", triton: str = "3.6.0", build: str = "0.1.0"
) -> Path:
    """Write an artifact; another ``build`` gives other bytes under the same identifier."""
    row = get_target(target)
    plain = factory.make_manifest()
    manifest = replace(
        plain,
        identifier=names.make_identifier("fla", version, triton, target),
        target=m.Target(name=row.name, capability=row.capability, warp_size=32, max_shared=row.max_shared),
        provider=replace(plain.provider, version=version),
        triton=m.Triton(version=triton, ptxas="12.9.86"),
        build=replace(plain.build, tool=f"gdn-aot {build}"),
    )
    path = folder / build / names.file_name(manifest.identifier)
    return write_artifact(manifest, factory.make_blobs(), path).path


def put(directory: Path, *files: Path, tag: str | None = None) -> str:
    """Publish artifacts to a directory and return the commit of its branch."""
    registry = open_registry(str(directory))
    outcome = publish(
        registry, list(files), tag=tag, replace=tag is not None, create=True, private=False, dry_run=False
    )
    refusal = outcome.plan.refusal()
    assert refusal is None, refusal
    assert outcome.commit is not None
    return outcome.commit


def fetch(
    directory: Path | str, *args: object, home: Path, code: int = 0, extra: Mapping[str, str] | None = None
) -> Done:
    """Fetch from a directory, for versions that are named."""
    return gdn_aot("fetch", "--repo", directory, *WANTED, *args, home=home, code=code, extra=extra)


def store_files(home: Path) -> dict[str, bytes]:
    """Everything in a store but its lock."""
    files = (path for path in (home / "store").rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(home)): path.read_bytes() for path in sorted(files)}


def payload(home: Path) -> Path:
    """The largest file of a store that holds content of artifacts, however the store keeps it."""
    files = (path for path in (home / "store").rglob("*") if path.is_file() and path.parts[-3:-2] != ("artifacts",))
    return max(files, key=lambda path: path.stat().st_size)


def installed(home: Path) -> list[str]:
    """The artifacts of a store, the one that the loader prefers first."""
    from gdn_aot.store.store import Store

    return [place.rpartition("/")[2] for place in Store(str(home)).artifacts()]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def place(path: Path, identifier: str = SM_120) -> str:
    """The name of an artifact's directory in a store."""
    return f"{identifier}-{sha256(path)[:16]}"


def object_of(registry: Path, path: Path) -> Path:
    """Where a directory registry keeps the content of a file, made writable."""
    digest = sha256(path)
    found = registry / ".registry" / "objects" / digest[:2] / digest
    found.chmod(0o644)
    return found
