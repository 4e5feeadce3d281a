"""``gdn-aot.lock``: the artifacts that a deployment uses, each pinned by commit and SHA-256.

The same selection of the same commit gives the same bytes.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._files import write_whole
from gdn_aot.artifact.reader import DIGEST, JsonObject, ProblemList, check_format, load_json
from gdn_aot.errors import NotWritableError, Problem, UnknownFormatError, UsageError, VerificationError
from gdn_aot.registry.base import COMMIT, check_revision, locate
from gdn_aot.registry.layout import MAX_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.registry.layout import Entry

FORMAT = 1
NAME = "gdn-aot.lock"
MAX_BYTES = 4 << 20
"""Bytes of a lock file: some 10,000 artifacts."""

_IDENTIFIER = re.compile(
    r"(?P<provider>[a-z][a-z_]*)(?P<version>[0-9][A-Za-z0-9._+!]*)"
    r"-triton(?P<triton>[0-9][A-Za-z0-9._+!]*)-(?P<target>sm_[0-9]{2,4})"
)
"""What `gdn_aot.artifact.names.make_identifier` returns: no name of a provider has a digit, no version a hyphen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedArtifact:
    """One artifact that is pinned."""

    identifier: str
    sha256: str
    """Of the ``.tar.zst`` file."""
    size: int
    """Its bytes."""

    def _part(self, name: str) -> str:
        match = _IDENTIFIER.fullmatch(self.identifier)
        return match[name] if match else ""

    @property
    def provider(self) -> str:
        """Return the name of the provider."""
        return self._part("provider")

    @property
    def version(self) -> str:
        """Return the version of its distribution."""
        return self._part("version")

    @property
    def triton(self) -> str:
        """Return the version of Triton."""
        return self._part("triton")

    @property
    def target(self) -> str:
        """Return for example ``sm_120``."""
        return self._part("target")


@dataclass(frozen=True, kw_only=True, slots=True)
class LockFile:
    """``gdn-aot.lock``."""

    format: int = FORMAT
    repository: str
    """``hf://org/name``, or a directory: absolute, or relative to the lock file's with ``./`` or ``../`` in front."""
    revision: str
    """What was asked for when it was written."""
    commit: str
    """What that was: 40 hexadecimal digits."""
    artifacts: tuple[LockedArtifact, ...]
    """Sorted by identifier."""


def make_lock(repo: str, revision: str, commit: str, entries: Sequence[Entry], folder: Path) -> LockFile:
    """Return a lock file of a selection.

    Args:
        repo: What ``--repo`` held; a relative directory is kept relative.
        revision: What was asked for.
        commit: The state of the registry that the entries are of.
        entries: What was selected.
        folder: Where the lock file will be.
    """
    location = locate(repo)
    repository = location.name
    if not location.hub and not repo.startswith(("/", "~", "file:")):
        relative = Path(os.path.relpath(location.place, folder.absolute())).as_posix()
        repository = relative if relative.startswith("../") else f"./{relative}"
    artifacts = [
        LockedArtifact(identifier=entry.identifier, sha256=entry.sha256, size=entry.size)
        for entry in sorted(entries, key=lambda entry: entry.identifier)
    ]
    return LockFile(repository=repository, revision=revision, commit=commit, artifacts=tuple(artifacts))


def repository_of(lock: LockFile, path: Path) -> str:
    """Return the registry of a lock file in the form that ``--repo`` takes.

    Args:
        lock: Its content.
        path: Where it is.
    """
    if lock.repository.startswith(("./", "../")):
        return os.path.abspath(path.parent / lock.repository)  # noqa: PTH100 - without following links
    return lock.repository


def to_bytes(lock: LockFile) -> bytes:
    """Return the bytes of a lock file: ASCII, indented, keys in the order of the fields."""
    return json.dumps(asdict(lock), ensure_ascii=True, indent=2).encode("ascii") + b"\n"


def write_lock(path: Path, lock: LockFile) -> bool:
    """Write a lock file, whole or not at all; say whether that changed anything.

    Raises:
        NotWritableError: It cannot be written.
    """
    content = to_bytes(lock)
    try:
        if path.is_file() and path.read_bytes() == content:
            return False
        write_whole(path, content)
    except OSError as error:
        raise NotWritableError(f"cannot write {path}: {error.strerror or error}") from error
    return True


