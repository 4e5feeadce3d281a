"""Who built a file: the Sigstore bundle beside it, in which GitHub attests which run of which workflow did.

The library ``sigstore`` of the extra ``[provenance]`` verifies it, by the root that it was released with: nothing is
asked of the network, and nothing that it would keep in the home of the user is read, since whoever may write there
could put another root in its place. Commands alone do this. Who built something is taken from the certificate, for
which GitHub vouched, and not from the rest of the statement, which the workflow wrote itself.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from gdn_aot._files import read_regular
from gdn_aot._text import shown
from gdn_aot.errors import Problem, ProvenanceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptography.x509 import Certificate
    from sigstore.verify import Verifier

WORKFLOW = ".github/workflows/artifacts.yml"
"""The workflow that publishes artifacts."""
REFS = ("refs/tags/artifacts-v*", "refs/heads/main")
"""What it publishes from."""
MAX_BUNDLE = 1 << 20
"""Bytes of a bundle. One of 1,000 artifacts has some 250,000."""
_GITHUB = "https://github.com/"
_ISSUER = "https://token.actions.githubusercontent.com"
_INSTANCE = "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"
"""Where the library has the root of the public instance of Sigstore."""
_IN_TOTO, _STATEMENT, _SLSA = (
    "application/vnd.in-toto+json",
    "https://in-toto.io/Statement/v1",
    "https://slsa.dev/provenance/v1",
)
_FIELD = "1.3.6.1.4.1.57264.1."
"""Of the fields that a certificate of Sigstore says who signed with; the numbers below follow."""
_SIGNER, _RUNNER, _REPOSITORY, _COMMIT, _REF, _EVENT, _RUN = 9, 11, 12, 13, 14, 20, 21
_UTF8 = re.compile(rb"\x0c(?:[\0-\x7f]|\x81.|\x82..)(.*)", re.DOTALL)
"""A text in DER, its type and length before it. What has the length wrong is not what is expected of it."""
_OWNER_NAME = re.compile(r"[A-Za-z0-9-]{1,39}/[A-Za-z0-9_.-]{1,100}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Who built a file, as GitHub says."""

    repository: str
    """As ``owner/name``."""
    workflow: str
    """Path in that repository; of a workflow that lies elsewhere, its address."""
    ref: str
    """Branch or tag of that repository, as ``refs/tags/v1``."""
    commit: str
    run: str
    """Address of the run."""
    event: str
    """What started it, as ``push``."""
    runner: str
    """``github-hosted`` or ``self-hosted``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Whose files are wanted.

    Args:
        repository: As ``owner/name``.
        workflow: Path in that repository.
        refs: Branches and tags, as patterns of which one has to fit.

    Raises:
        UsageError: That is no repository.
    """

    repository: str
    workflow: str = WORKFLOW
    refs: tuple[str, ...] = REFS

    def __post_init__(self) -> None:
        if not _OWNER_NAME.fullmatch(self.repository):
            what = f"{shown(self.repository)} is no repository on GitHub"
            raise UsageError(what, hint="name it as owner/name")

    def misfits(self, found: Provenance) -> Iterator[Problem]:
        """Yield what of a provenance is not as it is wanted."""
        for where, one in (("repository", self.repository), ("workflow", self.workflow)):
            if getattr(found, where) != one:
                yield Problem(where, f"is {shown(getattr(found, where))}, expected {shown(one)}")
        if not any(fnmatchcase(found.ref, pattern) for pattern in self.refs):
            yield Problem("ref", f"is {shown(found.ref)}, expected {shown(' or '.join(self.refs))}")


def read_bundle(path: Path) -> bytes:
    """Return the bytes of a bundle.

    Raises:
        ProvenanceError: There is none, or none that can be read.
    """
    try:
        return read_regular(path, MAX_BUNDLE)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ProvenanceError(
            f"{path} cannot be read: {why}; it would say who built the file",
            [Problem("bundle", f"cannot be read: {why}")],
            hint="get it from the source of the file, or name it with --bundle",
        ) from error


