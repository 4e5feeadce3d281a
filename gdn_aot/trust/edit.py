"""New versions of keyrings, and the signatures of roots under them. No file is read or written here.

A version that lacks signatures is an unfinished one: root keys need never be in one place, so each of their holders
adds a signature to what the one before has written. Nothing but `sign` takes an unfinished version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gdn_aot._text import shown
from gdn_aot.errors import SignatureError, UsageError
from gdn_aot.trust.ed25519 import is_key, verify_all
from gdn_aot.trust.envelope import Envelope, key_id, refused
from gdn_aot.trust.keyring import KEYRING, ROOTS, THRESHOLD, Key, Keyring, SignedKeyring, read_keyring
from gdn_aot.trust.statement import is_digest, is_repository

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gdn_aot.trust.signer import KeySigner

_ID_DIGITS = 32


class Missing(NamedTuple):
    """Signatures that an unfinished version lacks: so many, of roots with these ids."""

    signatures: int
    of: tuple[str, ...]


def first(repo: str, created: str, roots: Sequence[str], public: str) -> Keyring:
    """Return version 1 of the keyring of a repository, with one key that signs from the first publication on.

    Raises:
        UsageError: That is none.
    """
    if not is_repository(repo):
        raise UsageError(
            f"{shown(repo)} is the name of no repository", hint="a keyring is for one: --repo hf://org/name"
        )
    if len(roots) != ROOTS:
        raise UsageError(f"a keyring has {ROOTS} root keys, here are {len(roots)}", hint=f"name {ROOTS} root keys")
    key = Key(public=public, from_serial=0, to_serial=None, revoked=False)
    return _sound(Keyring(repo=repo, version=1, created=created, roots=roots, former_roots=(), keys=[key], revoked=()))


def rotate(
    keyring: Keyring, created: str, *, public: str | None = None, serial: int | None = None, roots: Sequence[str] = ()
) -> Keyring:
    """Return the next version, with a new key that signs, or new roots, or both.

    Args:
        keyring: The version before.
        created: Day of the new one.
        public: The new key that signs; those that signed so far do it no longer.
        serial: Of the last publication that these have signed.
        roots: The new roots.

    Raises:
        UsageError: Nothing would change, or it would be no keyring.
    """
    if public is None and not roots:
        raise UsageError("nothing to rotate", hint="name a new key that signs, or three new roots")
    if (public is None) != (serial is None):
        raise UsageError(
            "a new signing key and the serial of the last publication with the old one belong together",
            hint="name both: --new-key or --new-public, and --serial",
        )
    if roots and (len(roots) != ROOTS or set(roots) == set(keyring.roots)):
        raise UsageError(
            "the new roots are not three, or are the present ones", hint="name all three, also one that stays"
        )
    keys = list(keyring.keys)
    if public is not None and serial is not None:
        keys = [*(_ended(key, serial) for key in keys), _new(public, serial + 1)]
    return _next(keyring, created, keys=keys, roots=roots or keyring.roots)


def revoke(keyring: Keyring, created: str, names: Iterable[str]) -> Keyring:
    """Return the next version, in which keys, by their ids, and artifacts, by the SHA-256 of their files, are revoked.

    Raises:
        UsageError: One is neither, or is revoked already, or no key would be left to sign, and to publish this version.
    """
    keys, artifacts = {key.id: key for key in keyring.keys}, set(keyring.revoked)
    for name in names:
        if name in artifacts or (name in keys and keys[name].revoked):
            raise UsageError(f"{name} is revoked already", hint="leave it out")
        if is_digest(name):
            artifacts.add(name)
        elif name in keys:
            keys[name] = _changed(keys[name], revoked=True)
        else:
            raise _no_key(name, keyring)
    if all(key.revoked or key.to_serial is not None for key in keys.values()):
        hint = "add another in a version before, and publish that: gdn-aot keys rotate"
        raise UsageError("no key would be left that signs, so that nobody could publish this version", hint=hint)
    return _next(keyring, created, keys=keys.values(), revoked=sorted(artifacts))


def sign(signed: SignedKeyring, signers: Iterable[KeySigner]) -> SignedKeyring:
    """Return a keyring with signatures of roots added to those that it has.

    Raises:
        SignatureError: A signature that it has is not right, or a key is none of its roots.
    """
    keyring = signed.keyring
    roots = {key_id(bytes.fromhex(root)): bytes.fromhex(root) for root in (*keyring.roots, *keyring.former_roots)}
    if signed.envelope.signatures and not verify_all(signed.envelope.signed(roots)):
        raise refused("has a signature that is not right", signed.name, hint="take one that was not changed")
    signatures = dict(signed.envelope.signatures)
    for signer in signers:
        identifier = key_id(signer.public)
        if identifier not in roots:
            what = f"has the roots {', '.join(roots)}; key {identifier} is none of them"
            raise refused(what, signed.name, hint="sign with a root key of this keyring")
        signatures[identifier] = signer.sign(signed.envelope.to_sign())
    return SignedKeyring(keyring, Envelope(KEYRING, signed.envelope.payload, signatures))


def unsigned(keyring: Keyring) -> SignedKeyring:
    """Return a keyring that nobody has signed yet."""
    return SignedKeyring(keyring, Envelope(KEYRING, keyring.payload(), {}))


def missing(signed: SignedKeyring) -> list[Missing]:
    """Return the signatures that a version lacks; nothing of a finished one."""
    found = []
    for roots in filter(None, (signed.keyring.roots, signed.keyring.former_roots)):
        silent = [root for root in ids(roots) if root not in signed.envelope.signatures]
        lacking = len(silent) - (ROOTS - THRESHOLD)
        if lacking > 0:
            found.append(Missing(lacking, tuple(silent)))
    return found


def ids(publics: Iterable[str]) -> list[str]:
    """Return the ids of keys by their public bytes in hexadecimal."""
    return [key_id(bytes.fromhex(public)) for public in publics]


def _next(
    keyring: Keyring,
    created: str,
    *,
    keys: Iterable[Key],
    roots: Sequence[str] | None = None,
    revoked: Sequence[str] | None = None,
) -> Keyring:
    roots = keyring.roots if roots is None else roots
    made = Keyring(
        repo=keyring.repo,
        version=keyring.version + 1,
        created=created,
        roots=roots,
        former_roots=() if set(roots) == set(keyring.roots) else keyring.roots,
        keys=tuple(keys),
        revoked=keyring.revoked if revoked is None else revoked,
    )
    return _sound(made)


def _sound(keyring: Keyring) -> Keyring:
    """Return a keyring that whoever reads it takes, as far as that is no matter of signatures."""
    publics = [*keyring.roots, *(key.public for key in keyring.keys)]
    twice = {public for public in publics if publics.count(public) > 1}
    twice |= {key.public for key in keyring.keys}.intersection(keyring.former_roots)
    if twice:
        what = f"key {ids(sorted(twice))[0]} would have two roles: every root and every key that signs is another"
        raise UsageError(what, hint="make a new one: gdn-aot keys new --key")
    if wrong := [public for public in keyring.publics() if not is_key(bytes.fromhex(public))]:
        hint = "take the public key from whoever has the private one: gdn-aot keys new --key"
        raise UsageError(f"{wrong[0]} is no public key of Ed25519: anybody or nobody can sign for it", hint=hint)
    try:
        return read_keyring(unsigned(keyring).envelope.encode()).keyring
    except SignatureError as error:
        raise UsageError(f"that would be no keyring: {error.message}", hint="see its versions, keys and days") from None


def _new(public: str, serial: int) -> Key:
    return Key(public=public, from_serial=serial, to_serial=None, revoked=False)


def _ended(key: Key, serial: int) -> Key:
    """Return a key that signs nothing after a publication, which may have ended before."""
    if key.revoked or (key.to_serial is not None and key.to_serial <= serial):
        return key
    if key.from_serial > serial:
        what = f"key {key.id} signs from serial {key.from_serial} on, so it cannot end at {serial}"
        raise UsageError(what, hint="--serial is that of the last publication")
    return _changed(key, to_serial=serial)


def _changed(key: Key, **fields: object) -> Key:
    return Key(**{**key.to_dict(), **fields})  # type: ignore[arg-type]


def _no_key(name: str, keyring: Keyring) -> UsageError:
    if name in ids(keyring.roots):
        return UsageError(f"{name} is a root", hint="roots are replaced: gdn-aot keys rotate --new-root")
    if len(name) == _ID_DIGITS:
        known = ", ".join(key.id for key in keyring.keys)
        return UsageError(f"{shown(name)} is no key of this keyring", hint=f"its keys are {known}")
    return UsageError(
        f"{shown(name)} is neither the id of a key nor a SHA-256", hint="an id has 32 digits, the SHA-256 of a file 64"
    )
