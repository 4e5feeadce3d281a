"""Does what a publisher says of an installed artifact count here, and is that artifact what is said?

The loader asks for all artifacts at once, so that their signatures and those of the keyrings are verified together.
"""

from __future__ import annotations

from gdn_aot._plain import Plain
from gdn_aot.errors import GdnAotError
from gdn_aot.trust.ed25519 import verify_all
from gdn_aot.trust.envelope import refused
from gdn_aot.trust.keyring import verify_statement
from gdn_aot.trust.known import newest, publisher_with, was_checked
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
        release: The bytes of the statement.
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
        fault: Why it is refused.
    """

    __slots__ = ("fault", "key", "open", "repo")

    def __init__(self, repo: str = "", key: str = "", *, open: str = "", fault: Exception | None = None) -> None:  # noqa: A002
        self.repo, self.key, self.open, self.fault = repo, key, open, fault


def judge(claims: Sequence[Claim], home: str) -> list[Judgement]:
    """Judge claims by the keyrings that are known where ``home`` is ``GDN_AOT_HOME``, in their order."""
    chains = _Chains(home)
    found = [_judge(claim, chains) for claim in claims]
    if _are_right([one for _, signed in found for one in signed]):
        return [judgement for judgement, _ in found]
    wrong = refused("is not right: nothing of what it says counts")
    return [
        judgement if _are_right(signed) else Judgement(judgement.repo, fault=chains.fault(judgement.repo) or wrong)
        for judgement, signed in found
    ]


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

    def signed(self, repo: str) -> list[Signed]:
        """Return what is to be verified of them, but not that of the first if that was done before."""
        first, *learned = self.of(repo)
        rest = learned if was_checked(first, self.home) else [first, *learned]
        return [one for known in rest for one in known.signed.signed()]

    def fault(self, repo: str) -> GdnAotError | None:
        """Return what is wrong with the signatures of a repository's keyrings, if that is what is wrong."""
        for known in self._known.get(repo, ()):
            if not verify_all(known.signed.signed()):
                return refused("has a signature that is not right", known.path)
        return None


def _judge(claim: Claim, chains: _Chains) -> tuple[Judgement, list[Signed]]:
    """Return the verdict on a claim if the signatures beside it are right."""
    repo = ""
    try:
        statement, envelope = Statement.read(claim.release)
        repo = statement.repo
        chain = chains.of(repo)
        if not chain:
            if other := publisher_with(next(iter(envelope.signatures), "")):
                raise refused(f"is for {repo}, and its key is one of {other}")
            return Judgement(repo, open=f"no key of {repo} is known here"), []
        signed = verify_statement(statement, envelope, chain[-1].signed.keyring, sha256=statement.sha256)
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
            raise refused("is for another index than the one that is there: the artifact was changed")
        return Judgement(repo, next(iter(envelope.signatures))), signed
    except (GdnAotError, OSError) as error:
        return Judgement(repo, fault=error), []
