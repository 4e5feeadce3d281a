"""``gdn-aot.lock``: the artifacts that a deployment uses, each pinned by commit and SHA-256.

The same selection of the same commit gives the same bytes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from gdn_aot._files import read_regular, write_whole
from gdn_aot.codec import Commit, Digest, Form, Record, TargetName
from gdn_aot.errors import NotWritableError, Problem, UnknownFormatError, UsageError, VerificationError
from gdn_aot.registry.base import check_revision
from gdn_aot.registry.layout import FileSize, check_identifier, check_order
from gdn_aot.registry.open import locate
from gdn_aot.registry.publisher import open_published
from gdn_aot.registry.select import missing_error, select
from gdn_aot.store.seen import Serial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.registry.layout import Entry
    from gdn_aot.registry.open import Location
    from gdn_aot.registry.publisher import Release
    from gdn_aot.registry.select import Request
    from gdn_aot.store.store import Store

KeyId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", min_length=32, max_length=32)]
NAME = "gdn-aot.lock"
MAX_BYTES = 4 << 20
"""Bytes of a lock file: some 10,000 artifacts."""


class LockedArtifact(Record, kw_only=True):
    """One artifact that is pinned."""

    identifier: str
    provider: str
    """Its name, for example ``fla``."""
    version: str
    """Of its distribution."""
    triton: str
    target: TargetName
    sha256: Digest
    """Of the ``.tar.zst`` file."""
    size: FileSize
    key: KeyId | None
    """Id of the key that signed it; None where nobody's signature counted when it was pinned."""
    serial: Serial | None
    """Number of the publication that was signed."""


class LockFile(Record, kw_only=True):
    """``gdn-aot.lock``."""

    format: int = 2
    repository: str
    """``hf://org/name``, or a directory: absolute, or relative to the lock file's with ``./`` or ``../`` in front."""
    revision: str
    """What was asked for when it was written."""
    commit: Commit
    """What that was."""
    artifacts: tuple[LockedArtifact, ...]
    """Sorted by identifier."""

    def find(self, identifier: str) -> LockedArtifact | None:
        """Return what is pinned of an identifier."""
        return next((artifact for artifact in self.artifacts if artifact.identifier == identifier), None)


def pin(
    repo: str,
    revision: str | None,
    request: Request,
    token: str | None,
    folder: Path,
    *,
    store: Store,
    allow_unsigned: bool = False,
) -> LockFile:
    """Select from a registry's index what `gdn_aot.registry.fetch.fetch` would install into an empty store.

    ``repo`` and ``revision`` are as `locate` takes them; a directory that is relative is kept so, seen from ``folder``,
    where the lock file will be. Signatures are verified as fetching does; ``store`` has what was seen of the registry.

    Raises:
        NoArtifactError: Something that is wanted is missing.
        RegistryError: The registry cannot be reached or refuses.
        UsageError: The registry or the revision cannot be what was meant.
        VerificationError: The index is damaged, or something is not signed so that it counts.
    """
    location = locate(repo, revision)
    found = open_published(location, token, store, allow_unsigned=allow_unsigned, say=lambda _: None)
    selection = select(found.index.entries, request)
    if selection.missing:
        raise missing_error(f"{location.name} at {location.asked}", selection.verdicts, selection.missing)
    return LockFile(
        repository=_relative(location, repo, folder),
        revision=location.asked,
        commit=found.snapshot.commit,
        artifacts=tuple(_locked(entry, found.release(entry)) for entry in selection.chosen),
    )


def _locked(entry: Entry, signed: Release) -> LockedArtifact:
    return LockedArtifact(
        identifier=entry.identifier,
        provider=entry.provider,
        version=entry.version,
        triton=entry.triton,
        target=entry.target,
        sha256=entry.sha256,
        size=entry.size,
        key=signed.key,
        serial=signed.serial,
    )


def _relative(location: Location, repo: str, folder: Path) -> str:
    if location.hub or repo.startswith(("/", "~", "file:")):
        return location.name
    relative = Path(os.path.relpath(location.place, folder.absolute())).as_posix()
    return relative if relative.startswith("../") else f"./{relative}"


def repository_of(lock: LockFile, path: Path) -> str:
    """Return the registry of the lock file at a path in the form that ``--repo`` takes."""
    if lock.repository.startswith(("./", "../")):
        return os.path.abspath(path.parent / lock.repository)  # noqa: PTH100 - without following links
    return lock.repository


def write_lock(path: Path, lock: LockFile) -> bool:
    """Write a lock file, whole or not at all; say whether that changed anything.

    Raises:
        NotWritableError: It cannot be written.
    """
    content = LOCK_FORM.encode(lock)
    try:
        with suppress(FileNotFoundError):
            if read_regular(path, MAX_BYTES) == content:
                return False
        write_whole(path, content)
    except OSError as error:
        raise NotWritableError(f"cannot write {path}: {error.strerror or error}") from error
    return True


def read_lock(path: Path) -> LockFile:
    """Read a lock file and check that it makes sense.

    Raises:
        UsageError: There is none, or it cannot be read.
        VerificationError: It is damaged; every problem has its path. `UnknownFormatError` if of another format.
    """
    try:
        return LOCK_FORM.read(path)
    except FileNotFoundError:
        raise UsageError(f"there is no lock file {path}", hint="gdn-aot lock writes it") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="name another with --lock-file") from error
    except VerificationError as error:
        unknown = isinstance(error, UnknownFormatError)
        hint = f"write it anew with gdn-aot lock, or {'upgrade gdn-aot' if unknown else 'take it from version control'}"
        raise type(error)(f"{path}: {error.message}", error.problems, hint=hint) from error


def changes(old: LockFile, new: LockFile) -> Iterator[Problem]:
    """Yield what differs between two lock files, the old one's paths in front."""
    for name in ("repository", "revision", "commit"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield Problem(name, f"is {before}, would be {after}")
    before = {artifact.identifier: _content(artifact) for artifact in old.artifacts}
    after = {artifact.identifier: _content(artifact) for artifact in new.artifacts}
    for identifier in sorted({*before, *after}):
        if identifier not in after:
            yield Problem(identifier, "would be left out")
        elif identifier not in before:
            yield Problem(identifier, "would be added")
        elif before[identifier] != after[identifier]:
            yield Problem(identifier, f"is {before[identifier]}, would be {after[identifier]}")


def _content(artifact: LockedArtifact) -> str:
    signed = f"signed by {artifact.key} with serial {artifact.serial}" if artifact.key else "not signed"
    return f"sha256 {artifact.sha256}, {signed}"


def _check(lock: LockFile) -> Iterator[Problem]:
    try:
        if locate(lock.repository).revision is not None:
            yield Problem("repository", "expected no revision here: commit has it")
        elif not lock.repository.startswith(("hf://", "/", "./", "../")):
            yield Problem("repository", "expected hf://org/name, an absolute directory, or one with ./ in front")
    except UsageError as error:
        yield Problem("repository", error.message)
    try:
        check_revision(lock.revision)
    except UsageError as error:
        yield Problem("revision", error.message)
    if not lock.artifacts:
        yield Problem("artifacts", "is empty")
    yield from check_order("artifacts", (artifact.identifier for artifact in lock.artifacts))
    for number, artifact in enumerate(lock.artifacts):
        yield from check_identifier(artifact, f"artifacts[{number}]")


LOCK_FORM = Form(
    LockFile,
    "the lock file",
    format=2,
    limit=MAX_BYTES,
    layout=lambda compact: msgspec.json.format(compact, indent=2) + b"\n",
    check=_check,
)
