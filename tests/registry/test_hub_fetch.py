"""``gdn-aot fetch`` and ``lock`` through the real client, with nothing going wrong on the way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from registry.loopback import OUTSIDER, READER, UNKNOWN, WRITER, Meanwhile
from registry.machines import Machine
from registry.making import WANTED

if TYPE_CHECKING:
    from pathlib import Path

    from registry.loopback import LoopbackHub
    from registry.making import Published


def move_on(hub: LoopbackHub, repo: str, published: Published, to: str) -> None:
    """Have branch v1 hold what a tag holds, in a commit of its own, as a publisher would."""
    with hub.repository(repo) as repository:
        repository.add("v1", f"back to {to}", repository.resolve(to).files)


@pytest.mark.parametrize("by", ["branch", "default", "tag", "commit", "at", "main"])
def test_revisions(hub: LoopbackHub, machine: Machine, repo: str, published: Published, by: str) -> None:
    with hub.repository(repo) as repository:
        old = repository.tags["v1.0.0"]
    revision, expected = {
        "branch": (("--revision", "v1"), published.new),
        "default": ((), published.new),
        "main": (("--revision", "main"), published.new),
        "tag": (("--revision", "v1.0.0"), published.old),
        "commit": (("--revision", old), published.old),
        "at": ((), published.old),
    }[by]
    machine.fetch(f"{repo}@v1.0.0" if by == "at" else repo, *revision)
    assert machine.installed() == [expected.sha256]
    tarballs = {record.path for record in hub.requests("GET", "/storage/")}
    assert tarballs == {f"/storage/{expected.sha256}"}, "it downloads only what it needs"


def test_again_sends_nothing_twice(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    machine.fetch(repo)
    hub.log.clear()
    machine.fetch(repo)
    assert hub.requests(path="/storage/|tar.zst") == []
    assert sum(record.sent for record in hub.requests("GET", "/resolve/")) == 0
    with hub.repository(repo) as repository:
        commit = repository.branches["v1"]
    hub.log.clear()
    machine.fetch(repo, "--revision", commit)
    machine.fetch(repo, "--revision", commit)
    assert hub.log == [], "a commit that is in the cache does not change"
    assert machine.installed() == [published.new.sha256]


def test_all_targets(machine: Machine, repo: str, published: Published) -> None:
    machine.fetch(repo, "--arch", "all")
    assert sorted(machine.installed()) == sorted([published.sm_90.sha256, published.new.sha256])


def test_dry_run(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    done = machine.fetch(repo, "--dry-run")
    assert published.new.identifier in done.out + done.err
    assert hub.requests(path="/storage/") == []
    assert machine.installed() == []


def test_lock_holds_while_the_branch_moves(
    hub: LoopbackHub, machine: Machine, repo: str, published: Published, tmp_path: Path
) -> None:
    machine.run("lock", "--repo", f"hf://{repo}", "--arch", "sm_120", *WANTED)
    lock = json.loads((machine.home / "gdn-aot.lock").read_bytes())
    with hub.repository(repo) as repository:
        assert lock["commit"] == repository.branches["v1"]
    assert lock["repository"] == f"hf://{repo}"
    assert [item["sha256"] for item in lock["artifacts"]] == [published.new.sha256]
    move_on(hub, repo, published, "v1.0.0")
    follower = Machine(home=tmp_path / "follower", endpoint=hub.url)
    follower.fetch(repo)
    assert follower.installed() == [published.old.sha256]
    machine.run("fetch", "--locked")
    assert machine.installed() == [published.new.sha256]
    follower.fetch(repo)
    move_on(hub, repo, published, "v1.1.0")
    follower.fetch(repo)
    assert follower.installed()[0] == published.new.sha256, "what was fetched last is preferred"


def test_locked_accepts_nothing_else(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    """The repository says that the pinned identifier is another file, at the very commit that is pinned."""
    machine.run("lock", "--repo", f"hf://{repo}", "--arch", "sm_120", *WANTED)
    path = machine.home / "gdn-aot.lock"
    lock = json.loads(path.read_bytes())
    lock["artifacts"][0]["sha256"] = published.old.sha256
    path.write_text(json.dumps(lock, indent=2) + "\n")
    done = machine.run("fetch", "--locked", "--json", code=5, kind="verification")
    assert published.old.sha256 in done.out
    assert machine.installed() == []


def test_publishing_meanwhile(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    """The branch moves between the index and the file: what the index listed is fetched."""
    struck = hub.fault("GET|HEAD", "tar.zst$", Meanwhile(lambda: move_on(hub, repo, published, "v1.0.0")))
    machine.fetch(repo)
    assert struck.struck == 1
    assert machine.installed() == [published.new.sha256]


@pytest.mark.parametrize(
    ("token", "kinds"),
    [
        (WRITER, None),
        (READER, None),
        (OUTSIDER, {"repository-missing"}),
        (UNKNOWN, {"access-denied"}),
        (None, {"repository-missing", "access-denied"}),
    ],
)
def test_private(
    hub: LoopbackHub,
    machine: Machine,
    repo: str,
    published: Published,
    token: str | None,
    kinds: set[str] | None,
) -> None:
    with hub.repository(repo) as repository:
        repository.private = True
    if kinds is None:
        machine.fetch(repo, token=token)
        assert machine.installed() == [published.new.sha256]
    else:
        done = machine.fetch(repo, "--json", code=7, token=token)
        assert done.json["error"]["code"] in kinds
        assert machine.installed() == []
    assert {record.user for record in hub.requests(path="/storage/")} <= {None}


@pytest.mark.parametrize("token", [WRITER, OUTSIDER, UNKNOWN])
def test_no_token_in_debug_output(hub: LoopbackHub, machine: Machine, repo: str, token: str) -> None:
    """Neither ours nor that of the client, which shows whole requests."""
    with hub.repository(repo) as repository:
        repository.private = True
    arguments = ("fetch", "--repo", f"hf://{repo}", "--arch", "sm_120", *WANTED, "--token", token)
    process = machine.start(*arguments, token=None, GDN_AOT_LOG="debug", HF_DEBUG="1")
    out, err = process.process.communicate(timeout=60)
    assert process.process.returncode == (0 if token == WRITER else 7)
    assert "Bearer" not in out + err
    assert token not in out + err
    assert {record.user for record in hub.requests(path=repo)} <= {"writer", "outsider", "?"}


def test_missing_repository(machine: Machine, name: str) -> None:
    machine.fetch(name, "--json", code=7, kind="repository-missing")
    # To others the Hub does not say whether it is missing or private; then both are named.
    error = machine.fetch(name, "--json", code=7, token=None).json["error"]
    assert error["code"] in ("repository-missing", "access-denied")
    assert "no such repository" in error["message"]
    assert "private" in error["message"]
    assert "name" in error["hint"]


def test_missing_revision(hub: LoopbackHub, machine: Machine, repo: str) -> None:
    for revision in ("v9.9.9", "0" * 40):
        done = machine.fetch(repo, "--revision", revision, "--json", code=7, kind="revision-missing")
        assert revision in done.json["error"]["message"]
    assert hub.requests(path="/storage/") == []


@pytest.mark.parametrize("missing", ["index", "tarball"])
def test_missing_file(hub: LoopbackHub, machine: Machine, repo: str, published: Published, missing: str) -> None:
    path = "index.json" if missing == "index" else f"targets/{published.new.identifier}.tar.zst"
    hub.commit(repo, "v1", {path: None})
    done = machine.fetch(repo, "--json", code=7, kind="entry-missing")
    assert path in done.json["error"]["message"]
    assert machine.installed() == []


def test_nothing_fits(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    done = machine.fetch(repo, "--arch", "sm_80", code=4)
    for artifact in (published.new, published.sm_90):
        assert artifact.identifier in done.out + done.err, "what there is is named"
    assert hub.requests(path="/storage/") == []
    machine.fetch(repo, "--arch", "sm_80", "--json", code=4, kind="no-artifact")


def test_optional_never_fails(hub: LoopbackHub, machine: Machine, repo: str, name: str) -> None:
    for arguments in ((repo, "--arch", "sm_80"), (f"{name}-other",), (repo, "--revision", "v9")):
        done = machine.fetch(*arguments, "--optional")
        assert done.err.strip()


def test_offline(hub: LoopbackHub, machine: Machine, repo: str, published: Published, tmp_path: Path) -> None:
    machine.fetch(repo)
    hub.log.clear()
    offline = {"HF_HUB_OFFLINE": "1"}
    machine.fetch(repo, **offline)
    assert machine.installed() == [published.new.sha256]
    fresh = Machine(home=tmp_path / "fresh", endpoint=hub.url)
    fresh.fetch(repo, "--json", code=8, kind="offline-miss", **offline)
    assert fresh.installed() == []
    machine.fetch(repo, "--arch", "sm_90", "--json", code=8, kind="offline-miss", **offline)
    machine.fetch(repo, "--revision", "v1.0.0", "--json", code=8, kind="offline-miss", **offline)
    assert machine.installed() == [published.new.sha256]
    assert hub.log == []


def test_offline_from_the_cache_of_the_client(
    hub: LoopbackHub, machine: Machine, repo: str, published: Published
) -> None:
    """The store is gone, the client's cache is there: all that is needed is in it."""
    machine.fetch(repo)
    (machine.home / "gdn-aot").rename(machine.home / "gone")
    hub.log.clear()
    machine.fetch(repo, HF_HUB_OFFLINE="1")
    assert machine.installed() == [published.new.sha256]
    assert hub.log == []


def test_offline_from_the_store(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    """The client's cache is gone, as in an image that keeps the store only."""
    machine.fetch(repo)
    (machine.home / "huggingface").rename(machine.home / "gone")
    hub.log.clear()
    machine.fetch(repo, HF_HUB_OFFLINE="1")
    assert machine.installed() == [published.new.sha256]
    assert hub.log == []