def verify_provenance(sha256: str, bundle: bytes, expected: Expected) -> Provenance:
    """Return who built the file of a SHA-256, by its bundle.

    Raises:
        ProvenanceError: The bundle is damaged or not of Sigstore, is for another file, or names another builder.
        UsageError: The library is not installed.
    """
    verifier = _verifier()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in a certificate, which is then refused
            found, kind, payload = _verify(verifier, bundle)
    except Exception as error:  # of many kinds, from three libraries, for bytes that anybody may have made
        hint = "get it again with the file; if Sigstore has new keys, upgrade the package sigstore"
        raise _refused([Problem("bundle", shown(error) or type(error).__name__)], hint) from error
    if problems := [*_misfits(kind, payload, sha256), *expected.misfits(found)]:
        raise _refused(problems)
    return found


def _refused(problems: list[Problem], hint: str | None = None) -> ProvenanceError:
    what = "the bundle does not show that the expected workflow built the file"
    return ProvenanceError(what, problems, hint=hint)


def _verifier() -> Verifier:
    """Return what verifies bundles by the root that the library was released with."""
    try:
        from importlib import resources

        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier

        with resources.as_file(resources.files("sigstore._store") / _INSTANCE / "trusted_root.json") as root:
            return Verifier(trusted_root=TrustedRoot.from_file(str(root)))
    except (ImportError, OSError) as error:
        what = f"checking who built a file needs the package sigstore, version 4: {error}"
        raise UsageError(what, hint="pip install 'gdn-aot[provenance]'") from error


def _verify(verifier: Verifier, data: bytes) -> tuple[Provenance, str, bytes]:
    """Return who signed what a bundle holds, its type and itself, if all signatures and the entry in the log are right.

    Raises:
        Exception: They are not.
    """
    from sigstore.models import Bundle
    from sigstore.verify.policy import OIDCIssuerV2

    bundle = Bundle.from_json(data)
    kind, payload = verifier.verify_dsse(bundle, OIDCIssuerV2(_ISSUER))
    return _named(bundle.signing_certificate), kind, payload


def _named(certificate: Certificate) -> Provenance:
    """Return whom a certificate names.

    The ref of the workflow is not named if it is that of the repository, as it is unless another workflow calls it.
    """
    repository, ref = _field(certificate, _REPOSITORY), _field(certificate, _REF)
    return Provenance(
        repository=repository.removeprefix(_GITHUB),
        workflow=_field(certificate, _SIGNER).removeprefix(f"{repository}/").removesuffix(f"@{ref}"),
        ref=ref,
        commit=_field(certificate, _COMMIT),
        run=_field(certificate, _RUN),
        event=_field(certificate, _EVENT),
        runner=_field(certificate, _RUNNER),
    )


def _field(certificate: Certificate, number: int) -> str:
    """Return a field of a certificate."""
    from cryptography.x509 import ObjectIdentifier, UnrecognizedExtension

    value = certificate.extensions.get_extension_for_oid(ObjectIdentifier(f"{_FIELD}{number}")).value
    text = _UTF8.fullmatch(value.value) if isinstance(value, UnrecognizedExtension) else None
    if text is None:
        raise ValueError(f"the certificate has no text in its field {number}")
    return text[1].decode()


def _misfits(kind: str, payload: bytes, sha256: str) -> Iterator[Problem]:
    """Yield what of a signed statement is not as it is wanted: the provenance of a file."""
    try:
        statement = json.loads(payload) if kind == _IN_TOTO else {}
        form, predicate = statement["_type"], statement["predicateType"]
        digests = [subject["digest"].get("sha256") for subject in statement["subject"]]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        form, predicate, digests = None, None, []
    if (form, predicate) != (_STATEMENT, _SLSA):
        yield Problem("statement", f"is no provenance of SLSA, version 1: {shown(predicate)}")
    if sha256 not in digests:
        yield Problem("subject", f"is for other files: none has the SHA-256 {sha256}")