def read_lock(path: Path) -> LockFile:
    """Read a lock file and check that it makes sense.

    Raises:
        UsageError: There is none, or it cannot be read.
        VerificationError: It is damaged; every problem has its path. `UnknownFormatError` if of another format.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"there is no lock file {path}", hint="gdn-aot lock writes it") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="name another with --lock-file") from error
    try:
        return parse_lock(data)
    except UnknownFormatError as error:
        hint = "upgrade gdn-aot, or write it anew: gdn-aot lock"
        raise UnknownFormatError(f"{path}: {error.message}", error.problems, hint=hint) from error
    except VerificationError as error:
        hint = "take it from version control again, or write it anew: gdn-aot lock"
        raise VerificationError(f"{path}: {error.message}", error.problems, hint=hint) from error


def parse_lock(data: bytes) -> LockFile:
    """Parse a lock file and check that it makes sense.

    Raises:
        UnknownFormatError: It is of another format version; nothing else was looked at.
        VerificationError: Something is missing, unknown, of the wrong type or makes no sense.
    """
    problems = ProblemList()
    raw = load_json(data, "the lock file", MAX_BYTES, problems)
    problems.raise_any("the lock file cannot be read")
    check_format(raw, "lock file", FORMAT, problems)
    problems.raise_any("the lock file cannot be read")
    lock = _lock(JsonObject(raw, "", LockFile, problems))
    problems.raise_any("the lock file is malformed")
    for where, what in _check(lock):
        problems.add(where, what)
    problems.raise_any("the lock file makes no sense")
    return lock


def changes(old: LockFile, new: LockFile) -> Iterator[Problem]:
    """Yield what differs between two lock files, the old one's paths in front."""
    for name in ("repository", "revision", "commit"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield Problem(name, f"is {before}, would be {after}")
    before = {artifact.identifier: artifact.sha256 for artifact in old.artifacts}
    after = {artifact.identifier: artifact.sha256 for artifact in new.artifacts}
    for identifier in sorted({*before, *after}):
        if identifier not in after:
            yield Problem(identifier, "would be left out")
        elif identifier not in before:
            yield Problem(identifier, "would be added")
        elif before[identifier] != after[identifier]:
            yield Problem(identifier, f"sha256 is {before[identifier]}, would be {after[identifier]}")


def _lock(o: JsonObject) -> LockFile:
    return LockFile(
        format=o.integer("format"),
        repository=o.text("repository"),
        revision=o.text("revision"),
        commit=o.text("commit"),
        artifacts=o.children("artifacts", LockedArtifact, _artifact),
    )


def _artifact(o: JsonObject) -> LockedArtifact:
    return LockedArtifact(identifier=o.text("identifier"), sha256=o.text("sha256"), size=o.integer("size"))


def _check(lock: LockFile) -> Iterator[tuple[str, str]]:
    try:
        if locate(lock.repository).revision is not None:
            yield "repository", "expected no revision here: commit has it"
        elif not lock.repository.startswith(("hf://", "/", "./", "../")):
            yield "repository", "expected hf://org/name, an absolute directory, or one with ./ in front"
    except UsageError as error:
        yield "repository", error.message
    try:
        check_revision(lock.revision)
    except UsageError as error:
        yield "revision", error.message
    if not COMMIT.fullmatch(lock.commit):
        yield "commit", "expected 40 lower-case hexadecimal digits"
    yield from _check_artifacts(lock)


def _check_artifacts(lock: LockFile) -> Iterator[tuple[str, str]]:
    if not lock.artifacts:
        yield "artifacts", "is empty"
    for number, (left, right) in enumerate(pairwise(lock.artifacts), start=1):
        if left.identifier >= right.identifier:
            what = "is listed twice" if left.identifier == right.identifier else "is out of order"
            yield f"artifacts[{number}].identifier", what
    for number, artifact in enumerate(lock.artifacts):
        if not _IDENTIFIER.fullmatch(artifact.identifier):
            yield f"artifacts[{number}].identifier", "does not look like fla0.6.0-triton3.6.0-sm_90"
        if not DIGEST.fullmatch(artifact.sha256):
            yield f"artifacts[{number}].sha256", "expected 64 lower-case hexadecimal digits"
        if not 0 < artifact.size <= MAX_FILE:
            yield f"artifacts[{number}].size", f"expected 1 to {MAX_FILE} bytes"
