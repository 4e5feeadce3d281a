"""What registries were seen to have said: the newest keyrings, and the serials below which nothing is accepted.

Beside the store, in ``GDN_AOT_HOME/trust``. Whoever withholds a newer state of a registry is noticed by the serials;
what a newer keyring revokes is revoked for every process of this home (`gdn_aot.trust.known`).
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from gdn_aot._files import is_folder, read_regular
from gdn_aot.codec import Form, Record
from gdn_aot.errors import Problem, SignatureError, VerificationError
from gdn_aot.store.folder import Folder
from gdn_aot.store.install import writing
from gdn_aot.trust.known import BESIDE, checked_path, file_name, learned_path
from gdn_aot.trust.statement import MAX_SERIAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.store.lock import Waiting
    from gdn_aot.store.store import Store
    from gdn_aot.trust.keyring import SignedKeyring

_END = ".seen.json"
Serial = Annotated[int, Meta(ge=0, le=MAX_SERIAL)]


class Seen(Record, kw_only=True):
    """The highest serials that a repository was seen to have."""

    format: int = 1
    repo: str
    index: Serial = 0
    """Of its index."""
    artifacts: dict[str, Serial] = msgspec.field(default_factory=dict)
    """Of each artifact, by its identifier."""
    places: tuple[str, ...] = ()
    """Directories that were seen to be signed by it."""
    published: dict[str, Serial] = msgspec.field(default_factory=dict)
    """What was published from here: the serial by the registry."""


_FORM = Form(Seen, "what was seen of a registry", format=1, limit=4 << 20)


def read_seen(repo: str, home: str) -> Seen:
    """Return what a repository was seen to have; nothing if it never was.

    Raises:
        SignatureError: That cannot be read, so that an older state could not be told from a newer one.
    """
    seen = _read(_path(repo, home))
    return seen if seen is not None and seen.repo == repo else Seen(repo=repo)


def _read(path: str) -> Seen | None:
    try:
        return _FORM.decode(read_regular(path, _FORM.limit))
    except FileNotFoundError:
        return None
    except (OSError, VerificationError) as error:
        what = f"cannot be read: {error}"
        hint = "remove it, once you are sure that the registry is not an older state of itself"
        raise SignatureError(f"{path} {what}", [Problem(path, what)], hint=hint) from error


def remember(
    store: Store,
    repo: str,
    keyrings: Sequence[SignedKeyring] = (),
    *,
    checked: str = "",
    index: int = 0,
    artifacts: Mapping[str, int] | None = None,
    place: str = "",
    published: Mapping[str, int] | None = None,
    waiting: Waiting | None = None,
) -> None:
    """Keep the keyrings that follow the one which somebody put into its place, and the serials that were accepted.

    Nothing is written that is known already; a serial is never lowered. ``checked`` is the SHA-256 of the keyring in
    its place, which was verified; ``place`` is the directory that the repository was seen in, if it was one,
    ``published`` the serial of what was published from here, by the registry.

    Raises:
        NotWritableError: The home cannot be written.
        SignatureError: What is there cannot be read.
    """
    chain = b"".join(keyring.envelope.encode() for keyring in keyrings)
    files = {learned_path(repo, store.home): chain, checked_path(repo, store.home): checked.encode()}
    lacking = {path: content for path, content in files.items() if content and not _has(path, content)}
    news = partial(_raised, index=index, artifacts=artifacts or {}, place=place, published=published or {})
    if not lacking and not news(read_seen(repo, store.home)):
        return
    with writing(store, waiting, make=True), Folder.at(store.home) as home, home.make(BESIDE) as folder:
        for path, content in lacking.items():
            folder.write(path.rpartition("/")[2], content, sync=True)
        if seen := news(read_seen(repo, store.home)):
            folder.write(_name(repo), _FORM.encode(seen), sync=True)


def publisher_seen(place: str, home: str) -> str:
    """Return the repository that a directory was seen to be signed by, or nothing.

    Raises:
        SignatureError: What was seen cannot be read.
    """
    folder = f"{home}/{BESIDE}"
    for name in sorted(os.listdir(folder)) if home and is_folder(folder) else ():
        if name.endswith(_END):
            seen = _read(f"{folder}/{name}")
            if seen is not None and place in seen.places:
                return seen.repo
    return ""


def _raised(
    seen: Seen, *, index: int, artifacts: Mapping[str, int], place: str, published: Mapping[str, int]
) -> Seen | None:
    """Return what was seen with higher serials and one place more, or None if none is new."""
    places = sorted({*seen.places, place} - {""})
    new = Seen(
        repo=seen.repo,
        index=max(index, seen.index),
        artifacts=_highest(seen.artifacts, artifacts),
        places=tuple(places),
        published=_highest(seen.published, published),
    )
    return None if new == seen else new


def _highest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in sorted({*one, *other})}


def _has(path: str, content: bytes) -> bool:
    try:
        return read_regular(path, len(content)) == content
    except OSError:
        return False


def _path(repo: str, home: str) -> str:
    return f"{home}/{BESIDE}/{_name(repo)}"


def _name(repo: str) -> str:
    return f"{file_name(repo).removesuffix('.json')}{_END}"
