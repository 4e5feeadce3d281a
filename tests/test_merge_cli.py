"""``gdn-aot merge`` and what other commands say of a shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sharding
from artifact import factory
from helpers import expect_error, gdn_aot, python

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.verify import open_artifact

if TYPE_CHECKING:
    from pathlib import Path

IDENTIFIER = "fla0.6.0-triton3.6.0-sm_120"


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Three shards of one build."""
    places = iter(range(1000))
    manifests = sharding.divide(factory.make_manifest(), 3, lambda: next(places) % 3)
    return sharding.write_all(manifests, factory.make_blobs(), tmp_path / "shards")


def test_the_document(tmp_path: Path, shards: list[Path]) -> None:
    done = gdn_aot("merge", *shards, "-o", tmp_path / "out", "--json", home=tmp_path)
    (row,) = done.json["artifacts"]
    path = tmp_path / "out" / m.file_name(IDENTIFIER)
    artifact = open_artifact(path)
    assert row == {
        "path": str(path), "identifier": IDENTIFIER, "arch": "sm_120", "size": artifact.size, "sha256": artifact.sha256,
        "kernels": 2, "choices": 4, "binaries": 3,
        "provenance": {"measured": 2, "captured": 0, "transferred": 0, "default": 2}, "derived": 0,
        "not_covered": [{"kernel": "fla.ops.x:y", "reason": "needs 98304 bytes", "keys": 1}], "shards": 3,
    }  # fmt: skip
    assert done.json["seconds"] >= 0
    assert f"{IDENTIFIER}: 3 shards, 2 kernels, 3 binaries in " in done.err


def test_the_text_is_the_paths_and_the_default_place_is_that_of_build(tmp_path: Path, shards: list[Path]) -> None:
    assert gdn_aot("merge", *shards, home=tmp_path).out == f"artifacts/dist/{m.file_name(IDENTIFIER)}\n"
    assert (tmp_path / "artifacts" / "dist" / m.file_name(IDENTIFIER)).is_file()


_WITHOUT = """
import sys
from importlib.abc import MetaPathFinder
class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "triton", "fla", "huggingface_hub"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import os
os.environ["GDN_AOT_HOME"] = "/nowhere"
from gdn_aot.cli.main import run
code = run(["merge", *sys.argv[2:], "-o", sys.argv[1]])
print(code)
"""


def test_neither_torch_nor_triton_nor_the_provider_is_needed(tmp_path: Path, shards: list[Path]) -> None:
    assert python(_WITHOUT, tmp_path / "out", *shards, home=tmp_path) == 0
    assert open_artifact(tmp_path / "out" / m.file_name(IDENTIFIER)).manifest.shard is None


def test_a_damaged_shard_is_refused(tmp_path: Path, shards: list[Path]) -> None:
    data = bytearray(shards[1].read_bytes())
    data[len(data) // 2] ^= 1
    shards[1].write_bytes(data)
    done = gdn_aot("merge", *shards, "-o", tmp_path / "out", "--json", home=tmp_path, code=5)
    error = expect_error(done, 5, "verification")
    assert str(shards[1]) in error["message"]
    assert list((tmp_path / "out").iterdir()) == []


def test_shards_that_do_not_belong_together_are_refused(tmp_path: Path, shards: list[Path]) -> None:
    artifact = factory.write(tmp_path)
    for files, said in (
        (shards[:2], "1 are missing: 3"),
        ([*shards, shards[0]], "are both shard 1 of 3"),
        ([*shards, artifact], "is an artifact, not a shard"),
    ):
        done = gdn_aot("merge", *files, "-o", tmp_path / "out", "--json", home=tmp_path, code=2)
        assert said in expect_error(done, 2, "shard")["message"]
        assert list((tmp_path / "out").iterdir()) == []


def test_no_file_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "Missing argument 'FILE...'" in gdn_aot("merge", home=tmp_path, code=2).err
    done = gdn_aot("merge", tmp_path / "absent", "--json", home=tmp_path, code=2)
    assert "cannot find" in expect_error(done, 2, "usage")["message"]


def test_verify_says_what_a_shard_is(tmp_path: Path, shards: list[Path]) -> None:
    done = gdn_aot("verify", shards[1], "--json", home=tmp_path)
    assert done.json["ok"] is True
    assert done.json["shard"] == {"number": 2, "of": 3}
    done = gdn_aot("verify", shards[1], home=tmp_path)
    assert done.out.startswith(f"{shards[1]}: ok, ")
    assert f"It is shard 2 of 3 of {IDENTIFIER}" in done.err
    shards[1].write_bytes(shards[1].read_bytes()[:-9])
    done = gdn_aot("verify", shards[1], "--json", home=tmp_path, code=5)
    assert "shard" not in done.json
    assert "shard" not in gdn_aot("verify", factory.write(tmp_path), "--json", home=tmp_path).json


_OTHERS = {
    "inspect": ("inspect", "{}"),
    "coverage": ("coverage", "{}", "--model", "qwen3.5-9b"),
    "seed": ("seed", "{}", "--into", "cache"),
    "export": ("export", "--artifact", "{}", "--format", "fla", "-o", "configs"),
    "publish": ("publish", "{}", "--repo", "./registry", "--tag", "v1.0.0", "--create"),
}


@pytest.mark.parametrize("name", _OTHERS)
def test_other_commands_want_it_merged_first(tmp_path: Path, shards: list[Path], name: str) -> None:
    arguments = [part.format(shards[0]) for part in _OTHERS[name]]
    done = gdn_aot(*arguments, "--json", home=tmp_path, code=2)
    error = expect_error(done, 2, "shard")
    assert error["message"] == f"{shards[0]} is shard 1 of 3 of {IDENTIFIER}, not an artifact"
    assert error["hint"].startswith("merge it first: gdn-aot merge ")
    assert not (tmp_path / "registry").exists()


_LOADER = """
import json
import gdn_aot
gdn_aot.install()
print(json.dumps([[item.accepted, item.reason] for item in gdn_aot.report().artifacts]))
"""


def test_the_loader_leaves_it_and_says_why(tmp_path: Path, shards: list[Path]) -> None:
    found = python(_LOADER, home=tmp_path, extra={"GDN_AOT_ARTIFACT": str(shards[0])})
    assert found == [[False, f"{shards[0]} is shard 1 of 3 of {IDENTIFIER}, not an artifact"]]
