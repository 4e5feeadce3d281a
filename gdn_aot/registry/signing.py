"""Signing what is published: the index, each artifact that is new, and those whose signatures count no more."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot.artifact.names import SUFFIX
from gdn_aot.errors import EntryMissingError, SignatureError, SigningError
from gdn_aot.registry.base import Addition, Snapshot, index_at
from gdn_aot.registry.layout import (
    BRANCH,
    INDEX_SIGNATURE,
    PROVENANCE,
    keyring_path,
    provenance_path,
    signature_path,
)
from gdn_aot.trust.ed25519 import verify_all
from gdn_aot.trust.envelope import refused
from gdn_aot.trust.keyring import MAX_VERSION, read_keyring, verify_statement
from gdn_aot.trust.signer import seal
from gdn_aot.trust.statement import IndexStatement, Statement, payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.registry.base import Registry
    from gdn_aot.registry.layout import Entry
    from gdn_aot.trust.keyring import Keyring, SignedKeyring
    from gdn_aot.trust.signer import Signer


@dataclass(frozen=True, kw_only=True, slots=True)
class Signing:
    """With what is signed."""

    signer: Signer
    keyring: SignedKeyring | None = None
    """A version that is published with it, if it is newer than that of the registry."""


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

    Raises:
        SignatureError: What is on the branch, or the keyring that was given, is not as it must be.
        SigningError: The branch is signed and no key is given, or no keyring is there or given.
    """
    there = _statement(registry, head)
    serial = there.serial if there else _highest(registry, head)
    if signing is None:
        if not serial or dry_run:
            return None
        what = f"{registry.name} is signed, and what is not would be refused by everybody who fetches from it"
        raise SigningError(what, hint="give the key: --key FILE, --sign-command COMMAND or GDN_AOT_SIGNING_KEY")
    known = _keyring(registry, head, there.keyring if there else None)
    given, keyring = signing.keyring, known
    if given is not None and (known is None or given.keyring.version > known.keyring.version):
        following = known is None or given.keyring.version == known.keyring.version + 1
        given.verify(known.keyring if known else None)
        if not following:
            what = f"is version {given.keyring.version}, and the registry has {known.keyring.version if known else 0}"
            raise refused(what, "the keyring", hint="publish the versions between them first, one by one")
        keyring = given
    if keyring is None:
        raise SigningError(
            f"{registry.name} has no keyring yet", hint="give it: --keyring FILE; gdn-aot keys new makes one"
        )
    check_repository(registry, keyring)
    return Publication(
        signer=signing.signer,
        keyring=keyring.keyring,
        new_keyring=given if keyring is given and keyring is not known else None,
        serial=serial + 1,
        resigned=there is None or keyring is given,
    )


def check_repository(registry: Registry, keyring: SignedKeyring) -> None:
    """Check that a keyring is for a repository of the Hub; a directory may be a copy of any.

    Raises:
        SignatureError: It is for another one.
    """
    if registry.name.startswith("hf://") and keyring.keyring.repo != registry.name:
        raise refused(f"is for {keyring.keyring.repo}, expected {registry.name}", "the keyring")


def _statement(registry: Registry, head: str | None) -> IndexStatement | None:
    """Return the statement of the branch's index; None if there is none, or it is damaged."""
    if head is None:
        return None
    try:
        return IndexStatement.read(registry.read(Snapshot(revision=BRANCH, commit=head), INDEX_SIGNATURE))[0]
    except (EntryMissingError, SignatureError):
        return None


def _highest(registry: Registry, head: str | None) -> int:
    """Return the highest serial of a branch whose index has lost its statement; 0 if nothing there was ever signed."""
    if head is None:
        return 0
    snapshot, found = Snapshot(revision=BRANCH, commit=head), 0
    try:
        entries = index_at(registry, snapshot).entries
    except EntryMissingError:  # a branch that was made and then left
        return 0
    for entry in entries:
        with suppress(EntryMissingError, SignatureError):
            found = max(found, Statement.read(registry.read(snapshot, signature_path(entry.identifier)))[0].serial)
    return found


def _keyring(registry: Registry, head: str | None, version: int | None) -> SignedKeyring | None:
    """Return the keyring of a version that the branch has, or the last one if none is named; None if it has none."""
    snapshot, found = Snapshot(revision=BRANCH, commit=str(head)), None
    with suppress(EntryMissingError):
        for number in range(version or 1, (version or MAX_VERSION) + 1) if head else ():
            found = read_keyring(registry.read(snapshot, keyring_path(number)))
    if found is not None:
        found.verify()
    return found


def provenance_of(entries: Iterable[tuple[Entry, Path]]) -> list[Addition]:
    """Return the Sigstore bundles that lie beside artifact files, as files of the registry."""
    found = ((entry, file.with_name(file.name.removesuffix(SUFFIX) + PROVENANCE)) for entry, file in entries)
    return [Addition(path=provenance_path(entry.identifier), content=path) for entry, path in found if path.is_file()]
