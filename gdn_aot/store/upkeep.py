"""Look after a store: what it holds, removing what is not wanted, reading every byte of it again."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gdn_aot._text import plural, suggest
from gdn_aot.errors import (
    KeyringError,
    NothingSelectedError,
    Problem,
    UnreadableError,
    UntrustedError,
    VerificationError,
)
from gdn_aot.store.folder import ARTIFACTS, is_hidden, open_below, open_place
from gdn_aot.store.install import discard_artifact, size_of, temporaries, writing
from gdn_aot.store.lock import undisturbed
from gdn_aot.store.origins import ORIGIN, identity, read_origins
from gdn_aot.store.stored import StoredArtifact
from gdn_aot.store.whole import UNREADABLE, Hidden, faults, problems_of
from gdn_aot.trust.places import KEYS
from gdn_aot.trust.survey import survey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from gdn_aot.store.install import Changing
    from gdn_aot.store.lock import Waiting
    from gdn_aot.store.origins import Origin
    from gdn_aot.store.store import Store

_LEAST_DIGITS = 4
"""Digits of a SHA-256 that name an artifact."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledArtifact:
    """One artifact of a store."""

    place: str
    """Its directory."""
    identifier: str
    sha256: str
    """Of the artifact file; only its first digits where the index cannot be read."""
    target: str | None
    """None, as what follows, where the index cannot be read."""
    provider: str | None
    version: str | None
    triton: str | None
    size: int
    """Bytes of its directory."""
    installed: float
    """When it was installed or last asked for, in seconds since 1970."""
    origins: tuple[Origin, ...]
    """Where it was fetched from; empty if it came from a file."""
    preferred: bool
    """It is whole, and the first of its identifier that the loader looks at."""
    readable: bool
    """Whether it is whole can be seen here."""
    problem: str
    """The first thing that is wrong with it as `faults` sees it; else empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """What was removed, or would be."""

    artifacts: tuple[InstalledArtifact, ...]
    leftovers: tuple[str, ...]
    """What processes that were killed left unfinished."""
    freed: int
    """Bytes."""


def ls(store: Store) -> list[InstalledArtifact]:
    """Return what a store holds, in the order in which the loader looks at it. Takes no lock.

    Raises:
        UnknownFormatError: A newer gdn-aot made the store.
        UnreadableError: It cannot be read.
    """
    found: list[InstalledArtifact] = []
    for place in store.artifacts():
        header: Mapping[str, Any] = {}
        with suppress(*UNREADABLE):
            header = store.open_index(place).header
        found_faults = faults(place)
        problem = str(found_faults[0]) if found_faults else ""
        identifier = str(header.get("identifier", identity(place)))
        try:
            installed = os.lstat(place).st_mtime
        except FileNotFoundError:
            continue  # it was just removed
        found.append(
            InstalledArtifact(
                place=place,
                identifier=identifier,
                sha256=str(header.get("sha256", place.rpartition("-")[2])),
                target=header.get("target"),
                provider=header.get("provider"),
                version=header.get("version"),
                triton=header.get("triton"),
                size=size_of(place),
                installed=installed,
                origins=read_origins(place),
                preferred=not problem
                and not any(other.preferred and other.identifier == identifier for other in found),
                readable=not any(isinstance(fault, Hidden) for fault in found_faults),
                problem=problem,
            )
        )
    return found


def unreadable(store: Store, artifacts: Iterable[InstalledArtifact]) -> UnreadableError | None:
    """Return as an exception what `ls` found that cannot be read; None if there is nothing of the kind."""
    problems = [Hidden(artifact.identifier, artifact.problem) for artifact in artifacts if not artifact.readable]
    return UnreadableError(f"not all of the store {store.root} can be read", problems) if problems else None


def remove(store: Store, names: Sequence[str], *, dry_run: bool = False, waiting: Waiting | None = None) -> Removed:
    """Remove artifacts, or with ``dry_run`` say which; that takes no lock.

    They are named by identifiers, names of directories, either as a glob, or at least four first digits of a SHA-256.

    Raises:
        NothingSelectedError: One of the names is that of no artifact; nothing was removed.
        NotWritableError: The store cannot be written.
        UnknownFormatError: A newer gdn-aot made the store.
    """
    if dry_run:
        return _remove(select(ls(store), names), {})
    select(ls(store), names)  # a wrong name is an error of its own, whether or not the store can be written
    with writing(store, waiting) as changing:
        return _remove(select(ls(store), names), changing.leftovers, changing)


def prune(store: Store, *, keep: int = 1, dry_run: bool = False, waiting: Waiting | None = None) -> Removed:
    """Remove older builds of the same identifier, and what was left unfinished, or with ``dry_run`` say which.

    ``keep`` builds of an identifier stay, the last installed first. Damaged ones are not counted, and stay.

    Raises:
        NotWritableError: The store cannot be written.
        UnknownFormatError: A newer gdn-aot made the store.
    """
    if dry_run:
        return _remove(_superseded(ls(store), keep), temporaries(store))
    if not (os.path.isdir(store.root) or store.exists()):
        return Removed(artifacts=(), leftovers=(), freed=0)
    with writing(store, waiting) as changing:
        return _remove(_superseded(ls(store), keep), changing.leftovers, changing)


def _superseded(artifacts: Iterable[InstalledArtifact], keep: int) -> list[InstalledArtifact]:
    builds: Counter[str] = Counter()
    old = []
    for artifact in artifacts:
        if not artifact.problem:
            builds[artifact.identifier] += 1
            if builds[artifact.identifier] > keep:
                old.append(artifact)
    return old


def _remove(
    artifacts: Collection[InstalledArtifact], leftovers: Mapping[str, int], changing: Changing | None = None
) -> Removed:
    """Remove artifacts, if the store is being changed, and say what they and the leftovers took."""
    freed = sum(leftovers.values()) + sum(artifact.size for artifact in artifacts)
    if changing:
        for artifact in artifacts:
            discard_artifact(changing, os.path.basename(artifact.place))
    return Removed(artifacts=tuple(artifacts), leftovers=tuple(leftovers), freed=freed)


def select(artifacts: Sequence[InstalledArtifact], names: Sequence[str]) -> list[InstalledArtifact]:
    """Return the artifacts that names stand for, in the order of the store.

    Raises:
        NothingSelectedError: One of the names is that of no artifact.
    """
    chosen = set()
    for name in names:
        found = [artifact.place for artifact in artifacts if _is_called(artifact, name)]
        if not found:
            raise _nothing(artifacts, name)
        chosen.update(found)
    return [artifact for artifact in artifacts if artifact.place in chosen]


def _is_called(artifact: InstalledArtifact, name: str) -> bool:
    names = (artifact.place, os.path.basename(artifact.place), artifact.identifier)
    digits = len(name) >= _LEAST_DIGITS and set(name) <= set("0123456789abcdef")
    return (
        name in names
        or (digits and artifact.sha256.startswith(name))
        or any(fnmatch.fnmatchcase(text, name) for text in names[1:])
    )


def _nothing(artifacts: Sequence[InstalledArtifact], name: str) -> NothingSelectedError:
    if not artifacts:
        return NothingSelectedError(f"the store has no artifact {name!r}; it is empty", hint="see gdn-aot cache ls")
    known = [text for item in artifacts for text in (item.identifier, os.path.basename(item.place))]
    hint = suggest(name, known, "see gdn-aot cache ls")
    return NothingSelectedError(f"the store has no artifact {name!r}", hint=hint)


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What `audit` found."""

    path: str
    """Of the store."""
    exists: bool
    """Whether there is one; else nothing was checked."""
    artifacts: int
    blobs: int
    """Of the artifacts whose index can be read."""
    size: int
    """Bytes of the artifacts."""
    problems: tuple[Problem, ...]
    keyrings: tuple[Problem, ...]
    """Those of them that are of keyrings: no repair changes one, or removes what is refused because of one."""
    removed: tuple[InstalledArtifact, ...]
    """Damaged artifacts that were removed."""
    freed: int
    """Bytes that the repair freed."""

    @property
    def hidden(self) -> tuple[Problem, ...]:
        """What cannot be read here, which no repair removes."""
        return tuple(problem for problem in self.problems if isinstance(problem, Hidden))

    def error(self, *, repaired: bool = False) -> VerificationError | UnreadableError | None:
        """Return the problems as an exception, of a store that was ``repaired`` those that stay; None without any."""
        if self.hidden and (repaired or len(self.hidden) == len(self.problems)):
            return UnreadableError(f"not all of the store {self.path} can be read", self.hidden)
        if self.keyrings and (repaired or len(self.keyrings) == len(self.problems)):
            count = plural(len(self.keyrings), "keyring")
            return KeyringError(f"artifacts for which {count} here would vouch cannot be used", self.keyrings)
        if repaired or not self.problems:
            return None
        hint = (
            "remove damaged artifacts with gdn-aot cache verify --repair, then fetch them again; files that others may "
            "write stay: take that right away with chmod or chown"
        )
        if self.keyrings:
            hint = f"first of all: {KeyringError.default_hint}"
        count = plural(len(self.problems), "problem")
        return VerificationError(f"the store {self.path} is damaged: {count}", list(self.problems), hint=hint)


