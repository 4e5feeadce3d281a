"""Bring the artifacts that are wanted from a registry into the store.

In this order, and no further than needed: what the store has is looked at, the registry is asked for its index, a file
is downloaded, its SHA-256 compared with the index, all of it verified, and then it is installed. The registry is not
asked at all where the store alone can answer: for a pinned commit or a lock file, and in offline mode.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from gdn_aot.errors import (
    GdnAotError,
    NoArtifactError,
    NotWritableError,
    OfflineMissError,
    Problem,
    UnreadableError,
    VerificationError,
)
from gdn_aot.registry.ahead import Ahead
from gdn_aot.registry.base import COMMIT, read_index
from gdn_aot.registry.downloaded import verified
from gdn_aot.registry.layout import BRANCH, Entry, artifact_path
from gdn_aot.registry.listing import held, provenances
from gdn_aot.registry.open import locate, open_registry
from gdn_aot.registry.publisher import Release, must_be_signed, publisher_of
from gdn_aot.registry.select import missing_error, select
from gdn_aot.store.install import install, renew
from gdn_aot.store.lock import no_room
from gdn_aot.store.origins import Origin, allowed_unsigned, allows_unsigned
from gdn_aot.store.whole import find_installed, is_signed, signer_of
from gdn_aot.trust.envelope import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gdn_aot.registry.base import Registry, Snapshot
    from gdn_aot.registry.layout import Provenances, RegistryIndex
    from gdn_aot.registry.listing import Held
    from gdn_aot.registry.lockfile import LockedArtifact, LockFile
    from gdn_aot.registry.open import Location
    from gdn_aot.registry.publisher import Publisher
    from gdn_aot.registry.select import Judged, Request, Selected
    from gdn_aot.store.store import Store

    Pinned: TypeAlias = Entry | LockedArtifact | Held
    """An artifact whose file is known by its digest."""

State: TypeAlias = Literal["installed", "repaired", "already-installed", "would-install"]

LOCK_HINT = "gdn-aot lock writes the lock file anew, for what is wanted now"
_ON = ("1", "ON", "YES", "TRUE")
"""What huggingface_hub takes for yes in a variable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchOrder:
    """What is to be fetched, and from where."""

    repo: str
    """As ``--repo`` takes it."""
    revision: str | None
    """Branch, tag or commit; None for that in ``repo``, or else the branch of this version."""
    token: str | None = field(default=None, repr=False)
    request: Request
    lock: LockFile | None = None
    """Pins what may be fetched; its commit is then the revision."""
    dry_run: bool = False
    """Change nothing and download no artifact."""
    allow_unsigned: bool = False
    """Artifacts that nobody signed may be used, if no key of this registry's publisher is known here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """One artifact that was wanted, and what became of it."""

    identifier: str
    state: State
    path: str | None
    """Its directory in the store."""
    target: str
    sha256: str
    """Of the artifact file."""
    size: int | None
    """Bytes of that file; None where only the store was asked, which does not know."""
    signed: str | None
    """Id of the key that signed it; None if nobody's signature counted."""
    choices: Provenances | None
    """How many choices come from where."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchResult:
    """What `fetch` did."""

    repository: str
    revision: str
    commit: str | None
    """None in offline mode, where only the store was asked."""
    asked: bool
    """The registry, or huggingface_hub's cache of it, was looked at."""
    verdicts: tuple[Judged, ...]
    missing: tuple[str, ...]
    """What was wanted and is not there. The rest was installed all the same."""
    locked: bool
    """A lock file said what may be fetched."""

    def error(self) -> NoArtifactError | None:
        """Return what to raise where something is missing."""
        if not self.missing:
            return None
        if self.locked:
            return missing_error("the lock file", self.verdicts, self.missing, LOCK_HINT)
        return missing_error(f"{self.repository} at {self.revision}", self.verdicts, self.missing)


