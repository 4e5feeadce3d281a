"""A look at all the bytes of a store, as no loader takes the time for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gdn_aot.artifact.store import MANIFEST, Store


def check_store(home: Path) -> list[str]:
    """Return the SHA-256 of every artifact in the store of a home, the preferred one first.

    Raises:
        AssertionError: A file has the name of a blob and not its content.
        GdnAotError: An artifact that is there is not whole.
        OSError: A blob of an artifact that is there is missing.
    """
    store = Store(str(home))
    for path in Path(store.root).glob("blobs/*/*"):
        if path.is_file() and not path.name.startswith("."):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, path
    found: list[str] = []
    for place in store.artifacts():
        for blob in json.loads(Path(place, MANIFEST).read_bytes())["blobs"]:
            assert len(store.read_blob(blob["sha256"])) == blob["size"]
        found.append(store.open_index(place).header["sha256"])
    return found