def audit(store: Store, *, repair: bool = False, waiting: Waiting | None = None) -> Audit:
    """Check the digests of everything in a store; ``repair`` removes what is damaged, so that fetching brings it again.

    Raises:
        NotWritableError: A repair is wanted, and the store cannot be written.
        UnknownFormatError: A newer gdn-aot made the store.
        UnreadableError: The store cannot be read; of what in it cannot be, `Audit.hidden` speaks.
    """
    if not repair or not (os.path.isdir(store.root) or store.exists()):
        with undisturbed(store, waiting):
            return _audit(store)
    with writing(store, waiting) as changing:
        return _audit(store, changing)


def _shared(store: Store) -> list[Problem]:
    """Return which directories of a store others may write: they can hide artifacts and bring back older ones."""
    found: list[Problem] = []
    for names in ((), (ARTIFACTS,)):
        try:
            with open_below(store.home, "store", *names) as folder:
                folder.check_trust()
        except UntrustedError as error:
            found += error.problems
        except OSError:
            pass
    return found


def _keyrings(home: str) -> list[Problem]:
    """Return what is wrong with keyrings, so that it cannot be said what they vouch for."""
    return [Problem(one.path, one.problem) for one in survey(home) if one.problem and (one.repo or one.source == KEYS)]


def _stays(place: str) -> bool:
    """Say whether a repair leaves an artifact that is refused: its owner, or a sound keyring, may find it sound."""
    try:
        StoredArtifact(place)
    except (KeyringError, UntrustedError):
        return True
    except UNREADABLE:
        pass
    return False


