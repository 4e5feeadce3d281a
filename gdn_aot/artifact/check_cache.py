"""Whether the compile cache in a manifest makes sense: see `gdn_aot.artifact.check`."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from gdn_aot.artifact.cached import ENGINE, MAX_BYTES, MAX_FILES, PIECE, unit_of
from gdn_aot.artifact.names import is_single
from gdn_aot.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.artifact.manifest import CachedFile, ManifestFile

_WHERE = "compile_cache"


def check_cache(file: ManifestFile) -> Iterator[Problem]:
    """Yield what is wrong with a compile cache, if there is one.

    It belongs to the provider's engine, and to one deployment. Its files are bounded, sorted and each there once; each
    is in a folder of the cache, and none is the folder of another. Their pieces are in the blob table.
    """
    cache = file.compile_cache
    if cache is None:
        return
    if file.provider.name != ENGINE:
        yield Problem(_WHERE, f"is there although the provider is not {ENGINE}")
    if not any(map(is_single, file.workloads)):
        yield Problem(_WHERE, "is there although the artifact is not for one deployment")
    if not 0 < len(cache.files) <= MAX_FILES:
        yield Problem(f"{_WHERE}.files", f"expected 1 to {MAX_FILES}")
        return
    names = [name for name, _ in cache.environment]
    if names != sorted({*names}):
        yield Problem(f"{_WHERE}.environment", "expected names in rising order, each once")
    yield from _check_paths([one.path for one in cache.files])
    yield from _check_pieces(cache.files, {blob.sha256: blob.size for blob in file.blobs})


def _check_paths(paths: list[str]) -> Iterator[Problem]:
    if any(left >= right for left, right in pairwise(paths)):
        yield Problem(f"{_WHERE}.files", "expected paths in rising order, each once")
    known = {*paths}
    for number, path in enumerate(paths):
        where = f"{_WHERE}.files[{number}].path"
        if not unit_of(path):
            yield Problem(where, "is in no folder of the cache")
        parts = path.split("/")
        if not known.isdisjoint("/".join(parts[:end]) for end in range(1, len(parts))):
            yield Problem(where, "is below another file")


def _check_pieces(files: tuple[CachedFile, ...], there: dict[str, int]) -> Iterator[Problem]:
    total = 0
    for number, file in enumerate(files):
        sizes = [there.get(blob, 0) for blob in file.blobs]
        total += sum(sizes)
        for place, size in enumerate(sizes):
            if not size or (size != PIECE and place < len(sizes) - 1):
                least = "1" if place == len(sizes) - 1 else f"{PIECE}"
                where = f"{_WHERE}.files[{number}].blobs[{place}]"
                yield Problem(where, f"no blob of {least} to {PIECE} bytes with this digest is in the blob table")
    if total > MAX_BYTES:
        yield Problem(f"{_WHERE}.files", f"are larger than {MAX_BYTES} bytes together")
