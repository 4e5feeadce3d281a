"""``gdn-aot fetch`` from a directory, and from a store that needs no registry."""

import os
from pathlib import Path
from typing import Any

import pytest
from doctoring import distribution, driver_library
from helpers import expect_error, gdn_aot, python
from making import SM_90, SM_120, WANTED, make
from registries import Here, directory_of, kept, payload, put, send
from signing import Publisher

from gdn_aot.artifact.archive import Written
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.registry.fetch import FetchOrder
from gdn_aot.registry.open import open_registry
from gdn_aot.registry.select import Request
from gdn_aot.store.install import install
from gdn_aot.store.origins import Origin
from gdn_aot.store.store import Store

HUB = "hf://org/name"
SECRET = "hf_verysecret"  # noqa: S105 - made up


def states(document: dict[str, Any]) -> dict[str, str]:
    return {row["identifier"]: row["state"] for row in document["artifacts"]}


def test_what_it_does_and_says(here: Here, sm_120: Written) -> None:
    document = here.fetch("--json").json
    (row,) = document["artifacts"]
    assert row == {
        "identifier": SM_120,
        "state": "installed",
        "path": f"{here.home}/store/artifacts/{directory_of(sm_120)}",
        "target": "sm_120",
        "sha256": sm_120.sha256,
        "size": sm_120.size,
        "signed": None,
        "choices": {"measured": 2, "transferred": 0, "default": 2},
    }
    assert (document["ok"], document["missing"]) == (True, [])
    assert (document["repo"], document["revision"]) == (str(here.registry), "v1")
    assert document["commit"] == open_registry(str(here.registry)).refs().branches["v1"]
    assert document["verdicts"] == [
        {"identifier": SM_120, "accepted": True, "reason": "fits"},
        {"identifier": SM_90, "accepted": False, "reason": "is for sm_90; sm_120 is wanted"},
    ]
    again = here.fetch()
    said = f"{SM_120}: already installed, {row['path']}; {row['size']} bytes; choices: 2 measured, 2 default\n"
    assert (again.out, again.err) == (said, "")
    quiet = here.fetch("-q")
    assert (quiet.out, quiet.err) == (f"{row['path']}\n", "")


def test_again_writes_and_reads_nothing(here: Here, sm_120: Written) -> None:
    here.fetch()
    before = {path: path.stat().st_mtime_ns for path in (here.home / "store").rglob("*")}
    kept(here.registry, sm_120).write_bytes(b"changed, and nobody looks")
    assert states(here.fetch("--json").json) == {SM_120: "already-installed"}
    assert {path: path.stat().st_mtime_ns for path in (here.home / "store").rglob("*")} == before


def test_what_is_incomplete_is_fetched_again(here: Here) -> None:
    here.fetch()
    whole = here.files()
    payload(here.home).unlink()
    assert states(here.fetch("--json").json) == {SM_120: "repaired"}
    assert here.files() == whole


def test_dry_run(here: Here, sm_120: Written) -> None:
    done = here.fetch("--dry-run")
    assert done.out == f"{SM_120}: would install; {sm_120.size} bytes; choices: 2 measured, 2 default\n"
    assert not (here.home / "store").exists()
    here.fetch()
    done = here.fetch("--arch", "all", "--dry-run", "--json")
    assert states(done.json) == {SM_120: "already-installed", SM_90: "would-install"}


LOADED = """
import json, sys
from gdn_aot.cli.main import run
code = run(sys.argv[1:])
names = {"torch", "triton", "fla", "huggingface_hub", "zstandard", "httpx", "numpy", "cryptography"}
print(json.dumps({"code": code, "loaded": sorted(names & set(sys.modules))}))
"""


def loaded(*args: object, home: Path, **extra: str) -> list[str]:
    """What of the heavy modules a command loads, which must end with 0."""
    done = python(LOADED, *args, home=home, extra=extra)
    assert done["code"] == 0
    found: list[str] = done["loaded"]
    return found


def test_what_is_imported(here: Here) -> None:
    """The versions are those that are installed here, which need not be those of the artifacts."""
    place = ("--repo", here.registry, "--arch", "sm_120", "--allow-unsigned")
    assert loaded("fetch", *place, *WANTED, "--dry-run", home=here.home) == []
    assert loaded("fetch", *place, "--dry-run", "--optional", home=here.home) == []
    assert loaded("fetch", *place, *WANTED, home=here.home) == ["zstandard"]
    assert loaded("fetch", *place, *WANTED, home=here.home) == []
    assert loaded("lock", *place, *WANTED, home=here.home) == []
    assert loaded("list", "--repo", here.registry, home=here.home) == []
    assert loaded("fetch", "--locked", home=here.home) == []


