"""Publishing to a directory is killed before every change that it makes."""

import shutil
from pathlib import Path

import pytest
from making import expected, make
from processes import ALL, killed_at
from registries import listed, put

from gdn_aot.artifact.archive import Written
from gdn_aot.errors import RepositoryMissingError
from gdn_aot.registry.directory import DirectoryRegistry


def start(folder: Path, kind: str, old: Written) -> Path:
    """Make a directory as it may be before: none, an empty registry, one with a release, a copy of one's files."""
    root = folder / "start"
    if kind == "empty":
        DirectoryRegistry(str(root)).create(private=False)
    elif kind != "none":
        put(root, old, tag="v1.0.0")
    if kind == "copy":
        for name in ("indexes", "tags"):
            shutil.rmtree(root / name)
    return root


@pytest.mark.parametrize("kind", ["none", "empty", "release", "copy"])
def test_killed_at_every_step(tmp_path: Path, kind: str) -> None:
    old, third, new = make(tmp_path), make(tmp_path, "sm_90"), make(tmp_path, build=1)
    root = start(tmp_path, kind, old)
    before = expected(old) if kind in ("release", "copy") else {}
    outcomes = set()
    for step in range(300):
        place = tmp_path / f"root-{step}"
        if root.exists():
            shutil.copytree(root, place)
        killed = killed_at(step, lambda place=place: put(place, new, third, tag="v1.1.0"), ALL)
        registry = DirectoryRegistry(str(place))
        try:
            found = listed(registry)
        except RepositoryMissingError:
            assert kind == "none"
            found = {}
        assert found in (before, expected(new, third))
        outcomes.add(bool(found == before))
        if kind == "release":
            assert listed(registry, "v1.0.0") == before
        put(place, new, third, tag="v1.1.0")
        assert listed(registry) == listed(registry, "v1.1.0") == expected(new, third)
        assert not [*place.rglob(".tmp-*")]
        shutil.rmtree(place)
        if not killed:
            break
    else:
        pytest.fail("it never came to its end")
    assert step > 20
    assert outcomes == {True, False}
