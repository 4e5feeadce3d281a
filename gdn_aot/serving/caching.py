"""Put the compile cache of an artifact where an engine looks for it.

The engine runs what is in it, so who calls this was asked to. Nothing in it is looked into, imported or run here.
"""

from __future__ import annotations

import os
import re

from gdn_aot.artifact.cached import FOLDER, MAX_PATH, PATTERN, PIECE, unit_of
from gdn_aot.serving.placing import KEPT, WRITTEN

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from gdn_aot.store.index_records import CacheRecord
    from gdn_aot.store.stored import StoredArtifact

    Folders = dict[str, list[tuple[str, list[str]]]]
    """Files by the folder with which they are put in place: each with the blobs of its content."""


class UnfitPathError(Exception):
    """A path that no artifact has."""


def missing(cache: CacheRecord, root: str) -> Folders:
    """Return those folders of a compile cache that the engine's cache directory ``root`` lacks, with their files.

    Raises:
        UnfitPathError: A path leads elsewhere; artifacts are refused for it before.
    """
    found: Folders = {}
    for path, blobs in cache.files:
        if len(path) > MAX_PATH or not re.match(PATTERN, path) or not unit_of(path):
            raise UnfitPathError(path)
        found.setdefault(unit_of(path), []).append((path, blobs))
    return {unit: files for unit, files in found.items() if not os.path.lexists(os.path.join(root, FOLDER, unit))}


def place(folders: Folders, artifact: StoredArtifact, root: str) -> dict[str, str]:
    """Put folders of a compile cache in place. Safe to do from many processes at once: each appears whole.

    A folder that is there already is left alone, whatever it holds.

    Args:
        folders: What `missing` found.
        artifact: From which its content is read.
        root: The engine's cache directory, which need not be there.

    Returns:
        For each folder what became of it: `WRITTEN`, or `KEPT` if another process was faster.

    Raises:
        OSError: It cannot be written; nothing of a folder that was not put in place is left.
        VerificationError: The artifact is damaged; nothing was written.
    """
    import shutil

    done = dict.fromkeys(folders, KEPT)
    place = os.path.join(root, FOLDER)
    os.makedirs(place, exist_ok=True)
    temporary = os.path.join(place, f".gdn-aot-{os.urandom(8).hex()}")
    os.mkdir(temporary)
    try:
        _write([row for files in folders.values() for row in files], artifact, temporary)
        for unit in folders:
            path = os.path.join(place, unit)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                os.rename(os.path.join(temporary, unit), path)
                done[unit] = WRITTEN
            except OSError:
                if not os.path.isdir(path):  # else another process was faster
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return done


def _write(files: list[tuple[str, list[str]]], artifact: StoredArtifact, folder: str) -> None:
    """Write files into a folder, piece by piece as they are read."""
    places: dict[str, list[tuple[str, int]]] = {}
    for name, blobs in files:
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb"):
            pass
        for number, blob in enumerate(blobs):
            places.setdefault(blob, []).append((path, number * PIECE))
    for blob, content in artifact.read_blobs(places):
        for path, offset in places[blob]:
            with open(path, "r+b") as file:
                file.seek(offset)
                file.write(content)
