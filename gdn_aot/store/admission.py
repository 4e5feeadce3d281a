"""May an artifact that lies in a store be used? By who has signed it, or by who may have written it.

``GDN_AOT_TRUST`` says which: see `gdn_aot.machine.owners.TRUSTS`. What a known publisher's statement contradicts is
refused whoever owns it.
"""

from __future__ import annotations

import os

from gdn_aot._text import shown
from gdn_aot.errors import KeyringError, Problem, SignatureError, UntrustedError, VerificationError
from gdn_aot.machine.owners import TRUST, policy
from gdn_aot.trust.places import said

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from gdn_aot.trust.judge import Claim, Judgement

SIGNED_HINT = "fetch it from a registry that signs, whose keyring was added: gdn-aot keys add"


class Candidate:
    """An artifact that waits to be admitted."""

    place = ""
    """Where it is."""
    release = b""
    """What its publisher has signed; nothing if it has none."""
    foreign: UntrustedError | None = None
    """Who may have written it besides root and this user."""
    publisher = key = ""
    """The repository and the id of the key that have signed it, once that was found to count here."""

    @property
    def header(self) -> Mapping[str, Any]:
        """What identifies it."""
        raise NotImplementedError

    def claim(self) -> Claim:
        """Return what is to be judged of it: a file that was hashed, unless it says otherwise."""
        from gdn_aot.trust.judge import Claim

        return Claim(self.release, self.header["identifier"], self.header["sha256"], None, "")


def admit(artifacts: Sequence[Candidate], home: str) -> list[VerificationError | None]:
    """Return for each artifact why it must not be used, or None; ``home`` is where learned keyrings are.

    Those that may be used for what was signed have ``publisher`` and ``key`` set.
    """
    if policy() == "any":
        return [None] * len(artifacts)
    named = _named([artifact for artifact in artifacts if not artifact.release and _by_owner(artifact)], home)
    judged = [artifact for artifact in artifacts if artifact.release] + named
    found: list[Judgement] = []
    if judged:
        from gdn_aot.trust.judge import judge

        found = judge([artifact.claim() for artifact in judged], home)
    judgements = dict(zip(map(id, judged), found, strict=True))
    return [_verdict(artifact, judgements.get(id(artifact))) for artifact in artifacts]


def check_admitted(artifact: Candidate, home: str) -> None:
    """Check that one artifact may be used.

    Raises:
        SignatureError: It is not what its publisher has signed, or that was revoked.
        UntrustedError: Nothing that counts says that it is sound.
    """
    (fault,) = admit([artifact], home)
    if fault is not None:
        raise fault


def home_of(place: str) -> str:
    """Return the home of the store that an artifact's directory is in."""
    return os.path.dirname(os.path.dirname(os.path.dirname(place)))


def _by_owner(artifact: Candidate) -> bool:
    """Say whether an artifact that is not signed may be used, unless somebody has revoked it."""
    return artifact.foreign is None and policy() != "signed"


def _named(unsigned: list[Candidate], home: str) -> list[Candidate]:
    """Return which artifacts a keyring speaks of, which may be to revoke them."""
    texts = said(home) if unsigned else []
    return [one for one in unsigned if any(one.header["sha256"].encode() in text for text in texts)]


def _verdict(artifact: Candidate, judgement: Judgement | None) -> VerificationError | None:
    why = "it is not signed"
    if judgement is not None:
        if judgement.fault is not None:
            return _of(artifact, judgement.repo, judgement.fault)
        if judgement.revoked:
            return _revoked(artifact, judgement.revoked)
        if judgement.key:
            artifact.publisher, artifact.key = judgement.repo, judgement.key
            return None
        why = judgement.open
    if policy() == "signed":
        what = f"{why}, and {TRUST} is signed"
        return UntrustedError(f"{artifact.place}: {what}", [Problem(artifact.place, what)], hint=SIGNED_HINT)
    return artifact.foreign


def _of(artifact: Candidate, repo: str, fault: VerificationError) -> VerificationError:
    if isinstance(fault, KeyringError):  # the artifact may be sound, and is not to blame
        what = shown(f"whether {repo or 'its publisher'} has signed it cannot be said: {fault}", 1000)
        return KeyringError(f"{artifact.place}: {what}", [Problem(artifact.place, what)], hint=fault.hint)
    what = shown(f"the signature of {repo or 'its publisher'}: {fault}", 500)
    hint = "fetch it again; if that does not help, do not use it; gdn-aot keys list shows whose signatures count"
    return type(fault)(f"{artifact.place}: {what}", [Problem(artifact.place, what)], hint=hint)


def _revoked(artifact: Candidate, repo: str) -> SignatureError:
    what = f"{shown(repo)} has revoked the artifact of SHA-256 {artifact.header['sha256']}"
    hint = "do not use it; gdn-aot cache verify --repair removes what is installed"
    return SignatureError(f"{artifact.place}: {what}", [Problem(artifact.place, what)], hint=hint)