def test_what_is_imported_to_verify(here: Here, sm_120: Written) -> None:
    publisher = Publisher()
    known = publisher.known_in(here.home / "keys")
    send(open_registry(str(here.registry)), sm_120, signing=publisher.signing())
    place = ("--repo", here.registry, "--arch", "sm_120", *WANTED)
    assert loaded("lock", *place, home=here.home, **known) == []
    assert loaded("fetch", *place, home=here.home, **known) == ["zstandard"]
    assert loaded("fetch", *place, home=here.home, **known) == []
    assert loaded("fetch", "--locked", home=here.home, **known) == []


# What is wanted


def test_as_installed(here: Here, tmp_path: Path) -> None:
    """Versions and GPU of a machine that is made up."""
    distribution(tmp_path / "site", "fla_core", "0.6.0")
    extra = {
        **distribution(tmp_path / "site", "triton", "3.6.0"),
        "TRITON_LIBCUDA_PATH": str(driver_library(tmp_path / "driver")),
        "FAKE_ARCHS": "90",
    }
    command = ("fetch", "--allow-unsigned", "--repo", here.registry, "--json")
    assert states(gdn_aot(*command, home=here.home, extra=extra).json) == {SM_90: "installed"}
    other = {**extra, **distribution(tmp_path / "other", "triton", "3.8.0")}
    other["PYTHONPATH"] += f"{os.pathsep}{tmp_path / 'site'}"
    done = gdn_aot(*command, home=here.home, extra=other, code=4)
    assert [problem["what"] for problem in done.json["error"]["problems"]] == [
        "is for Triton 3.6.0; 3.8.0 is installed",
        "is for sm_120; this machine has sm_90, and for Triton 3.6.0; 3.8.0 is installed",
    ]
    no_gpu = gdn_aot(*command, *WANTED, home=here.home, code=2, extra={"TRITON_LIBCUDA_PATH": "/nowhere"})
    assert "--arch sm_90" in expect_error(no_gpu, 2, "usage")["hint"]


def test_nothing_fits(here: Here, artifacts: Path) -> None:
    """The trace, the nearest first, is on stderr and in the JSON."""
    put(here.registry, make(artifacts, "sm_100", triton="3.8.0"))
    done = here.fetch("--arch", "sm_100", "--json", code=4)
    error = expect_error(done, 4, "no-artifact")
    assert error["message"] == f"{here.registry} at v1 has no artifact of fla 0.6.0 with Triton 3.6.0 for sm_100"
    assert error["hint"].startswith("gdn-aot build --arch sm_100 --provider fla --model NAME makes one; ")
    trace = [
        "fla0.6.0-triton3.8.0-sm_100: is for Triton 3.8.0; 3.6.0 is wanted",
        f"{SM_120}: is for sm_120; sm_100 is wanted",
        f"{SM_90}: is for sm_90; sm_100 is wanted",
    ]
    problems: Any = error["problems"]
    assert [f"{problem['where']}: {problem['what']}" for problem in problems] == trace
    assert [line.strip() for line in done.err.splitlines() if line.startswith("  ")] == trace
    assert not (here.home / "store").exists()


def test_a_long_trace_is_cut_for_people(here: Here, artifacts: Path) -> None:
    put(here.registry, *(make(artifacts, version=f"0.5.{number}") for number in range(28)))
    done = here.fetch("--arch", "sm_80", "--json", code=4)
    lines = [line.strip() for line in done.err.splitlines() if line.startswith("  ")]
    assert len(lines) == 21
    assert lines[-1] == "and 10 more, which --json lists"
    assert len(done.json["error"]["problems"]) == 30


def test_an_empty_registry(here: Here, tmp_path: Path) -> None:
    open_registry(str(tmp_path / "empty")).create(private=False)
    done = here.fetch("--json", repo=tmp_path / "empty", code=4)
    assert "it is empty" in expect_error(done, 4, "no-artifact")["message"]


def test_some_of_it(here: Here, sm_120: Written) -> None:
    """What is there is installed; that the rest is not must not look like success."""
    done = here.fetch("--arch", "sm_100,sm_120", "--json", code=4)
    assert done.json["ok"] is False
    assert done.json["missing"] == ["fla 0.6.0 with Triton 3.6.0 for sm_100"]
    assert states(done.json) == {SM_120: "installed"}
    assert "for sm_100" in expect_error(done, 4, "no-artifact")["message"]
    assert here.has(sm_120)
    assert here.fetch("--arch", "sm_100,sm_120", code=4).out.startswith(f"{SM_120}: already installed")


