"""The keyrings that this machine knows: whose signatures count here.

A keyring is known because somebody who may decide it put it in its place: the makers of this package into the wheel, an
administrator into `SYSTEM`, a user into the user's own configuration. From the network only those are taken that the
roots of a known one have signed; they lie beside the store, so that what they revoke is revoked for every process here.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, suppress

from gdn_aot._files import is_folder, is_there, read_regular
from gdn_aot._plain import Plain
from gdn_aot.errors import KeyringError, Problem, SignatureError, UntrustedError
from gdn_aot.machine.owners import read_trusted
from gdn_aot.trust import MAX_ENVELOPE
from gdn_aot.trust.envelope import refused
from gdn_aot.trust.keyring import SignedKeyring, read_keyring
from gdn_aot.trust.places import BESIDE as BESIDE  # noqa: PLC0414 - whoever writes there takes it from here
from gdn_aot.trust.places import MAX_CHAIN, OURS, check_named, places

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

_NOTE = 64
"""Bytes of the note which keyring was verified."""


class Known(Plain):
    """A keyring that this machine knows.

    Args:
        path: Where it is.
        source: ``wheel``, ``system``, ``user``, ``GDN_AOT_KEYS``, or ``registry`` for one that was taken from there.
        signed: The keyring.
        sha256: Of what was read.
    """

    __slots__ = ("path", "sha256", "signed", "source")

    def __init__(self, path: str, source: str, signed: SignedKeyring, sha256: str) -> None:
        self.path, self.source, self.signed, self.sha256 = path, source, signed, sha256


def file_name(repo: str) -> str:
    """Return the name of the file of a repository's keyring: ``org--name.json``; no name on the Hub has two dashes."""
    return repo.removeprefix("hf://").replace("/", "--") + ".json"


def anchor(repo: str) -> Known | None:
    """Return the newest keyring of a repository that somebody put in a place for it, or None. It is not verified.

    Raises:
        KeyringError: One cannot be read, is damaged, or somebody else than root or this user may have written it.
    """
    check_named()
    found = [
        _read(f"{folder}/{file_name(repo)}", source, repo)
        for source, folder in places()
        if is_there(f"{folder}/{file_name(repo)}")
    ]
    return max(found, key=lambda known: known.signed.keyring.version, default=None)


def newest(repo: str, home: str) -> list[Known]:
    """Return the keyring of a repository that counts, last, after those that vouch for it. Nothing if none is known.

    Each was signed by roots of the one before, as far as its envelope says; what remains to be verified is
    `gdn_aot.trust.keyring.SignedKeyring.signed`.

    Raises:
        KeyringError: One cannot be read, is damaged, was not signed by the roots of the one before, or somebody else
            than root or this user may have put it in its place.
    """
    first = anchor(repo)
    return [first, *_learned(first, home)] if first else []


def sound_anchors(repo: str) -> Iterator[Known]:
    """Yield the keyrings of a repository that somebody put in a place for it, without those that are at fault."""
    for source, folder in places():
        with suppress(KeyringError):
            if is_there(path := f"{folder}/{file_name(repo)}"):
                yield _read(path, source, repo)


def publisher_with(key: str) -> str:
    """Return the repository whose keyring, in any place here, has the key of an id; nothing if none has."""
    for source, folder in places():
        with _naming(folder):
            names = os.listdir(folder) if is_folder(folder) else []
        for name in names:
            with suppress(KeyringError):
                with _naming(name):
                    keyring = read_keyring(read_placed(f"{folder}/{name}", source)).keyring
                if keyring.key(key) is not None:
                    return keyring.repo
    return ""


def learned_path(repo: str, home: str) -> str:
    """Return where the keyrings lie that were taken from the registry of a repository: one on each line."""
    return f"{home}/{BESIDE}/{file_name(repo)}l"


def checked_path(repo: str, home: str) -> str:
    """Return where it is noted which keyring of a place was verified: its SHA-256."""
    return f"{home}/{BESIDE}/{file_name(repo)}.checked"


def was_checked(known: Known, home: str) -> bool:
    """Say whether the signatures of a keyring that somebody put into its place were verified before, as the file is.

    It counts because of that place. Its signatures tell that it was not damaged, and so does this note, which counts
    only if root or this user alone may have written it.
    """
    try:
        note = read_trusted(checked_path(known.signed.keyring.repo, home), _NOTE) if home else b""
    except (OSError, UntrustedError):
        return False
    return note == known.sha256.encode()


def _learned(first: Known, home: str) -> Iterator[Known]:
    path = learned_path(first.signed.keyring.repo, home)
    if not home or not is_there(path):
        return
    known = first.signed.keyring
    with _naming(path):
        lines = read_regular(path, MAX_CHAIN).splitlines(keepends=True)
    for line in lines:
        with _naming(path):
            signed = read_keyring(line)
            newer = signed.keyring.version > known.version  # else another was put into its place meanwhile
            if newer:
                signed.check_follows(known)
        if newer:
            known = signed.keyring
            yield Known(path, "registry", signed, hashlib.sha256(line).hexdigest())


def read_placed(path: str, source: str) -> bytes:
    """Return what a file holds that somebody put into a place of keyrings.

    Whoever may write the wheel's files decides what code runs here anyway; of all others it is looked at who may.

    Raises:
        OSError: It cannot be read, or is too large.
        UntrustedError: Somebody else than root or this user may have written it.
    """
    return read_regular(path, MAX_ENVELOPE) if source == OURS else read_trusted(path, MAX_ENVELOPE)


def _read(path: str, source: str, repo: str) -> Known:
    with _naming(path):
        data = read_placed(path, source)
        signed = read_keyring(data)
        if signed.keyring.repo != repo:
            raise refused(f"is for {signed.keyring.repo}, expected {repo}", "the keyring")
    return Known(path, source, signed, hashlib.sha256(data).hexdigest())


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Have errors say that the file of a keyring is at fault, and which."""
    try:
        yield
    except UntrustedError as error:
        hint = f"take the right to write {path} away from others with chmod or chown, or remove it"
        raise KeyringError(error.message, error.problems, hint=hint) from error
    except (SignatureError, OSError, ValueError) as error:
        raise at_fault(path, error) from error


def at_fault(path: str, error: Exception) -> KeyringError:
    """Return what is wrong with the file of a keyring as the error that it is."""
    what = f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)
    return KeyringError(f"{path}: {what}", [Problem(path, what)], hint=f"remove {path}, or put a sound one there")
