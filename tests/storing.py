"""Looking into a store, and damaging it."""

from __future__ import annotations

from pathlib import Path

import zstandard

from gdn_aot.artifact.pack import FIXED, ROW, Pack
from gdn_aot.artifact.pack_writer import write_pack
from gdn_aot.artifact.store import MANIFEST


def packs(home: Path) -> list[Path]:
    return sorted(path for path in home.glob("store/packs/*") if not path.name.startswith("."))


def contents(home: Path) -> dict[str, bytes]:
    """Every blob of a store by its SHA-256, as it is in the first pack that has it."""
    found: dict[str, bytes] = {}
    for path in packs(home):
        pack = Pack(str(path))
        for sha256, _ in pack.blobs():
            found.setdefault(sha256, pack.read(bytes.fromhex(sha256)) or b"")
    return found


def cubins(home: Path) -> list[str]:
    """The SHA-256 of what is no text."""
    return sorted(sha256 for sha256, content in contents(home).items() if content.startswith(b"\x7fELF"))


def flip_blob(home: Path, sha256: str, at: int = 0) -> Path:
    """Change one byte of a blob; returns the pack that it is in."""
    for path in packs(home):
        data = bytearray(path.read_bytes())
        for number in range(FIXED.unpack_from(data)[1]):
            digest, offset, _ = ROW.unpack_from(data, FIXED.size + number * ROW.size)
            if digest.hex() == sha256:
                data[offset + at] ^= 1
                path.write_bytes(data)
                return path
    raise AssertionError(sha256)


def change_blobs(home: Path, changed: dict[str, bytes | None]) -> None:
    """Put other contents under the names of blobs, or take blobs out."""
    everything = contents(home)
    for path in packs(home):
        path.unlink()
    kept = {sha256: changed.get(sha256, content) for sha256, content in everything.items()}
    write_pack(str(home / "store/packs"), {name: content for name, content in kept.items() if content is not None})


def read_manifest(place: Path) -> bytes:
    return zstandard.decompress((place / MANIFEST).read_bytes(), max_output_size=64 << 20)


def write_manifest(place: Path, content: bytes) -> None:
    (place / MANIFEST).write_bytes(zstandard.compress(content))
