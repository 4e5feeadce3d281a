"""``gdn-aot fetch`` from a directory, and from a store that needs no registry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from doctoring import distribution, driver_library
from helpers import expect_error, gdn_aot, python

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.registry.fetch import FetchOrder
from gdn_aot.registry.open import open_registry
from gdn_aot.registry.select import Request
from gdn_aot.store.install import install
from gdn_aot.store.origins import Origin
from gdn_aot.store.store import Store
from registry.making import SM_90, SM_120, WANTED, make
from registry.registries import fetch, installed, kept, payload, place, put, store_files

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.artifact.archive import Written

OFFLINE = {"HF_HUB_OFFLINE": "1"}
HUB = "hf://org/name"
SECRET = "hf_verysecret"  # noqa: S105 - made up


def test_what_it_does_and_says(registry: Path, home: Path, sm_120: Written) -> None:
    done = fetch(registry, "--arch", "sm_120", "--json", home=home)
    document = done.json
    (row,) = document["artifacts"]
    assert row == {
        "identifier": SM_120,
        "state": "installed",
        "path": f"{home}/store/artifacts/{place(sm_120)}",
        "target": "sm_120",
        "sha256": sm_120.sha256,
        "size": sm_120.size,
        "choices": {"measured": 2, "transferred": 0, "default": 2},
    }
    assert document["ok"] is True
    assert (document["repo"], document["revision"]) == (str(registry), "v1")
    assert document["commit"] == open_registry(str(registry)).refs().branches["v1"]
    assert document["missing"] == []
    assert document["verdicts"] == [
        {"identifier": SM_120, "accepted": True, "reason": "fits"},
        {"identifier": SM_90, "accepted": False, "reason": "is for sm_90; sm_120 is wanted"},
    ]
    again = fetch(registry, "--arch", "sm_120", home=home)
    assert again.out == (
        f"{SM_120}: already installed, {row['path']}; {row['size']} bytes; choices: 2 measured, 2 default\n"
    )
    assert again.err == ""


def test_the_loader_finds_it(registry: Path, home: Path) -> None:
    fetch(registry, "--arch", "all", home=home)
    code = """
