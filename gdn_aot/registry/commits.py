"""The file of one commit of a directory registry: bytes to `Commit` and back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gdn_aot.artifact.reader import DIGEST, JsonObject, ProblemList, check_format, load_json

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
"""Version of what is below ``.registry``, and of a commit's file."""

_MAX_COMMIT = 32 << 20
"""Bytes of a commit's file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file of a state."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """One state."""

    format: int = FORMAT
    parent: str | None
    message: str
    files: tuple[File, ...]
    """Sorted by path."""

    def to_bytes(self) -> bytes:
        """Return the bytes of its file."""
        return json.dumps(asdict(self), ensure_ascii=True, indent=1).encode("ascii") + b"\n"


def commit_name(content: bytes) -> str:
    """Return the name of a commit: the SHA-1 of its file."""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def parse_commit(content: bytes, commit: str, path: Path) -> Commit:
    """Parse a commit's file.

    Raises:
        UnknownFormatError: It is of another format version.
        VerificationError: It is damaged.
    """
    problems = ProblemList()
    message = f"{path} is damaged"
    if commit_name(content) != commit:
        problems.add("", "its content is not what its name says")
    problems.raise_any(message)
    raw = load_json(content, commit, _MAX_COMMIT, problems)
    problems.raise_any(message)
    check_format(raw, "commit", FORMAT, problems)
    problems.raise_any(message)
    o = JsonObject(raw, "", Commit, problems)
    found = Commit(
        format=o.integer("format"),
        parent=o.optional("parent", o.text),
        message=o.text("message"),
        files=o.children("files", File, _file),
    )
    problems.raise_any(message)
    return found


def _file(o: JsonObject) -> File:
    file = File(path=o.text("path"), sha256=o.text("sha256"), size=o.integer("size"))
    if not DIGEST.fullmatch(file.sha256):
        o.refuse("sha256", "expected 64 lower-case hexadecimal digits")
    parts = file.path.split("/")
    if "\0" in file.path or "\\" in file.path or any(part in ("", ".", "..") for part in parts):
        o.refuse("path", "expected a relative path with forward slashes, without . and ..")
    return file
