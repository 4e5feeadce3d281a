"""An installed artifact, read back."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from doctoring import flip
from registry.registries import payload

from artifact import factory
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.errors import UnknownFormatError, UsageError, VerificationError
from gdn_aot.store.install import install
from gdn_aot.store.store import MANIFEST, Store
from gdn_aot.store.stored import StoredArtifact

if TYPE_CHECKING:
    from pathlib import Path


def read_all(stored: StoredArtifact) -> None:
    for blob in stored.manifest.blobs:
        assert factory.sha256(stored.read_blob(blob.sha256)) == blob.sha256


@pytest.fixture
def place(sound: Path, tmp_path: Path) -> Path:
    return tmp_path.joinpath(install(Store(str(tmp_path / "home")), open_artifact(sound)).place)


def test_it_is_what_the_file_is(place: Path, sound: Path) -> None:
    stored, opened = StoredArtifact(place), open_artifact(sound)
    assert stored.manifest == opened.manifest
    for blob in stored.manifest.blobs:
        assert stored.read_blob(blob.sha256) == opened.read_blob(blob.sha256)


def test_a_link_to_it(place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(place)
    assert StoredArtifact(tmp_path / "link").manifest.identifier in place.name


def test_damage(place: Path, tmp_path: Path) -> None:
    path = payload(tmp_path / "home")
    content = path.read_bytes()
    path.write_bytes(bytes(len(content)))
    with pytest.raises(VerificationError):
        read_all(StoredArtifact(place))
    path.unlink()
    with pytest.raises(VerificationError):
        read_all(StoredArtifact(place))
    path.write_bytes(content)
    read_all(StoredArtifact(place))
    flip(place / MANIFEST, 0)
    with pytest.raises(VerificationError):
        StoredArtifact(place)
    (place / MANIFEST).unlink()
    with pytest.raises(VerificationError, match="cannot be read"):
        StoredArtifact(place)


def test_what_is_none(place: Path, tmp_path: Path) -> None:
    for other in (tmp_path, tmp_path / "home/store", place.parent, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="is no artifact of a store"):
            StoredArtifact(other)
    shutil.copytree(place, tmp_path / "copy" / place.name)
    with pytest.raises(UsageError, match="is no artifact of a store"):
        StoredArtifact(tmp_path / "copy" / place.name)


def test_a_newer_store(place: Path, tmp_path: Path) -> None:
    (tmp_path / "home/store/format").write_text("99\n")
    with pytest.raises(UnknownFormatError):
        StoredArtifact(place)
