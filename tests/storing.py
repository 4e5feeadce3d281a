"""Looking into a store, filling it, damaging it, and taking the right to write it away."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard
from artifact import factory
from msgspec.structs import replace

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact import names
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.store.install import install
from gdn_aot.store.pack import FIXED, ROW, Pack
from gdn_aot.store.pack_writer import write_pack
from gdn_aot.store.store import MANIFEST, Store

if TYPE_CHECKING:
    from collections.abc import Iterator


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


# ---- Artifacts to put into stores ----


def variant(folder: Path, number: int, *, epoch: int = 0, target: str = "sm_120") -> Artifact:
    """An artifact that shares one cubin and the licence with every other one of these, and has one of its own."""
    own = b"\x7fELF" + bytes([number]) * 3000
    manifest = factory.make_manifest(epoch=epoch)
    kernel, other = manifest.kernels
    binaries = (factory.make_binary(own), factory.make_binary(factory.CUBINS[0], "other"))
    kernels = (replace(kernel, binaries=binaries), other)
    shape = m.Target(name=target, capability=(int(target[3:-1]), int(target[-1])), warp_size=32, max_shared=101376)
    name = names.make_identifier("fla", "0.6.0", "3.6.0", target)
    manifest = replace(manifest, kernels=kernels, target=shape, identifier=name)
    blobs = {factory.sha256(data): data for data in (factory.LICENSE, factory.CUBINS[0], own)}
    return open_artifact(write_artifact(manifest, blobs, folder / f"{number}-{epoch}-{target}.tar.zst").path)


def put(home: Path, artifact: Artifact, at: float | None = None) -> Path:
    """Install an artifact, at a time of our choice."""
    place = Path(install(Store(str(home)), artifact).place)
    if at is not None:
        os.utime(place, (at, at))
    return place


def leftovers(home: Path) -> list[Path]:
    """What was left unfinished."""
    return [path for path in (home / "store").rglob(".*") if path.name != ".lock"]


# ---- Directories that may not be written ----

_CAP_DAC_OVERRIDE = 1


@contextmanager
def no_privilege() -> Iterator[None]:
    """Let permissions of files count for root too: takes a capability out of the effective set of this thread."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()
    if libc.capget(header, before):
        raise OSError(ctypes.get_errno(), "capget")
    less = (ctypes.c_uint32 * 6)(*before)
    less[0] &= ~(1 << _CAP_DAC_OVERRIDE)
    if libc.capset(header, less):
        raise OSError(ctypes.get_errno(), "capset")
    try:
        yield
    finally:
        libc.capset(header, before)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a directory and all below it unwritable, also for root in this thread, and see that it is."""
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        with no_privilege():
            try:
                (folder / "probe").touch()
            except PermissionError:
                pass
            else:
                raise AssertionError(f"{folder} can be written all the same")
            yield
    finally:
        for path, mode in modes.items():
            if path.exists():
                path.chmod(mode)
