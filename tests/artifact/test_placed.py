"""Files that an artifact puts in place: in the manifest, in the archive and in the index."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import factory
import pytest
from factory import problems_of, sha256

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.launches import Placement, SourceFile
from gdn_aot.store.index import Index
from gdn_aot.store.index_records import PlacedRecord
from gdn_aot.store.index_writer import write_index

SOURCE = SourceFile(path="vllm/model.py", sha256=sha256(b"class Model: ..."))
FILES = [
    (Placement(kind="vllm-model-info", name=f"vllm-models-{name}.json", sources=(SOURCE,)), f'{{"hash": "{name}"}}')
    for name in ("A", "B")
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return factory.write_placed(tmp_path, "0.24.0", FILES)


def test_they_are_kept_as_blobs_after_the_licences(path: Path) -> None:
    artifact = open_artifact(path)
    assert [file.name for file in artifact.manifest.placed] == [file.name for file, _ in FILES]
    assert [artifact.read_blob(file.blob).decode() for file in artifact.manifest.placed] == [text for _, text in FILES]
    table = [blob.sha256 for blob in artifact.manifest.blobs]
    assert table[1:3] == [file.blob for file in artifact.manifest.placed]


def test_the_index_has_them(path: Path) -> None:
    index = Index.in_memory(write_index(open_artifact(path)))
    assert index.header["placed"] == 2
    rows = [
        PlacedRecord("vllm-model-info", file.name, [[SOURCE.path, SOURCE.sha256]], sha256(text.encode()))  # type: ignore[list-item]
        for file, text in FILES
    ]
    assert index.placed() == rows


def test_what_has_none_is_as_it_was(tmp_path: Path) -> None:
    """Artifacts that were made before there were any are read, and their index, which is signed, is the same."""
    artifact = open_artifact(factory.write(tmp_path))
    assert b"placed" not in artifact.manifest_json
    data = write_index(artifact)
    assert b"placed" not in data
    assert Index.in_memory(data).placed() == []


def change(**fields: Any) -> Callable[[Any], None]:
    return lambda value: value["placed"][1].update(fields)


SAME = "is the same as that of placed[0]"
TWICE = change(name=FILES[0][0].name)


@pytest.mark.parametrize(
    ("damage", "where", "what"),
    [
        (change(kind="torch-cache"), "placed[1].kind", "vllm-model-info"),
        (change(name="../x.json"), "placed[1].name", ""),
        (change(name="a/b.json"), "placed[1].name", ""),
        (change(name=".json"), "placed[1].name", ""),
        (change(name="x.py"), "placed[1].name", ""),
        (TWICE, "placed[1].name", SAME),
        (change(sources=[]), "placed[1].sources", "is empty"),
        (change(sources=[{"path": "../x.py", "sha256": 64 * "0"}]), "placed[1].sources[0].path", "relative path"),
        (change(blob=64 * "0"), "placed[1].blob", "is in the blob table"),
        (lambda value: value["placed"].reverse(), "blobs[1]", "after one behind it"),
        (lambda value: value["blobs"][2].update(size=1 << 20), "placed[1].blob", "at most 65536 bytes"),
        (lambda value: value.update(placed=[]), "", ""),
        (lambda value: value.update(placed=50 * value["placed"] + value["placed"]), "placed", "more than 100"),
    ],
)
def test_what_is_refused(path: Path, damage: Callable[[Any], object], where: str, what: str) -> None:
    import json

    value = json.loads(open_artifact(path).manifest_json)
    damage(value)
    found = problems_of(value)
    assert where in found
    assert what in found[where]
