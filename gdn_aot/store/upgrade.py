"""Bring a store of format 1 to the present one.

Format 1 had a file for each blob, ``blobs/ab/ab12...``, and an uncompressed manifest beside an index of an older form::

    artifacts/NAME/manifest.json
    artifacts/NAME/index

Whoever is killed here leaves a store of format 1, and the next one goes on with it.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot._files import write_whole
from gdn_aot.artifact.parse import load_manifest
from gdn_aot.errors import GdnAotError, VerificationError
from gdn_aot.store.index import FIXED
from gdn_aot.store.install import discard, put
from gdn_aot.store.store import FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.store.store import Store

_MANIFEST = "manifest.json"
_MAGIC = b"gdnaot\0\2"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Old:
    """An artifact of a store of format 1. A `gdn_aot.store.install.Content`."""

    root: str
    manifest: Manifest
    manifest_json: bytes
    sha256: str

    def iter_blobs(self) -> Iterator[tuple[str, bytes]]:
        for blob in self.manifest.blobs:
            with open(f"{self.root}/blobs/{blob.sha256[:2]}/{blob.sha256}", "rb") as file:
                content = file.read()
            if hashlib.sha256(content).hexdigest() != blob.sha256:
                raise ValueError(f"blob {blob.sha256} is damaged")
            yield blob.sha256, content


def upgrade(store: Store) -> None:
    """Put the artifacts of a store of format 1 where they belong now. What is damaged is dropped.

    Only to be called under the store's lock.

    Raises:
        OSError: The store cannot be written.
    """
    for name in ("artifacts", "packs"):
        os.makedirs(f"{store.root}/{name}", exist_ok=True)
    for name in sorted(os.listdir(f"{store.root}/artifacts")):
        place = f"{store.root}/artifacts/{name}"
        if not name.startswith("."):
            _upgrade_one(store, place)
    write_whole(f"{store.root}/format", f"{FORMAT}\n".encode(), sync=True)
    if os.path.lexists(f"{store.root}/blobs"):
        discard(f"{store.root}/blobs")


def _upgrade_one(store: Store, place: str) -> None:
    age = os.stat(place).st_mtime_ns
    try:
        store.open_index(place)  # it is the last thing to be written: another upgrade was cut off after that
        upgraded = place
    except (OSError, VerificationError):
        try:
            old = _read(store.root, place)
        except (GdnAotError, OSError, ValueError, LookupError, TypeError):
            discard(place)
            return
        upgraded = put(store, old).place
    if upgraded != place:
        discard(place)
    with suppress(FileNotFoundError):
        os.unlink(f"{upgraded}/{_MANIFEST}")
    os.utime(upgraded, ns=(age, age))


def _read(root: str, place: str) -> _Old:
    """Read an artifact, and see that its blobs are right.

    Raises:
        GdnAotError, LookupError, OSError, TypeError, ValueError: It is damaged.
    """
    with open(f"{place}/{_MANIFEST}", "rb") as file:
        text = file.read()
    with open(f"{place}/index", "rb") as file:
        fixed = file.read(FIXED.size)
        header = file.read(FIXED.unpack(fixed)[1]) if len(fixed) == FIXED.size and fixed[:8] == _MAGIC else b""
    if not header or hashlib.sha256(header).digest() != FIXED.unpack(fixed)[3]:
        raise ValueError(f"{place}/index is damaged")
    sha256 = json.loads(header)["sha256"]
    old = _Old(root=root, manifest=load_manifest(text), manifest_json=text, sha256=sha256)
    for _ in old.iter_blobs():
        pass
    return old