def offline() -> bool:
    """Say whether the environment asks for offline mode, as huggingface_hub reads it."""
    return any(os.environ.get(name, "").upper() in _ON for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def fetch(order: FetchOrder, store: Store, done: Callable[[Fetched], None], say: Callable[[str], None]) -> FetchResult:
    """Install what is wanted and is not installed yet.

    ``done`` is told of each artifact as soon as it is there, ``say`` in words what takes time.

    Raises:
        NoArtifactError: Nothing fits; it carries the reason for each artifact that there is.
        NotWritableError: The store or huggingface_hub's cache cannot be written, or the store cannot be read.
        OfflineMissError: Offline, and neither the store nor the cache has what is wanted.
        RegistryError: The registry cannot be reached or refuses.
        UsageError: The registry or the revision cannot be what was meant.
        VerificationError: Something there is damaged, is not what the lock file pins, or is not signed so that it
            counts. It was not installed.
    """
    location = locate(order.repo, order.lock.commit if order.lock else order.revision)
    job = _Job(order=order, store=store, location=location, done=done, say=say)
    try:
        return job.run()
    except UnreadableError as error:  # what cannot be looked at is not written either
        if order.dry_run:
            raise
        raise NotWritableError(error.message, error.problems, hint=error.hint) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    order: FetchOrder
    store: Store
    location: Location
    done: Callable[[Fetched], None]
    say: Callable[[str], None]

    @property
    def revision(self) -> str:
        """Return what is asked for; it is the commit that a lock file pins, if there is one."""
        return self.location.asked

    @property
    def where(self) -> str:
        """Return what messages call the place that artifacts come from."""
        return f"{self.location.name} at {self.revision}"

    def run(self) -> FetchResult:
        """Answer from the store if that is enough, else from the registry, and offline from what the store has."""
        if result := self.from_store():
            return result
        try:
            return self.from_registry()
        except OfflineMissError:
            if result := self.from_store(last_resort=True):
                return result
            raise

    def from_store(self, *, last_resort: bool = False) -> FetchResult | None:
        """Answer from the store alone; None if it cannot, or lacks something.

        As the last resort it takes every target for those that are here, and the moving branch for whatever came from
        the repository.
        """
        order, held_from = self.order, self._held(last_resort=last_resort)
        if held_from is None:
            return None
        selection = select(held_from, order.request)
        if order.lock is not None and not selection.chosen:
            raise missing_error("the lock file", selection.verdicts, selection.missing, LOCK_HINT)
        places = [self._from_store(item) for item in selection.chosen]
        if not selection.chosen or not all(places) or (selection.missing and order.lock is None):
            return None
        for item, place in zip(selection.chosen, filter(None, places), strict=True):
            if not order.dry_run:
                renew(self.store, place, waiting=self.say)
            self._tell(item, "already-installed", place, (signer_of(place) or (None,))[0])
        pinned = COMMIT.fullmatch(self.revision)
        return self._result(self.revision if pinned else None, selection, asked=False)

    def _held(self, *, last_resort: bool) -> Sequence[Pinned] | None:
        """Return what the store may choose from; None where the registry must be asked."""
        if self.order.lock is not None:
            return self.order.lock.artifacts
        away = self.location.hub and offline()
        if not away and not COMMIT.fullmatch(self.revision):
            return None
        if self.order.request.targets is None and not last_resort:
            return None
        wanted = (self.revision,) if not last_resort or self.revision != BRANCH else ()
        latest: dict[str, Pinned] = {}
        there, damaged = held(self.store)
        for _, problem in damaged:
            self.say(f"Warning: {problem}")
        for item in there:
            origins = (
                origin
                for origin in item.origins  # a bundle's word says what the branch was, not what a tag or a commit is
                if origin.repo == self.location.name and (not origin.carried or self.revision == BRANCH)
            )
            if any(not wanted or {origin.revision, origin.commit} & {*wanted} for origin in origins):
                latest.setdefault(item.identifier, item)
        return tuple(latest.values())

    def from_registry(self) -> FetchResult:
        """Ask the registry, and download and install what the store lacks."""
        registry = open_registry(self.location.name, token=self.order.token)
        snapshot, index = read_index(registry, self.revision)
        publisher = self._publisher(registry, snapshot, index)
        selection = select(self._entries(index), self.order.request)
        if not selection.chosen:
            raise missing_error(self.where, selection.verdicts, selection.missing)
        ahead = Ahead(selection.chosen, self.where, self.say)
        for entry in selection.chosen:
            self._one(registry, snapshot, entry, publisher, ahead)
            if publisher is not None and not self.order.dry_run:
                publisher.remember(self.store, self.say)
        return self._result(snapshot.commit, selection, asked=True)

    def _publisher(self, registry: Registry, snapshot: Snapshot, index: RegistryIndex) -> Publisher | None:
        known = allows_unsigned(self.store, registry.name)
        unsigned = self.order.allow_unsigned or known
        publisher = publisher_of(self.location, registry, snapshot, index, self.store, unsigned=unsigned)
        if publisher is not None and not self.order.dry_run:  # at once: what it revokes may be all that was wanted
            publisher.remember(self.store, self.say)
        if publisher is None and not known:
            self.say(
                f"Warning: installing artifacts of {registry.name} although no signature of them counts here; "
                "the store remembers this, and fetch does not warn again"
            )
        return publisher

    def _entries(self, index: RegistryIndex) -> Sequence[Entry]:
        """Return what may be chosen from: all of the index, or what the lock file pins, if the index agrees."""
        if self.order.lock is None:
            return index.entries
        problems, entries = [], []
        for pinned in self.order.lock.artifacts:
            entry = index.find(pinned.identifier)
            if entry is None:
                problems.append(Problem(pinned.identifier, "is not in the registry"))
            elif (entry.sha256, entry.size) != (pinned.sha256, pinned.size):
                there, here = f"{entry.sha256}, {entry.size} bytes", f"{pinned.sha256}, {pinned.size} bytes"
                problems.append(Problem(pinned.identifier, f"is {there} in the registry and {here} in the lock file"))
            else:
                entries.append(entry)
        if problems:
            raise VerificationError(
                f"{self.where} does not have what the lock file pins",
                problems,
                hint="nothing was installed; unless the lock file was edited, do not trust this registry",
            )
        return entries

    def _one(
        self, registry: Registry, snapshot: Snapshot, entry: Entry, publisher: Publisher | None, ahead: Ahead
    ) -> None:
        signed = publisher.release(registry, snapshot, entry) if publisher else Release()
        pinned = self.order.lock.find(entry.identifier) if self.order.lock else None
        self._check_pin(pinned, signed.key, signed.serial)
        origin = self._origin(registry, snapshot, publisher)
        place = self._installed(entry)
        if place and signed.statement and not is_signed(place, signed.statement):
            place = None  # somebody changed it: it is installed anew
        if place and not self.order.dry_run:
            renew(self.store, place, origin, release=signed.content, waiting=self.say)
        if place or self.order.dry_run:
            ahead.drop(entry)
            self._tell(entry, "already-installed" if place else "would-install", place, signed.key)
            return
        _check_writable(self.store.root, entry.size)
        with ahead.downloading(entry):
            path = registry.download(snapshot, artifact_path(entry.identifier), entry.size, entry.sha256)
        try:
            artifact = verified(path, entry, signed.statement)
            result = install(self.store, artifact, origin, release=signed.content, waiting=self.say)
        except VerificationError as error:
            registry.forget(snapshot, artifact_path(entry.identifier))
            hint = "nothing was installed; fetch again, and if it stays so tell whoever publishes there"
            message = f"{entry.identifier} from {self.where}: {error.message}"
            raise VerificationError(message, error.problems, hint=hint) from error
        self._tell(entry, "installed" if result.new else "repaired", result.place, signed.key)

    def _origin(self, registry: Registry, snapshot: Snapshot, publisher: Publisher | None) -> Origin:
        """Return where an artifact is from: of a bundle that its publisher signed, what that is a copy of."""
        carried = registry.carried
        if carried is not None and publisher is not None and publisher.repo == carried.repo:
            return Origin(repo=carried.repo, revision=carried.revision, commit=carried.commit, carried=True)
        return Origin(repo=registry.name, revision=self.revision, commit=snapshot.commit, unsigned=not publisher)

    def _check_pin(self, pinned: LockedArtifact | None, key: str | None, serial: int | None) -> None:
        """Check that an artifact is signed as the lock file says, if that says so."""
        if pinned is not None and pinned.key is not None and (key, serial) != (pinned.key, pinned.serial):
            what = f"is by key {key}, serial {serial}, expected {pinned.key}, {pinned.serial} by the lock file"
            raise refused(what, f"{pinned.identifier} from {self.where}: the signature", hint=LOCK_HINT)

    def _from_store(self, item: Pinned) -> str | None:
        """Return where an artifact is installed, if that is signed as it must be or was allowed unsigned, else None."""
        place = self._installed(item)
        if place is None:
            return None
        signed, wanted = signer_of(place), getattr(item, "key", None)
        if signed is None:
            allowed = self.order.allow_unsigned or allowed_unsigned(place)
            fits = allowed and wanted is None and not must_be_signed(self.location, self.store)
        else:
            fits = wanted is None or signed == (wanted, getattr(item, "serial", None))
        if not fits:
            pinned = " as it is pinned" if wanted else ""
            self.say(f"{place} is installed, but no signature of it counts{pinned}: asking the registry")
        return place if fits else None

    def _installed(self, item: Pinned) -> str | None:
        """Return where the file with an artifact's digest is installed, if it is.

        Raises:
            VerificationError: That file is another artifact than the one which is said to have the digest.
        """
        place = find_installed(self.store, item.sha256)
        here = None
        if place is not None:
            with suppress(OSError, GdnAotError):  # it was removed meanwhile
                here = self.store.open_index(place).header["identifier"]
        if here in (None, item.identifier):
            return place if here else None
        locked = self.order.lock is not None
        raise VerificationError(
            f"{'the lock file' if locked else self.where} gives {item.identifier} the digest of another artifact",
            [Problem(item.identifier, f"has the SHA-256 {item.sha256}, which is that of {here}")],
            hint=LOCK_HINT if locked else "nothing was changed; tell whoever publishes there",
        )

    def _tell(self, item: Pinned, state: State, place: str | None, key: str | None) -> None:
        choices = item.choices if isinstance(item, Entry) else provenances(self.store, place) if place else None
        self.done(
            Fetched(
                identifier=item.identifier,
                state=state,
                path=place,
                target=item.target,
                sha256=item.sha256,
                size=item.size,
                signed=key,
                choices=choices,
            )
        )

    def _result(self, commit: str | None, selection: Selected[Pinned] | Selected[Entry], *, asked: bool) -> FetchResult:
        return FetchResult(
            repository=self.location.name,
            revision=self.revision,
            commit=commit,
            asked=asked,
            verdicts=selection.verdicts,
            missing=selection.missing,
            locked=self.order.lock is not None,
        )


def _check_writable(root: str, size: int) -> None:
    """Check that a store can be written, before anything is downloaded for it.

    Raises:
        NotWritableError: It cannot.
    """
    if reason := no_room(root, size):
        raise NotWritableError(reason, hint="set GDN_AOT_HOME to a directory that may be written, with free space")
