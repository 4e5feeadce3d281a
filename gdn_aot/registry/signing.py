"""Signing what is published: the index, each artifact that is new, and those whose signatures count no more."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot.artifact.names import beside
from gdn_aot.errors import EntryMissingError, SignatureError, SigningError
from gdn_aot.registry.base import Addition, Snapshot, index_at
from gdn_aot.registry.layout import (
    BRANCH,
    INDEX,
    INDEX_SIGNATURE,
    PROVENANCE,
    keyring_path,
    provenance_path,
    signature_path,
)
from gdn_aot.registry.publisher import check_index
from gdn_aot.store.seen import read_seen
from gdn_aot.trust.ed25519 import verify_all
from gdn_aot.trust.envelope import refused
from gdn_aot.trust.keyring import MAX_VERSION, read_keyring, verify_statement
from gdn_aot.trust.known import newest
from gdn_aot.trust.signer import seal
from gdn_aot.trust.statement import IndexStatement, Statement, payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.registry.base import Registry
    from gdn_aot.registry.layout import Entry
    from gdn_aot.trust.envelope import Envelope
    from gdn_aot.trust.keyring import Keyring, SignedKeyring
    from gdn_aot.trust.signer import Signer


@dataclass(frozen=True, kw_only=True, slots=True)
class Signing:
    """With what is signed."""

    signer: Signer
    keyring: SignedKeyring | None = None
    """A version that is published with it, if it is newer than that of the registry. That may not be older."""
    home: str = ""
    """``GDN_AOT_HOME``, with what was seen of the registry."""
    adopt: bool = False
    """Sign the index that is there though nobody's signature of it counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What of an artifact is signed besides its entry."""

    manifest_sha256: str
    index_sha256: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """One publication that is to be signed, and what the branch had before."""

    signer: Signer
    keyring: Keyring
    new_keyring: SignedKeyring | None
    """The keyring, if the branch has it not yet."""
    serial: int
    resigned: bool
    """The signature of the index that is there counts no more."""

    def statement(self, entry: Entry, content: Content) -> Addition:
        """Return the statement of an artifact as a file of the registry.

        Raises:
            SigningError: It could not be signed.
            SignatureError: The key may not sign it.
        """
        said = Statement(
            repo=self.keyring.repo,
            identifier=entry.identifier,
            sha256=entry.sha256,
            size=entry.size,
            manifest_sha256=content.manifest_sha256,
            index_sha256=content.index_sha256,
            serial=self.serial,
            commit=entry.commit,
            tool=entry.tool,
        )
        return self._sealed(signature_path(entry.identifier), said)

    def index(self, index: bytes) -> list[Addition]:
        """Return the statement of the index, and the keyring if that is new; see `statement` for what is raised."""
        said = IndexStatement(
            repo=self.keyring.repo,
            sha256=hashlib.sha256(index).hexdigest(),
            size=len(index),
            serial=self.serial,
            keyring=self.keyring.version,
        )
        new = self.new_keyring
        keyrings = [Addition(path=keyring_path(new.keyring.version), content=new.envelope.encode())] if new else []
        return [self._sealed(INDEX_SIGNATURE, said), *keyrings]

    def counts(self, registry: Registry, head: str | None, entry: Entry) -> bool:
        """Say whether the branch has a statement of an artifact that counts by the keyring that it will have."""
        try:
            content = registry.read(Snapshot(revision=BRANCH, commit=str(head)), signature_path(entry.identifier))
            statement, envelope = Statement.read(content)
            signed = verify_statement(statement, envelope, self.keyring, sha256=entry.sha256)
        except (EntryMissingError, SignatureError):
            return False
        return statement.sha256 == entry.sha256 and verify_all(signed)

    def _sealed(self, path: str, said: Statement | IndexStatement) -> Addition:
        envelope = seal(said.kind, payload(said), said.serial, self.signer, self.keyring)
        return Addition(path=path, content=envelope.encode())


def content_of(artifact: Artifact) -> Content:
    """Return what of an artifact is signed besides its entry."""
    from gdn_aot.store.index_writer import index_roots

    digest = hashlib.sha256(artifact.manifest_json).hexdigest()
    return Content(manifest_sha256=digest, index_sha256=index_roots(artifact))


