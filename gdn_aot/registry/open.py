"""Which registry ``--repo`` names, and how it is opened."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gdn_aot._files import is_file, is_folder
from gdn_aot.errors import UsageError
from gdn_aot.registry.base import check_revision
from gdn_aot.registry.failures import mask_repo
from gdn_aot.registry.layout import BRANCH, DEFAULT_REPO

if TYPE_CHECKING:
    from gdn_aot.registry.base import Registry

_TOKEN = re.compile(r"hf_[A-Za-z0-9]{30,}")
"""A token of the Hub, which has 34 letters; no repository or branch is called so."""
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """What ``--repo`` names, and the revision that is asked for."""

    hub: bool
    """On the Hub; else a directory."""
    place: str
    """``org/name``, or an absolute path."""
    revision: str | None = None
    """Branch, tag or commit; None if nobody said."""

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"hf://{self.place}" if self.hub else self.place

    @property
    def asked(self) -> str:
        """The revision to read: by default the branch of this version."""
        return self.revision or BRANCH


def default_repo(repo: str | None = None) -> str:
    """Return the registry to use: what was given, then ``$GDN_AOT_REPO``, then that of the project."""
    return repo or os.environ.get("GDN_AOT_REPO") or DEFAULT_REPO


def locate(repo: str, revision: str | None = None) -> Location:
    """Say what ``--repo`` and ``--revision`` name.

    ``repo`` is ``hf://org/name[@revision]``, ``./dir``, ``/dir``, ``~/dir``, ``file:///dir``, ``.``, a directory that
    is there, or ``org/name`` where no directory is. A bundle may be in the place of a directory.

    Raises:
        UsageError: It is none of these, or two revisions are named; the message shows no credentials that are in it.
    """
    found = _locate(repo)
    if revision and found.revision and revision != found.revision:
        raise UsageError(f"--revision {revision} is not that in --repo, {found.revision}", hint="leave one of them out")
    return replace(found, revision=revision or found.revision)


def _locate(repo: str) -> Location:
    hint = "write hf://org/name or ./directory"
    shown = mask_repo(repo)
    if "\0" in repo or not repo.strip():
        raise UsageError(f"{shown!r} does not name a registry", hint=hint)
    if _TOKEN.search(repo) and not repo.startswith(("/", "./", "../", "~", "file:///")):
        raise UsageError(f"{shown!r} has a token in it", hint=f"{hint}; give the token by HF_TOKEN")
    if repo.startswith("hf://"):
        place, at, revision = repo.removeprefix("hf://").partition("@")
        if not _is_hub_name(place):
            raise UsageError(f"{shown!r} does not name a repository of the Hub", hint="write hf://org/name")
        return Location(hub=True, place=place, revision=check_revision(revision) if at else None)
    if repo.startswith("file://"):
        path = repo.removeprefix("file://")
        if not path.startswith("/"):
            raise UsageError(f"{shown!r} does not name a directory of this machine", hint="write file:///directory")
        return _directory(path)
    if "://" in repo:
        raise UsageError(f"{shown!r} is of a kind that is not known", hint=hint)
    if repo.startswith(("/", "./", "../", "~")) or repo in (".", "..") or is_folder(repo):
        return _directory(repo)
    if _is_hub_name(repo):
        return Location(hub=True, place=repo)
    raise UsageError(f"{shown!r} is no directory and does not name a repository of the Hub", hint=hint)


def shown_repo(repo: str) -> str:
    """Return what ``--repo`` held as it may be shown: where it names no registry, without what may be credentials."""
    try:
        locate(repo)
    except UsageError:
        return mask_repo(repo)
    return repo


def open_registry(repo: str, *, token: str | None = None) -> Registry:
    """Return the registry that ``--repo`` names, see `locate`. Nothing is read or asked yet.

    A token is for the Hub, instead of ``HF_TOKEN`` and of what ``hf auth login`` left. A revision in ``repo`` is the
    caller's business.

    Raises:
        UsageError: It does not name one.
    """
    location = locate(repo)
    if location.hub:
        from gdn_aot.registry.remote import RemoteRegistry

        return RemoteRegistry(location.place, token=token)
    if is_file(location.place):
        from gdn_aot.registry.bundle import BundleRegistry

        return BundleRegistry(location.place)
    from gdn_aot.registry.directory import DirectoryRegistry

    return DirectoryRegistry(location.place)


def _directory(path: str) -> Location:
    return Location(hub=False, place=os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111


def _is_hub_name(name: str) -> bool:
    """Say whether a name is ``org/name`` as the Hub has it."""
    return bool(_REPOSITORY.fullmatch(name)) and ".." not in name and "--" not in name and not name.endswith(".git")
