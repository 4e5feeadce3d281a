"""Bundles: what a machine without a network needs of one state of a registry, in one file. Reading them.

A bundle is a tar of the registry's own files: ``bundle.json``, which says of what it is, ``index.json`` and what was
signed of it, all versions of the keyring, and for each artifact its file, its statement, and its Sigstore bundle if it
has one. It is a registry of one state, read as every other: what counts in a registry counts here, and nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from gdn_aot._files import open_regular, read_at, write_whole
from gdn_aot.artifact import tar
from gdn_aot.artifact.names import SUFFIX
from gdn_aot.codec import Commit, Form, Record
from gdn_aot.errors import (
    EntryMissingError,
    NotWritableError,
    Problem,
    RegistryError,
    RevisionMissingError,
    UsageError,
    VerificationError,
)
from gdn_aot.machine import scratch
from gdn_aot.registry.base import MAX_READ, Carried, Refs, Registry, Snapshot, check_revision
from gdn_aot.registry.layout import BRANCH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.registry.base import Addition

NAME = "bundle.json"
MAX_BUNDLE = 8 << 30
"""Bytes of a bundle."""
_MOST_MEMBERS = 50_000
_HINT = "bring the bundle again: gdn-aot bundle makes it"


class About(Record, kw_only=True):
    """``bundle.json``: of what a bundle is."""

    format: int = 1
    repository: Annotated[str, Meta(max_length=300)]
    """Where it was made of, as that names itself."""
    revision: Annotated[str, Meta(max_length=200)]
    """What was asked for."""
    commit: Commit
    """What that was."""


ABOUT_FORM = Form(About, "what the bundle is of", format=1, limit=1 << 16)


class BundleRegistry(Registry):
    """The registry that a bundle is.

    Args:
        path: The file.

    Raises:
        RegistryError: It cannot be read.
        VerificationError: It is no bundle, or is damaged.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        try:
            self._file = open_regular(path)
        except OSError as error:
            raise RegistryError(
                f"cannot read {path}: {error.strerror or error}", hint="check its permissions"
            ) from error
        self._size = os.fstat(self._file).st_size
        self._members = dict(self._found())
        about = ABOUT_FORM.decode(self._content(NAME)) if NAME in self._members else None
        if about is None:
            raise self._damaged(f"has no {NAME}: it is no bundle")
        check_revision(about.revision)
        self.carried = Carried(repo=about.repository, revision=about.revision, commit=about.commit)

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)

    def refs(self) -> Refs:
        """Return the one state that it has."""
        return Refs(branches={BRANCH: self._about.commit}, tags={})

    def _commit_of(self, revision: str) -> str:
        if revision not in (BRANCH, self._about.revision):
            what = f"{self.name} is of {self._about.revision}, commit {self._about.commit}, not of {revision}"
            raise RevisionMissingError(what, hint="leave --revision out")
        return self._about.commit

    def read(self, snapshot: Snapshot, path: str) -> bytes:
        """Return a small file."""
        if path not in self._members or snapshot.commit != self._about.commit:
            raise EntryMissingError(f"{self.name} has no {path}")
        return self._content(path)

    def download(self, snapshot: Snapshot, path: str, size: int, sha256: str) -> Path:
        """Return where a file of it was unpacked to; see `gdn_aot.registry.base.Registry.download`."""
        content = self.read(snapshot, path)
        if len(content) != size:
            raise self._damaged(f"{path} has {len(content)} bytes, expected {size}")
        place = Path(scratch.make("bundle"), f"{sha256[:16]}{SUFFIX}")
        try:
            write_whole(place, content)
        except OSError as error:
            raise NotWritableError(f"cannot write {place}: {error.strerror or error}") from error
        return place

    def create(self, *, private: bool) -> bool:
        """Refuse: see `commit`."""
        del private
        raise self._fixed()

    def commit(self, branch: str, parent: str | None, additions: Sequence[Addition], message: str) -> str:
        """Refuse: a bundle is never changed."""
        del branch, parent, additions, message
        raise self._fixed()

    def tag(self, name: str, commit: str) -> None:
        """Refuse: see `commit`."""
        del name, commit
        raise self._fixed()

    @property
    def _about(self) -> Carried:
        assert self.carried is not None  # noqa: S101 - it is set when one is opened
        return self.carried

    def _found(self) -> list[tuple[str, tuple[int, int]]]:
        """Return (name, (offset, bytes)) of every member; each must be as it was written, and have its own name."""
        found: list[tuple[str, tuple[int, int]]] = []
        at = 0
        while at + tar.BLOCK <= self._size and len(found) < _MOST_MEMBERS:
            header = read_at(self._file, tar.BLOCK, at)
            if not any(header):
                if self._size - at != len(tar.END) or any(read_at(self._file, len(tar.END), at)):
                    raise self._damaged("continues after its end")
                if len({name for name, _ in found}) != len(found):
                    raise self._damaged("has a file twice")
                return found
            size = tar.content_size(header)
            name = header[:100].rstrip(b"\0").decode("ascii", "replace")
            if size is None or not name.isascii() or tar.encode(name, size, 0) != header:
                raise self._damaged(f"has a header at byte {at} that gdn-aot does not write")
            rest = tar.padding(size)
            if any(read_at(self._file, rest, at + tar.BLOCK + size)):
                raise self._damaged(f"has something between its files, at byte {at + tar.BLOCK + size}")
            found.append((name, (at + tar.BLOCK, size)))
            at += tar.member_size(size)
        raise self._damaged("is truncated, or no bundle")

    def _content(self, path: str) -> bytes:
        offset, size = self._members[path]
        if size > max(MAX_READ, 128 << 20):
            raise self._damaged(f"{path} is too large")
        content = read_at(self._file, size, offset)
        if len(content) != size:
            raise self._damaged(f"{path} is truncated")
        return content

    def _damaged(self, what: str) -> VerificationError:
        return VerificationError(f"the bundle {self.name} {what}", [Problem(self.name, what)], hint=_HINT)

    def _fixed(self) -> UsageError:
        return UsageError(
            f"{self.name} is a bundle, which is never changed", hint="publish to a directory or to the Hub"
        )


def write_bundle(path: Path, about: About, files: Mapping[str, bytes]) -> int:
    """Write a bundle, whole or not at all, and return its bytes. The same files give the same bytes.

    Raises:
        NotWritableError: It cannot be written.
        UsageError: A name is too long for a tar.
    """
    everything = {NAME: ABOUT_FORM.encode(about), **files}
    long = [name for name in everything if len(name) > 100]  # noqa: PLR2004 - what a header has room for
    if long:
        raise UsageError(f"{long[0]} is too long a name for a bundle", hint="leave this artifact out")
    pieces: list[bytes] = []
    for name, content in everything.items():
        pieces += [tar.encode(name, len(content), 0), content, bytes(tar.padding(len(content)))]
    whole = b"".join([*pieces, tar.END])
    try:
        write_whole(path, whole)
    except OSError as error:
        raise NotWritableError(f"cannot write {path}: {error.strerror or error}") from error
    return len(whole)
