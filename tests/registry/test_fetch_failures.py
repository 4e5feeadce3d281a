"""``gdn-aot fetch`` when something is wrong: nothing wrong reaches the store, and each failure has its exit code."""

import hashlib
import json
import shutil
from typing import Any

import pytest
from helpers import expect_error
from making import SM_90, SM_120, WANTED, make
from registries import Here, kept
from storing import check_store, place_of
from swapping import swap_while_fetching

from gdn_aot.artifact.archive import Written
from gdn_aot.artifact.names import make_identifier
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.cli import main
from gdn_aot.errors import NetworkError
from gdn_aot.registry import downloaded
from gdn_aot.registry import fetch as fetching
from gdn_aot.registry.base import Addition
from gdn_aot.registry.layout import INDEX, Entry, artifact_path
from gdn_aot.registry.open import open_registry
from gdn_aot.store.stored import StoredArtifact


def refused(here: Here, *args: object, code: int = 5, kind: str = "verification") -> dict[str, Any]:
    """Fetch, and see that nothing of it reaches the store."""
    error: dict[str, Any] = expect_error(here.fetch(*args, "--json", code=code), code, kind)
    assert here.files() == {}
    return error


def change_index(here: Here, *more: Addition, new: bool = False, **changes: Any) -> None:
    """Publish an index whose entry of sm_120 lies, or that has it once more with the lies, and other files."""
    opened = open_registry(str(here.registry))
    head = opened.resolve("v1")
    raw = json.loads(opened.read(head, INDEX))
    entry = next(entry for entry in raw["entries"] if entry["target"] == "sm_120")
    if new:
        raw["entries"].append(entry.copy())
    entry.update(changes)
    raw["entries"].sort(key=lambda row: row["identifier"])
    content = json.dumps(raw, indent=1).encode() + b"\n"
    opened.commit("v1", head.commit, [Addition(path=INDEX, content=content), *more], "a lie")


def test_another_file_than_the_index_says(here: Here, sm_90: Written) -> None:
    """The file is sound and has the digest that is listed, and is for another target."""
    file = Addition(path=artifact_path(SM_120), content=sm_90.path)
    change_index(here, file, sha256=sm_90.sha256, size=sm_90.size)
    assert refused(here)["problems"] == [
        {"where": "identifier", "what": f"{SM_120} in the index, {SM_90} in the file"},
        {"where": "target", "what": "sm_120 in the index, sm_90 in the file"},
    ]


LIES: dict[str, Any] = {
    "distribution": "other",
    "license": "GPL-3.0-only",
    "ptxas": "13.0.1",
    "models": [{"name": "qwen3.5-9b", "tp": 2, "dtype": "bf16"}],
    "mode": "train",
    "max_tokens": 1,
    "kernels": 3,
    "binaries": 4,
    "choices": {"measured": 4, "transferred": 0, "default": 0},
    "numerics": {"status": "checked", "detail": "within 1e-3" + "." * 1000},
    "not_covered": 0,
    "tool": "gdn-aot 9",
    "commit": "d" * 40,
    "dirty": True,
}


def test_an_index_that_lies(here: Here) -> None:
    """The file is the one that is listed, and the index says something else of all of it."""
    change_index(here, **LIES)
    problems = refused(here)["problems"]
    assert {problem["where"] for problem in problems} == {*LIES}
    for problem in problems:
        assert problem["what"].isprintable()
        assert len(problem["what"]) < 450


def test_every_field_is_compared() -> None:
    """The others say which file it is, or are what the identifier is made of."""
    named = {"identifier", "sha256", "size", "target", "provider", "version", "triton"}
    assert {*Entry.__struct_fields__} == {*LIES} | named


