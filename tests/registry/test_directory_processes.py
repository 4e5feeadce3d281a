"""A directory as a registry that cannot be written to the end, or that many write at once."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from gdn_aot.errors import NotWritableError
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import INDEX
from gdn_aot.registry.publish import publish
from registry import small
from registry.directories import empty_registry, expect_shown, expect_whole


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(root: Path) -> DirectoryRegistry:
    return empty_registry(root)


def test_disk_full(registry: DirectoryRegistry, root: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the kernel refuses the write in the middle."""
    publish(registry, [small.artifact(tmp_path)])
    before, shown = expect_whole(root), registry.refs()
    new = small.artifact(tmp_path, "sm_90")

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (new.stat().st_size // 2,) * 2)
        with pytest.raises(NotWritableError, match="File too large"):
            publish(DirectoryRegistry(str(root)), [new])

    assert small.wait([small.fork(fill)]) == [0]
    assert expect_whole(root) == before
    assert registry.refs() == shown
    assert not [*root.rglob(".tmp-*")]
    publish(registry, [new])
    assert len(expect_whole(root)) == 2


def test_eight_publishers_at_once(root: Path, tmp_path: Path) -> None:
    artifacts = [small.artifact(tmp_path, target) for target in small.TARGETS]
    reading, writing = os.pipe()

    def run(number: int) -> None:
        os.read(reading, 1)  # all start together
        publish(DirectoryRegistry(str(root)), [artifacts[number]], create=True, tag=f"v1.0.{number}")

    pids = [small.fork(lambda number=number: run(number)) for number in range(len(artifacts))]
    os.write(writing, b"x" * len(artifacts))
    os.close(writing)
    assert small.wait(pids) == [0] * len(artifacts)
    os.close(reading)
    expected = {entry.identifier: entry.sha256 for entry in map(small.entry, artifacts)}
    assert expect_whole(root) == expect_whole(root, "main") == expected
    expect_shown(root)
    for number, artifact in enumerate(artifacts):
        assert small.entry(artifact).identifier in expect_whole(root, f"v1.0.{number}")
    registry = DirectoryRegistry(str(root))
    main = json.loads(registry.read(registry.resolve("main"), INDEX))
    assert main["tree"] == "v1"
    assert [entry["identifier"] for entry in main["entries"]] == sorted(expected)
