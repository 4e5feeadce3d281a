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

    def __init_subclass__(cls, code: str = "", exit_code: int = 0, hint: str = "") -> None:
        """Set what a class has of its own; the rest is that of its base."""
        cls.code, cls.exit_code = code or cls.code, exit_code or cls.exit_code
        cls.default_hint = hint or cls.default_hint

    def __init__(self, message: str, problems: Sequence[Problem] = (), *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        self.hint = hint if hint is not None else self.default_hint


class UsageError(GdnAotError, code="usage", exit_code=2, hint="see gdn-aot COMMAND --help"):
    """An option, a name, a file, a shape or the installed environment cannot be used as asked."""


class UnsupportedTritonError(UsageError, code="unsupported-triton", hint="install a supported Triton (3.6 to 3.9)"):
    """The installed Triton's internals are not the ones this version was checked against."""


class UnsupportedTargetError(
    UsageError,
    code="unsupported-target",
    hint="gdn-aot targets lists the targets that the installed Triton can assemble",
):
    """The installed Triton or its ptxas cannot produce code for a target."""


class UnsupportedProviderError(
    UsageError,
    code="unsupported-provider",
    hint="install a version that gdn-aot providers lists, with its requirements, or a newer gdn-aot",
):
    """The installed version of a provider is not as this version of gdn-aot calls it."""


class MatrixError(UsageError, code="matrix", hint="docs/reference/matrix.md describes a matrix file"):
    """A matrix file is malformed or asks for what cannot be."""


class DeploymentError(
    UsageError, code="deployment", hint="docs/how-to/vllm.md, A whole deployment, says what a description holds"
):
    """A description of a deployment is malformed, or the engine refuses it."""


class ProviderMissingError(UsageError, code="provider-missing"):
    """The provider's distribution is not installed here."""


class ToolchainMissingError(
    UsageError, code="toolchain-missing", hint="pip install 'gdn-aot[build]', or 'gdn-aot[fla]' to build for FLA"
):
    """What compiles, or replays what was compiled, is not installed: torch and Triton are no requirement of ours."""


class SigningError(UsageError, code="signing", hint="check the key, or run the signing command by itself"):
    """What was to be signed could not be."""


class UnreadableError(
    UsageError,
    code="unreadable",
    hint="run as the user who made it, give this user the right to read it, or let GDN_AOT_HOME name another directory",
):
    """A store, or something in it, is there and cannot be looked at: what it holds is not known."""


class NothingSelectedError(GdnAotError, code="nothing-selected", exit_code=3, hint="widen the selection"):
    """The selection is valid and empty."""


class NoArtifactError(
    GdnAotError,
    code="no-artifact",
    exit_code=4,
    hint="build one with gdn-aot build --arch TARGET --provider PROVIDER --model NAME",
):
    """No artifact fits this target, provider version and Triton version. May say why each that there is does not."""


class MissError(NoArtifactError, code="miss", hint="build an artifact that covers it, or unset GDN_AOT_STRICT"):
    """A covered kernel needed what no artifact has, and the policy is that this is an error."""


class VerificationError(
    GdnAotError, code="verification", exit_code=5, hint="fetch or build the artifact again; do not use this file"
):
    """Bytes are not what they must be."""


class UnknownFormatError(
    VerificationError, code="unknown-format", hint="upgrade gdn-aot, or fetch an artifact of a format it knows"
):
    """A manifest of a format version that this gdn-aot does not know."""


class UntrustedError(
    VerificationError,
    code="untrusted",
    hint="install it again as this user or as root, or set GDN_AOT_TRUST=any to use it as it is",
):
    """Somebody else than root or this user may have written a file that code is loaded from."""


class SignatureError(
    VerificationError,
    code="signature",
    hint="nothing was installed; gdn-aot keys list shows the publishers whose signatures count here",
):
    """A statement of a publisher is missing, or does not count here, or says something else."""


class KeyringError(
    VerificationError,
    code="keyring",
    hint="replace it with gdn-aot keys add, or remove that file; gdn-aot keys list says what is wrong",
):
    """A keyring of this machine is damaged, or somebody else may have written it: it says nothing of any artifact."""


class ProvenanceError(
    VerificationError, code="provenance", hint="do not use this file unless you know from another source who built it"
):
    """Nothing shows that a file was built by the workflow that it should be from."""


class CompileFailedError(
    GdnAotError,
    code="compile",
    exit_code=6,
    hint="use --keep-going to pack the kernels that did compile; report compiler crashes to Triton",
):
    """At least one kernel did not compile."""


class SpillsError(
    CompileFailedError,
    code="spills",
    hint="tune for the target, or build other models; --allow-spills packs it as it is (docs/explanation/memory.md)",
):
    """What was compiled takes more of the card for spilled registers than is packed unless it is asked for."""


class RegistryError(
    GdnAotError, code="registry", exit_code=7, hint="check the repository name, the token and the network"
):
    """The registry cannot be reached or refused."""


class NetworkError(RegistryError, code="network", hint="check the network and HF_ENDPOINT, and try again"):
    """The registry was not reached, or it did not answer as a registry does."""


class AccessDeniedError(
    RegistryError, code="access-denied", hint="give a token that may do this: HF_TOKEN or hf auth login"
):
    """The registry is there and does not let us do this with the token that it got, or without one."""


class RepositoryMissingError(
    RegistryError,
    code="repository-missing",
    hint="check the name; a private repository needs a token: HF_TOKEN or hf auth login",
):
    """There is no such repository or directory, or a private one hides itself."""


class RevisionMissingError(RegistryError, code="revision-missing", hint="gdn-aot list --repo REPO lists its artifacts"):
    """The repository has no such branch, tag or commit."""


class EntryMissingError(RegistryError, code="entry-missing", hint="check that the repository is a registry of gdn-aot"):
    """The revision has no such file."""


class ConflictError(
    RegistryError, code="conflict", hint="choose another tag, or publish with --replace and a new --tag"
):
    """Something else has this name already, and it is not overwritten."""


class StaleParentError(RegistryError, code="stale-parent", hint="publish again"):
    """Somebody else published between our reading and our writing."""


class ClusterError(
    GdnAotError,
    code="cluster",
    exit_code=7,
    hint="check the address and the nodes with ray status, and run the same command again: it continues",
):
    """The cluster cannot be reached, or nothing of it is left to work on."""


class OfflineMissError(
    GdnAotError, code="offline-miss", exit_code=8, hint="unset HF_HUB_OFFLINE once to fill the cache"
):
    """Offline mode is on and the wanted file is not in the cache."""


class NotWritableError(
    GdnAotError, code="not-writable", exit_code=9, hint="choose a directory you may write, with free space"
):
    """A directory that must be written cannot be: read-only, full or not ours."""
