"""Who publishes in a registry, and whether that counts here: asked before anything is downloaded.

In this order: the newest keyring that follows the one this machine knows, the statement of the index, the statement of
each artifact that is wanted. Serials below those that were seen are refused unless a commit, a tag or a lock file says
that just this state is wanted.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from gdn_aot.errors import (
    EntryMissingError,
    NotWritableError,
    OfflineMissError,
    RegistryError,
    SignatureError,
    UnknownFormatError,
    UntrustedError,
)
from gdn_aot.registry.base import read_index
from gdn_aot.registry.layout import (
    BRANCH,
    DEFAULT_REPO,
    INDEX,
    INDEX_FORM,
    INDEX_SIGNATURE,
    MAIN,
    keyring_path,
    signature_path,
)
from gdn_aot.registry.open import open_registry
from gdn_aot.store.origins import allows_unsigned
from gdn_aot.store.seen import Seen, publisher_seen, read_seen, remember
from gdn_aot.trust.ed25519 import verify_all
from gdn_aot.trust.envelope import refused
from gdn_aot.trust.keyring import read_keyring, verify_statement
from gdn_aot.trust.known import BESIDE, newest
from gdn_aot.trust.statement import IndexStatement, Statement, is_repository

if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.registry.base import Registry, Snapshot
    from gdn_aot.registry.layout import Entry, RegistryIndex
    from gdn_aot.registry.open import Location
    from gdn_aot.store.store import Store
    from gdn_aot.trust.envelope import Envelope
    from gdn_aot.trust.keyring import Keyring, SignedKeyring

_MOST_STEPS = 100
"""Versions that a keyring may be ahead of the one that is known here."""
_ADD = "gdn-aot keys add KEYRING lets the publisher's signature count; --allow-unsigned goes without"


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """What was signed of one artifact; by default nothing was."""

    content: bytes = b""
    """The file with the statement."""
    statement: Statement | None = None
    key: str | None = None
    """Id of the key."""

    @property
    def serial(self) -> int | None:
        """The number of the publication."""
        return self.statement.serial if self.statement else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Publisher:
    """The publisher of one state of a registry."""

    repo: str
    """Whose signatures count, ``hf://org/name``."""
    keyring: Keyring
    """The newest one that is known."""
    learned: tuple[SignedKeyring, ...]
    """Those that follow the one which somebody put into its place on this machine."""
    checked: str
    """SHA-256 of the file with the keyring in its place, which was verified."""
    serial: int
    """Of the index."""
    pinned: bool
    """Just this state was asked for, so that it may be older than others that were seen."""
    seen: Seen
    place: str
    """The directory, if it is one: from then on it must be signed by this publisher."""
    accepted: dict[str, int] = field(default_factory=dict)
    """Serials of the artifacts whose statements were right, by identifier."""

    def release(self, registry: Registry, snapshot: Snapshot, entry: Entry) -> Release:
        """Return what was signed of an artifact.

        Raises:
            RegistryError: The registry cannot be reached.
            SignatureError: It is missing, wrong, revoked, or older than what was seen; nothing may be installed.
        """
        where = f"{entry.identifier} from {registry.name} at {snapshot.revision}: the signature"
        path = signature_path(entry.identifier)
        try:
            content = registry.read(snapshot, path)
        except EntryMissingError:
            raise refused("is missing", where) from None
        try:
            statement, envelope = Statement.read(content)
            key = _check(statement, envelope, self.keyring, entry.sha256)
            for name in ("identifier", "sha256", "size", "commit", "tool"):
                if getattr(statement, name) != getattr(entry, name):
                    raise refused(f"is for {name} {getattr(statement, name)}, expected {getattr(entry, name)}")
            _check_serial(statement.serial, self.seen.artifacts.get(entry.identifier, 0), pinned=self.pinned)
        except SignatureError as error:
            registry.forget(snapshot, path)
            raise refused(error.problems[0].what, where, hint=_hint(error)) from error
        self.accepted[entry.identifier] = statement.serial
        return Release(content=content, statement=statement, key=key)

    def remember(self, store: Store, say: Callable[[str], None]) -> None:
        """Keep what was learned beside the store, as far as that can be written."""
        try:
            remember(
                store,
                self.repo,
                self.learned,
                checked=self.checked,
                index=self.serial,
                artifacts=self.accepted,
                place=self.place,
                waiting=say,
            )
        except (NotWritableError, UnknownFormatError) as error:
            say(f"Warning: what {self.repo} has revoked since cannot be kept: {error.message}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A state of a registry, and who publishes there; None if nobody need sign it."""

    registry: Registry
    snapshot: Snapshot
    index: RegistryIndex
    publisher: Publisher | None

    def release(self, entry: Entry) -> Release:
        """Return what was signed of an artifact; see `Publisher.release`."""
        return self.publisher.release(self.registry, self.snapshot, entry) if self.publisher else Release()


def expected_publisher(location: Location, store: Store, registry: Registry | None = None) -> str:
    """Return whose signature a registry must have; nothing for a directory that nobody was seen to sign.

    One of the Hub has the name of its publisher, a bundle says it, a directory keeps the publisher who was seen first.
    """
    if location.hub:
        return location.name
    if registry is not None and registry.carried is not None:
        return registry.carried.repo if is_repository(registry.carried.repo) else ""
    return publisher_seen(location.name, store.home)


def must_be_signed(location: Location, store: Store) -> bool:
    """Say whether what nobody signed may not be used of a registry, whatever was allowed: its publisher is known."""
    try:
        repo = expected_publisher(location, store)
        return bool(repo) and (repo == DEFAULT_REPO or bool(newest(repo, store.home)))
    except (OSError, SignatureError, UntrustedError):  # who is known, and whose keyring is damaged
        return True


def publisher_of(
    location: Location,
    registry: Registry,
    snapshot: Snapshot,
    index: RegistryIndex,
    store: Store,
    *,
    unsigned: bool,
) -> Publisher | None:
    """Return the publisher of a state of a registry, whose index was found to be signed; None if nobody need sign it.

    Args:
        location: Of the registry. One of the Hub has the name of its publisher; in a directory the index says it.
        registry: The same, opened.
        snapshot: The state.
        index: What it has, as it was read.
        store: What was seen of the publisher is beside it.
        unsigned: Artifacts that nobody signed may be used, unless the publisher's keyring is known here.

    Raises:
        RegistryError: The registry cannot be reached.
        SignatureError: The index is not signed, or not so that it counts, or older than one that was seen.
    """
    where = f"{registry.name} at {snapshot.revision}: the signature of {INDEX}"
    content = _read(registry, snapshot, INDEX_SIGNATURE)
    pinned = location.revision not in (None, BRANCH, MAIN)
    expected = expected_publisher(location, store, registry)
    try:
        statement, envelope = IndexStatement.read(content) if content is not None else (None, None)
        repo = expected or (statement.repo if statement else "")
        if statement is not None and statement.repo != repo:
            hint = None if location.hub else f"if that is right now, remove its seen.json in {store.home}/{BESIDE}"
            raise refused(f"is for {statement.repo}, expected {repo}", hint=hint)
        known = newest(repo, store.home) if repo else []
        chain = [one.signed for one in known]
        if not chain and repo != DEFAULT_REPO:
            if unsigned:
                return None
            what = f"is missing, and no key of {repo or 'its publisher'} is known here"
            raise refused(what if statement is None else f"is of {repo}, of whom no key is known here", hint=_ADD)
        if not chain:
            hint = "upgrade gdn-aot, or add the keyring that its makers publish: gdn-aot keys add"
            raise refused(f"must be that of {repo}, and this gdn-aot has no keyring of it", hint=hint)
        if statement is None or envelope is None:
            raise refused("is missing")
        anchor = chain[0]
        anchor.verify()
        for before, after in pairwise(chain):
            after.verify(before.keyring)
        chain += _newer(registry, snapshot, statement, chain[-1].keyring, pinned=pinned)
        seen = read_seen(repo, store.home)
        publisher = Publisher(
            repo=repo,
            keyring=chain[-1].keyring,
            learned=_needed(chain),
            checked=known[0].sha256,
            serial=statement.serial,
            pinned=pinned,
            seen=seen,
            place="" if location.hub or registry.carried else location.name,
        )
        check_index(statement, envelope, publisher.keyring, INDEX_FORM.encode(index))  # which is what was read
        _check_serial(statement.serial, seen.index, pinned=pinned)
    except SignatureError as error:
        registry.forget(snapshot, INDEX_SIGNATURE)
        raise refused(error.problems[0].what if error.problems else error.message, where, hint=_hint(error)) from error
    return publisher


def open_published(
    location: Location, token: str | None, store: Store, *, allow_unsigned: bool, say: Callable[[str], None]
) -> Published:
    """Open a registry, read the index of the state that is asked for, and find out who publishes there.

    What is heard of keys is kept at once. For what is raised see `read_index` and `publisher_of`.
    """
    registry = open_registry(location.name, token=token)
    snapshot, index = read_index(registry, location.asked)
    unsigned = allow_unsigned or allows_unsigned(store, registry.name)
    publisher = publisher_of(location, registry, snapshot, index, store, unsigned=unsigned)
    if publisher is not None:
        publisher.remember(store, say)
    return Published(registry=registry, snapshot=snapshot, index=index, publisher=publisher)


def _needed(chain: list[SignedKeyring]) -> tuple[SignedKeyring, ...]:
    """Return the keyrings after the first that are needed to go from the first to the last."""
    for start in range(len(chain) - 1, 0, -1):
        with suppress(SignatureError):
            chain[start].check_follows(chain[0].keyring)
            return tuple(chain[start:])
    return ()


def _newer(
    registry: Registry, snapshot: Snapshot, statement: IndexStatement, known: Keyring, *, pinned: bool
) -> list[SignedKeyring]:
    """Return the keyrings that follow the newest one which is known here, as far as the registry has them.

    Of a state that was asked for by its commit or tag, the newest state is looked at too: something may have been
    revoked since.
    """
    claimed, source = statement.keyring, snapshot
    if pinned:
        with suppress(RegistryError, OfflineMissError, SignatureError):
            head = registry.resolve(BRANCH)
            newest_state, _ = IndexStatement.read(registry.read(head, INDEX_SIGNATURE))
            if newest_state.keyring > claimed:
                claimed, source = newest_state.keyring, head
    if claimed > known.version + _MOST_STEPS:
        raise refused(f"names version {claimed} of the keyring; {known.version} is known here")
    found: list[SignedKeyring] = []
    for version in range(known.version + 1, claimed + 1):
        content = _read(registry, source, keyring_path(version))
        if content is None:
            raise refused(f"names version {claimed} of the keyring, and version {version} is not there")
        signed = read_keyring(content)
        if signed.keyring.version != version:
            raise refused(f"is version {signed.keyring.version}, expected {version}", keyring_path(version))
        known = signed.verify(known)
        found.append(signed)
    return found


def check_index(statement: IndexStatement, envelope: Envelope, keyring: Keyring, index: bytes) -> None:
    """Check that a statement counts by a keyring, and is about the bytes of an index.

    Raises:
        SignatureError: It does not, or is about others.
    """
    if (len(index), hashlib.sha256(index).hexdigest()) != (statement.size, statement.sha256):
        raise refused("is for another index than the present one")
    _check(statement, envelope, keyring)


def _check(statement: Statement | IndexStatement, envelope: Envelope, keyring: Keyring, sha256: str = "") -> str:
    """Verify a statement and return the id of the key that signed it."""
    if not verify_all(verify_statement(statement, envelope, keyring, sha256=sha256)):
        raise refused("is not right: not its key's, or something was changed")
    return next(iter(envelope.signatures))


def _read(registry: Registry, snapshot: Snapshot, path: str) -> bytes | None:
    try:
        return registry.read(snapshot, path)
    except EntryMissingError:
        return None


def _check_serial(serial: int, seen: int, *, pinned: bool) -> None:
    if serial < seen and not pinned:
        what = f"has serial {serial}, and {seen} was seen already: somebody offers an older state"
        raise refused(what, hint="name the tag or commit that is wanted with --revision, or pin it with gdn-aot lock")


def _hint(error: SignatureError) -> str | None:
    return error.hint if error.hint != SignatureError.default_hint else None
