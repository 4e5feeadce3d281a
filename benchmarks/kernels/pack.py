"""What was prepared on one machine, as one file for another."""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def write(path: Path, root: Path, files: Iterable[Path]) -> int:
    """Put files under ``root`` into a ``.tar.zst``, like ones next to each other. Returns its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = zstandard.ZstdCompressionParameters.from_level(12, window_log=27, enable_ldm=True)
    present = sorted((file for file in set(files) if file.is_file()), key=lambda file: (file.stat().st_size, file))
    with (
        path.open("wb") as raw,
        zstandard.ZstdCompressor(compression_params=settings).stream_writer(raw) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for file in present:
            archive.add(file, os.path.relpath(file, root))
    return path.stat().st_size


def read(path: Path, root: Path) -> None:
    """Unpack such a file."""
    root.mkdir(parents=True, exist_ok=True)
    with (
        path.open("rb") as raw,
        zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw) as packed,
        tarfile.open(fileobj=packed, mode="r|") as archive,
    ):
        archive.extractall(root, filter="data")
