"""Making a bundle: what is wanted of a registry, verified as fetching does, in one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot._files import read_regular
from gdn_aot.artifact.names import MAX_FILE
from gdn_aot.errors import EntryMissingError
from gdn_aot.registry.ahead import Ahead
from gdn_aot.registry.bundle import About, write_bundle
from gdn_aot.registry.downloaded import verified
from gdn_aot.registry.layout import (
    INDEX,
    INDEX_FORM,
    INDEX_SIGNATURE,
    artifact_path,
    keyring_path,
    provenance_path,
    signature_path,
)
from gdn_aot.registry.open import locate
from gdn_aot.registry.publisher import open_published
from gdn_aot.registry.select import missing_error, select

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gdn_aot.registry.base import Registry, Snapshot
    from gdn_aot.registry.layout import Entry
    from gdn_aot.registry.select import Request
    from gdn_aot.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundled:
    """What `bundle` wrote."""

    repository: str
    revision: str
    commit: str
    publisher: str | None
    """Who signed it; None if nobody's signature counted."""
    artifacts: tuple[Entry, ...]
    size: int
    """Bytes of the file."""


def bundle(
    path: Path,
    repo: str,
    revision: str | None,
    request: Request,
    *,
    store: Store,
    token: str | None = None,
    allow_unsigned: bool = False,
    say: Callable[[str], None],
) -> Bundled:
    """Write what is wanted of a registry, and all that it takes to verify it without a network, into one file.

    Raises:
        NoArtifactError: Something that is wanted is missing.
        NotWritableError: The file cannot be written.
        RegistryError: The registry cannot be reached or refuses.
        UsageError: The registry or the revision cannot be what was meant.
        VerificationError: Something there is damaged, or not signed so that it counts. Nothing was written.
    """
    location = locate(repo, revision)
    found = open_published(location, token, store, allow_unsigned=allow_unsigned, say=say)
    registry, snapshot, publisher = found.registry, found.snapshot, found.publisher
    selection = select(found.index.entries, request)
    if selection.missing:
        raise missing_error(f"{location.name} at {location.asked}", selection.verdicts, selection.missing)
    files = {INDEX: INDEX_FORM.encode(found.index)}
    if publisher is not None:
        files[INDEX_SIGNATURE] = registry.read(snapshot, INDEX_SIGNATURE)
        for version in range(1, publisher.keyring.version + 1):
            _add(files, registry, snapshot, keyring_path(version))
        for learned in publisher.learned:  # newer than the state that was asked for
            files[keyring_path(learned.keyring.version)] = learned.envelope.encode()
    ahead = Ahead(selection.chosen, location.name, say)
    for entry in selection.chosen:
        signed = found.release(entry)
        with ahead.downloading(entry):
            place = registry.download(snapshot, artifact_path(entry.identifier), entry.size, entry.sha256)
        verified(place, entry, signed.statement)
        files[artifact_path(entry.identifier)] = read_regular(place, MAX_FILE)
        if signed.content:
            files[signature_path(entry.identifier)] = signed.content
        _add(files, registry, snapshot, provenance_path(entry.identifier))
    about = About(
        repository=publisher.repo if publisher else location.name, revision=location.asked, commit=snapshot.commit
    )
    return Bundled(
        repository=location.name,
        revision=location.asked,
        commit=snapshot.commit,
        publisher=publisher.repo if publisher else None,
        artifacts=selection.chosen,
        size=write_bundle(path, about, files),
    )


def _add(files: dict[str, bytes], registry: Registry, snapshot: Snapshot, path: str) -> None:
    """Add a file that need not be there."""
    try:
        files[path] = registry.read(snapshot, path)
    except EntryMissingError:
        return
