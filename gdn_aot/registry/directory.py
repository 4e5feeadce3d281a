"""A registry in a directory: the files of the moving branch to look at, and below ``.registry`` all states there were.

::

    DIR/README.md, index.json, targets/...     the files of branch v1: to browse, copy or serve
    DIR/.registry/format                       "1"
    DIR/.registry/objects/ab/ab12...           contents by SHA-256; the files above are hard links to them if possible
    DIR/.registry/commits/<40 hex>             one state: its parent, message and files
    DIR/.registry/refs/branches/NAME, refs/tags/NAME
    DIR/.registry/lock                         held by whoever writes
    DIR/.registry/new/                         files that have not got their name yet

A reference is written last and renamed into place, so whoever is killed leaves the state before. Readers take no lock
and need no right to write. A directory that has only the files is read as one state, and becomes a full registry when
something is published into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._files import file_sha256, write_whole
from gdn_aot.errors import (
    ConflictError,
    EntryMissingError,
    NotWritableError,
    Problem,
    RegistryError,
    RepositoryMissingError,
    RevisionMissingError,
    StaleParentError,
    UsageError,
    VerificationError,
)
from gdn_aot.registry.base import COMMIT, MAX_READ, Addition, Refs, Snapshot, check_revision
from gdn_aot.registry.commits import FORMAT, Commit, File, commit_name, parse_commit
from gdn_aot.registry.layout import CARD, INDEX, artifact_path, branch_name, entry_path, parse_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


class DirectoryRegistry:
    """A registry in a directory of this machine.

    Args:
        root: The directory, as an absolute path. It need not be there yet.
    """

    def __init__(self, root: str) -> None:
        self.name = root
        self._root = Path(root)
        self._own = self._root / ".registry"

    def refs(self) -> Refs:
        """Return branches and tags; a directory without history has the one branch that it is a copy of."""
        if self._plain():
            return Refs(branches={branch_name(): self._plain_commit()}, tags={})
        return Refs(branches=self._names("branches"), tags=self._names("tags"))

    def resolve(self, revision: str) -> Snapshot:
        """Return what a branch, tag or commit is now; see `gdn_aot.registry.base.Registry.resolve`."""
        check_revision(revision)
        if COMMIT.fullmatch(revision):
            return Snapshot(revision=revision, commit=revision)
        refs = self.refs()
        commit = refs.branches.get(revision) or refs.tags.get(revision)
        if commit is None:
            known = ", ".join(sorted({*refs.branches, *refs.tags})) or "nothing yet"
            raise RevisionMissingError(f"{self.name} has no revision {revision}", hint=f"it has {known}")
        return Snapshot(revision=revision, commit=commit)

    def read(self, snapshot: Snapshot, path: str) -> bytes:
        """Return a small file, whose digest is checked; see `gdn_aot.registry.base.Registry.read`."""
        place, file = self._find(snapshot, path)
        try:
            if place.stat().st_size > MAX_READ:
                raise RegistryError(f"{place} is larger than {MAX_READ} bytes", hint="this is not a registry's file")
            content = place.read_bytes()
        except OSError as error:
            raise self._unreadable(place, error) from error
        if file is not None and hashlib.sha256(content).hexdigest() != file.sha256:
            problem = Problem(path, f"{place} does not have the SHA-256 that its name says")
            raise VerificationError(f"{self.name} is damaged", [problem], hint="publish the artifact again")
        return content

    def download(self, snapshot: Snapshot, path: str, size: int) -> Path:
        """Return where a file is; see `gdn_aot.registry.base.Registry.download`. Nothing is copied."""
        place, _ = self._find(snapshot, path)
        try:
            found = place.stat().st_size
        except OSError as error:
            raise self._unreadable(place, error) from error
        if found != size:
            problem = Problem(path, f"has {found} bytes, expected {size}")
            raise VerificationError(f"{self.name} is damaged", [problem], hint="publish the artifact again")
        return place

    def forget(self, snapshot: Snapshot, path: str) -> None:
        """Do nothing: no copy was made that could be wrong."""

    def create(self, *, private: bool) -> bool:
        """Make the directory unless a registry is there; ``private`` lets nobody else into it, also if it was empty.

        Raises:
            ConflictError: It has other files.
            NotWritableError: It cannot be made.
        """
        if self._plain() or (self._own / "format").exists():
            return False
        with self._writing():
            others = self._root.is_dir() and any(entry.name != ".registry" for entry in self._root.iterdir())
            if others and not (self._own / "format").exists():  # else somebody made it just now and published
                raise ConflictError(f"{self.name} has files in it and is no registry", hint="name a new directory")
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
            if private and not (self._own / "format").exists():
                self._root.chmod(0o700)
            with self._locked():
                if (self._own / "format").exists():
                    return False
                self._prepare()
                self._write_format()
        return True

    def commit(self, branch: str, parent: str | None, additions: Sequence[Addition], message: str) -> str:
        """Add files to a branch; see `gdn_aot.registry.base.Registry.commit`."""
        _check_name(branch)
        self._expect_there()
        with self._writing(), self._locked():
            head = self.refs().branches.get(branch)
            if head != parent:
                raise StaleParentError(f"{self.name}: branch {branch} is at {head or 'nothing'}, not at {parent}")
            self._prepare()
            if head is not None and self._plain():
                head = self._adopt()
            files = {file.path: file for file in self._commit(head).files} if head is not None else {}
            files |= {addition.path: self._store(addition) for addition in additions}
            return self._advance(branch, head, files, message)

    def tag(self, name: str, commit: str) -> None:
        """Name a commit for good; see `gdn_aot.registry.base.Registry.tag`."""
        _check_name(name)
        self._expect_there()
        with self._writing(), self._locked():
            found = self._names("tags").get(name)
            if found not in (None, commit):
                raise ConflictError(f"{self.name}: the tag {name} names {found}, not {commit}")
            self._commit(commit)
            self._write_ref("tags", name, commit)

    def settle(self, branch: str, additions: Sequence[Addition]) -> None:
        """Put right what a writer that was killed, or a hand, left; see `gdn_aot.registry.base.Registry.settle`."""
        if self._plain() or not os.access(self._own / "refs", os.W_OK):
            return
        with self._writing(), self._locked():
            for addition in additions:
                self._store(addition)
            head = self._names("branches").get(branch)
            if head is not None and branch == branch_name():
                self._show_all(self._commit(head).files)

    # What is there

    def _plain(self) -> bool:
        """Say whether this is a copy of a registry's files, without history."""
        return (self._root / INDEX).is_file() and not (self._own / "format").exists()

    def _plain_commit(self) -> str:
        try:
            content = (self._root / INDEX).read_bytes()
        except OSError as error:
            raise self._unreadable(self._root / INDEX, error) from error
        return commit_name(content)

    def _expect_there(self) -> None:
        if self._plain():
            return
        if not self._root.is_dir():
            raise RepositoryMissingError(f"there is no directory {self.name}", hint="publish with --create to make it")
        path = self._own / "format"
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            hint = "publish with --create to make one in an empty directory"
            raise RepositoryMissingError(f"the directory {self.name} is no registry", hint=hint) from error
        except OSError as error:
            raise self._unreadable(path, error) from error
        if content.strip() != str(FORMAT).encode():
            problem = Problem(str(path), f"is not {FORMAT}, the only format known")
            raise VerificationError(f"{self.name} is of another format", [problem], hint="upgrade gdn-aot")

    def _names(self, kind: str) -> dict[str, str]:
        self._expect_there()
        found = {}
        folder = self._own / "refs" / kind
        try:
            places = sorted(folder.iterdir()) if folder.is_dir() else []
            for place in places:
                if not place.name.startswith("."):
                    found[place.name] = place.read_text("ascii", "replace").strip()
        except OSError as error:
            raise self._unreadable(folder, error) from error
        for name, commit in found.items():
            if not COMMIT.fullmatch(commit):
                problem = Problem(f"{folder}/{name}", "does not name a commit")
                raise VerificationError(f"{self.name} is damaged", [problem], hint="write the right commit into it")
        return found

    def _find(self, snapshot: Snapshot, path: str) -> tuple[Path, File | None]:
        """Return where a file is, and what is known about it; nothing in a directory without history."""
        missing = f"{self.name} at {snapshot.revision} has no {path}"
        self._expect_there()
        if self._plain():
            if snapshot.commit != self._plain_commit():
                raise RevisionMissingError(f"{self.name} has no commit {snapshot.commit}, or was changed meanwhile")
            place = self._root / path
            if not place.is_file():
                raise EntryMissingError(missing)
            return place, None
        file = next((file for file in self._commit(snapshot.commit).files if file.path == path), None)
        if file is None:
            raise EntryMissingError(missing)
        return self._object(file.sha256), file

    def _object(self, sha256: str) -> Path:
        return self._own / "objects" / sha256[:2] / sha256

    def _commit(self, commit: str) -> Commit:
        path = self._own / "commits" / commit
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise RevisionMissingError(f"{self.name} has no commit {commit}") from error
        except OSError as error:
            raise self._unreadable(path, error) from error
        return parse_commit(content, commit, path)

    def _unreadable(self, path: Path, error: OSError) -> RegistryError:
        return RegistryError(f"cannot read {path}: {error.strerror or error}", hint="check its permissions")

    # Writing, all of it under the lock

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NotWritableError(f"cannot write the registry {self.name}: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._own.mkdir(exist_ok=True)
        with (self._own / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, and by the system when we are killed
            for folder in (".", "new", "commits", "refs/branches", "refs/tags"):
                for left in (self._own / folder).glob(".tmp-*"):
                    left.unlink()  # by somebody who was killed
            yield

    def _prepare(self) -> None:
        for name in ("objects", "new", "commits", "refs/branches", "refs/tags"):
            (self._own / name).mkdir(parents=True, exist_ok=True)

    def _temporary(self) -> Path:
        return self._own / "new" / f".tmp-{os.urandom(8).hex()}"

    def _write_format(self) -> None:
        """Make this a registry with history."""
        write_whole(self._own / "format", f"{FORMAT}\n".encode(), sync=True)

    def _store(self, addition: Addition) -> File:
        """Put a content among the objects, unless it is there and whole."""
        content = addition.content
        if isinstance(content, bytes):
            sha256, size = hashlib.sha256(content).hexdigest(), len(content)
        else:
            sha256, size = file_sha256(content), content.stat().st_size
        place = self._object(sha256)
        if not (place.is_file() and file_sha256(place) == sha256):
            place.parent.mkdir(exist_ok=True)
            temporary = self._temporary()
            try:
                if isinstance(content, bytes):
                    write_whole(temporary, content, sync=True)
                else:
                    _copy(content, temporary)
                _expect_digest(temporary, sha256, content)
                temporary.chmod(0o444)  # the files to look at are links to it: writing into one would change history
                temporary.replace(place)
            finally:
                temporary.unlink(missing_ok=True)
        if addition.sha256 not in (None, sha256):
            _expect_digest(place, str(addition.sha256), content)
        return File(path=addition.path, sha256=sha256, size=size)

    def _advance(self, branch: str, parent: str | None, files: Mapping[str, File], message: str) -> str:
        """Write a commit, show its files if its branch is the one shown, and let the branch name it."""
        content = Commit(parent=parent, message=message, files=tuple(files[path] for path in sorted(files))).to_bytes()
        commit = commit_name(content)
        write_whole(self._own / "commits" / commit, content, sync=True)
        if branch == branch_name():
            self._show_all(files.values())
        self._write_ref("branches", branch, commit)
        return commit

    def _show_all(self, files: Iterable[File]) -> None:
        for file in sorted(files, key=lambda file: file.path == INDEX):  # the index names nothing that is not yet there
            self._show(file)

    def _show(self, file: File) -> None:
        """Let a file of the tree have the content of its object, as a link if the file system can."""
        place, content = self._root / file.path, self._object(file.sha256)
        if place.is_file():
            if place.samefile(content) or (place.stat().st_size == file.size and file_sha256(place) == file.sha256):
                return
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._temporary()
        try:
            try:
                temporary.hardlink_to(content)
            except OSError:
                _copy(content, temporary)
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)

    def _write_ref(self, kind: str, name: str, commit: str) -> None:
        write_whole(self._own / "refs" / kind / name, f"{commit}\n".encode(), sync=True)

    def _adopt(self) -> str:
        """Make the first commit of files that were copied here.

        Raises:
            EntryMissingError: A file that the index lists is not there.
            VerificationError: The index is damaged, or a file is not what the index says.
        """
        entries = parse_index((self._root / INDEX).read_bytes()).entries
        digests: dict[str, str | None] = {INDEX: None}
        digests |= {CARD: None} if (self._root / CARD).is_file() else {}
        for entry in entries:
            digests |= {artifact_path(entry.identifier): entry.sha256, entry_path(entry.identifier): None}
        files = {}
        for path, sha256 in digests.items():
            place = self._root / path
            if not place.is_file():
                raise EntryMissingError(
                    f"{self.name} lists {path} and does not have it", hint="copy the whole registry"
                )
            files[path] = self._store(Addition(path=path, content=place, sha256=sha256))
        commit = self._advance(branch_name(), None, files, "Adopt the files that were here")
        self._write_format()
        return commit


def _check_name(name: str) -> None:
    """Refuse a branch or tag that would not be one file.

    Raises:
        UsageError: It has a slash, or cannot be a revision at all.
    """
    if "/" in check_revision(name):
        raise UsageError(f"{name!r} cannot be a branch or tag of a directory", hint="name it without a slash")


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _expect_digest(place: Path, sha256: str, content: bytes | Path) -> None:
    if file_sha256(place) != sha256:
        source = "it" if isinstance(content, bytes) else str(content)
        problem = Problem(source, f"does not have the SHA-256 {sha256} that was expected of it")
        raise VerificationError("a file changed while it was published", [problem], hint="publish again")
