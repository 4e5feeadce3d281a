"""Where the artifacts of a store were fetched from: a small file beside each. Written by `gdn_aot.store.install`."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._files import write_whole

if TYPE_CHECKING:
    from gdn_aot.store.store import Store

ORIGIN = "origin.json"
"""File name of the list of `Origin` in an artifact's directory: one for each revision asked for, the newest last."""
_ORIGINS = 16
"""Origins kept of one artifact, those that came last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where an artifact was fetched from."""

    repo: str
    """As its registry names itself; never a token."""
    revision: str
    """Branch, tag or commit that was asked for."""
    commit: str
    """40 hexadecimal digits."""


def identity(place: str) -> str:
    """Return the identifier that the name of an artifact's directory begins with."""
    return Path(place).name.rpartition("-")[0]


def read_origins(place: str) -> list[Origin]:
    """Return where the artifact in a directory of the store was fetched from; nothing if that cannot be read."""
    with (
        suppress(OSError, ValueError, TypeError, AttributeError, RecursionError),
        Path(place, ORIGIN).open("rb") as file,
    ):
        found = json.load(file)
        if all(isinstance(text, str) for item in found for text in item.values()):
            return [Origin(**item) for item in found]
    return []


def with_origin(place: str, origin: Origin | None) -> dict[str, bytes]:
    """Return the file of an artifact's origins with one more, by its name; nothing if that is no news.

    The same revision of the same repository replaces what it was before. Other revisions stay, so that each of them can
    be answered offline.
    """
    known = read_origins(place)
    if origin is None or origin in known:
        return {}
    asked = origin.repo, origin.revision
    kept = [item for item in known if (item.repo, item.revision) != asked][1 - _ORIGINS :]
    return {ORIGIN: json.dumps([asdict(item) for item in (*kept, origin)], indent=1).encode() + b"\n"}


def outdate(store: Store, place: str, origin: Origin | None) -> None:
    """Let other builds of an artifact no longer be what a revision is: they are known by the commit that it was.

    Their order stays, which is that of the times of their directories.

    Raises:
        OSError: The store cannot be written.
    """
    if origin is None:
        return
    for other in store.artifacts():
        if other != place and identity(other) == identity(place):
            known = read_origins(other)
            moved = [
                replace(item, revision=item.commit)
                if (item.repo, item.revision) == (origin.repo, origin.revision)
                else item
                for item in known
            ]
            if moved != known:
                content = [asdict(item) for item in dict.fromkeys(moved)]
                before = Path(other).stat()
                write_whole(f"{other}/{ORIGIN}", json.dumps(content, indent=1).encode() + b"\n", sync=True)
                os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
