"""Keyrings: whose signatures count for a repository, and what was revoked. A repository has one, in versions.

Three root keys, which are kept offline, vouch for the keys that sign: every version is signed by two of its own roots,
and by two of the version before, so whoever has one version can tell which others follow it. That is how TUF rotates
its root; nothing expires by a clock, since images and machines without a network have none to rely on.
"""

from __future__ import annotations

from gdn_aot._plain import Plain
from gdn_aot.errors import SignatureError
from gdn_aot.trust.ed25519 import is_key, verify_all
from gdn_aot.trust.envelope import Envelope, decode, dump, key_id, load, refused
from gdn_aot.trust.statement import MAX_SERIAL, check, is_digest, is_repository

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.trust.ed25519 import Signed
    from gdn_aot.trust.statement import IndexStatement, Statement

KEYRING = "application/vnd.gdn-aot.keyring+json"
ROOTS, THRESHOLD = 3, 2
"""Root keys of a keyring, and how many of them must sign."""
MAX_VERSION = 100_000
_MOST_KEYS = 100
_MOST_REVOKED = 2_000
"""Revoked artifacts; a revoked key revokes all that it signed."""
_KEY = ("public", "from_serial", "to_serial", "revoked")
_FIELDS = ("repo", "version", "created", "roots", "former_roots", "keys", "revoked")


class Key(Plain):
    """A key that signs publications.

    Args:
        public: Its 32 public bytes in hexadecimal.
        from_serial: The first publication that it may sign.
        to_serial: The last one; None for all that come.
        revoked: Nothing that it signed counts any more.
    """

    __slots__ = _KEY

    def __init__(self, *, public: str, from_serial: int, to_serial: int | None, revoked: bool) -> None:
        self.public, self.from_serial, self.to_serial, self.revoked = public, from_serial, to_serial, revoked

    @property
    def id(self) -> str:
        """Its id."""
        return key_id(bytes.fromhex(self.public))

    def misfit(self, serial: int) -> str:
        """Return why it may not sign a publication, or nothing."""
        if self.revoked:
            return f"is signed with key {self.id}, which was revoked"
        if serial < self.from_serial or (self.to_serial is not None and serial > self.to_serial):
            last = "on" if self.to_serial is None else f"to {self.to_serial}"
            return f"has serial {serial}, and key {self.id} may sign from {self.from_serial} {last}"
        return ""


class Keyring(Plain):
    """One version of the keyring of a repository.

    Args:
        repo: The repository, ``hf://org/name``: it counts for no other.
        version: 1, and so on.
        created: Day, for people alone.
        roots: Public bytes of the root keys in hexadecimal.
        former_roots: Those of the version before, where they are others: they have signed this one, too.
        keys: The keys that sign, or did.
        revoked: SHA-256 of artifact files that must not be used.
    """

    __slots__ = _FIELDS

    def __init__(
        self,
        *,
        repo: str,
        version: int,
        created: str,
        roots: Sequence[str],
        former_roots: Sequence[str],
        keys: Sequence[Key],
        revoked: Sequence[str],
    ) -> None:
        self.repo, self.version, self.created = repo, version, created
        self.roots, self.former_roots = tuple(roots), tuple(former_roots)
        self.keys, self.revoked = tuple(keys), tuple(revoked)

    def payload(self) -> bytes:
        """Return what the roots sign."""
        keys = [{name: getattr(key, name) for name in _KEY} for key in self.keys]
        return dump({name: keys if name == "keys" else getattr(self, name) for name in _FIELDS})

    def publics(self) -> list[str]:
        """Return all of its keys: the roots, those of the version before, and the keys that sign."""
        return [*self.roots, *self.former_roots, *(key.public for key in self.keys)]

    def key(self, identifier: str) -> Key | None:
        """Return a key by its id."""
        return next((key for key in self.keys if key.id == identifier), None)


