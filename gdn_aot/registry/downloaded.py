"""A downloaded file before anything of it is used: it must be what the index lists and what its publisher signed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from msgspec import to_builtins

from gdn_aot.errors import Problem, VerificationError
from gdn_aot.registry.layout import entry_of
from gdn_aot.trust.envelope import refused

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.registry.layout import Entry
    from gdn_aot.trust.statement import Statement

_LONGEST = 200
"""Characters of one field in a message."""


def verified(path: Path, entry: Entry, statement: Statement | None) -> Artifact:
    """Open a downloaded file: it must be the one that the index lists, sound, and what the index says of it.

    Where its publisher has signed it, it must be what is said there, too. Its blobs are checked while they are
    installed.

    Raises:
        VerificationError: It is not.
    """
    from gdn_aot.artifact.verify import open_artifact

    artifact = open_artifact(path, lambda size, sha256: _same_file(entry, size, sha256), lazy=True)
    there, here = to_builtins(entry), to_builtins(entry_of(artifact))
    problems = [
        Problem(name, f"{_shown(there[name])} in the index, {_shown(here[name])} in the file")
        for name in there
        if there[name] != here[name]
    ]
    if problems:
        raise VerificationError("the file is not what the index says of it", problems)
    if statement is not None:
        check_signed(artifact, statement)
    return artifact


def check_signed(artifact: Artifact, statement: Statement) -> None:
    """Check that an artifact with the right SHA-256 has the manifest and gives the index that were signed.

    Raises:
        SignatureError: It has, or gives, another one: it was signed by a program that is not as ours.
    """
    from gdn_aot.store.index_writer import index_roots

    if hashlib.sha256(artifact.manifest_json).hexdigest() != statement.manifest_sha256:
        raise refused("is for another manifest than the one in the file")
    for name, root in index_roots(artifact).items():
        if statement.index_sha256.get(name, root) != root:
            raise refused("is for another index than the file gives here", hint="upgrade gdn-aot")


def _same_file(entry: Entry, size: int, sha256: str) -> None:
    """Compare a file with what the index says.

    Raises:
        VerificationError: It is another one.
    """
    problems = []
    if size != entry.size:
        problems.append(Problem("size", f"{size} bytes, expected {entry.size}"))
    if sha256 != entry.sha256:
        problems.append(Problem("sha256", f"{sha256}, expected {entry.sha256}"))
    if problems:
        raise VerificationError("its bytes are not those that the index lists", problems)


def _shown(value: object) -> str:
    """Return a field of an entry as messages show it: in ASCII, and not long."""
    text = ascii(value)[1:-1] if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