import json, sys
from gdn_aot.serving.find import find
found, verdicts = find(sys.argv[1], None)
print(json.dumps([verdict.artifact for verdict in verdicts]))
"""
    assert sorted(python(code, home, home=home)) == [SM_120, SM_90]


def test_again_writes_and_reads_nothing(registry: Path, home: Path, sm_120: Written) -> None:
    fetch(registry, "--arch", "sm_120", home=home)
    before = {path: path.stat().st_mtime_ns for path in (home / "store").rglob("*")}
    kept(registry, sm_120).write_bytes(b"changed, and nobody looks")
    done = fetch(registry, "--arch", "sm_120", "--json", home=home)
    assert done.json["artifacts"][0]["state"] == "already-installed"
    assert {path: path.stat().st_mtime_ns for path in (home / "store").rglob("*")} == before


def test_what_is_incomplete_is_fetched_again(registry: Path, home: Path) -> None:
    fetch(registry, "--arch", "sm_120", home=home)
    whole = store_files(home)
    payload(home).unlink()
    done = fetch(registry, "--arch", "sm_120", "--json", home=home)
    assert done.json["artifacts"][0]["state"] == "repaired"
    assert store_files(home) == whole


def test_quiet(registry: Path, home: Path, sm_120: Written) -> None:
    done = fetch(registry, "--arch", "sm_120", "-q", home=home)
    assert done.out == f"{home}/store/artifacts/{place(sm_120)}\n"
    assert done.err == ""


def test_dry_run(registry: Path, home: Path, sm_120: Written) -> None:
    done = fetch(registry, "--arch", "sm_120", "--dry-run", home=home)
    assert done.out == f"{SM_120}: would install; {sm_120.size} bytes; choices: 2 measured, 2 default\n"
    assert not (home / "store").exists()
    fetch(registry, "--arch", "sm_120", home=home)
    done = fetch(registry, "--arch", "all", "--dry-run", "--json", home=home)
    assert {row["identifier"]: row["state"] for row in done.json["artifacts"]} == {
        SM_120: "already-installed",
        SM_90: "would-install",
    }


LOADED = """
import json, sys
from gdn_aot.cli.main import run
code = run(sys.argv[1:])
names = {"torch", "triton", "fla", "huggingface_hub", "zstandard", "httpx", "numpy"}
print(json.dumps({"code": code, "loaded": sorted(names & set(sys.modules))}))
"""


def loaded(*args: object, home: Path, **extra: str) -> list[str]:
    """What of the heavy modules a command loads, which must end with 0."""
    done = python(LOADED, *args, home=home, extra=extra)
    assert done["code"] == 0
    found: list[str] = done["loaded"]
    return found


def test_what_is_imported(registry: Path, home: Path) -> None:
    """The versions are those that are installed here, which need not be those of the artifacts."""
    wanted = ("--repo", registry, "--arch", "sm_120", *WANTED)
    assert loaded("fetch", *wanted, "--dry-run", home=home) == []
    assert loaded("fetch", "--repo", registry, "--arch", "sm_120", "--dry-run", "--optional", home=home) == []
    assert loaded("fetch", *wanted, home=home) == ["zstandard"]
    assert loaded("fetch", *wanted, home=home) == []
    assert loaded("lock", *wanted, home=home) == []
    assert loaded("list", "--repo", registry, home=home) == []
    assert loaded("fetch", "--locked", home=home) == []


# What is wanted


def test_as_installed(registry: Path, home: Path, tmp_path: Path) -> None:
    """Versions and GPU of a machine that is made up."""
    distribution(tmp_path / "site", "fla_core", "0.6.0")
    extra = {
        **distribution(tmp_path / "site", "triton", "3.6.0"),
        "TRITON_LIBCUDA_PATH": str(driver_library(tmp_path / "driver")),
        "FAKE_ARCHS": "90",
    }
    done = gdn_aot("fetch", "--repo", registry, "--json", home=home, extra=extra)
    assert [row["identifier"] for row in done.json["artifacts"]] == [SM_90]
    other = {**extra, **distribution(tmp_path / "other", "triton", "3.8.0")}
    other["PYTHONPATH"] += f"{os.pathsep}{tmp_path / 'site'}"
    done = gdn_aot("fetch", "--repo", registry, "--json", home=home, extra=other, code=4)
    assert [problem["what"] for problem in done.json["error"]["problems"]] == [
        "is for Triton 3.6.0; 3.8.0 is installed",
        "is for sm_120; this machine has sm_90, and for Triton 3.6.0; 3.8.0 is installed",
    ]


def test_no_gpu(registry: Path, home: Path) -> None:
    done = gdn_aot(
        "fetch", "--repo", registry, *WANTED, "--json", home=home, code=2, extra={"TRITON_LIBCUDA_PATH": "/nowhere"}
    )
    assert "--arch sm_90" in expect_error(done, 2, "usage")["hint"]


def test_nothing_fits(registry: Path, home: Path, artifacts: Path) -> None:
    """The trace, the nearest first, is on stderr and in the JSON."""
    put(registry, make(artifacts, "sm_100", triton="3.8.0"))
    done = fetch(registry, "--arch", "sm_100", "--json", home=home, code=4)
    error = expect_error(done, 4, "no-artifact")
    assert error["message"] == f"{registry} at v1 has no artifact of fla 0.6.0 with Triton 3.6.0 for sm_100"
    assert error["hint"].startswith("gdn-aot build --arch sm_100 --provider fla --model NAME makes one; ")
    trace = [
        "fla0.6.0-triton3.8.0-sm_100: is for Triton 3.8.0; 3.6.0 is wanted",
        f"{SM_120}: is for sm_120; sm_100 is wanted",
        f"{SM_90}: is for sm_90; sm_100 is wanted",
    ]
    problems: Any = error["problems"]
    assert [f"{problem['where']}: {problem['what']}" for problem in problems] == trace
    assert [line.strip() for line in done.err.splitlines() if line.startswith("  ")] == trace
    assert not (home / "store").exists()


def test_a_long_trace_is_cut_for_people(tmp_path: Path, home: Path, artifacts: Path) -> None:
    files = [make(artifacts, version=f"0.5.{number}") for number in range(30)]
    put(tmp_path / "many", *files)
    done = fetch(tmp_path / "many", "--arch", "sm_120", "--json", home=home, code=4)
    lines = [line.strip() for line in done.err.splitlines() if line.startswith("  ")]
    assert len(lines) == 21
    assert lines[-1] == "and 10 more, which --json lists"
    assert len(done.json["error"]["problems"]) == 30


def test_an_empty_registry(tmp_path: Path, home: Path) -> None:
    open_registry(str(tmp_path / "empty")).create(private=False)
    done = fetch(tmp_path / "empty", "--arch", "sm_120", "--json", home=home, code=4)
    assert "it is empty" in expect_error(done, 4, "no-artifact")["message"]


def test_some_of_it(registry: Path, home: Path, sm_120: Written) -> None:
    """What is there is installed; that the rest is not must not look like success."""
    done = fetch(registry, "--arch", "sm_100,sm_120", "--json", home=home, code=4)
    document = done.json
    assert document["ok"] is False
    assert document["missing"] == ["fla 0.6.0 with Triton 3.6.0 for sm_100"]
    assert [row["state"] for row in document["artifacts"]] == ["installed"]
    assert "for sm_100" in expect_error(done, 4, "no-artifact")["message"]
    assert installed(home) == [place(sm_120)]
    assert fetch(registry, "--arch", "sm_100,sm_120", home=home, code=4).out.startswith(f"{SM_120}: already installed")


# Revisions


def test_by_tag_and_back_again(registry: Path, home: Path, sm_120: Written, artifacts: Path) -> None:
    """A moving branch is followed; going back to a tag makes the older build the one that is served."""
    newer = make(artifacts, build=2)
    put(registry, newer, tag="v1.1.0")
    wanted = ("--arch", "sm_120", "--json")
    fetch(registry, *wanted, home=home)
    assert installed(home) == [place(newer)]
    fetch(registry, *wanted, "--revision", "v1.0.0", home=home)
    assert installed(home) == [place(sm_120), place(newer)]
    again = fetch(registry, *wanted, home=home)
    assert again.json["artifacts"][0]["state"] == "already-installed"
    assert installed(home) == [place(newer), place(sm_120)]


def test_a_pinned_commit_needs_no_registry(registry: Path, home: Path) -> None:
    commit = open_registry(str(registry)).refs().branches["v1"]
    fetch(registry, "--arch", "sm_120", home=home)
    registry.rename(registry.with_name("away"))
    done = fetch(registry, "--arch", "sm_120", "--revision", commit, "--json", home=home)
    assert (done.json["asked"], done.json["commit"]) == (False, commit)
    assert done.json["artifacts"][0]["choices"] == {"measured": 2, "transferred": 0, "default": 2}
    assert fetch(registry, "--arch", "sm_120", home=home, code=7).code == 7, "a branch may have moved"
    assert fetch(registry, "--arch", "sm_120", "--revision", "0" * 40, home=home, code=7).code == 7
    assert fetch(registry, "--arch", "sm_90", "--revision", commit, home=home, code=7).code == 7


def test_revisions_that_contradict(home: Path) -> None:
    done = fetch(f"{HUB}@v1.0.0", "--arch", "sm_120", "--revision", "v1.1.0", "--json", home=home, code=2)
    assert "v1.0.0" in expect_error(done, 2, "usage")["message"]


# Offline, where the store answers for a repository of the Hub


@pytest.fixture
def from_hub(home: Path, sm_120: Written) -> Path:
    """A store that was filled from the Hub, and nothing else left of that."""
    install(Store(str(home)), open_artifact(sm_120.path), Origin(repo=HUB, revision="v1", commit="c" * 40))
    return home


def test_offline(from_hub: Path) -> None:
    extra = {**OFFLINE, "HF_HOME": str(from_hub / "hf")}
    done = fetch(HUB, "--arch", "sm_120", "--json", home=from_hub, extra=extra)
    assert (done.json["ok"], done.json["asked"], done.json["commit"]) == (True, False, None)
    assert done.json["artifacts"][0]["size"] is None
    wanted = ("fetch", "--repo", HUB, "--arch", "sm_120", *WANTED)
    assert loaded(*wanted, home=from_hub, **extra) == [], "huggingface_hub is slow to import"
    assert loaded(*wanted, "--revision", "c" * 40, home=from_hub) == [], "nor is it needed for a commit"
    assert not (from_hub / "hf").exists()


def test_offline_and_pinned_before_the_branch(from_hub: Path, sm_120: Written) -> None:
    """The branch went on to another commit that has the same artifact; the first commit is still answered."""
    install(Store(str(from_hub)), open_artifact(sm_120.path), Origin(repo=HUB, revision="d" * 40, commit="d" * 40))
    install(Store(str(from_hub)), open_artifact(sm_120.path), Origin(repo=HUB, revision="v1", commit="e" * 40))
    extra = {**OFFLINE, "HF_HOME": str(from_hub / "hf")}
    for revision, code in (("d" * 40, 0), ("v1", 0), ("e" * 40, 0), ("c" * 40, 8)):
        fetch(HUB, "--arch", "sm_120", "--revision", revision, home=from_hub, extra=extra, code=code)


def test_offline_and_every_target(from_hub: Path) -> None:
    """What the repository has cannot be known; what came from it is taken."""
    extra = {**OFFLINE, "HF_HOME": str(from_hub / "hf")}
    done = fetch(HUB, "--arch", "all", "--json", home=from_hub, extra=extra)
    assert [row["identifier"] for row in done.json["artifacts"]] == [SM_120]


@pytest.mark.parametrize(
    ("repo", "args"),
    [
        (HUB, ("--arch", "sm_90")),
        (HUB, ("--arch", "sm_90,sm_120")),
        (HUB, ("--arch", "sm_120", "--revision", "v1.2.0")),
        (HUB, ("--arch", "sm_120", "--revision", "d" * 40)),
        ("hf://org/other", ("--arch", "sm_120")),
    ],
)
def test_offline_miss(from_hub: Path, repo: str, args: tuple[str, ...]) -> None:
    extra = {**OFFLINE, "HF_HOME": str(from_hub / "hf")}
    done = fetch(repo, *args, "--json", "--token", SECRET, home=from_hub, extra=extra, code=8)
    assert "HF_HUB_OFFLINE" in expect_error(done, 8, "offline-miss")["hint"]
    assert SECRET not in done.out + done.err


def test_tokens_are_not_shown() -> None:
    request = Request(targets=None, providers=(), triton=None)
    order = FetchOrder(repo=HUB, revision=None, token=SECRET, request=request)
    assert SECRET not in repr(order)