class SignedKeyring(Plain):
    """A keyring and the envelope that it came in.

    Args:
        keyring: What it says.
        envelope: Who signed it.
    """

    __slots__ = ("envelope", "keyring")

    def __init__(self, keyring: Keyring, envelope: Envelope) -> None:
        self.keyring, self.envelope = keyring, envelope

    def signed(self) -> list[Signed]:
        """Return what is to be verified, every signature that it has.

        Raises:
            SignatureError: Fewer than two of its own roots have signed it, or of the former ones that it names, or
                somebody who is none of them.
        """
        roots = [bytes.fromhex(root) for root in (*self.keyring.roots, *self.keyring.former_roots)]
        self._count(self.keyring.roots, "its")
        if self.keyring.former_roots:
            self._count(self.keyring.former_roots, "its former")
        return self.envelope.signed({key_id(root): root for root in roots})

    def check_follows(self, known: Keyring) -> None:
        """Check that two roots of an older version have signed it. Their signatures are verified with `signed`.

        Raises:
            SignatureError: They have not, or it is for another repository or not newer.
        """
        new = self.keyring
        if new.repo != known.repo:
            raise refused(f"is for {new.repo}, expected {known.repo}", "the keyring")
        if new.version <= known.version:
            raise refused(f"is version {new.version}; {known.version} is known already", "the keyring")
        self._count(known.roots, f"version {known.version}'s")

    def verify(self, known: Keyring | None = None) -> Keyring:
        """Return the keyring if its signatures are right and, where an older version is given, follow that.

        Whoever adds, lists, publishes or fetches a keyring asks for this. The loader does not, and so does not look
        whether its keys can be ones.

        Raises:
            SignatureError: They are not, or one of its keys can be none.
        """
        if known is not None:
            self.check_follows(known)
        if not verify_all(self.signed()):
            raise refused("has a signature that is not right", self.name)
        for public in self.keyring.publics():
            if not is_key(bytes.fromhex(public)):
                raise refused(f"has {public} as a key, for which anybody or nobody can sign", self.name)
        return self.keyring

    def _count(self, roots: Sequence[str], whose: str) -> None:
        signers = {key_id(bytes.fromhex(root)) for root in roots}.intersection(self.envelope.signatures)
        if len(signers) < THRESHOLD:
            raise refused(f"is signed by {len(signers)} of {whose} roots, which takes {THRESHOLD}", self.name)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"version {self.keyring.version} of the keyring of {self.keyring.repo}"


def read_keyring(data: bytes) -> SignedKeyring:
    """Read a keyring. No signature is verified: see `SignedKeyring.verify`.

    Raises:
        SignatureError: It is none, or contradicts itself.
    """
    try:
        envelope = decode(data, KEYRING)
        fields = load(envelope.payload, _FIELDS)
        check(fields, numbers=("version",), texts=("created",))
        keys = [_key(one) for one in _listed(fields["keys"], _MOST_KEYS)]
        roots, former = (_listed(fields[name], ROOTS) for name in ("roots", "former_roots"))
        revoked = _listed(fields["revoked"], _MOST_REVOKED)
    except SignatureError as error:
        raise refused(error.problems[0].what, "the keyring") from error
    publics = [key.public for key in keys]
    wrong = (
        not is_repository(fields["repo"])
        or not 1 <= fields["version"] <= MAX_VERSION
        or not _is_date(fields["created"])
        or not all(map(is_digest, [*roots, *former, *revoked]))
        or len({*publics, *roots}) != len(publics) + ROOTS
        or len(set(former)) not in (0, ROOTS)
        or not set(former).isdisjoint(publics)
    )
    if wrong:
        raise refused("is none: a field is not what it must be, or two keys are the same", "the keyring")
    return SignedKeyring(Keyring(**{**fields, "keys": keys}), envelope)


def verify_statement(
    statement: Statement | IndexStatement, envelope: Envelope, keyring: Keyring, *, sha256: str = ""
) -> list[Signed]:
    """Return what is to be verified of a statement, once all that is no arithmetic was checked.

    Args:
        statement: What is said.
        envelope: Who signed it.
        keyring: The newest known one of the repository.
        sha256: Of the artifact's file, if it is about one.

    Raises:
        SignatureError: It is of another repository, or its key or the artifact was revoked or may not sign it.
    """
    if statement.repo != keyring.repo:
        raise refused(f"is for {statement.repo}, expected {keyring.repo}")
    if len(envelope.signatures) != 1:
        raise refused(f"has {len(envelope.signatures)} signatures, expected 1")
    (identifier,) = envelope.signatures
    key = keyring.key(identifier)
    if key is None:
        raise refused(f"is signed with key {identifier}, which is not in the keyring of {keyring.repo}")
    if misfit := key.misfit(statement.serial):
        raise refused(misfit)
    if sha256 in keyring.revoked:
        raise refused(f"is of an artifact that {keyring.repo} has revoked: SHA-256 {sha256}")
    return envelope.signed({identifier: bytes.fromhex(key.public)})


def _is_date(text: str) -> bool:
    return [len(part) for part in text.split("-") if part.isascii() and part.isdigit()] == [4, 2, 2]


def _listed(value: object, most: int) -> list[object]:
    if not isinstance(value, list) or len(value) > most:
        raise refused("has no sound lists")
    return value


def _key(value: object) -> Key:
    if not isinstance(value, dict) or tuple(value) != _KEY:
        raise refused("has a key of another form")
    check(value, digests=("public",), numbers=("from_serial",))
    last = value["to_serial"]
    if type(value["revoked"]) is not bool or not (last is None or (type(last) is int and 0 <= last <= MAX_SERIAL)):
        raise refused("has a key of another form")
    return Key(**value)
