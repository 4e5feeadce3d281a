"""``gdn-aot seed`` of several artifacts, and of what fits in the store."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from builds import Built
from commands import contents, refused
from helpers import gdn_aot
from msgspec.structs import replace

from gdn_aot.artifact import archive, names
from gdn_aot.artifact import manifest as manifests
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.catalogue.targets import get_target
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.stored import StoredArtifact


@pytest.fixture
def store(decode: Built, tmp_path: Path) -> list[Path]:
    """A store with the artifact, one of another identifier with the same content, and one for another Triton."""
    artifact = open_artifact(decode.path)
    blobs = dict(artifact.iter_blobs())
    found = []
    for target, triton in (("sm_120", artifact.manifest.triton.version), ("sm_121", artifact.manifest.triton.version),
                           ("sm_120", "3.1.0")):  # fmt: skip
        row, plain = get_target(target), artifact.manifest
        manifest = replace(
            plain,
            identifier=names.make_identifier(plain.provider.name, plain.provider.version, triton, target),
            target=manifests.GPU(name=row.name, capability=row.capability, warp_size=32, max_shared=row.max_shared),
            triton=replace(plain.triton, version=triton),
            kernels=tuple(
                replace(
                    kernel,
                    binaries=tuple(
                        replace(binary, metadata={**binary.metadata, "arch": target.replace("_", "")})
                        for binary in kernel.binaries
                    ),
                )
                for kernel in plain.kernels
            ),
            blobs=(),
        )
        path = archive.write_artifact(manifest, blobs, tmp_path / names.file_name(manifest.identifier)).path
        found.append(Path(install(Store(str(tmp_path / "home")), open_artifact(path)).place))
    return found


def test_without_a_file_what_fits_in_the_store_is_seeded(store: list[Path], tmp_path: Path) -> None:
    home, into = tmp_path / "home", tmp_path / "cache"
    done = gdn_aot("seed", "--into", into, "--json", home=home).json
    names = [item["identifier"] for item in done["artifacts"]]
    assert sorted(names) == sorted(StoredArtifact(place).manifest.identifier for place in store[:2])
    for name in ("binaries", "choices", "written", "kept"):
        assert done[name] == sum(item[name] for item in done["artifacts"])
    assert done["path"] == str(into)
    before = contents(into)
    lines = "\n".join(map(str, store[:2]))
    other = tmp_path / "other"
    again = gdn_aot("seed", lines, "--into", other, "--quiet", home=home)
    assert (again.out, again.err) == (f"{other}\n", "")
    assert contents(other).keys() == before.keys()
    third = tmp_path / "third"
    assert gdn_aot("seed", *store[:2], "--into", third, home=home).out.count("binaries") == 2
    assert contents(third).keys() == before.keys()


def test_nothing_in_the_store_fits(store: list[Path], tmp_path: Path) -> None:
    for place in store[:2]:
        shutil.rmtree(place)
    arguments = ("seed", "--into", tmp_path / "cache")
    error: Any = refused(*arguments, home=tmp_path / "home", code=4, kind="no-artifact")
    assert "made for triton 3.1.0" in error["problems"][0]["what"]
    refused(*arguments, home=tmp_path / "empty", code=4, kind="no-artifact")
    for given in ("", " \n"):
        refused(*arguments, given, home=tmp_path / "empty", code=2, kind="usage")
    assert not (tmp_path / "cache").exists()
