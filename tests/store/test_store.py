"""Reading a store: what is there, in which order, and what of it is right."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import factory
import pytest
import storing
from helpers import python
from storing import check_store

from gdn_aot.artifact.verify import Artifact
from gdn_aot.errors import UnknownFormatError, VerificationError
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.stored import StoredArtifact
from gdn_aot.store.whole import find_installed, open_installed


def test_no_store(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "home"))
    assert (store.artifacts(), store.format(), find_installed(store, "0" * 64)) == ([], None, None)
    assert not (tmp_path / "home").exists()


def test_the_one_installed_last_is_preferred(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first, second = (storing.variant(tmp_path, number) for number in (1, 2))
    places = [storing.put(home, first, 1000), storing.put(home, second, 2000)]
    store = Store(str(home))
    assert store.artifacts() == [str(places[1]), str(places[0])]
    storing.put(home, first)
    assert store.artifacts() == [str(places[0]), str(places[1])]
    assert find_installed(store, second.sha256) == str(places[1])
    assert check_store(home) == [first.sha256, second.sha256]


def test_blobs(home: Path, one: Artifact) -> None:
    place = storing.put(home, one)
    stored = StoredArtifact(str(place))
    assert {sha256: stored.read_blob(sha256) for sha256, _ in stored.index.blobs()} == dict(one.iter_blobs())
    assert (stored.manifest, stored.place) == (one.manifest, str(place))
    for absent in ("0" * 64, "f" * 64, factory.sha256(b"three")):
        with pytest.raises(VerificationError, match=f"{place}/index: it has no blob {absent}"):
            stored.read_blob(absent)


def test_a_damaged_blob(home: Path, one: Artifact) -> None:
    place = storing.put(home, one)
    sha256, *rest = storing.contents(place)
    storing.flip_blob(place, sha256, 40)
    stored = StoredArtifact(str(place))
    with pytest.raises(VerificationError, match=f"{place}/pack: blob {sha256} is damaged"):
        stored.read_blob(sha256)
    for other in rest:
        assert stored.read_blob(other)
    (place / "pack").write_bytes(b"")
    with pytest.raises(VerificationError, match="is damaged"):
        StoredArtifact(str(place)).read_blob(rest[-1])


def test_in_memory(one: Artifact) -> None:
    stored = StoredArtifact.in_memory(one)
    assert {sha256: stored.read_blob(sha256) for sha256, _ in stored.index.blobs()} == dict(one.iter_blobs())
    assert stored.index.header["sha256"] == one.sha256


def test_what_was_opened_outlives_the_store(home: Path, one: Artifact) -> None:
    """Also in a child, and from several threads."""
    stored = StoredArtifact(str(storing.put(home, one)))
    shutil.rmtree(home)
    blobs = dict(one.iter_blobs())
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(stored.read_blob, [*blobs] * 20)) == [*blobs.values()] * 20
    child = os.fork()
    if not child:
        os._exit({sha256: stored.read_blob(sha256) for sha256 in blobs} != blobs)
    assert os.waitpid(child, 0)[1] == 0


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    artifact = storing.variant(tmp_path, 1)
    place = storing.put(home, artifact)
    (home / "store/format").write_text("99\n")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    store = Store(str(home))
    for attempt in (
        store.artifacts,
        store.format,
        lambda: install(store, artifact),
        lambda: open_installed(str(place)),
        lambda: find_installed(store, artifact.sha256),
    ):
        with pytest.raises(UnknownFormatError, match="another format"):
            attempt()
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_reading_loads_no_writer(tmp_path: Path) -> None:
    """What writes, locks or decompresses is none of a serving process's business."""
    storing.put(tmp_path, storing.variant(tmp_path, 1))
    code = """
import sys, json
from gdn_aot.store.store import Store
from gdn_aot.store.stored import StoredArtifact
from gdn_aot.store.whole import faults
(place,) = Store(sys.argv[1]).artifacts()
assert not faults(place)
stored = StoredArtifact(place)
for kernel in stored.index.kernels():
    stored.index.choices(kernel.name)
for sha256, _ in stored.index.blobs():
    stored.read_blob(sha256)
print(json.dumps(sorted(sys.modules)))
"""
    loaded = python(code, tmp_path, home=tmp_path)
    assert "gdn_aot.store.stored" in loaded
    assert not {"zstandard", "fcntl", "msgspec", "gdn_aot.store.install", "gdn_aot.artifact.manifest"} & set(loaded)
