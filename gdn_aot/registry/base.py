"""What every registry can do, and how one is named: the seam between the Hub, directories and their users."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gdn_aot.errors import EntryMissingError, Problem, UnknownFormatError, UsageError, VerificationError
from gdn_aot.registry.failures import mask_repo
from gdn_aot.registry.layout import DEFAULT_REPO, INDEX, MAIN, parse_index

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.registry.layout import RegistryIndex

MAX_READ = 64 << 20
"""Most bytes that `Registry.read` returns."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A whole commit."""

_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,199}")
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{30,}")
"""A token of the Hub, which has 34 letters; no repository or branch is called so."""
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Refs:
    """Names of a registry's commits."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]


class Registry(Protocol):
    """One registry. Every method raises `NetworkError`, `AccessDeniedError` or `RepositoryMissingError` as it happens.

    In offline mode (``HF_HUB_OFFLINE=1``) a repository of the Hub answers from huggingface_hub's cache alone: what is
    not there is an `OfflineMissError`.
    """

    @property
    def name(self) -> str:
        """Return ``hf://org/name``, or the absolute path of a directory; messages name the registry so."""

    def refs(self) -> Refs:
        """Return branches and tags."""

    def resolve(self, revision: str) -> Snapshot:
        """Return what a revision is now. One request on the Hub; none for 40 hexadecimal digits.

        Raises:
            RevisionMissingError: There is no such branch, tag or commit.
            UsageError: It cannot be a revision.
        """

    def read(self, snapshot: Snapshot, path: str) -> bytes:
        """Return a small file.

        Raises:
            EntryMissingError: The snapshot has no such file.
            RegistryError: It is larger than `MAX_READ`.
            RevisionMissingError: There is no such commit.
        """

    def download(self, snapshot: Snapshot, path: str, size: int) -> Path:
        """Return where a file of ``size`` bytes is on this machine; it may be fetched for that, and resumed.

        The path is only for reading. Its bytes are not verified.

        Raises:
            EntryMissingError: The snapshot has no such file.
            NotWritableError: There is no space for it.
            RevisionMissingError: There is no such commit.
        """

    def forget(self, snapshot: Snapshot, path: str) -> None:
        """Remove the copy that `download` or `read` made: its bytes are wrong, and it would be answered again."""

    def create(self, *, private: bool) -> bool:
        """Make the registry unless it is there; say whether it was made."""

    def commit(self, branch: str, parent: str | None, additions: Sequence[Addition], message: str) -> str:
        """Add files to a branch and return the new commit.

        Args:
            branch: Its name.
            parent: The commit that the branch must be at; None if it must not be there yet, then it is made.
            additions: Files; others stay as they are.
            message: One line.

        Raises:
            StaleParentError: The branch is elsewhere; nothing was changed.
        """

    def settle(self, branch: str, additions: Sequence[Addition]) -> None:
        """Make sure that files which a branch has already are whole, as far as we may write. Nothing new is added."""

    def tag(self, name: str, commit: str) -> None:
        """Name a commit for good.

        Raises:
            ConflictError: The tag is there and names another commit.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """What ``--repo`` names."""

    hub: bool
    """On the Hub; else a directory."""
    place: str
    """``org/name``, or an absolute path."""
    revision: str | None
    """What comes after ``@``; only on the Hub."""

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"hf://{self.place}" if self.hub else self.place


def default_repo(repo: str | None = None) -> str:
    """Return the registry to use: what was given, then ``$GDN_AOT_REPO``, then that of the project."""
    return repo or os.environ.get("GDN_AOT_REPO") or DEFAULT_REPO


def locate(repo: str) -> Location:
    """Say what ``--repo`` names.

    Args:
        repo: ``hf://org/name[@revision]``, ``./dir``, ``/dir``, ``~/dir``, ``file:///dir``, ``.``, a directory that is
            there, or ``org/name`` where no directory is.

    Raises:
        UsageError: It is none of these; the message shows no credentials that are in it.
    """
    hint = "write hf://org/name or ./directory"
    shown = mask_repo(repo)
    if "\0" in repo or not repo.strip():
        raise UsageError(f"{shown!r} does not name a registry", hint=hint)
    if _TOKEN.search(repo) and not repo.startswith(("/", "./", "../", "~", "file:///")):
        raise UsageError(f"{shown!r} has a token in it", hint=f"{hint}; give the token by --token or HF_TOKEN")
    if repo.startswith("hf://"):
        place, at, revision = repo.removeprefix("hf://").partition("@")
        if not is_hub_name(place):
            raise UsageError(f"{shown!r} does not name a repository of the Hub", hint="write hf://org/name")
        return Location(hub=True, place=place, revision=check_revision(revision) if at else None)
    if repo.startswith("file://"):
        path = repo.removeprefix("file://")
        if not path.startswith("/"):
            raise UsageError(f"{shown!r} does not name a directory of this machine", hint="write file:///directory")
        return _directory(path)
    if "://" in repo:
        raise UsageError(f"{shown!r} is of a kind that is not known", hint=hint)
    if repo.startswith(("/", "./", "../", "~")) or repo in (".", "..") or Path(repo).is_dir():
        return _directory(repo)
    if is_hub_name(repo):
        return Location(hub=True, place=repo, revision=None)
    raise UsageError(f"{shown!r} is no directory and does not name a repository of the Hub", hint=hint)


def shown_repo(repo: str) -> str:
    """Return what ``--repo`` held as it may be shown: where it names no registry, without what may be credentials."""
    try:
        locate(repo)
    except UsageError:
        return mask_repo(repo)
    return repo


def _directory(path: str) -> Location:
    return Location(hub=False, place=os.path.abspath(os.path.expanduser(path)), revision=None)  # noqa: PTH100, PTH111


def is_hub_name(name: str) -> bool:
    """Say whether a name is ``org/name`` as the Hub has it."""
    return bool(_REPOSITORY.fullmatch(name)) and ".." not in name and "--" not in name and not name.endswith(".git")


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


def open_registry(repo: str, *, token: str | None = None) -> Registry:
    """Return the registry that ``--repo`` names. Nothing is read or asked yet.

    Args:
        repo: See `locate`; a revision in it is the caller's business.
        token: For the Hub, instead of ``HF_TOKEN`` and of what ``hf auth login`` left.

    Raises:
        UsageError: It does not name one.
    """
    location = locate(repo)
    if location.hub:
        from gdn_aot.registry.remote import RemoteRegistry

        return RemoteRegistry(location.place, token=token)
    from gdn_aot.registry.directory import DirectoryRegistry

    return DirectoryRegistry(location.place)


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
        return parse_index(content)
    except UnknownFormatError as error:
        hint = "upgrade gdn-aot, or name an older --revision"
        raise UnknownFormatError(f"{place}: {error.message}", error.problems, hint=hint) from error
    except VerificationError as error:
        registry.forget(snapshot, INDEX)
        hint = "try again; if it stays so, tell whoever publishes there"
        raise VerificationError(f"{place}: {error.message}", error.problems, hint=hint) from error
