"""Read every byte of a store again, and say or remove what is not as it was installed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gdn_aot.artifact.manifest_json import load_manifest
from gdn_aot.errors import GdnAotError, Problem, VerificationError
from gdn_aot.store import install
from gdn_aot.store.lock import undisturbed
from gdn_aot.store.origins import ORIGIN, read_origins
from gdn_aot.store.store import MANIFEST
from gdn_aot.store.sweep import is_right, strangers, sweep
from gdn_aot.store.upkeep import InstalledArtifact, discard_artifact, ls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gdn_aot.store.store import Store

_UNREADABLE = (GdnAotError, OSError, ValueError, LookupError, TypeError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What `audit` found."""

    path: str
    """Of the store."""
    artifacts: int
    blobs: int
    """Blobs that were read, second copies too."""
    size: int
    """Bytes of the packs."""
    problems: tuple[Problem, ...]
    removed: tuple[InstalledArtifact, ...]
    """Damaged artifacts that were removed."""
    freed: int
    """Bytes that the repair freed."""

    def error(self) -> VerificationError:
        """Return the problems as an exception."""
        count = f"{len(self.problems)} problem{'s' * (len(self.problems) != 1)}"
        hint = "remove what is damaged with gdn-aot cache verify --repair, then fetch it again"
        return VerificationError(f"the store {self.path} is damaged: {count}", list(self.problems), hint=hint)


@dataclass(kw_only=True, slots=True)
class _Findings:
    problems: list[Problem] = field(default_factory=list)
    blobs: int = 0
    size: int = 0
    right: set[str] = field(default_factory=set)
    """Blobs of which there is a copy that is right."""
    wrong: set[tuple[str, str]] = field(default_factory=set)
    """(path of the pack, SHA-256) of copies that are not."""
    damaged: list[InstalledArtifact] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    """Files that should say where an artifact is from, and do not."""


def audit(store: Store, *, repair: bool = False, waiting: Callable[[str], None] | None = None) -> Audit:
    """Check the digests of everything in a store.

    Args:
        store: The store.
        repair: Remove what is damaged, so that fetching brings it again: blobs, and artifacts that lack one.
        waiting: Told, after two seconds, which process has the store locked.

    Raises:
        NotWritableError: A repair is wanted, and the store cannot be written.
        UnknownFormatError: A newer gdn-aot made the store.
    """
    if not os.path.isdir(store.root):
        return _result(store, _Findings(), 0)
    if not repair:
        with undisturbed(store.root, waiting):
            artifacts = ls(store)
            return _result(store, _look(store, artifacts), len(artifacts))
    with install.writing(store, waiting):
        artifacts = ls(store)
        found = _look(store, artifacts)
        freed = _repair(store, found) if found.problems else 0
    return _result(store, found, len(artifacts), removed=tuple(found.damaged), freed=freed)


def _result(
    store: Store, found: _Findings, artifacts: int, *, removed: tuple[InstalledArtifact, ...] = (), freed: int = 0
) -> Audit:
    return Audit(
        path=store.root,
        artifacts=artifacts,
        blobs=found.blobs,
        size=found.size,
        problems=tuple(found.problems),
        removed=removed,
        freed=freed,
    )


def _look(store: Store, artifacts: list[InstalledArtifact]) -> _Findings:
    found = _Findings()
    packs = store.packs()
    for pack in packs:
        found.size += pack.size
        for sha256, _ in pack.blobs():
            found.blobs += 1
            if is_right(pack, sha256):
                found.right.add(sha256)
            else:
                found.wrong.add((pack.path, sha256))
                found.problems.append(Problem(pack.path, f"the content of blob {sha256} is not what its name says"))
    found.problems += [Problem(path, "is not a pack, or is cut short") for path in strangers(store, packs)]
    for artifact in artifacts:
        problems = list(_artifact(store, artifact.place, found.right))
        if problems:
            found.damaged.append(artifact)
        origin = f"{artifact.place}/{ORIGIN}"
        if os.path.lexists(origin) and not read_origins(artifact.place):
            problems.append(Problem(origin, "does not say where the artifact was fetched from"))
            found.origins.append(origin)
        found.problems += problems
    return found


def _artifact(store: Store, place: str, right: set[str]) -> Iterator[Problem]:
    """Yield what is wrong with an artifact, given the blobs that are right."""
    try:
        index = store.open_index(place)
        index.check()
        identifier, blobs = index.header["identifier"], index.blobs()
        if os.path.basename(place) != f"{identifier}-{index.header['sha256'][:16]}":
            yield Problem(place, f"is the directory of {identifier} of SHA-256 {index.header['sha256']}")
        for sha256, _ in blobs:
            if sha256 not in right:
                yield Problem(place, f"blob {sha256} is missing")
    except _UNREADABLE as error:
        yield Problem(f"{place}/index", _text(error))
        return
    path = f"{place}/{MANIFEST}"
    try:
        manifest = load_manifest(install.read_manifest(place))
    except VerificationError as error:
        for problem in error.problems:
            yield Problem(path, str(problem))
    except OSError as error:
        yield Problem(path, _text(error))
    else:
        if manifest.identifier != identifier or [(blob.sha256, blob.size) for blob in manifest.blobs] != blobs:
            yield Problem(path, "is not the manifest that the index was made of")


def _repair(store: Store, found: _Findings) -> int:
    """Remove what is damaged; returns the bytes that this freed."""
    freed = 0
    for path in found.origins:
        freed += install.size_of(path)
        install.discard(path)
    for artifact in found.damaged:
        if os.path.lexists(artifact.place):
            freed += install.size_of(artifact.place)
            discard_artifact(store, artifact.place)
    return freed + sweep(store, store.artifacts(), without=found.wrong).freed


def _text(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return error.message if isinstance(error, GdnAotError) else f"is damaged: {type(error).__name__}: {error}"
