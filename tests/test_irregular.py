"""No file that others hand over is waited for: FIFOs, devices and sparse files are refused, whoever reads them."""

import importlib.metadata
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from gdn_aot.artifact.verify import examine
from gdn_aot.building import pack
from gdn_aot.capture import form, merge
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.errors import GdnAotError, NotWritableError, ProviderMissingError, RegistryError, UsageError
from gdn_aot.matrix.load import load as load_matrix
from gdn_aot.providers.fla import configs
from gdn_aot.records import numerics, tuning
from gdn_aot.registry.base import Addition
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import INDEX
from gdn_aot.registry.lockfile import LockFile, read_lock, write_lock
from gdn_aot.triton_internals.disk_cache import Place, group_name, read_entry


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """End a test that waits."""
    signal.alarm(20)
    yield
    signal.alarm(0)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(64 << 30)


LOCK = LockFile(repository="hf://org/name", revision="v1", commit="0" * 40, artifacts=())

READERS: dict[str, tuple[Callable[[Path], Any], type[GdnAotError]]] = {
    "artifact": (examine, UsageError),
    "capture": (form.load, UsageError),
    "lock file": (read_lock, UsageError),
    "lock file, written": (lambda path: write_lock(path, LOCK), NotWritableError),
    "matrix": (load_matrix, UsageError),
    "numerics record": (numerics.FORM.load, UsageError),
    "tuning record": (tuning.FORM.load, UsageError),
}


@pytest.mark.parametrize("make", [fifo, device])
@pytest.mark.parametrize("what", READERS)
def test_a_file_that_is_none_is_refused(what: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "file")
    read, kind = READERS[what]
    with pytest.raises(kind, match="is not a regular file"):
        read(tmp_path / "file")


@pytest.mark.parametrize("what", [what for what in READERS if what != "artifact"])
def test_a_file_that_is_too_large_is_refused_at_once(what: str, tmp_path: Path) -> None:
    sparse(tmp_path / "file")
    with pytest.raises(GdnAotError) as caught:
        READERS[what][0](tmp_path / "file")
    assert "is larger than" in f"{caught.value.message} {list(map(str, caught.value.problems))}"


@pytest.mark.parametrize("make", [fifo, device, sparse])
def test_what_a_directory_registry_has(make: Callable[[Path], None], tmp_path: Path) -> None:
    registry = DirectoryRegistry(str(tmp_path))
    make(tmp_path / INDEX)
    with pytest.raises(RegistryError, match=r"is not a regular file|is larger than"):
        registry.refs()


@pytest.mark.parametrize("make", [fifo, device, lambda path: path.symlink_to("elsewhere")])
def test_the_lock_of_a_directory_registry(make: Callable[[Path], None], tmp_path: Path) -> None:
    registry = DirectoryRegistry(str(tmp_path / "registry"))
    registry.create(private=False)
    (tmp_path / "registry/.lock").unlink()
    make(tmp_path / "registry/.lock")
    with pytest.raises(NotWritableError):
        registry.settle([Addition(path="README.md", content=b"text")])
    assert not (tmp_path / "registry/elsewhere").exists()
    assert not (tmp_path / "registry/README.md").exists()


def test_what_processes_recorded(tmp_path: Path) -> None:
    name = f"1{merge.ENDING}"
    fifo(tmp_path / name)
    assert merge.merge_folder(tmp_path).notes == [f"{name} is left out: it cannot be read: is not a regular file"]


def test_licence_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo(tmp_path / "LICENSE")
    file = SimpleNamespace(
        name="LICENSE", parts=PurePosixPath("x.dist-info/LICENSE").parts, locate=lambda: tmp_path / "LICENSE"
    )
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: SimpleNamespace(files=[file], version="1"))
    with pytest.raises(ProviderMissingError, match="cannot be read"):
        pack.license_texts(PROVIDERS["fla"])


def test_files_of_an_export(tmp_path: Path) -> None:
    fifo(tmp_path / "a.json")
    with pytest.raises(UsageError, match="was not written by gdn-aot"):
        configs.write(configs.Export(files={"a.json": b"{}"}, entries={}, not_served=()), tmp_path)


def test_what_is_in_a_cache_of_triton(tmp_path: Path) -> None:
    place = Place(directory="A", name="kernel.json")
    (tmp_path / "A").mkdir()
    fifo(tmp_path / "A" / group_name(place))
    assert read_entry(tmp_path, place) is None