def test_what_is_no_artifact(here: Here) -> None:
    """The digest is as listed; the content is none of ours."""
    content = b"not an artifact" * 100
    file = Addition(path=artifact_path(SM_120), content=content)
    change_index(here, file, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    assert SM_120 in refused(here)["message"]


def test_a_file_that_is_swapped_while_it_is_checked(
    here: Here, sm_120: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the comparison with the index it becomes another sound one: what was compared is installed."""
    other = make(here.home.parent, build=5).path
    target = kept(here.registry, sm_120)
    compare = downloaded._same_file

    def compare_then_swap(*args: Any) -> None:
        compare(*args)
        shutil.copyfile(other, target)

    monkeypatch.setattr(downloaded, "_same_file", compare_then_swap)
    monkeypatch.setenv("GDN_AOT_HOME", str(here.home))
    assert main.run(["fetch", "--allow-unsigned", "--repo", str(here.registry), "--arch", "sm_120", *WANTED]) == 0
    assert target.read_bytes() == other.read_bytes()
    assert check_store(here.home) == [sm_120.sha256]
    assert StoredArtifact(str(place_of(here.home))).manifest == open_artifact(sm_120.path).manifest


def test_a_file_that_is_swapped_again_and_again(here: Here) -> None:
    """Somebody else writes into it all the time; what is installed is what is pinned, or nothing."""
    found = swap_while_fetching(here, 60)
    assert found["evil"] == 0
    assert min(found["good"], found["refused"]) > 0, found


def test_a_missing_file(here: Here) -> None:
    """The index lists what the directory does not have."""
    identifier = make_identifier("fla", "0.6.0", "3.6.0", "sm_100")
    change_index(here, new=True, target="sm_100", identifier=identifier)
    refused(here, "--arch", "sm_100", code=7, kind="entry-missing")


# Failures and what they end with


def test_a_store_that_cannot_be_written(here: Here, sm_120: Written) -> None:
    """It says so before anything is downloaded: the file is not even there."""
    here.home.mkdir()
    (here.home / "file").write_bytes(b"")
    kept(here.registry, sm_120).unlink()
    done = here.fetch("--json", code=9, extra={"GDN_AOT_HOME": f"{here.home}/file/x"})
    assert "GDN_AOT_HOME" in expect_error(done, 9, "not-writable")["hint"]


@pytest.mark.parametrize(
    ("args", "kind", "code"),
    [
        (("--arch", "sm_100"), "no-artifact", 4),
        (("--arch", "sm_999"), "usage", 2),
        (("--revision", "v7"), "revision-missing", 7),
        (("--locked",), "usage", 2),
    ],
)
def test_optional(here: Here, args: tuple[str, ...], kind: str, code: int) -> None:
    done = here.fetch(*args, "--optional", "--json")
    assert done.json["ok"] is False
    assert done.json["error"]["code"] == kind
    assert f"Warning: {done.json['error']['message']}" in done.err
    assert "continuing" in done.err
    assert here.fetch(*args, "--strict", "--json", code=code).json["error"] == done.json["error"]


def test_optional_and_well(here: Here) -> None:
    done = here.fetch("--optional", "--json")
    assert done.json["ok"] is True
    (warning,) = (line for line in done.err.splitlines() if "Warning" in line)
    assert "no signature of them counts" in warning
    assert "Warning" not in here.fetch("--optional").err
    expect_error(here.fetch("--optional", "--strict", "--json", code=2), 2, "usage")


@pytest.mark.parametrize(
    ("raised", "codes"),
    [(RuntimeError("surprise"), (1, 0)), (NetworkError("down"), (7, 0)), (KeyboardInterrupt(), (130,) * 2)],
)
def test_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, codes: tuple[int, int]
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(fetching, "fetch", fail)
    for optional, code in zip(([], ["--optional"]), codes, strict=True):
        assert main.run(["fetch", "--repo", ".", "--arch", "sm_120", *WANTED, *optional]) == code
        said = capsys.readouterr().err
        assert (str(raised) or "interrupted") in said
        assert "Traceback" not in said
