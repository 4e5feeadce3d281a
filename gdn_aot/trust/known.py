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
from gdn_aot.errors import SignatureError, UntrustedError
from gdn_aot.machine.owners import read_trusted
from gdn_aot.trust import MAX_ENVELOPE
from gdn_aot.trust.envelope import refused
from gdn_aot.trust.keyring import SignedKeyring, read_keyring

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = "GDN_AOT_KEYS"
"""The variable that names a directory of keyrings, in place of `SYSTEM` and of the user's own."""
WHEEL = f"{os.path.dirname(os.path.abspath(__file__))}/keyrings"
SYSTEM = "/etc/gdn-aot/keys.d"
_OURS = "wheel"
BESIDE = "trust"
"""The directory in ``GDN_AOT_HOME``, beside the store, of what was learned from registries."""


_NOTE = 64
"""Bytes of the note which keyring was verified."""
MAX_CHAIN = 32 * MAX_ENVELOPE
"""Bytes of the keyrings that were taken from one registry."""


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


def places() -> list[tuple[str, str]]:
    """Return (source, directory) of every place that keyrings are known from."""
    named = os.environ.get(KEYS)
    if named:
        return [(_OURS, WHEEL), (KEYS, os.path.abspath(named))]
    config = os.environ.get("XDG_CONFIG_HOME", "")
    config = config if os.path.isabs(config) else os.path.expanduser("~/.config")
    user = [("user", f"{config}/gdn-aot/keys.d")] if os.path.isabs(config) else []
    return [(_OURS, WHEEL), ("system", SYSTEM), *user]


def file_name(repo: str) -> str:
    """Return the name of the file of a repository's keyring: ``org--name.json``; no name on the Hub has two dashes."""
    return repo.removeprefix("hf://").replace("/", "--") + ".json"


def anchor(repo: str) -> Known | None:
    """Return the newest keyring of a repository that somebody put in a place for it, or None. It is not verified.

    Raises:
        OSError: One cannot be read.
        SignatureError: One is damaged.
        UntrustedError: Somebody else than root or this user may have written one.
    """
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
        OSError: One cannot be read.
        SignatureError: One is damaged, or was not signed by the roots of the one before.
        UntrustedError: Somebody else than root or this user may have put one in its place.
    """
    first = anchor(repo)
    return [first, *_learned(first, home)] if first else []


def publisher_with(key: str) -> str:
    """Return the repository whose keyring, in any place here, has the key of an id; nothing if none has."""
    for source, folder in places():
        for name in os.listdir(folder) if is_folder(folder) else ():
            with suppress(OSError, SignatureError, UntrustedError):
                keyring = _parsed(read_placed(f"{folder}/{name}", source), name).keyring
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
    for line in read_regular(path, MAX_CHAIN).splitlines(keepends=True):
        signed = _parsed(line, path)
        if signed.keyring.version > known.version:  # an older one was put into its place meanwhile
            with _naming(path):
                signed.check_follows(known)
            known = signed.keyring
            yield Known(path, "registry", signed, hashlib.sha256(line).hexdigest())


def read_placed(path: str, source: str) -> bytes:
    """Return what a file holds that somebody put into a place of keyrings.

    Whoever may write the wheel's files decides what code runs here anyway; of all others it is looked at who may.

    Raises:
        OSError: It cannot be read, or is too large.
        UntrustedError: Somebody else than root or this user may have written it.
    """
    return read_regular(path, MAX_ENVELOPE) if source == _OURS else read_trusted(path, MAX_ENVELOPE)


def _read(path: str, source: str, repo: str) -> Known:
    data = read_placed(path, source)
    signed = _parsed(data, path)
    if signed.keyring.repo != repo:
        with _naming(path):
            raise refused(f"is for {signed.keyring.repo}, expected {repo}", "the keyring")
    return Known(path, source, signed, hashlib.sha256(data).hexdigest())


def _parsed(data: bytes, path: str) -> SignedKeyring:
    with _naming(path):
        return read_keyring(data)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Have errors name the file."""
    try:
        yield
    except SignatureError as error:
        raise SignatureError(
            f"{path}: {error.message}", error.problems, hint=f"remove {path}, or put a sound one there"
        ) from error
