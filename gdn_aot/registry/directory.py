"""A registry in a directory: files to browse, to copy and to serve.

::

    DIR/README.md, index.json, targets/...           as on branch v1 of a repository
    DIR/targets/<identifier>-<SHA-256[:16]>.tar.zst  a build that came after another of its identifier
    DIR/targets/<identifier>-<SHA-256[:16]>.sig.json what was signed of that build
    DIR/indexes/<commit>.json                        each index before; its SHA-1 is the commit
    DIR/indexes/<commit>.sig.json                    what was signed of each index
    DIR/tags/v1.0.0                                  the commit that a tag names
    DIR/.lock                                        held by whoever writes

No artifact is ever written over, and ``index.json`` is renamed into place last: whoever is killed leaves the state
before, and readers take no lock and need no right to write. A copy of a repository's files, as ``hf download`` makes
it, is a registry of one state; publishing into it adds the rest.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._files import file_sha256, flags, read_regular, write_whole
from gdn_aot._locks import lock
from gdn_aot.artifact.names import MAX_FILE, SIGNATURE, SUFFIX
from gdn_aot.errors import (
    ConflictError,
    EntryMissingError,
    NotWritableError,
    Problem,
    RegistryError,
    RepositoryMissingError,
    RevisionMissingError,
    SignatureError,
    StaleParentError,
    UsageError,
    VerificationError,
)
from gdn_aot.machine.owners import user
from gdn_aot.registry.base import COMMIT, MAX_READ, Addition, Refs, Registry, Snapshot, check_revision
from gdn_aot.registry.layout import BRANCH, INDEX, INDEX_FORM, INDEX_SIGNATURE, make_index
from gdn_aot.store.folder import Folder
from gdn_aot.trust.statement import IndexStatement, Statement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LOCK = ".lock"
_LOCK_FLAGS = os.O_WRONLY | os.O_CREAT | flags("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
_FOLDERS = ("targets", "indexes", "tags", "keyrings")
"""The directories of a registry."""
_UNFINISHED = ".tmp-"
"""Beginning of the names that `write_whole` gives files before they have their own."""


class DirectoryRegistry(Registry):
    """A registry in a directory, which need not be there yet. Its only branch is that of this version."""

    def __init__(self, root: str) -> None:
        self.name = root
        self._root = Path(root)

    def refs(self) -> Refs:
        """Return the branch and the tags."""
        return Refs(branches={BRANCH: _sha1(self._head())}, tags=self._tags())

    def _commit_of(self, revision: str) -> str:
        refs = self.refs()
        known = {**refs.tags, **refs.branches}
        if revision not in known:
            raise RevisionMissingError(
                f"{self.name} has no revision {revision}", hint=f"it has {', '.join(sorted(known))}"
            )
        return known[revision]

    def read(self, snapshot: Snapshot, path: str) -> bytes:
        """Return the index of a state, or another small file as it is now."""
        content = self._index(snapshot.commit) if path == INDEX else None
        for place in self._signatures(snapshot, path) if path.endswith(SIGNATURE) else [path]:
            content = content or self._content(self._root / place)
        if content is None:
            raise EntryMissingError(f"{self.name} at {snapshot.revision} has no {path}")
        return content

    def download(self, snapshot: Snapshot, path: str, size: int, sha256: str) -> Path:
        """Return where a file is; see `gdn_aot.registry.base.Registry.download`. Nothing is copied."""
        try:
            place = self._find(path, sha256)
            found = place.stat().st_size if place else 0
        except OSError as error:
            raise _unreadable(self._root / path, error) from error
        if place is None:
            raise EntryMissingError(f"{self.name} at {snapshot.revision} has no {path}")
        if found != size:
            problem = Problem(path, f"has {found} bytes, expected {size}")
            raise VerificationError(f"{self.name} is damaged", [problem], hint="publish the artifact again")
        return place

    def create(self, *, private: bool) -> bool:
        """Make the directory unless a registry is there; ``private`` lets nobody else into it, also if it was empty.

        Raises:
            ConflictError: It has other files.
            NotWritableError: It cannot be made.
        """
        index = self._root / INDEX
        with self._writing():
            if index.is_file():
                return False
            names = {place.name for place in self._root.iterdir()} if self._root.is_dir() else set[str]()
            others = any(name != _LOCK and not name.startswith(_UNFINISHED) for name in names)
            if others and not index.is_file():  # else somebody made it just now and published
                raise ConflictError(f"{self.name} has files in it and is no registry", hint="name a new directory")
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
            if private and not index.is_file():
                self._root.chmod(0o700)
            with self._locked():
                if index.is_file():
                    return False
                write_whole(index, INDEX_FORM.encode(make_index([])), sync=True)
        return True

    def commit(self, branch: str, parent: str | None, additions: Sequence[Addition], message: str) -> str:
        """Add files and return the commit of the index among them; see `gdn_aot.registry.base.Registry.commit`."""
        del message
        if branch != BRANCH:
            raise UsageError(f"{branch!r} cannot be a branch of a directory", hint=f"it has {BRANCH} alone")
        self._head()
        with self._writing(), self._locked():
            before = self._head()
            if (head := _sha1(before)) != parent:
                raise StaleParentError(f"{self.name}: branch {branch} is at {head}, not at {parent}")
            self._check_serial(head, additions)
            self._put(Addition(path=_kept(head), content=before))
            signature, kept = self._content(self._root / INDEX_SIGNATURE), _kept(head, SIGNATURE)
            if signature is not None and not (self._root / kept).exists():  # a copy of a repository
                self._put(Addition(path=kept, content=signature))
            index = next((addition.content for addition in additions if addition.path == INDEX), before)
            for addition in sorted(additions, key=lambda addition: addition.path == INDEX):
                if addition.path == INDEX_SIGNATURE and isinstance(index, bytes):
                    self._put(replace(addition, path=_kept(_sha1(index), SIGNATURE)))
                else:
                    self._put(addition)
            for addition in additions:
                if addition.path == INDEX_SIGNATURE:  # as in a copy of a repository; nobody reads it here
                    self._put(addition)
            return _sha1(self._head())

    def settle(self, additions: Sequence[Addition]) -> None:
        """Put right what a hand or a disk has damaged; see `gdn_aot.registry.base.Registry.settle`."""
        if os.access(self._root, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            with self._writing(), self._locked():
                for addition in additions:
                    self._put(addition)

    def tag(self, name: str, commit: str) -> None:
        """Name a commit for good; see `gdn_aot.registry.base.Registry.tag`."""
        if "/" in check_revision(name):
            raise UsageError(f"{name!r} cannot be a tag of a directory", hint="name it without a slash")
        self._index(commit)
        with self._writing(), self._locked():
            found = self._tags().get(name)
            if found not in (None, commit):
                raise ConflictError(f"{self.name}: the tag {name} names {found}, not {commit}")
            self._put(Addition(path=f"tags/{name}", content=f"{commit}\n".encode()))

    # What is there

    def _head(self) -> bytes:
        """Return ``index.json``, with which a directory is a registry."""
        content = self._content(self._root / INDEX)
        if content is not None:
            return content
        if not self._root.is_dir():
            raise RepositoryMissingError(f"there is no directory {self.name}", hint="publish with --create to make it")
        hint = "publish with --create to make one in an empty directory"
        raise RepositoryMissingError(f"the directory {self.name} is no registry", hint=hint)

    def _index(self, commit: str) -> bytes:
        head = self._head()
        for content in (head, self._content(self._root / _kept(commit))):
            if content is not None and _sha1(content) == commit:
                return content
        raise RevisionMissingError(f"{self.name} has no commit {commit}")

    def _signatures(self, snapshot: Snapshot, path: str) -> list[str]:
        """Return where something that was signed may be in a state, the best place first."""
        if path == INDEX_SIGNATURE:
            return [_kept(snapshot.commit, SIGNATURE), path]
        identifier = path.removeprefix("targets/").removesuffix(SIGNATURE)
        entry = INDEX_FORM.decode(self._index(snapshot.commit)).find(identifier)
        return [_own_signature(path, entry.sha256), path] if entry else [path]

    def _tags(self) -> dict[str, str]:
        found = {}
        for place in sorted(self._root.glob("tags/[!.]*")):
            commit = (self._content(place) or b"").decode("ascii", "replace").strip()
            if not (COMMIT.fullmatch(commit) and place.name.isprintable()):
                problem = Problem(f"tags/{place.name!a}", "does not name a commit")
                raise VerificationError(f"{self.name} is damaged", [problem], hint="write the right commit into it")
            found[place.name] = commit
        return found

    def _content(self, place: Path) -> bytes | None:
        try:
            return read_regular(place, MAX_READ)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(place, error) from error

    def _find(self, path: str, sha256: str) -> Path | None:
        """Return where a reader finds a file: an artifact under a name of its own, or, as any other, as on the Hub."""
        return next((place for place in (self._own(path, sha256), self._root / path) if place.is_file()), None)

    def _own(self, path: str, sha256: str) -> Path:
        """Return where a build of an artifact lies if there was another before; where any other file lies."""
        name = path.removesuffix(SUFFIX)
        return self._root / (path if name == path else f"{name}-{sha256[:16]}{SUFFIX}")

    # Writing, all of it under the lock

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f"{error.filename} " if error.filename not in (None, self.name) else ""
            reason = f"{where}{error.strerror or error}"
            raise NotWritableError(f"cannot write the registry {self.name}: {reason}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Who may write it may open it, and nobody else: whoever can open a file can hold a lock on it.
        with os.fdopen(os.open(self._root / _LOCK, _LOCK_FLAGS, 0o622), "wb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is not a regular file", str(self._root / _LOCK))
            if status.st_uid == user() and status.st_mode & 0o044:
                os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode) & ~0o044)
            lock(file.fileno())  # given back when the file is closed, and by the system when we are killed
            with Folder.at(str(self._root)) as root:
                _sweep(root)
                for name in _FOLDERS:
                    if name in root.names():
                        with root.folder(name) as folder:
                            _sweep(folder)
            yield

    def _place_of(self, path: str, statement: bytes) -> str:
        """Return where a statement goes: beside its artifact, also where there was another build before."""
        sha256 = Statement.read(statement)[0].sha256
        own, there = _own_signature(path, sha256), self._content(self._root / path)
        if (self._root / own).exists():
            return own
        with contextlib.suppress(SignatureError):
            return path if there is None or Statement.read(there)[0].sha256 == sha256 else own
        return own

    def _check_serial(self, head: str, additions: Sequence[Addition]) -> None:
        """Check that nobody has signed the branch meanwhile, which need not change its commit.

        Raises:
            StaleParentError: Somebody has.
        """
        new = next((addition.content for addition in additions if addition.path == INDEX_SIGNATURE), None)
        with contextlib.suppress(EntryMissingError, SignatureError):
            now = self.read(Snapshot(revision=BRANCH, commit=head), INDEX_SIGNATURE)
            there = IndexStatement.read(now)[0].serial
            if isinstance(new, bytes) and IndexStatement.read(new)[0].serial <= there:
                raise StaleParentError(f"{self.name}: serial {there} was published meanwhile")

    def _put(self, addition: Addition) -> None:
        """Write a file, unless it is there and whole. An artifact takes no other's place."""
        content = addition.content if isinstance(addition.content, bytes) else read_regular(addition.content, MAX_FILE)
        sha256 = hashlib.sha256(content).hexdigest()
        addition.check(sha256)
        if addition.path.endswith(SIGNATURE) and addition.path.startswith("targets/"):
            addition = replace(addition, path=self._place_of(addition.path, content))
        found = self._find(addition.path, sha256)
        if found is None or file_sha256(found) != sha256:
            plain = self._root / addition.path
            place = self._own(addition.path, sha256) if plain.exists() else plain
            with Folder.at(str(self._root)) as folder:  # whose own folders are no links: nothing is written elsewhere
                if place.parent != self._root:
                    folder = folder.make(place.parent.name, 0o777)  # noqa: PLW2901
                folder.write(place.name, content, sync=True, mode=0o666)


def _sweep(folder: Folder) -> None:
    """Remove what somebody who was killed left unfinished."""
    for name in folder.names():
        if name.startswith(_UNFINISHED):
            folder.discard(name)


def _sha1(index: bytes) -> str:
    return hashlib.sha1(index, usedforsecurity=False).hexdigest()


def _kept(commit: str, end: str = ".json") -> str:
    """Return where an index is that is not that of the branch any more, or what was signed of any."""
    return f"indexes/{commit}{end}"


def _own_signature(path: str, sha256: str) -> str:
    """Return where the statement of one build of an artifact lies, by the path of that of any."""
    return f"{path.removesuffix(SIGNATURE)}-{sha256[:16]}{SIGNATURE}"


def _unreadable(place: Path, error: OSError) -> RegistryError:
    return RegistryError(f"cannot read {place}: {error.strerror or error}", hint="check its permissions")
