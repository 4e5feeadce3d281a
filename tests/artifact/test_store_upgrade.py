"""Stores of an older format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import storing
from hub.checking import check_store

from gdn_aot.artifact.verify import Artifact
from gdn_aot.store import install as install_module
from gdn_aot.store.audit import audit
from gdn_aot.store.install import find_installed, install
from gdn_aot.store.store import Store


def test_an_older_store_is_upgraded(home: Path, tmp_path: Path, one: Artifact) -> None:
    other, third = storing.variant(tmp_path, 2), storing.variant(tmp_path, 3)
    storing.old_store(home, one, other)
    store = Store(str(home))
    assert (store.artifacts(), find_installed(store, one.sha256)) == ([], None)
    install(store, third)
    assert check_store(home) == [third.sha256, other.sha256, one.sha256]
    assert audit(store).problems == ()
    assert sorted(path.name for path in (home / "store").iterdir()) == [
        ".lock", "CACHEDIR.TAG", "artifacts", "format", "packs",
    ]  # fmt: skip
    assert (home / "store/format").read_text() == "2\n"
    for place in (home / "store/artifacts").iterdir():
        assert sorted(path.name for path in place.iterdir()) == ["index", "manifest.json.zst"]


@pytest.mark.parametrize("what", ["blob", "no blob", "manifest.json", "no manifest.json", "index", "no index", "name"])
def test_what_is_damaged_in_an_older_store_is_dropped(home: Path, tmp_path: Path, one: Artifact, what: str) -> None:
    other = storing.variant(tmp_path, 2)
    storing.old_store(home, one, other)
    place = home / "store/artifacts" / f"{one.manifest.identifier}-{one.sha256[:16]}"
    own = next(iter(dict(one.iter_blobs()).keys() - dict(other.iter_blobs()).keys()))
    files = {
        "blob": home / "store/blobs" / own[:2] / own,
        "manifest.json": place / "manifest.json",
        "index": place / "index",
    }
    if what == "name":
        place.rename(place.with_name("other-0123456789abcdef"))
    elif what.startswith("no "):
        files[what[3:]].unlink()
    else:
        files[what].write_bytes(files[what].read_bytes()[::-1])
    third = storing.variant(tmp_path, 3)
    install(Store(str(home)), third)
    kept = [third.sha256, other.sha256]
    assert check_store(home) == ([*kept, one.sha256] if what == "name" else kept)
    assert json.loads(storing.read_manifest(Path(Store(str(home)).artifacts()[1])))["format"] == 1


def test_an_upgrade_that_is_cut_off_anywhere(home: Path, tmp_path: Path, one: Artifact) -> None:
    """Every step of it is the last one once; the next installation goes on from there."""
    other, third = storing.variant(tmp_path, 2), storing.variant(tmp_path, 3)
    names = ("replace", "unlink", "rename", "fsync", "utime")
    for number in range(1, 100):
        storing.old_store(home, one, other)
        left = [number]
        with pytest.MonkeyPatch.context() as patch:
            for name in names:
                real = getattr(os, name)

                def dying(*args: Any, real: Any = real, left: list[int] = left, **kwargs: Any) -> Any:
                    left[0] -= 1
                    if not left[0]:
                        raise SystemExit
                    return real(*args, **kwargs)

                patch.setattr(os, name, dying)
            try:
                install(Store(str(home)), third)
                break
            except SystemExit:
                pass
        install(Store(str(home)), third)
        assert set(check_store(home)) == {third.sha256, other.sha256, one.sha256}, number
        assert storing.leftovers(home) == []
        assert not (home / "store/blobs").exists()
        install_module.discard(str(home))
    assert number > 15
