"""What every registry can do: the seam between the Hub, directories and their users."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gdn_aot.errors import EntryMissingError, Problem, UnknownFormatError, UsageError, VerificationError
from gdn_aot.registry.failures import mask_repo
from gdn_aot.registry.layout import INDEX, INDEX_FORM, MAIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gdn_aot.registry.layout import RegistryIndex

MAX_READ = 64 << 20
"""Most bytes that `Registry.read` returns."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A whole commit."""

_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,199}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """One state of a registry."""

    revision: str
    """What was asked for: a branch, a tag or a commit."""
    commit: str
    """What that was when it was asked: 40 hexadecimal digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Addition:
    """A file to add to a registry, or to replace in it."""

    path: str
    """In the registry, with forward slashes."""
    content: bytes | Path
    sha256: str | None = None
    """What the content must have when it is read; None to take what is there."""

    def check(self, sha256: str) -> None:
        """Compare the digest of what was read.

        Raises:
            VerificationError: It is not the file that was to be published.
        """
        if self.sha256 not in (None, sha256):
            problem = Problem(str(self.content), f"does not have the SHA-256 {self.sha256} any more")
            raise VerificationError("a file changed while it was published", [problem], hint="publish again")


@dataclass(frozen=True, kw_only=True, slots=True)
class Refs:
    """Names of a registry's commits."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """Of what a copy is that was made to be carried elsewhere, as it says itself."""

    repo: str
    revision: str
    commit: str


class Registry(Protocol):
    """One registry. Every method raises `NetworkError`, `AccessDeniedError` or `RepositoryMissingError` as it happens.

    In offline mode (``HF_HUB_OFFLINE=1``) a repository of the Hub answers from huggingface_hub's cache alone: what is
    not there is an `OfflineMissError`.
    """

    name: str
    """``hf://org/name``, or the absolute path of a directory or a bundle; messages name the registry so."""
    carried: Carried | None = None
    """What it is a copy of; only a bundle says so."""

    def refs(self) -> Refs:
        """Return branches and tags."""

    def resolve(self, revision: str) -> Snapshot:
        """Return what a revision is now. One request on the Hub; none for 40 hexadecimal digits.

        Raises:
            RevisionMissingError: There is no such branch, tag or commit.
            UsageError: It cannot be a revision.
        """
        check_revision(revision)
        return Snapshot(revision=revision, commit=revision if COMMIT.fullmatch(revision) else self._commit_of(revision))

    def _commit_of(self, revision: str) -> str:
        """Return the commit that a branch or a tag is at."""

    def read(self, snapshot: Snapshot, path: str) -> bytes:
        """Return a small file.

        Raises:
            EntryMissingError: The snapshot has no such file.
            RegistryError: It is larger than `MAX_READ`.
            RevisionMissingError: There is no such commit.
        """

    def download(self, snapshot: Snapshot, path: str, size: int, sha256: str) -> Path:
        """Return where a file of a snapshot is on this machine; it may be fetched for that, and resumed.

        The path is only for reading. Its bytes, of which there must be ``size``, are not verified; ``sha256`` tells it
        from other builds that a directory has under the same path.

        Raises:
            EntryMissingError: The snapshot has no such file.
            NotWritableError: There is no space for it.
            RevisionMissingError: There is no such commit.
            VerificationError: It has not ``size`` bytes.
        """

    def forget(self, snapshot: Snapshot, path: str) -> None:
        """Remove the copy that `download` or `read` made, if any: its bytes are wrong, and it would be used again."""
        del snapshot, path

    def create(self, *, private: bool) -> bool:
        """Make the registry unless it is there; say whether it was made."""

    def commit(self, branch: str, parent: str | None, additions: Sequence[Addition], message: str) -> str:
        """Add files to a branch and return the new commit; other files stay as they are.

        The branch must be at the commit ``parent``; None if it must not be there yet, then it is made.

        Raises:
            StaleParentError: The branch is elsewhere; nothing was changed.
        """

    def settle(self, additions: Sequence[Addition]) -> None:
        """Make sure that files which are there are whole, as far as we may write, unless others keep them so."""
        del additions

    def tag(self, name: str, commit: str) -> None:
        """Name a commit for good.

        Raises:
            ConflictError: The tag is there and names another commit.
        """


def check_revision(revision: str) -> str:
    """Return a revision that may go into addresses and file names.

    Raises:
        UsageError: It has characters or parts that no branch, tag or commit of a registry has.
    """
    parts = revision.split("/")
    sound = all(part and not part.startswith((".", "-")) and not part.endswith((".", ".lock")) for part in parts)
    if not (_REVISION.fullmatch(revision) and sound and ".." not in revision):
        raise UsageError(
            f"{mask_repo(revision)[:80]!a} cannot be a revision",
            hint="name a branch such as v1, a tag such as v1.2.0 or a commit",
        )
    return revision


def read_index(registry: Registry, revision: str) -> tuple[Snapshot, RegistryIndex]:
    """Return the index of a revision, and the snapshot that has the files it lists.

    Where the index says that another branch has the files, as that of ``main`` does, that branch is read instead. For
    a commit it is not: whoever names one wants what cannot change.

    Raises:
        EntryMissingError: The revision has no index: it is no registry.
        RevisionMissingError: There is no such branch, tag or commit.
        UsageError: It is a commit of ``main``, which has no files.
        VerificationError: The index is damaged or of another format.
    """
    snapshot = registry.resolve(revision)
    index = index_at(registry, snapshot)
    if index.tree is None:
        return snapshot, index
    if COMMIT.fullmatch(revision):
        raise UsageError(
            f"{revision} is a commit of {MAIN} of {registry.name}, which has no files and pins none",
            hint=f"name a tag, a commit of {index.tree}, or {index.tree} itself",
        )
    if revision != MAIN:  # whoever may write what nobody signed must not lead elsewhere
        problem = Problem("tree", f"is {index.tree}, and only the index of {MAIN} names another branch")
        raise VerificationError(f"the index of {registry.name} at {revision} points elsewhere", [problem])
    tree = registry.resolve(index.tree)
    followed = index_at(registry, tree)
    if followed.tree is not None:
        problem = Problem("tree", f"is {followed.tree}, but the files were to be here")
        raise VerificationError(f"the index of {registry.name} at {tree.revision} points elsewhere", [problem])
    return tree, followed


def index_at(registry: Registry, snapshot: Snapshot) -> RegistryIndex:
    """Return the index of a snapshot itself; see `read_index` for one that lists files which are there.

    Raises:
        EntryMissingError: The snapshot has no index.
        VerificationError: The index is damaged or of another format.
    """
    place = f"{registry.name} at {snapshot.revision}"
    try:
        content = registry.read(snapshot, INDEX)
    except EntryMissingError as error:
        raise EntryMissingError(f"{place} has no {INDEX}: it is not a registry of gdn-aot") from error
    try:
        return INDEX_FORM.decode(content)
    except VerificationError as error:
        hint = "upgrade gdn-aot, or name an older --revision"
        if not isinstance(error, UnknownFormatError):
            registry.forget(snapshot, INDEX)
            hint = "try again; if it stays so, tell whoever publishes there"
        raise type(error)(f"{place}: {error.message}", error.problems, hint=hint) from error
