"""Reading a store: what is there, in which order, and what of it is right."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import storing
from helpers import python
from registry.checking import check_store

from artifact import factory
from gdn_aot.errors import UnknownFormatError, VerificationError
from gdn_aot.store.install import find_installed, install
from gdn_aot.store.pack import FIXED, MAGIC, ROW, Pack
from gdn_aot.store.pack_writer import write_pack
from gdn_aot.store.store import Store

BLOBS = {factory.sha256(data): data for data in (b"", b"one", b"two" * 1000, *factory.CUBINS)}


# ---- Packs ----


def test_a_pack_gives_back_what_was_put_into_it(tmp_path: Path) -> None:
    pack = Pack(write_pack(str(tmp_path), BLOBS))
    assert dict(pack.blobs()) == {sha256: len(data) for sha256, data in BLOBS.items()}
    for sha256, data in BLOBS.items():
        assert pack.read(bytes.fromhex(sha256)) == data
    for absent in (bytes(32), b"\xff" * 32, bytes.fromhex(factory.sha256(b"three"))):
        assert pack.read(absent) is None
    assert pack.size == FIXED.size + len(BLOBS) * ROW.size + sum(map(len, BLOBS.values()))


def test_the_name_of_a_pack_follows_from_its_content(tmp_path: Path) -> None:
    first = write_pack(str(tmp_path), BLOBS)
    assert write_pack(str(tmp_path), dict(reversed(BLOBS.items()))) == first
    assert write_pack(str(tmp_path), {}) != first
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        MAGIC,
        b"gdnpack\2" + bytes(8),
        FIXED.pack(MAGIC, 1),
        FIXED.pack(MAGIC, 2) + bytes(ROW.size),
        FIXED.pack(MAGIC, 1 << 40),
        FIXED.pack(MAGIC, (1 << 64) - 1) + bytes(1000),
    ],
)
def test_what_is_no_pack(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pack").write_bytes(content)
    with pytest.raises(VerificationError, match="is not a pack"):
        Pack(str(tmp_path / "pack"))


def test_a_row_that_points_outside(tmp_path: Path) -> None:
    digest = bytes.fromhex(factory.sha256(b"one"))
    for offset, size in ((0, 1 << 63), (1 << 63, 3), (70, 0), ((1 << 64) - 1, (1 << 64) - 1), (60, 100)):
        (tmp_path / "pack").write_bytes(FIXED.pack(MAGIC, 1) + ROW.pack(digest, offset, size) + b"one")
        pack = Pack(str(tmp_path / "pack"))
        assert pack.read(digest) == b""
        assert 0 <= dict(pack.blobs())[digest.hex()] <= pack.size


@pytest.mark.parametrize("most", [1, 7, 100_000])
def test_a_write_that_is_done_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """The system may take fewer bytes than it is given."""
    real = os.writev

    def part(file: int, buffers: list[memoryview]) -> int:
        return real(file, [memoryview(bytes(buffers[0][:most]))] if len(buffers[0]) > most else buffers[:2])

    monkeypatch.setattr(os, "writev", part)
    blobs = {factory.sha256(bytes([n]) * n): bytes([n]) * n for n in range(60)}
    pack = Pack(write_pack(str(tmp_path), blobs))
    assert {sha256: pack.read(bytes.fromhex(sha256)) for sha256 in blobs} == blobs


# ---- The store ----


def test_no_store(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "home"))
    assert (store.artifacts(), store.packs(), store.blob_sizes(), store.format()) == ([], [], {}, None)
    assert store.artifact_directory("0" * 64) is find_installed(store, "0" * 64) is None
    with pytest.raises(FileNotFoundError, match="no pack has blob"):
        store.read_blob("0" * 64)
    assert not (tmp_path / "home").exists()


def test_the_one_installed_last_is_preferred(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first, second = (storing.variant(tmp_path, number) for number in (1, 2))
    places = [storing.put(home, first, 1000), storing.put(home, second, 2000)]
    store = Store(str(home))
    assert store.artifacts() == [str(places[1]), str(places[0])]
    storing.put(home, first)
    assert store.artifacts() == [str(places[0]), str(places[1])]
    assert store.artifact_directory(second.sha256) == str(places[1])
    assert check_store(home) == [first.sha256, second.sha256]


def test_a_damaged_blob(tmp_path: Path) -> None:
    home = tmp_path / "home"
    storing.put(home, storing.variant(tmp_path, 1))
    sha256 = storing.cubins(home)[0]
    good = Store(str(home)).read_blob(sha256)
    pack = storing.flip_blob(home, sha256, 1000)
    with pytest.raises(VerificationError, match=f"{pack}: blob {sha256} is damaged"):
        Store(str(home)).read_blob(sha256)
    write_pack(str(home / "store/packs"), {sha256: good})
    assert Store(str(home)).read_blob(sha256) == good


def test_what_is_no_pack_is_passed_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    storing.put(home, storing.variant(tmp_path, 1))
    sizes = Store(str(home)).blob_sizes()
    (home / "store/packs/0000").write_bytes(b"nothing")
    (home / "store/packs/ffff").mkdir()
    (home / "store/packs/gggg").symlink_to("nowhere")
    assert Store(str(home)).blob_sizes() == sizes
    assert len(Store(str(home)).read_blob(max(sizes))) > 0


def test_a_process_outlives_what_is_done_to_the_store(tmp_path: Path) -> None:
    """Its packs stay readable when they are gone, and blobs of new ones are found without another look by hand."""
    home = tmp_path / "home"
    first, second = (storing.variant(tmp_path, number) for number in (1, 2))
    storing.put(home, first)
    store = Store(str(home))
    mine, other = (dict(artifact.iter_blobs()) for artifact in (first, second))
    shared = next(iter(mine.keys() & other.keys()))
    new = next(iter(other.keys() - mine.keys()))
    assert store.read_blob(shared) == mine[shared]
    with pytest.raises(FileNotFoundError):
        store.read_blob(new)
    storing.put(home, second)
    assert store.read_blob(new) == other[new]
    shutil.rmtree(home)
    for blobs in (mine, other):
        assert {sha256: store.read_blob(sha256) for sha256 in blobs} == blobs


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    artifact = storing.variant(tmp_path, 1)
    storing.put(home, artifact)
    (home / "store/format").write_text("99\n")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    store = Store(str(home))
    for attempt in (store.artifacts, store.format, lambda: install(store, artifact)):
        with pytest.raises(UnknownFormatError, match="another format"):
            attempt()
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_a_read_only_store_is_read(tmp_path: Path) -> None:
    home = tmp_path / "home"
    artifact = storing.variant(tmp_path, 1)
    place = storing.put(home, artifact)
    with storing.read_only(home):
        store = Store(str(home))
        assert find_installed(store, artifact.sha256) == str(place)
        assert check_store(home) == [artifact.sha256]


def test_reading_loads_no_writer(tmp_path: Path) -> None:
    """What writes, locks or decompresses is none of a serving process's business."""
    storing.put(tmp_path, storing.variant(tmp_path, 1))
    code = """
import sys, json
from gdn_aot.store.store import Store
store = Store(sys.argv[1])
(place,) = store.artifacts()
index = store.open_index(place)
for kernel in index.kernels():
    index.choices(kernel.name)
for sha256, _ in index.blobs():
    store.read_blob(sha256)
print(json.dumps(sorted(sys.modules)))
"""
    loaded = python(code, tmp_path, home=tmp_path)
    assert "gdn_aot.store.pack" in loaded
    assert not {"zstandard", "fcntl", "gdn_aot.store.install", "gdn_aot.artifact.manifest"} & set(loaded)
