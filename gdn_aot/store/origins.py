"""Where the artifacts of a store were fetched from: a small file beside each. Written by `gdn_aot.store.install`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from gdn_aot.codec import Form, Record
from gdn_aot.errors import UntrustedError, VerificationError
from gdn_aot.store.folder import Folder, open_place

if TYPE_CHECKING:
    from gdn_aot.store.store import Store

ORIGIN = "origin.json"
"""File name of the list of `Origin` in an artifact's directory: one for each revision asked for, the newest last."""
_ORIGINS = 16
"""Origins kept of one artifact, those that came last."""


class Origin(Record, frozen=True, omit_defaults=True):
    """Where an artifact was fetched from."""

    repo: str
    """As its registry names itself; never a token."""
    revision: str
    """Branch, tag or commit that was asked for."""
    commit: str
    """40 hexadecimal digits."""
    carried: bool = False
    """From a bundle, whose word it is what revision and commit it was."""
    unsigned: bool = False
    """Nobody's signature of it counted, and the user had allowed that for this repository."""


class _Origins(Record, frozen=True):
    format: int
    fetched: tuple[Origin, ...]


_FORM = Form(_Origins, "where the artifact is from", format=1, limit=1 << 20)


def identity(place: str) -> str:
    """Return the identifier that the name of an artifact's directory begins with."""
    return os.path.basename(place).rpartition("-")[0]


def read_origins(place: str) -> tuple[Origin, ...]:
    """Return where the artifact in a directory of the store was fetched from; nothing if that cannot be read."""
    try:
        with open_place(place) as folder:
            return _FORM.decode(folder.read(ORIGIN, _FORM.limit)).fetched
    except (OSError, VerificationError):
        return ()


def allows_unsigned(store: Store, repo: str) -> bool:
    """Say whether artifacts of a repository that nobody signed were allowed before: one of them is installed.

    What somebody else than root or this user may have written allows nothing.
    """
    places = filter(_is_ours, store.artifacts())
    return any(origin.repo == repo and origin.unsigned for place in places for origin in read_origins(place))


def allowed_unsigned(place: str) -> bool:
    """Say whether an installed artifact is there because it was allowed though nobody signed it."""
    return _is_ours(place) and any(origin.unsigned for origin in read_origins(place))


def _is_ours(place: str) -> bool:
    try:
        with open_place(place) as folder:
            folder.check_trust()
            os.close(folder.trusted_file(ORIGIN))
    except (OSError, UntrustedError):
        return False
    return True


def write_origins(folder: Folder, origins: tuple[Origin, ...]) -> None:
    """Say where the artifact in a directory was fetched from.

    Raises:
        OSError: It cannot be written.
    """
    folder.write(ORIGIN, _FORM.encode(_Origins(format=1, fetched=origins)), sync=True)


def with_origin(known: tuple[Origin, ...], origin: Origin | None) -> tuple[Origin, ...]:
    """Return the origins of an artifact with one more.

    The same revision of the same repository replaces what it was before. Other revisions stay, so that each of them can
    be answered offline.
    """
    if origin is None or origin in known:
        return known
    asked = origin.repo, origin.revision
    return (*[item for item in known if (item.repo, item.revision) != asked][1 - _ORIGINS :], origin)


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
            moved = tuple(
                msgspec.structs.replace(item, revision=item.commit)
                if (item.repo, item.revision) == (origin.repo, origin.revision)
                else item
                for item in known
            )
            if moved != known:
                with open_place(other) as folder:
                    before = folder.own_status()
                    write_origins(folder, tuple(dict.fromkeys(moved)))
                    folder.touch((before.st_atime_ns, before.st_mtime_ns))
