"""Does what a publisher says of an installed artifact count here, and is that artifact what is said?

What no statement that counts speaks of must not be revoked by anybody who is known here: else it would be enough to
take the statement away. The loader asks for all artifacts at once, so that their signatures and those of the keyrings
are verified together.
"""

from __future__ import annotations

from contextlib import suppress

from gdn_aot._plain import Plain
from gdn_aot.errors import KeyringError, Problem, SignatureError, VerificationError
from gdn_aot.trust.ed25519 import verify_all
from gdn_aot.trust.envelope import refused
from gdn_aot.trust.keyring import verify_statement
from gdn_aot.trust.known import at_fault, newest, publisher_with, sound_anchors, was_checked
from gdn_aot.trust.places import known_repositories
from gdn_aot.trust.statement import Statement

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.trust.ed25519 import Signed
    from gdn_aot.trust.known import Known


_MOST_KEPT = 1000
_right: set[Signed] = set()
"""Signatures that were found to be right in this process: what an artifact is asked for again costs nothing."""


class Claim(Plain):
    """An installed artifact with the statement that lies in it.

    Args:
        release: The bytes of the statement; none if it is not signed.
        identifier: Of the artifact, as its index says.
        sha256: Of its file, as its index says.
        root: Digest of the first bytes of its index; None where the file itself was read, and has this SHA-256.
        format: Of its index, in decimal digits.
    """

    __slots__ = ("format", "identifier", "release", "root", "sha256")

    def __init__(self, release: bytes, identifier: str, sha256: str, root: str | None, format: str) -> None:  # noqa: A002
        self.release, self.identifier, self.sha256 = release, identifier, sha256
        self.root, self.format = root, format


class Judgement(Plain):
    """What a statement is worth here.

    Args:
        repo: The repository that published it; empty if even that cannot be read.
        key: Id of the key that signed it; empty unless its signature is right and the artifact is what it says.
        open: Why it says nothing, for or against: nobody here knows its publisher, or it was signed before there were
            indexes of this format. Then only who has written the artifact can count.
        fault: Why it is refused. A `KeyringError` says nothing of the artifact, which may be sound.
        revoked: Who has revoked it, though nothing that counts says that it is from there.
    """

    __slots__ = ("fault", "key", "open", "repo", "revoked")

    def __init__(
        self,
        repo: str = "",
        key: str = "",
        *,
        open: str = "",  # noqa: A002
        fault: VerificationError | None = None,
        revoked: str = "",
    ) -> None:
        self.repo, self.key, self.open, self.fault, self.revoked = repo, key, open, fault, revoked


def judge(claims: Sequence[Claim], home: str) -> list[Judgement]:
    """Judge claims by the keyrings that are known where ``home`` is ``GDN_AOT_HOME``, in their order."""
    chains = _Chains(home)
    found = [_judge(claim, chains) for claim in claims]
    judgements = [judgement for judgement, _ in found]
    if not _are_right([one for _, signed in found for one in signed]):
        wrong = refused("is not right: nothing of what it says counts")
        judgements = [
            judgement if _are_right(signed) else Judgement(judgement.repo, fault=chains.fault(judgement.repo) or wrong)
            for judgement, signed in found
        ]
    for claim, judgement in zip(claims, judgements, strict=True):
        if not judgement.key and judgement.fault is None:
            judgement.revoked = chains.revoking(claim.sha256)
    return judgements


def _are_right(signed: Sequence[Signed]) -> bool:
    """Verify signatures, those that were not verified yet."""
    new = [one for one in dict.fromkeys(signed) if one not in _right]
    if not verify_all(new):
        return False
    if len(_right) < _MOST_KEPT:
        _right.update(new)
    return True


class _Chains:
    """The keyrings of each repository, read once."""

    def __init__(self, home: str) -> None:
        self.home = home
        self._known: dict[str, list[Known]] = {}

    def of(self, repo: str) -> list[Known]:
        if repo not in self._known:
            self._known[repo] = newest(repo, self.home)
        return self._known[repo]

    def revoking(self, sha256: str) -> str:
        """Return a repository that has revoked an artifact file, or nothing."""
        return next((repo for repo in known_repositories() if self._has_revoked(repo, sha256)), "")

    def _has_revoked(self, repo: str, sha256: str) -> bool:
        """Say whether its newest keyring has revoked a file; where that is at fault, one that is not."""
        try:
            if chain := self.of(repo):
                revoked = sha256 in chain[-1].signed.keyring.revoked
                if not revoked or _are_right(self.signed(repo)):
                    return revoked
        except VerificationError:
            pass
        for known in sound_anchors(repo):
            with suppress(SignatureError):
                if sha256 in known.signed.keyring.revoked and _are_right(known.signed.signed()):
                    return True
        return False

    def signed(self, repo: str) -> list[Signed]:
        """Return what is to be verified of them, but not that of the first if that was done before."""
        first, *learned = self.of(repo)
        rest = learned if was_checked(first, self.home) else [first, *learned]
        return [one for known in rest for one in known.signed.signed()]

    def fault(self, repo: str) -> KeyringError | None:
        """Return what is wrong with the signatures of a repository's keyrings, if that is what is wrong."""
        for known in self._known.get(repo, ()):
            if not verify_all(known.signed.signed()):
                return at_fault(known.path, refused("has a signature that is not right", "the keyring"))
        return None


def _judge(claim: Claim, chains: _Chains) -> tuple[Judgement, list[Signed]]:
    """Return the verdict on a claim if the signatures beside it are right."""
    if not claim.release:
        return Judgement(open="it is not signed"), []
    repo = ""
    try:
        statement, envelope = Statement.read(claim.release)
        repo = statement.repo
        chain = chains.of(repo)
        if not chain:
            if other := publisher_with(next(iter(envelope.signatures), "")):
                raise refused(f"is for {repo}, and its key is one of {other}")
            return Judgement(repo, open=f"no key of {repo} is known here"), []
        last = chain[-1]
        if len(envelope.signatures) == 1 and last.signed.keyring.key(next(iter(envelope.signatures))) is None:
            raise _unknown(last, next(iter(envelope.signatures)))
        signed = verify_statement(statement, envelope, last.signed.keyring, sha256=statement.sha256)
        signed += chains.signed(repo)
        if (statement.identifier, statement.sha256) != (claim.identifier, claim.sha256):
            raise refused(f"is for {statement.identifier} of SHA-256 {statement.sha256}")
        if claim.root is None:
            return Judgement(repo, next(iter(envelope.signatures))), signed
        expected = statement.index_sha256.get(claim.format)
        if expected is None:
            what = f"it was signed for indexes of format {' and '.join(statement.index_sha256)}, not {claim.format}"
            return Judgement(repo, open=what), signed
        if expected != claim.root:
            raise refused("is for another index than the present one: the artifact was changed")
        return Judgement(repo, next(iter(envelope.signatures))), signed
    except VerificationError as error:
        return Judgement(repo, fault=error), []


def _unknown(known: Known, key: str) -> KeyringError:
    """Return why a key does not count that a newer version of the keyring may have."""
    what = f"version {known.signed.keyring.version} of the keyring, {known.path}, has no key {key}"
    hint = "if the publisher has a newer keyring, add it: gdn-aot keys add; else do not use it"
    return KeyringError(what, [Problem(known.path, what)], hint=hint)
