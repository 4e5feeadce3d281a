"""Looking into a store, filling it, damaging it, and taking the right to write it away."""

import ctypes
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import factory
from doctoring import flip
from msgspec.structs import replace

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact import names
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.store.index import NAME as INDEX
from gdn_aot.store.index import Index
from gdn_aot.store.index_writer import write_index
from gdn_aot.store.install import install
from gdn_aot.store.origins import Origin
from gdn_aot.store.store import Store
from gdn_aot.store.stored import MANIFEST, PACK, StoredArtifact, read_manifest
from gdn_aot.store.whole import faults


def place_of(home: Path) -> Path:
    """The directory of the one artifact of a store."""
    (place,) = home.glob("store/artifacts/[!.]*")
    return place


def index_of(place: Path) -> Index:
    """The index of an artifact's directory."""
    path = f"{place}/{INDEX}"
    return Index(os.open(path, os.O_RDONLY), path)


def contents(place: Path) -> dict[str, bytes]:
    """Every blob of an artifact's directory by the SHA-256 that it should have."""
    pack, found, offset = (place / PACK).read_bytes(), {}, 0
    for sha256, size in index_of(place).blobs():
        found[sha256] = pack[offset : offset + size]
        offset += size
    return found


def cubins(place: Path) -> list[str]:
    """The SHA-256 of what is no text."""
    return sorted(sha256 for sha256, content in contents(place).items() if content.startswith(b"\x7fELF"))


def flip_blob(place: Path, sha256: str, at: int = 0) -> None:
    """Change one bit of a blob."""
    flip(place / PACK, index_of(place).place(sha256)[0] + at)


def rewrite(place: Path, change: Callable[[m.Manifest], m.Manifest]) -> None:
    """Give an artifact's directory the index of another manifest, which no check has seen."""
    stored = StoredArtifact(str(place))
    manifest = change(stored.manifest)
    header = stored.index.header
    made = SimpleNamespace(manifest=manifest, sha256=header["sha256"], manifest_json=read_manifest(str(place)))
    (place / INDEX).unlink()
    (place / INDEX).write_bytes(write_index(made))  # type: ignore[arg-type]


def missed(place: Path, name: str, step: int) -> list[int]:
    """Change each ``step``-th byte of a file; return where that is not found, though it changes what is read."""
    path, found = place / name, []
    good, manifest = path.read_bytes(), read_manifest(str(place))
    for at in range(0, len(good), step):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        if any(str(path) in fault.where for fault in faults(str(place), deep=True)):
            continue
        if name != MANIFEST or read_manifest(str(place)) != manifest:  # a bit of padding changes nothing
            found.append(at)
    path.write_bytes(good)
    return found


def check_store(home: Path) -> list[str]:
    """Look at all bytes of a store, which must be whole; return each artifact's SHA-256, the preferred one first."""
    found: list[str] = []
    for place in map(Path, Store(str(home)).artifacts()):
        stored = StoredArtifact(str(place))
        for sha256, content in contents(place).items():
            assert hashlib.sha256(content).hexdigest() == sha256, sha256
        assert [(blob.sha256, blob.size) for blob in stored.manifest.blobs] == stored.index.blobs()
        assert sum(blob.size for blob in stored.manifest.blobs) == (place / PACK).stat().st_size
        found.append(stored.index.header["sha256"])
    return found


# ---- Artifacts to put into stores ----


def variant(folder: Path, number: int, *, epoch: int = 0, target: str = "sm_120") -> Artifact:
    """A small artifact; another number is another build."""
    own, shared = (factory.kernel_of(code, target=target) for code in (bytes([number]) * 3000, b"shared"))
    manifest = factory.make_manifest(epoch=epoch)
    kernel, other = manifest.kernels
    first, second = (
        factory.make_binary(cubin, key, target=target) for cubin, key in ((own, factory.KEY), (shared, factory.OTHER))
    )
    kernels = (replace(kernel, binaries=(first, second)), replace(other, binaries=(second,)))
    shape = m.GPU(name=target, capability=(int(target[3:-1]), int(target[-1])), warp_size=32, max_shared=101376)
    name = names.make_identifier("fla", "0.6.0", "3.6.0", target)
    manifest = replace(manifest, kernels=kernels, target=shape, identifier=name)
    blobs = {factory.sha256(data): data for data in (factory.LICENSE, shared, own)}
    return open_artifact(write_artifact(manifest, blobs, folder / f"{number}-{epoch}-{target}.tar.zst").path)


ORIGIN = Origin(repo="hf://org/name", revision="v1", commit="c" * 40)


def put(home: Path, artifact: Artifact, at: float | None = None, origin: Origin | None = None) -> Path:
    """Install an artifact, at a time of our choice."""
    place = Path(install(Store(str(home)), artifact, origin).place)
    if at is not None:
        os.utime(place, (at, at))
    return place


def leftovers(home: Path) -> list[Path]:
    """What was left unfinished."""
    return [path for path in (home / "store").rglob(".*") if path.name != ".lock"]


# ---- Directories that may not be written ----

_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


@contextmanager
def no_privilege() -> Iterator[None]:
    """Let permissions of files count for root too: takes capabilities out of the effective set of this thread."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()
    if libc.capget(header, before):
        raise OSError(ctypes.get_errno(), "capget")
    less = (ctypes.c_uint32 * 6)(*before)
    less[0] &= ~(1 << _CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH)
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
