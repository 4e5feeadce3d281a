"""Every error that gdn-aot raises on purpose.

Each class has one exit code and one stable ``code`` for ``--json``; scripts may rely on both. A message says
what happened and why it is likely; the hint says in one line what to do.
"""

from __future__ import annotations

from gdn_aot._plain import Plain

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar


class Problem(Plain):
    """One thing that is wrong, and where.

    Args:
        where: Path inside the file or manifest, for example ``kernels[3].choices[0].config.num_warps``.
        what: What is wrong there, in one sentence.
    """

    __slots__ = ("what", "where")

    def __init__(self, where: str, what: str) -> None:
        self.where, self.what = where, what

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class GdnAotError(Exception):
    """Base of all errors raised on purpose by this package. Carries every problem found, if its message has not all."""

    code: ClassVar[str] = "unexpected"
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = "run again with GDN_AOT_LOG=debug and report it with that output"

    def __init__(self, message: str, problems: Sequence[Problem] = (), *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        self.hint = hint if hint is not None else self.default_hint


class UsageError(GdnAotError):
    """An option, a name, a file, a shape or the installed environment cannot be used as asked."""

    code = "usage"
    exit_code = 2
    default_hint = "see gdn-aot COMMAND --help"


class UnsupportedTritonError(UsageError):
    """The installed Triton's internals are not the ones this version was checked against."""

    code = "unsupported-triton"
    default_hint = "install a supported Triton (3.6 to 3.9)"


class UnsupportedTargetError(UsageError):
    """The installed Triton or its ptxas cannot produce code for a target."""

    code = "unsupported-target"
    default_hint = "see gdn-aot targets for what the installed Triton can assemble"


class MatrixError(UsageError):
    """A matrix file is malformed or asks for what cannot be."""

    code = "matrix"
    default_hint = "docs/reference/matrix.md says what a matrix holds"


class ProviderMissingError(UsageError):
    """The provider's distribution is not installed here."""

    code = "provider-missing"


class NothingSelectedError(GdnAotError):
    """The selection is valid and empty."""

    code = "nothing-selected"
    exit_code = 3
    default_hint = "widen the selection"


class NoArtifactError(GdnAotError):
    """No artifact fits this target, provider version and Triton version. May say why each that there is does not."""

    code = "no-artifact"
    exit_code = 4
    default_hint = "build one with gdn-aot build --arch TARGET --provider PROVIDER --model NAME"


class MissError(NoArtifactError):
    """A covered kernel needed what no artifact has, and the policy is that this is an error."""

    code = "miss"
    default_hint = "build an artifact that covers it, or unset GDN_AOT_STRICT"


class VerificationError(GdnAotError):
    """Bytes are not what they must be."""

    code = "verification"
    exit_code = 5
    default_hint = "fetch or build the artifact again; do not use this file"


class UnknownFormatError(VerificationError):
    """A manifest of a format version that this gdn-aot does not know."""

    code = "unknown-format"
    default_hint = "upgrade gdn-aot, or fetch an artifact of a format it knows"


class CompileFailedError(GdnAotError):
    """At least one kernel did not compile."""

    code = "compile"
    exit_code = 6
    default_hint = "use --keep-going to pack what did compile; report compiler crashes to Triton"


class RegistryError(GdnAotError):
    """The registry cannot be reached or refused."""

    code = "registry"
    exit_code = 7
    default_hint = "check the repository name, the token and the network"


class NetworkError(RegistryError):
    """The registry was not reached, or it did not answer as a registry does."""

    code = "network"
    default_hint = "check the network and HF_ENDPOINT, and try again"


class AccessDeniedError(RegistryError):
    """The registry is there and does not let us do this with the token that it got, or without one."""

    code = "access-denied"
    default_hint = "give a token that may do this: --token, HF_TOKEN or hf auth login"


class RepositoryMissingError(RegistryError):
    """There is no such repository or directory, or a private one hides itself."""

    code = "repository-missing"
    default_hint = "check the name; a private repository needs a token: --token, HF_TOKEN or hf auth login"


class RevisionMissingError(RegistryError):
    """The repository has no such branch, tag or commit."""

    code = "revision-missing"
    default_hint = "see gdn-aot list --repo REPO for what it has"


class EntryMissingError(RegistryError):
    """The revision has no such file."""

    code = "entry-missing"
    default_hint = "check that the repository is a registry of gdn-aot"


class ConflictError(RegistryError):
    """Something else has this name already, and it is not overwritten."""

    code = "conflict"
    default_hint = "choose another tag, or publish with --replace and a new --tag"


class StaleParentError(RegistryError):
    """Somebody else published between our reading and our writing."""

    code = "stale-parent"
    default_hint = "publish again"


class ClusterError(GdnAotError):
    """The cluster cannot be reached, or nothing of it is left to work on."""

    code = "cluster"
    exit_code = 7
    default_hint = "check the address and the nodes with ray status, and run the same command again: it goes on"


class OfflineMissError(GdnAotError):
    """Offline mode is on and the wanted file is not in the cache."""

    code = "offline-miss"
    exit_code = 8
    default_hint = "unset HF_HUB_OFFLINE once to fill the cache"


class NotWritableError(GdnAotError):
    """A directory that must be written cannot be: read-only, full or not ours."""

    code = "not-writable"
    exit_code = 9
    default_hint = "choose a directory you may write, with free space"
