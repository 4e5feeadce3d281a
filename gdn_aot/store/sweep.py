"""Take the blobs out of a store that nothing needs."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot.errors import GdnAotError, VerificationError
from gdn_aot.store.install import size_of
from gdn_aot.store.pack import FIXED, ROW, Pack
from gdn_aot.store.pack_writer import write_pack

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from gdn_aot.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """What `sweep` removed, or would."""

    blobs: int
    """Blobs that were in a pack and are not needed there."""
    files: tuple[str, ...]
    """Files among the packs that are none."""
    freed: int
    """Bytes."""


def sweep(
    store: Store, places: Iterable[str], *, without: Collection[tuple[str, str]] = (), dry_run: bool = False
) -> Swept:
    """Remove every blob that no artifact needs, and second copies.

    A pack of which something is needed is written anew without the rest, and only then removed.

    Args:
        store: The store, locked unless this is a dry run.
        places: Directories of the artifacts that count. One whose index cannot be read needs nothing.
        without: (path of a pack, SHA-256) of copies that are damaged and go too.
        dry_run: Change nothing.

    Raises:
        OSError: The store cannot be written. What is needed is still there.
    """
    needed: set[str] = set()
    for place in places:
        with suppress(GdnAotError, OSError, ValueError, LookupError, TypeError):
            needed.update(sha256 for sha256, _ in store.open_index(place).blobs())
    packs = store.packs()
    kept = _assign(packs, needed, without)
    files = list(strangers(store, packs))
    freed = sum(map(size_of, files))
    for path in files if not dry_run else ():
        os.unlink(path)
    dropped = 0
    for pack in sorted(packs, key=lambda pack: len(kept[pack])):  # those that only free space come first
        stay, sizes = kept[pack], dict(pack.blobs())
        if len(stay) < len(sizes):
            dropped += len(sizes) - len(stay)
            freed += pack.size
            freed -= FIXED.size + sum(ROW.size + sizes[sha256] for sha256 in stay) if stay else 0
            if not dry_run:
                _reduce(store, pack, stay)
    return Swept(blobs=dropped, files=tuple(files), freed=freed)


def drop_damaged(store: Store, blobs: Collection[str]) -> None:
    """Remove the copies of some blobs that are not right. Only to be called under the store's lock.

    Raises:
        OSError: The store cannot be written.
    """
    for pack in store.packs():
        names = [sha256 for sha256, _ in pack.blobs()]
        stay = [sha256 for sha256 in names if sha256 not in blobs or is_right(pack, sha256)]
        if len(stay) < len(names):
            _reduce(store, pack, stay)


def _reduce(store: Store, pack: Pack, stay: list[str]) -> None:
    """Write what stays of a pack anew, and remove the pack."""
    if stay:
        write_pack(f"{store.root}/packs", {sha256: _read(pack, sha256) for sha256 in stay})
    os.unlink(pack.path)


def _assign(packs: list[Pack], needed: set[str], without: Collection[tuple[str, str]]) -> dict[Pack, list[str]]:
    """Return which blobs stay in which pack: each needed one once, in a copy that is right if there is one."""
    owners: dict[str, Pack] = {}
    for pack in packs:
        for sha256, _ in pack.blobs():
            if sha256 not in needed or (pack.path, sha256) in without:
                continue
            if sha256 not in owners or not is_right(owners[sha256], sha256):
                owners[sha256] = pack
    kept: dict[Pack, list[str]] = {pack: [] for pack in packs}
    for sha256, pack in owners.items():
        kept[pack].append(sha256)
    return kept


def is_right(pack: Pack, sha256: str) -> bool:
    """Say whether a pack's copy of a blob can be read and is what its name says."""
    with suppress(OSError):
        return hashlib.sha256(_read(pack, sha256)).hexdigest() == sha256
    return False


def _read(pack: Pack, sha256: str) -> bytes:
    return pack.read(bytes.fromhex(sha256)) or b""


def strangers(store: Store, packs: list[Pack]) -> Iterator[str]:
    """Yield the files among the packs that are none; those that cannot be opened may be, and are left alone."""
    known = {pack.path for pack in packs}
    with suppress(OSError):
        for name in sorted(os.listdir(f"{store.root}/packs")):
            path = f"{store.root}/packs/{name}"
            if not name.startswith(".") and path not in known:
                try:
                    Pack(path)
                except VerificationError:
                    yield path
                except OSError:
                    continue
