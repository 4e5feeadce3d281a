"""Look after a store: what it holds, removing what is not wanted, and checking all of it."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot.errors import GdnAotError, NothingSelectedError
from gdn_aot.store import install
from gdn_aot.store.origins import identity, read_origins
from gdn_aot.store.pack_writer import TEMPORARY
from gdn_aot.store.store import MANIFEST
from gdn_aot.store.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from gdn_aot.store.origins import Origin
    from gdn_aot.store.store import Store

_UNREADABLE = (GdnAotError, OSError, ValueError, LookupError, TypeError)
"""What reading an index can raise that is damaged or of another version."""
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
    own: int
    """Bytes of its directory and of the blobs that no other artifact of the store needs."""
    shared: int
    """Bytes of the blobs that others need too."""
    installed: float
    """When it was installed or last asked for, in seconds since 1970."""
    origins: tuple[Origin, ...]
    """Where it was fetched from; empty if it came from a file."""
    preferred: bool
    """It is whole, and the first of its identifier that the loader looks at."""
    problem: str
    """Why it cannot be used, or not wholly; else empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """What was removed, or would be."""

    artifacts: tuple[InstalledArtifact, ...]
    blobs: int
    """Blobs that nothing needs any more."""
    leftovers: tuple[str, ...]
    """What processes that were killed left unfinished, and files that nothing can read."""
    freed: int
    """Bytes."""


def ls(store: Store) -> list[InstalledArtifact]:
    """Return what a store holds, in the order in which the loader looks at it. Takes no lock.

    Raises:
        UnknownFormatError: A newer gdn-aot made the store.
    """
    places = store.artifacts()
    sizes = store.blob_sizes()
    blobs: dict[str, dict[str, int]] = {}
    problems: dict[str, str] = {}
    headers = {}
    for place in places:
        try:
            index = store.open_index(place)
            blobs[place], headers[place] = dict(index.blobs()), index.header
            problems[place] = _lacking(place, blobs[place], sizes)
        except _UNREADABLE as error:
            problems[place] = str(error) or type(error).__name__
    needed = Counter(sha256 for some in blobs.values() for sha256 in some)
    found: list[InstalledArtifact] = []
    for place in places:
        header = headers.get(place, {})
        mine = blobs.get(place, {})
        shared = sum(size for sha256, size in mine.items() if needed[sha256] > 1)
        identifier = str(header.get("identifier", identity(place)))
        try:
            own, installed = install.size_of(place), os.stat(place).st_mtime
        except OSError:
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
                own=own + sum(mine.values()) - shared,
                shared=shared,
                installed=installed,
                origins=tuple(read_origins(place)),
                preferred=not problems[place]
                and not any(other.preferred and other.identifier == identifier for other in found),
                problem=problems[place],
            )
        )
    return found


def _lacking(place: str, blobs: dict[str, int], sizes: dict[str, int]) -> str:
    """Return what is missing of an artifact whose index can be read, or nothing."""
    if not os.path.isfile(f"{place}/{MANIFEST}"):
        return f"{MANIFEST} is missing"
    lacking = sum(sizes.get(sha256) != size for sha256, size in blobs.items())
    return f"{lacking} of its {len(blobs)} blobs are missing or cut short" if lacking else ""


def size(store: Store) -> int:
    """Return the bytes of all files of a store."""
    return install.size_of(store.root)


def unneeded(store: Store) -> int:
    """Return the bytes that `prune` would free at least: blobs that no artifact needs."""
    return sweep(store, store.artifacts(), dry_run=True).freed


def remove(
    store: Store, names: Sequence[str], *, dry_run: bool = False, waiting: Callable[[str], None] | None = None
) -> Removed:
    """Remove artifacts, and the blobs that nothing else needs.

    Args:
        store: The store.
        names: Identifiers, names of directories, either as a glob, or at least four first digits of a SHA-256.
        dry_run: Only say what would be removed; takes no lock.
        waiting: Told, after two seconds, which process has the store locked.

    Raises:
        NothingSelectedError: One of the names is that of no artifact; nothing was removed.
        NotWritableError: The store cannot be written.
        UnknownFormatError: A newer gdn-aot made the store.
    """
    if dry_run:
        return _remove(store, select(ls(store), names), {}, dry_run=True)
    select(ls(store), names)  # a wrong name is an error of its own, whether or not the store can be written
    with install.writing(store, waiting) as leftovers:
        return _remove(store, select(ls(store), names), leftovers)


def prune(
    store: Store, *, keep: int = 1, dry_run: bool = False, waiting: Callable[[str], None] | None = None
) -> Removed:
    """Remove older builds of the same identifier, blobs that no artifact needs, and what was left unfinished.

    Args:
        store: The store.
        keep: Builds of an identifier that stay, the last installed first. Damaged ones are not counted, and stay.
        dry_run: Only say what would be removed; takes no lock.
        waiting: Told, after two seconds, which process has the store locked.

    Raises:
        NotWritableError: The store cannot be written.
        UnknownFormatError: A newer gdn-aot made the store.
    """
    if dry_run:
        leftovers = {path: install.size_of(path) for path in install.temporaries(store)}
        return _remove(store, _superseded(ls(store), keep), leftovers, dry_run=True)
    if not os.path.isdir(store.root):
        return Removed(artifacts=(), blobs=0, leftovers=(), freed=0)
    with install.writing(store, waiting) as leftovers:
        return _remove(store, _superseded(ls(store), keep), leftovers)


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
    store: Store,
    artifacts: Collection[InstalledArtifact],
    leftovers: Mapping[str, int],
    *,
    dry_run: bool = False,
) -> Removed:
    places = {artifact.place for artifact in artifacts}
    freed = sum(leftovers.values()) + sum(map(install.size_of, places))
    if not dry_run:
        for place in places:
            discard_artifact(store, place)
    swept = sweep(store, [place for place in store.artifacts() if place not in places], dry_run=dry_run)
    return Removed(
        artifacts=tuple(artifacts),
        blobs=swept.blobs,
        leftovers=(*leftovers, *swept.files),
        freed=freed + swept.freed,
    )


def discard_artifact(store: Store, place: str) -> None:
    """Remove an artifact's directory: at once for whoever reads, whatever happens meanwhile.

    Raises:
        OSError: It cannot be removed.
    """
    temporary = f"{store.root}/artifacts/{TEMPORARY}{os.urandom(8).hex()}"
    os.rename(place, temporary)
    install.discard(temporary)


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
    directory = os.path.basename(artifact.place)
    if name in (artifact.place, directory, artifact.identifier):
        return True
    digits = len(name) >= _LEAST_DIGITS and not set(name) - set("0123456789abcdef")
    if digits and artifact.sha256.startswith(name):
        return True
    return any(fnmatch.fnmatchcase(text, name) for text in (directory, artifact.identifier))


def _nothing(artifacts: Sequence[InstalledArtifact], name: str) -> NothingSelectedError:
    if not artifacts:
        return NothingSelectedError(f"the store has no artifact {name!r}; it is empty", hint="see gdn-aot cache ls")
    known = [text for item in artifacts for text in (item.identifier, os.path.basename(item.place))]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "see gdn-aot cache ls for what there is"
    return NothingSelectedError(f"the store has no artifact {name!r}", hint=hint)