def _nameless(place: str) -> list[Problem]:
    """Return what is wrong with the file that says where an artifact came from."""
    origin = f"{place}/{ORIGIN}"
    if not os.path.lexists(origin) or read_origins(place):
        return []
    try:
        with open_place(place) as folder:
            os.close(folder.file(ORIGIN))
    except OSError as error:
        if is_hidden(error):
            return problems_of(origin, error)
    return [Problem(origin, "does not say where the artifact was fetched from")]


def _audit(store: Store, repair: Changing | None = None) -> Audit:
    artifacts = ls(store)
    keyrings = _keyrings(store.home) if store.exists() else []
    problems = [*keyrings, *_shared(store)]
    removed, blobs, freed = [], 0, 0
    for artifact in artifacts:
        with suppress(*UNREADABLE):
            blobs += len(store.open_index(artifact.place).blobs())
        found, nameless = faults(artifact.place, deep=True), _nameless(artifact.place)
        problems += [*found, *nameless]
        hidden = any(isinstance(problem, Hidden) for problem in (*found, *nameless))
        if repair and found and not hidden and not _stays(artifact.place):
            discard_artifact(repair, os.path.basename(artifact.place))
            removed.append(artifact)
            freed += artifact.size
        elif repair and nameless and not hidden:
            with repair.artifacts.folder(os.path.basename(artifact.place)) as folder:
                freed += folder.size(ORIGIN)
                folder.discard(ORIGIN)
    return Audit(
        path=store.root,
        exists=store.exists(),
        artifacts=len(artifacts),
        blobs=blobs,
        size=sum(artifact.size for artifact in artifacts),
        problems=tuple(problems),
        keyrings=tuple(keyrings),
        removed=tuple(removed),
        freed=freed,
    )
