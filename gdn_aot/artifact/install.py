"""Put a verified artifact into a store, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gdn_aot._files import write_whole
from gdn_aot.artifact.index import NAME as INDEX
from gdn_aot.artifact.lock import locked
from gdn_aot.artifact.store import FORMAT, MANIFEST
from gdn_aot.errors import GdnAotError, NotWritableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.artifact.store import Store
    from gdn_aot.artifact.verify import Artifact

ORIGIN = "origin.json"
"""File name of the list of `Origin` in an artifact's directory."""
_TEMPORARY = ".tmp-"
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by gdn-aot; may be deleted: https://bford.info/cachedir/\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where an artifact was fetched from."""

    repo: str
    """As its registry names itself; never a token."""
    revision: str
    """Branch, tag or commit that was asked for."""
    commit: str
    """40 hexadecimal digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """What `install` did."""

    place: str
    """Directory of the artifact."""
    identifier: str
    sha256: str
    """Of the artifact file."""
    new: bool
    """It was not there before."""
    repaired: int
    """Files that were there, damaged, or were missing of an artifact that was there, and were written again."""
    written: int
    """Bytes written."""


def install(
    store: Store, artifact: Artifact, origin: Origin | None = None, *, waiting: Callable[[str], None] | None = None
) -> Installed:
    """Put a verified artifact into the store. Safe to run in many processes at once.

    An artifact that is already there is checked and, where it is damaged, repaired. It becomes the one installed last,
    which the loader prefers.

    Args:
        store: Where to.
        artifact: What `open_artifact` returned.
        origin: Where it came from, if that was a registry.
        waiting: Told, after two seconds, which process has the store locked.

    Raises:
        NotWritableError: The store cannot be written.
        UnknownFormatError: A newer gdn-aot made the store.
        VerificationError: The artifact file changed while it was read.
    """
    from gdn_aot.artifact.index_writer import write_index

    place = f"{store.root}/artifacts/{artifact.manifest.identifier}-{artifact.sha256[:16]}"
    content = {MANIFEST: artifact.manifest_json, INDEX: write_index(artifact.manifest, artifact.sha256)}
    written = 0
    try:
        os.makedirs(store.root, exist_ok=True)
        with locked(store.root, waiting):
            _prepare(store)
            new = not os.path.isdir(place)
            repaired = 0
            for digest, blob in artifact.iter_blobs():
                if _put(store.blob_path(digest), blob):
                    written += len(blob)
                    repaired += not new
            content |= _origins(place, origin)
            if new:
                _put_directory(store, place, content)
                written += sum(map(len, content.values()))
            else:
                for name, data in content.items():
                    if _put(f"{place}/{name}", data):
                        written += len(data)
                        repaired += name != ORIGIN
                os.utime(place)
    except OSError as error:
        raise NotWritableError(f"cannot write the store {store.root}: {error.strerror or error}") from error
    return Installed(
        place=place,
        identifier=artifact.manifest.identifier,
        sha256=artifact.sha256,
        new=new,
        repaired=repaired,
        written=written,
    )


def find_installed(store: Store, sha256: str) -> str | None:
    """Return the directory of an artifact if it is whole by cheap checks, else None.

    Its index opens, its manifest is there, and so is every blob with its size.

    Args:
        store: Where to look.
        sha256: Of the artifact file.
    """
    with suppress(OSError, GdnAotError, ValueError, LookupError, TypeError):
        place = store.artifact_directory(sha256)
        if place is None:
            return None
        index = store.open_index(place)
        sizes = index.blobs() if index.header["sha256"] == sha256 and os.path.getsize(f"{place}/{MANIFEST}") else None
        if sizes is not None and all(os.stat(store.blob_path(blob)).st_size == size for blob, size in sizes):
            return place
    return None


def renew(
    store: Store, place: str, origin: Origin | None = None, *, waiting: Callable[[str], None] | None = None
) -> None:
    """Note that an installed artifact was asked for again: where it came from, and that the loader is to prefer it.

    Nothing is written where that is so already.

    Args:
        store: The store.
        place: The artifact's directory, as `find_installed` returns it.
        origin: Where it came from this time, if that is known.
        waiting: Told, after two seconds, which process has the store locked.

    Raises:
        NotWritableError: Another build of the same identifier is preferred, and the store cannot be written. That an
            origin cannot be noted is no error.
    """
    kept = _identity(place)
    first = next((other for other in store.artifacts() if _identity(other) == kept), place)
    if first == place and (origin is None or origin in read_origins(place)):
        return
    try:
        with locked(store.root, waiting):
            if os.path.isdir(place):  # else it was removed meanwhile
                for name, data in _origins(place, origin).items():
                    _put(f"{place}/{name}", data)
                os.utime(place)
    except OSError as error:
        if first != place:
            reason = error.strerror or error
            raise NotWritableError(f"{first} is preferred to {place}, which cannot be changed: {reason}") from error


def _identity(place: str) -> str:
    """Return the identifier that the name of an artifact's directory begins with."""
    return os.path.basename(place).rpartition("-")[0]


def _origins(place: str, origin: Origin | None) -> dict[str, bytes]:
    """Return the file of an artifact's origins with one more, by its name; nothing if there are none."""
    known = {item.repo: item for item in read_origins(place)}
    if origin is not None:
        known[origin.repo] = origin
    text = json.dumps([asdict(known[repo]) for repo in sorted(known)], indent=1)
    return {ORIGIN: text.encode() + b"\n"} if known else {}


def read_origins(place: str) -> list[Origin]:
    """Return where the artifact in a directory of the store was fetched from; nothing if that cannot be read."""
    with suppress(OSError, ValueError, TypeError), open(f"{place}/{ORIGIN}", "rb") as file:
        return [Origin(**item) for item in json.load(file)]
    return []


def _prepare(store: Store) -> None:
    store.check_format()
    for name in ("artifacts", "blobs"):
        os.makedirs(f"{store.root}/{name}", exist_ok=True)
    _put(f"{store.root}/CACHEDIR.TAG", _TAG.encode())
    _put(f"{store.root}/format", f"{FORMAT}\n".encode())


def _put(path: str, content: bytes) -> bool:
    """Write a file unless it is there with this content; say whether it was written."""
    with suppress(OSError), open(path, "rb") as file:
        if file.read() == content:
            return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_whole(path, content, sync=True)
    return True


def _put_directory(store: Store, place: str, content: dict[str, bytes]) -> None:
    temporary = f"{store.root}/artifacts/{_TEMPORARY}{os.urandom(4).hex()}"
    os.mkdir(temporary)
    try:
        for name, data in content.items():
            write_whole(f"{temporary}/{name}", data, sync=True)
        os.rename(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
