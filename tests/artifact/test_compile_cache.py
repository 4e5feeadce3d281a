"""The compile cache of an engine in an artifact: in the manifest, in the archive, in the index and in what is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factory
import pytest
from factory import CACHE, HASH, problems_of, sha256
from helpers import Done

from gdn_aot.artifact import cached
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.errors import VerificationError
from gdn_aot.store.index import Index
from gdn_aot.store.index_writer import write_index
from gdn_aot.store.stored import UnpackedArtifact

MADE: dict[str, Any] = {"torch": "2.11.0+cu130", "python": "3.12.3", "card": "NVIDIA H200"}
MODEL = f"{HASH}/rank_0_0/model"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return factory.write_cached(tmp_path, "0.24.0", CACHE, environment=(("VLLM_CONFIG_ROOT", "/root/x"),), **MADE)


def test_its_files_are_kept_in_pieces_behind_everything_else(path: Path) -> None:
    manifest = open_artifact(path).manifest
    cache = manifest.compile_cache
    assert cache is not None
    assert {file.path: len(file.blobs) for file in cache.files} == dict(zip(CACHE, (1, 0, 1, 2), strict=True))
    table = [blob.sha256 for blob in manifest.blobs]
    assert table[-len(manifest.cached_blobs) :] == list(manifest.cached_blobs)
    found = {file.path: b"".join(map(open_artifact(path).read_blob, file.blobs)) for file in cache.files}
    assert found == CACHE


def test_the_same_files_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    again = dict(reversed(CACHE.items()))
    more: dict[str, Any] = {"environment": (("VLLM_CONFIG_ROOT", "/root/x"),), **MADE}
    assert factory.write_cached(tmp_path / "again", "0.24.0", again, **more).read_bytes() == path.read_bytes()


def test_the_index_has_it(path: Path) -> None:
    index = Index.in_memory(write_index(open_artifact(path)))
    cache = index.compile_cache()
    assert cache is not None
    assert index.header["compile_cache"] == 4
    assert (cache.torch, cache.python, cache.card) == tuple(MADE.values())
    assert [tuple(row) for row in cache.environment] == [("VLLM_CONFIG_ROOT", "/root/x")]
    assert dict(cache.files)[MODEL] == [
        sha256(CACHE[MODEL][: cached.PIECE]), sha256(CACHE[MODEL][cached.PIECE :]),
    ]  # fmt: skip


def test_what_has_none_is_as_it_was(tmp_path: Path) -> None:
    """Artifacts that were made before there were any are read, and their index, which is signed, is the same."""
    artifact = open_artifact(factory.write(tmp_path))
    assert b"compile_cache" not in artifact.manifest_json
    data = write_index(artifact)
    assert b"compile_cache" not in data
    assert Index.in_memory(data).compile_cache() is None


def test_a_launch_keeps_nothing_of_it_in_memory(path: Path) -> None:
    """Of a file that no store takes, all blobs are kept when one is asked for: those for launches."""
    data = path.read_bytes()
    index = Index.in_memory(write_index(open_artifact(path)))
    artifact = UnpackedArtifact(str(path), data, index.header)
    cubin = sha256(factory.CUBINS[0])
    assert artifact.read_blob(cubin) == factory.CUBINS[0]
    cache = index.compile_cache()
    assert cache is not None
    pieces = {blob for _, blobs in cache.files for blob in blobs}
    assert dict(artifact.read_blobs(pieces)).keys() == pieces
    assert {*artifact._blobs}.isdisjoint(pieces)
    assert cubin in artifact._blobs
    with pytest.raises(VerificationError):
        list(artifact.read_blobs([64 * "0"]))


def change(number: int, **fields: Any) -> Callable[[Any], None]:
    return lambda value: value["compile_cache"]["files"][number].update(fields)


def whole(**fields: Any) -> Callable[[Any], None]:
    return lambda value: value["compile_cache"].update(fields)


def unrecorded(value: Any) -> None:
    value["workloads"].pop()
    value["identifier"] = value["identifier"].removesuffix(f"-{factory.RECORDED}")


def turned(value: Any) -> None:
    value["compile_cache"]["files"][3]["blobs"].reverse()


def crowded(value: Any) -> None:
    files = value["compile_cache"]["files"]
    value["compile_cache"]["files"] = [{**files[1], "path": f"a/{number:05}"} for number in range(cached.MAX_FILES + 1)]


FIRST = "compile_cache.files[0]"


@pytest.mark.parametrize(
    ("damage", "where", "what"),
    [
        *(
            (change(0, path=path), f"{FIRST}.path", "")
            for path in (
                "../x", "/etc/x", "a/../../x", "a/./x", "a//x", "a/", "", "x.py", "a/.x", ".a/x", "a\\b", "a/b\n",
                "a/\0", "C:/x", "~/x", "a/b" + 400 * "c",
            )
        ),
        (change(0, path="torch_aot_compile/model"), f"{FIRST}.path", "is in no folder"),
        (change(1, path=f"{next(iter(CACHE))}/x"), "compile_cache.files[1].path", "is below another file"),
        (change(1, path=next(iter(CACHE))), "compile_cache.files", "each once"),
        (lambda value: value["compile_cache"]["files"].reverse(), "compile_cache.files", "rising order"),
        (change(0, blobs=[64 * "0"]), f"{FIRST}.blobs[0]", "in the blob table"),
        (turned, "compile_cache.files[3].blobs[0]", "bytes"),
        (whole(files=[]), "compile_cache.files", "expected 1 to"),
        (crowded, "compile_cache.files", "expected 1 to"),
        (whole(kind="code"), "compile_cache.kind", "vllm-compile-cache"),
        (whole(environment=[["PATH", "/x"]]), "compile_cache.environment[0][0]", ""),
        (whole(environment=[["VLLM_B", "/x"], ["VLLM_A", "/x"]]), "compile_cache.environment", "rising order"),
        (whole(card=300 * "x"), "compile_cache.card", ""),
        (whole(more=1), "compile_cache.more", "unknown key"),
        (unrecorded, "compile_cache", "not for one deployment"),
    ],
)  # fmt: skip
def test_what_is_refused(path: Path, damage: Callable[[Any], object], where: str, what: str) -> None:
    value = json.loads(open_artifact(path).manifest_json)
    damage(value)
    found = problems_of(value)
    assert where in found, found
    assert what in found[where]


def test_another_provider_has_none(tmp_path: Path) -> None:
    module = "sglang.srt.layers.attention.fla.chunk_o"
    with pytest.raises(VerificationError) as caught:
        factory.write_of("sglang", "0.5.17", module, tmp_path, cache=factory.make_cache(CACHE))
    assert "the provider is not vllm" in str(caught.value.problems)


def test_it_is_not_larger_than_it_may_be(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A content that many files have counts for each of them, as it is written for each."""
    monkeypatch.setattr("gdn_aot.artifact.check_cache.MAX_BYTES", cached.PIECE)
    with pytest.raises(VerificationError) as caught:
        open_artifact(path)
    assert [problem.where for problem in caught.value.problems] == ["compile_cache.files"]


