"""The compile cache of an artifact put in an engine's cache: each folder whole, over nobody else's, never run."""

import threading
from pathlib import Path

import factory
import pytest
from factory import CACHE, HASH

from gdn_aot.artifact.cached import FOLDER
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.errors import VerificationError
from gdn_aot.serving import caching
from gdn_aot.serving.placing import KEPT, WRITTEN
from gdn_aot.store.index import Index
from gdn_aot.store.index_records import CacheRecord
from gdn_aot.store.index_writer import write_index
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.stored import PACK, StoredArtifact, UnpackedArtifact

SHORT = "0123456789"


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return factory.write_cached(tmp_path, "0.24.0", CACHE)


@pytest.fixture(params=["stored", "unpacked"])
def artifact(request: pytest.FixtureRequest, file: Path, tmp_path: Path) -> StoredArtifact:
    """Return an artifact of a store, or one in memory."""
    artifact = open_artifact(file)
    if request.param == "unpacked":
        header = Index.in_memory(write_index(artifact)).header
        return UnpackedArtifact(str(file), file.read_bytes(), header)
    return StoredArtifact(install(Store(str(tmp_path / "home")), artifact).place)


def record(artifact: StoredArtifact) -> CacheRecord:
    found = artifact.index.compile_cache()
    assert found is not None
    return found


def place(artifact: StoredArtifact, root: Path) -> dict[str, str]:
    return caching.place(caching.missing(record(artifact), str(root)), artifact, str(root))


def test_it_is_written_whole(artifact: StoredArtifact, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    assert list(caching.missing(record(artifact), str(root))) == [SHORT, HASH]
    assert place(artifact, root) == {SHORT: WRITTEN, HASH: WRITTEN}
    assert contents(root / FOLDER) == CACHE
    assert not list((root / FOLDER).glob(".*"))
    assert caching.missing(record(artifact), str(root)) == {}


def test_folders_that_are_there_are_left_alone(artifact: StoredArtifact, tmp_path: Path) -> None:
    """Whatever is in them: that of another start, which still writes, or nothing."""
    root = tmp_path / "cache"
    (root / FOLDER / SHORT).mkdir(parents=True)
    assert place(artifact, root) == {HASH: WRITTEN}
    assert contents(root / FOLDER) == {path: data for path, data in CACHE.items() if path.startswith(HASH)}
    assert not any((root / FOLDER / SHORT).iterdir())


@pytest.mark.parametrize("to", ["elsewhere", "nowhere"])
def test_links_are_left_alone(artifact: StoredArtifact, tmp_path: Path, to: str) -> None:
    root = tmp_path / "cache"
    (tmp_path / "elsewhere").mkdir()
    (root / FOLDER).mkdir(parents=True)
    (root / FOLDER / SHORT).symlink_to(tmp_path / to)
    assert place(artifact, root) == {HASH: WRITTEN}
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "path",
    ["../x/y", "/etc/x/y", "a/../../x", "x", "torch_aot_compile/x", ".a/x", "a/.x", "a\\b", "a/b\n", "a/" + 400 * "b"],
)
def test_paths_that_lead_elsewhere(artifact: StoredArtifact, tmp_path: Path, path: str) -> None:
    """No artifact has them; an index that somebody else wrote may."""
    found = record(artifact)
    root = tmp_path / "deep/cache"
    changed = found._replace(files=[*found.files, (path, found.files[0][1])])
    with pytest.raises(caching.UnfitPathError):
        caching.missing(changed, str(root))
    assert not root.exists()


def test_changed_bytes(file: Path, tmp_path: Path) -> None:
    """Nothing is put in place, nor left, if one byte of one file is another."""
    done = install(Store(str(tmp_path / "home")), open_artifact(file))
    pack = Path(done.place) / PACK
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    artifact = StoredArtifact(done.place)
    root = tmp_path / "cache"
    with pytest.raises(VerificationError, match="damaged"):
        place(artifact, root)
    assert not any((root / FOLDER).iterdir())


def test_a_disk_that_is_full(artifact: StoredArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was written until then nothing is left."""
    read = type(artifact).read_blobs

    def some(self: StoredArtifact, names: list[str]) -> object:
        yield next(iter(read(self, names)))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(artifact), "read_blobs", some)
    root = tmp_path / "cache"
    with pytest.raises(OSError, match="No space"):
        place(artifact, root)
    assert not any((root / FOLDER).iterdir())


def test_a_cache_that_cannot_be_one(artifact: StoredArtifact, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(OSError, match="cache"):
        place(artifact, tmp_path / "cache")


def test_many_at_once(artifact: StoredArtifact, tmp_path: Path) -> None:
    """Whoever looks sees no folder or all of it, and one of the writers was the first."""
    root, done, seen = tmp_path / "cache", [], set()
    path = root / FOLDER / HASH
    wanted = caching.missing(record(artifact), str(root))
    writers = [
        threading.Thread(target=lambda: done.append(caching.place(wanted, artifact, str(root)))) for _ in range(8)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.add(len(contents(path)))
    for writer in writers:
        writer.join()
    assert seen <= {2}
    assert sorted(one[HASH] for one in done) == sorted([WRITTEN, *7 * [KEPT]])
    assert contents(root / FOLDER) == CACHE