def publication(
    registry: Registry, head: str | None, *, signing: Signing | None, dry_run: bool = False
) -> Publication | None:
    """Return how the next publication on the branch is signed; None if nobody signs, as in a dry run without a key.

    What is there must be signed as fetching wants it: whoever signs the next index signs all that is in it.

    Raises:
        SignatureError: What is on the branch, or the keyring that was given, is not as it must be.
        SigningError: The branch is signed and no key is given, or no keyring is there or given.
    """
    found = _found(registry, head)
    if signing is None:
        if not found.signed or dry_run:
            return None
        what = f"{registry.name} is signed, and what is not would be refused by everybody who fetches from it"
        raise SigningError(what, hint="give the key: --key FILE, --sign-command COMMAND or GDN_AOT_SIGNING_KEY")
    keyring, there = _keyrings(registry, found, signing)
    check_repository(registry, keyring)
    seen = read_seen(keyring.keyring.repo, signing.home).published.get(registry.name, 0)
    if found.signed:
        _check_state(registry, found, there, seen, adopt=signing.adopt)
    return Publication(
        signer=signing.signer,
        keyring=keyring.keyring,
        new_keyring=None if there is not None and there.keyring.version == keyring.keyring.version else keyring,
        serial=max(found.serial, seen if signing.adopt else 0) + 1,
        resigned=there is None or there.keyring.version != keyring.keyring.version or found.statement is None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What a branch has of signatures. Nothing of it is verified."""

    snapshot: Snapshot | None
    statement: IndexStatement | None
    envelope: Envelope | None
    keyring: SignedKeyring | None
    """The one that the statement names, or the last one that is there."""
    serial: int
    """Of the index, or the highest of an artifact."""

    @property
    def signed(self) -> bool:
        """Something there was signed."""
        return bool(self.serial or self.keyring)


def _found(registry: Registry, head: str | None) -> _Found:
    if head is None:
        return _Found(snapshot=None, statement=None, envelope=None, keyring=None, serial=0)
    snapshot = Snapshot(revision=BRANCH, commit=head)
    statement, envelope = None, None
    with suppress(EntryMissingError, SignatureError):  # lost or damaged
        statement, envelope = IndexStatement.read(registry.read(snapshot, INDEX_SIGNATURE))
    return _Found(
        snapshot=snapshot,
        statement=statement,
        envelope=envelope,
        keyring=_keyring(registry, snapshot, statement.keyring if statement else None),
        serial=statement.serial if statement else _highest(registry, snapshot),
    )


def _keyrings(registry: Registry, found: _Found, signing: Signing) -> tuple[SignedKeyring, SignedKeyring | None]:
    """Return the keyring that the branch will have, and the one that it has.

    Those that are given, known on this machine and on the branch must follow each other, so that the registry's own
    word is taken only where there is no other.
    """
    given, there = signing.keyring, found.keyring
    repo = next((one.keyring.repo for one in (given, there) if one), "")
    known = [one.signed for one in newest(repo, signing.home)] if repo else []
    line = [one for one in (*known, there, given) if one]
    if found.snapshot and there and line:
        between = range(min(map(_version, line)) + 1, _version(there))
        line += filter(None, (_keyring(registry, found.snapshot, number) for number in between))
    line.sort(key=_version)
    if not line:
        hint = "give it: --keyring FILE; gdn-aot keys new makes one"
        raise SigningError(f"{registry.name} has no keyring yet", hint=hint)
    line[0].verify()
    for before, after in pairwise(line):
        if after.keyring == before.keyring:
            continue
        if _version(after) == _version(before):
            what = f"of {repo} has two versions {_version(after)} that differ: given, known here or published"
            raise refused(what, "the keyring", hint="give the one that the roots signed last")
        after.verify(before.keyring)
    last = line[-1]
    if there is not None and _version(last) > _version(there):
        if given is None or _version(given) < _version(last):
            what = f"has version {_version(there)} of the keyring, and {_version(last)} is known here"
            raise refused(what, registry.name, hint="an older state is offered; --keyring publishes a newer version")
        if _version(last) != _version(there) + 1:
            what = f"is version {_version(last)}, and the registry has {_version(there)}"
            raise refused(what, "the keyring", hint="publish the versions between them first, one by one")
    return last, there


def _version(signed: SignedKeyring) -> int:
    return signed.keyring.version


def _check_state(registry: Registry, found: _Found, there: SignedKeyring | None, seen: int, *, adopt: bool) -> None:
    """Check that the index which is there is signed, and not older than one that was seen, unless it is adopted."""
    try:
        content = registry.read(found.snapshot, INDEX) if found.snapshot else b""
        if found.statement is None or found.envelope is None or there is None:
            raise refused("is missing or damaged")
        check_index(found.statement, found.envelope, there.keyring, content)
        if found.statement.serial < seen:
            raise refused(f"has serial {found.statement.serial}, and {seen} was seen already")
    except SignatureError as error:
        if adopt:
            return
        where = f"{registry.name}: the signature of the present index"
        hint = "whoever publishes signs everything there: inspect it, then sign it as it is with --adopt"
        raise refused(error.problems[0].what, where, hint=hint) from error


def check_repository(registry: Registry, keyring: SignedKeyring) -> None:
    """Check that a keyring is for a repository of the Hub; a directory may be a copy of any.

    Raises:
        SignatureError: It is for another one.
    """
    if registry.name.startswith("hf://") and keyring.keyring.repo != registry.name:
        raise refused(f"is for {keyring.keyring.repo}, expected {registry.name}", "the keyring")


def _highest(registry: Registry, snapshot: Snapshot) -> int:
    """Return the highest serial of an artifact on a branch; 0 if nothing there was ever signed."""
    found = 0
    try:
        entries = index_at(registry, snapshot).entries
    except EntryMissingError:  # a branch that was made and then left
        return 0
    for entry in entries:
        with suppress(EntryMissingError, SignatureError):
            found = max(found, Statement.read(registry.read(snapshot, signature_path(entry.identifier)))[0].serial)
    return found


def _keyring(registry: Registry, snapshot: Snapshot, version: int | None) -> SignedKeyring | None:
    """Return the keyring of a version that the branch has, or the last one if none is named; None if it has none."""
    found = None
    with suppress(EntryMissingError):
        for number in range(version or 1, (version or MAX_VERSION) + 1):
            found = read_keyring(registry.read(snapshot, keyring_path(number)))
    return found


def provenance_of(entries: Iterable[tuple[Entry, Path]]) -> list[Addition]:
    """Return the Sigstore bundles that lie beside artifact files, as files of the registry."""
    found = ((entry, Path(beside(str(file), PROVENANCE))) for entry, file in entries)
    return [Addition(path=provenance_path(entry.identifier), content=path) for entry, path in found if path.is_file()]