# Revisions


def test_by_tag_and_back_again(here: Here, sm_120: Written, artifacts: Path) -> None:
    """A moving branch is followed; going back to a tag makes the older build the one that is served."""
    newer = make(artifacts, build=2)
    put(here.registry, newer, tag="v1.1.0")
    here.fetch()
    assert here.has(newer)
    here.fetch("--revision", "v1.0.0")
    assert here.has(sm_120, newer)
    assert states(here.fetch("--json").json) == {SM_120: "already-installed"}
    assert here.has(newer, sm_120)


def test_a_pinned_commit_needs_no_registry(here: Here) -> None:
    commit = open_registry(str(here.registry)).refs().branches["v1"]
    here.fetch()
    here.registry.rename(here.registry.with_name("away"))
    done = here.fetch("--revision", commit, "--json").json
    assert (done["asked"], done["commit"]) == (False, commit)
    assert done["artifacts"][0]["choices"] == {"measured": 2, "transferred": 0, "default": 2}
    here.fetch(code=7)  # a branch may have moved
    here.fetch("--revision", "0" * 40, code=7)
    here.fetch("--arch", "sm_90", "--revision", commit, code=7)


def test_revisions_that_contradict(here: Here) -> None:
    done = here.fetch("--revision", "v1.1.0", "--json", repo=f"{HUB}@v1.0.0", code=2)
    assert "v1.0.0" in expect_error(done, 2, "usage")["message"]


# Offline, where the store answers for a repository of the Hub


@pytest.fixture
def offline(here: Here, sm_120: Written) -> dict[str, str]:
    """The environment of a machine whose store was filled from the Hub, and nothing else is left of that.

    Nobody has signed what is there, and that was allowed when it was fetched.
    """
    arrived(here, sm_120, "v1", "c" * 40)
    return {"HF_HUB_OFFLINE": "1", "HF_HOME": str(here.home / "hf")}


def arrived(here: Here, made: Written, revision: str, commit: str) -> None:
    origin = Origin(repo=HUB, revision=revision, commit=commit, unsigned=True)
    install(Store(str(here.home)), open_artifact(made.path), origin)


def test_offline(here: Here, offline: dict[str, str]) -> None:
    done = here.fetch("--json", repo=HUB, extra=offline).json
    assert (done["ok"], done["asked"], done["commit"]) == (True, False, None)
    assert done["artifacts"][0]["size"] is None
    wanted = ("fetch", "--repo", HUB, "--arch", "sm_120", *WANTED)
    assert loaded(*wanted, home=here.home, **offline) == [], "huggingface_hub is slow to import"
    assert loaded(*wanted, "--revision", "c" * 40, home=here.home) == [], "nor is it needed for a commit"
    assert not (here.home / "hf").exists()
    every = here.fetch("--arch", "all", "--json", repo=HUB, extra=offline)
    assert states(every.json) == {SM_120: "already-installed"}, "what came from it is taken for all there is"


def test_offline_and_pinned_before_the_branch(here: Here, offline: dict[str, str], sm_120: Written) -> None:
    """The branch went on to another commit that has the same artifact; the first commit is still answered."""
    arrived(here, sm_120, "d" * 40, "d" * 40)
    arrived(here, sm_120, "v1", "e" * 40)
    for revision, code in (("d" * 40, 0), ("v1", 0), ("e" * 40, 0), ("c" * 40, 8)):
        here.fetch("--revision", revision, repo=HUB, extra=offline, code=code)


@pytest.mark.parametrize(
    ("repo", "args"),
    [
        (HUB, ("--arch", "sm_90")),
        (HUB, ("--arch", "sm_90,sm_120")),
        (HUB, ("--revision", "v1.2.0")),
        (HUB, ("--revision", "d" * 40)),
        ("hf://org/other", ()),
    ],
)
def test_offline_miss(here: Here, offline: dict[str, str], repo: str, args: tuple[str, ...]) -> None:
    done = here.fetch(*args, "--json", "--token", SECRET, repo=repo, extra=offline, code=8)
    assert "HF_HUB_OFFLINE" in expect_error(done, 8, "offline-miss")["hint"]
    assert SECRET not in done.out + done.err


def test_tokens_are_not_shown() -> None:
    request = Request(targets=None, providers=(), triton=None)
    assert SECRET not in repr(FetchOrder(repo=HUB, revision=None, token=SECRET, request=request))