def test_commands_say_that_it_is_code_for_the_host(path: Path, command: Callable[..., Done]) -> None:
    text = (
        "vLLM's compile cache (4 files, 4.0 MiB) of PyTorch 2.11.0+cu130, Python 3.12.3, NVIDIA H200; vLLM runs it if"
    )
    assert f"host code   {text} GDN_AOT_COMPILE_CACHE=1" in command("inspect", path).out
    assert f"host code: {text} GDN_AOT_COMPILE_CACHE=1" in command("verify", path).out
    assert json.loads(command("verify", path, "--json").out)["host_code"].startswith(text)
    cache = json.loads(command("inspect", path, "--json").out)["compile_cache"]
    assert [row["path"] for row in cache["files"]] == sorted(CACHE)


def test_an_artifact_without_says_nothing_of_it(tmp_path: Path, command: Callable[..., Done]) -> None:
    plain = factory.write(tmp_path)
    for name in ("inspect", "verify"):
        assert "host code" not in command(name, plain).out
    assert "host_code" not in json.loads(command("verify", plain, "--json").out)


def test_it_is_not_published(path: Path, tmp_path: Path, command: Callable[..., Done]) -> None:
    """A registry has what fits every deployment, and nothing that runs on a host."""
    got = command("publish", path, "--repo", tmp_path / "registry", "--create", code=2)
    assert "one deployment" in got.err
    assert not (tmp_path / "registry").exists()
