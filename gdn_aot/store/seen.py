"""What registries were seen to have said: the newest keyrings, and the serials below which nothing is accepted.

Beside the store, in ``GDN_AOT_HOME/trust``. Whoever withholds a newer state of a registry is noticed by the serials;
what a newer keyring revokes is revoked for every process of this home (`gdn_aot.trust.known`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from gdn_aot._files import read_regular
from gdn_aot.codec import Form, Record
from gdn_aot.errors import SignatureError, VerificationError
from gdn_aot.store.folder import Folder
from gdn_aot.store.install import writing
from gdn_aot.trust.known import BESIDE, checked_path, file_name, learned_path
from gdn_aot.trust.statement import MAX_SERIAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.store.lock import Waiting
    from gdn_aot.store.store import Store
    from gdn_aot.trust.keyring import SignedKeyring

Serial = Annotated[int, Meta(ge=0, le=MAX_SERIAL)]


class Seen(Record, kw_only=True):
    """The highest serials that a repository was seen to have."""

    format: int = 1
    repo: str
    index: Serial = 0
    """Of its index."""
    artifacts: dict[str, Serial] = msgspec.field(default_factory=dict)
    """Of each artifact, by its identifier."""


_FORM = Form(Seen, "what was seen of a registry", format=1, limit=4 << 20)


def read_seen(repo: str, home: str) -> Seen:
    """Return what a repository was seen to have; nothing if it never was.

    Raises:
        SignatureError: That cannot be read, so that an older state could not be told from a newer one.
    """
    path = _path(repo, home)
    try:
        seen = _FORM.decode(read_regular(path, _FORM.limit))
    except FileNotFoundError:
        return Seen(repo=repo)
    except (OSError, VerificationError) as error:
        hint = "remove it, once you are sure that the registry is not an older state of itself"
        raise SignatureError(f"{path} cannot be read: {error}", hint=hint) from error
    return seen if seen.repo == repo else Seen(repo=repo)


def remember(
    store: Store,
    repo: str,
    keyrings: Sequence[SignedKeyring] = (),
    *,
    checked: str = "",
    index: int = 0,
    artifacts: Mapping[str, int] | None = None,
    waiting: Waiting | None = None,
) -> None:
    """Keep the keyrings that follow the one which somebody put into its place, and the serials that were accepted.

    Nothing is written that is known already; a serial is never lowered. ``checked`` is the SHA-256 of the keyring in
    its place, which was verified.

    Raises:
        NotWritableError: The home cannot be written.
        SignatureError: What is there cannot be read.
    """
    chain = b"".join(keyring.envelope.encode() for keyring in keyrings)
    files = {learned_path(repo, store.home): chain, checked_path(repo, store.home): checked.encode()}
    lacking = {path: content for path, content in files.items() if content and not _has(path, content)}
    if not lacking and not _raised(read_seen(repo, store.home), index, artifacts or {}):
        return
    with writing(store, waiting, make=True), Folder.at(store.home) as home, home.make(BESIDE) as folder:
        for path, content in lacking.items():
            folder.write(path.rpartition("/")[2], content, sync=True)
        if seen := _raised(read_seen(repo, store.home), index, artifacts or {}):
            folder.write(_name(repo), _FORM.encode(seen), sync=True)


def _raised(seen: Seen, index: int, artifacts: Mapping[str, int]) -> Seen | None:
    """Return what was seen with higher serials, or None if none is higher."""
    found = dict(seen.artifacts)
    for identifier, serial in artifacts.items():
        found[identifier] = max(serial, found.get(identifier, 0))
    new = Seen(repo=seen.repo, index=max(index, seen.index), artifacts=dict(sorted(found.items())))
    return None if new == seen else new


def _has(path: str, content: bytes) -> bool:
    try:
        return read_regular(path, len(content)) == content
    except OSError:
        return False


def _path(repo: str, home: str) -> str:
    return f"{home}/{BESIDE}/{_name(repo)}"


def _name(repo: str) -> str:
    return f"{file_name(repo).removesuffix('.json')}.seen.json"
