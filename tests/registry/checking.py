"""A look at all the bytes of a store, as no loader takes the time for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import storing

from gdn_aot.artifact.manifest_json import load_manifest
from gdn_aot.store.store import Store


def check_store(home: Path) -> list[str]:
    """Return the SHA-256 of every artifact in the store of a home, the preferred one first.

    Raises:
        AssertionError: A blob has another content than its name says.
        GdnAotError: An artifact that is there is not whole.
        OSError: A blob of an artifact that is there is missing.
    """
    for sha256, content in storing.contents(home).items():
        assert hashlib.sha256(content).hexdigest() == sha256, sha256
    store = Store(str(home))
    found: list[str] = []
    for place in store.artifacts():
        index = store.open_index(place)
        manifest = load_manifest(storing.read_manifest(Path(place)))
        assert [(blob.sha256, blob.size) for blob in manifest.blobs] == index.blobs()
        for blob in manifest.blobs:
            assert len(store.read_blob(blob.sha256)) == blob.size
        found.append(index.header["sha256"])
    return found
