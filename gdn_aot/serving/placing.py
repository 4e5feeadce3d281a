"""Put files of an artifact where an engine looks for them when it starts: what vLLM found out about model classes.

Such a file counts only for the sources that it was made from: it is put in place where each of them is installed, byte
for byte. What is there already and says that it is for these sources is left alone; what is for others the engine would
replace itself.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from gdn_aot._files import read_regular, write_whole
from gdn_aot.artifact.names import MAX_PLACED
from gdn_aot.machine.installed import source_sha256

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.store.index_records import PlacedRecord

WRITTEN, KEPT = "written", "kept"
_FOLDERS = {"vllm-model-info": "modelinfos"}
"""Where files of each kind are in the engine's cache, as ``_LazyRegisteredModel._get_cache_dir`` of vLLM says."""


def place(files: list[PlacedRecord], read_blob: Callable[[str], bytes], cache: str, package: str) -> dict[str, str]:
    """Put files in place. Safe to do from many processes at once: each file appears whole.

    Args:
        files: What an artifact has.
        read_blob: Returns what one holds, by its SHA-256.
        cache: The engine's cache directory, which need not be there.
        package: The path of the engine's ``__init__.py``.

    Returns:
        For each file by name what became of it: `WRITTEN`, `KEPT`, or why it was left out.

    Raises:
        OSError: One cannot be written.
        VerificationError: The artifact is damaged.
    """
    site = os.path.dirname(os.path.dirname(package))
    done: dict[str, str] = {}
    for kind, name, sources, blob in files:
        if kind not in _FOLDERS or os.path.basename(name) != name:
            done[name] = f"{kind} is no kind of file that this version puts in place"
            continue
        path = os.path.join(cache, _FOLDERS[kind], name)
        content, there = read_blob(blob), _read(path)
        theirs, ours = _hash(there), _hash(content)
        if there == content or (theirs and ours and (theirs == ours or len(theirs) > len(ours))):
            done[name] = KEPT  # a longer digest is vLLM's where MD5 is barred, which it would find in ours no more
            continue
        done[name] = _other(sources, site) or WRITTEN
        if done[name] == WRITTEN:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_whole(path, content)
    return done


def _read(path: str) -> bytes:
    with suppress(OSError, ValueError):
        return read_regular(path, MAX_PLACED)
    return b""


def _hash(content: bytes) -> str | None:
    """Return vLLM's digest of the model's source in a file; None of what vLLM would not read.

    vLLM takes a file for a source if the digest in it is the source's (``_load_modelinfo_from_cache``).
    """
    with suppress(ValueError, TypeError, LookupError, RecursionError):
        found = json.loads(content)
        if isinstance(found["modelinfo"], dict) and isinstance(found["hash"], str):
            return str(found["hash"])
    return None


def _other(sources: list[tuple[str, str]], site: str) -> str:
    """Return which source is not installed as it was, or nothing."""
    for path, sha256 in sources:
        if source_sha256(os.path.join(site, path)) != sha256:
            return f"{path} is not the one that it was made from"
    return "" if sources else "nothing says what it was made from"
