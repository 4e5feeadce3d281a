"""Read every byte of a store again, and say or remove what is not as it was installed."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot._text import plural
from gdn_aot.errors import Problem, VerificationError
from gdn_aot.store.install import discard_artifact, writing
from gdn_aot.store.lock import undisturbed
from gdn_aot.store.origins import ORIGIN, read_origins
from gdn_aot.store.upkeep import InstalledArtifact, ls
from gdn_aot.store.whole import UNREADABLE, faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What `audit` found."""

    path: str
    """Of the store."""
    artifacts: int
    blobs: int
    """Of the artifacts whose index can be read."""
    size: int
    """Bytes of the artifacts."""
    problems: tuple[Problem, ...]
    removed: tuple[InstalledArtifact, ...]
    """Damaged artifacts that were removed."""
    freed: int
    """Bytes that the repair freed."""

    def error(self) -> VerificationError:
        """Return the problems as an exception."""
        count = plural(len(self.problems), "problem")
        hint = "remove what is damaged with gdn-aot cache verify --repair, then fetch it again"
        return VerificationError(f"the store {self.path} is damaged: {count}", list(self.problems), hint=hint)


def audit(store: Store, *, repair: bool = False, waiting: Callable[[str], None] | None = None) -> Audit:
    """Check the digests of everything in a store.

    Args:
        store: The store.
        repair: Remove the artifacts that are damaged, so that fetching brings them again.
        waiting: Told, after two seconds, which process has the store locked.

    Raises:
        NotWritableError: A repair is wanted, and the store cannot be written.
        UnknownFormatError: A newer gdn-aot made the store.
    """
    if not os.path.isdir(store.root):
        return _audit(store, repair=False)
    if not repair:
        with undisturbed(store.root, waiting):
            return _audit(store, repair=False)
    with writing(store, waiting):
        return _audit(store, repair=True)


def _audit(store: Store, *, repair: bool) -> Audit:
    artifacts = ls(store)
    problems: list[Problem] = []
    removed, blobs, freed = [], 0, 0
    for artifact in artifacts:
        with suppress(*UNREADABLE):
            blobs += len(store.open_index(artifact.place).blobs())
        found = faults(artifact.place, deep=True)
        origin = f"{artifact.place}/{ORIGIN}"
        nameless = os.path.lexists(origin) and not read_origins(artifact.place)
        problems += found
        if nameless:
            problems.append(Problem(origin, "does not say where the artifact was fetched from"))
        if repair and found:
            discard_artifact(store, artifact.place)
            removed.append(artifact)
            freed += artifact.size
        elif repair and nameless:
            freed += os.lstat(origin).st_size
            os.unlink(origin)
    return Audit(
        path=store.root,
        artifacts=len(artifacts),
        blobs=blobs,
        size=sum(artifact.size for artifact in artifacts),
        problems=tuple(problems),
        removed=tuple(removed),
        freed=freed,
    )
