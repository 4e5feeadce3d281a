"""``gdn-aot fetch`` and ``lock`` through the real client, with nothing going wrong on the way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from loopback import OUTSIDER, UNKNOWN, WRITER, Meanwhile
from making import WANTED

if TYPE_CHECKING:
    from machines import Site

OFFLINE = {"HF_HUB_OFFLINE": "1"}


def move_on(site: Site, to: str) -> None:
    """Have branch v1 hold what a tag holds, in a commit of its own, as a publisher would."""
    with site.hub.repository(site.repo) as repository:
        repository.add("v1", f"back to {to}", repository.resolve(to).files)


@pytest.mark.parametrize("by", ["branch", "default", "tag", "commit", "at", "main"])
def test_revisions(site: Site, by: str) -> None:
    with site.hub.repository(site.repo) as repository:
        old = repository.tags["v1.0.0"]
    revision = {"branch": "v1", "main": "main", "tag": "v1.0.0", "commit": old}.get(by)
    expected = site.published.old if by in ("tag", "commit", "at") else site.published.new
    args = ("--revision", revision) if revision else ()
    site.machine.fetch(f"{site.repo}@v1.0.0" if by == "at" else site.repo, *args)
    assert site.has(expected)
    tarballs = {record.path for record in site.hub.requests("GET", "/storage/")}
    assert tarballs == {f"/storage/{expected.sha256}"}, "it downloads only what it needs"


def test_again_sends_nothing_twice(site: Site) -> None:
    site.fetch()
    site.hub.log.clear()
    site.fetch()
    assert site.hub.requests(path="/storage/|tar.zst") == []
    assert sum(record.sent for record in site.hub.requests("GET", "/resolve/")) == 0
    with site.hub.repository(site.repo) as repository:
        commit = repository.branches["v1"]
    site.hub.log.clear()
    site.fetch("--revision", commit)
    site.fetch("--revision", commit)
    assert site.hub.log == [], "a commit that is in the cache does not change"
    assert site.has(site.published.new)


def test_all_targets(site: Site) -> None:
    done = site.fetch("--arch", "all", "--dry-run")
    assert site.published.new.identifier in done.out + done.err
    assert site.downloads() == []
    assert site.has()
    site.fetch("--arch", "all")
    assert {*site.machine.installed()} == {site.published.sm_90.sha256, site.published.new.sha256}


def test_lock_holds_while_the_branch_moves(site: Site) -> None:
    site.machine.run("lock", "--repo", f"hf://{site.repo}", "--arch", "sm_120", *WANTED)
    lock = json.loads((site.machine.home / "gdn-aot.lock").read_bytes())
    with site.hub.repository(site.repo) as repository:
        assert lock["commit"] == repository.branches["v1"]
    assert lock["repository"] == f"hf://{site.repo}"
    assert [item["sha256"] for item in lock["artifacts"]] == [site.published.new.sha256]
    move_on(site, "v1.0.0")
    follower = site.other("follower")
    follower.fetch()
    assert follower.has(site.published.old)
    site.machine.run("fetch", "--locked")
    assert site.has(site.published.new)
    move_on(site, "v1.1.0")
    follower.fetch()
    assert follower.has(site.published.new, site.published.old), "what was fetched last is preferred"


def test_locked_accepts_nothing_else(site: Site) -> None:
    """The repository says that the pinned identifier is another file, at the very commit that is pinned."""
    site.machine.run("lock", "--repo", f"hf://{site.repo}", "--arch", "sm_120", *WANTED)
    path = site.machine.home / "gdn-aot.lock"
    path.write_bytes(path.read_bytes().replace(site.published.new.sha256.encode(), site.published.old.sha256.encode()))
    done = site.machine.run("fetch", "--locked", "--json", code=5, kind="verification")
    assert site.published.old.sha256 in done.out
    assert site.has()


def test_publishing_meanwhile(site: Site) -> None:
    """The branch moves between the index and the file: what the index listed is fetched."""
    struck = site.hub.fault("GET|HEAD", "tar.zst$", Meanwhile(lambda: move_on(site, "v1.0.0")))
    site.fetch()
    assert struck.struck == 1
    assert site.has(site.published.new)


@pytest.mark.parametrize("token", [WRITER, OUTSIDER, UNKNOWN])
def test_no_token_in_debug_output(site: Site, token: str) -> None:
    """Neither ours nor that of the client, which shows whole requests."""
    with site.hub.repository(site.repo) as repository:
        repository.private = True
    process = site.machine.start(*site.wanted, "--token", token, token=None, GDN_AOT_LOG="debug", HF_DEBUG="1")
    out, err = process.process.communicate(timeout=60)
    assert process.process.returncode == (0 if token == WRITER else 7)
    assert "Bearer" not in out + err
    assert token not in out + err
    assert {record.user for record in site.hub.requests(path=site.repo)} <= {"writer", "outsider", "?"}
    assert {record.user for record in site.downloads()} <= {None}


def test_private(site: Site) -> None:
    """Who may not see it is told neither that it is there nor that it is not."""
    with site.hub.repository(site.repo) as repository:
        repository.private = True
    site.fetch("--json", code=7, token=OUTSIDER, kind="repository-missing")
    site.fetch("--json", code=7, token=UNKNOWN, kind="access-denied")
    error = site.fetch("--json", code=7, token=None).json["error"]
    assert error["code"] in ("repository-missing", "access-denied")
    assert "no such repository" in error["message"]
    assert "private" in error["message"]
    assert "name" in error["hint"]
    assert site.has()


@pytest.mark.parametrize("missing", ["index", "tarball", "revision", "commit"])
def test_what_is_missing(site: Site, missing: str) -> None:
    path = {"index": "index.json", "tarball": f"targets/{site.published.new.identifier}.tar.zst"}.get(missing)
    revision = {"revision": "v9.9.9", "commit": "0" * 40}.get(missing, "v1")
    if path:
        site.hub.commit(site.repo, "v1", {path: None})
    done = site.fetch("--revision", revision, "--json", code=7, kind="entry-missing" if path else "revision-missing")
    assert (path or revision) in done.json["error"]["message"]
    assert site.downloads() == []
    assert site.has()


def test_nothing_fits(site: Site, name: str) -> None:
    done = site.fetch("--arch", "sm_80", "--json", code=4, kind="no-artifact")
    for artifact in (site.published.new, site.published.sm_90):
        assert artifact.identifier in done.err, "what there is is named"
    for arguments in ((site.repo, "--arch", "sm_80"), (f"{name}-other",), (site.repo, "--revision", "v9")):
        assert site.machine.fetch(*arguments, "--optional").err.strip()
    assert site.downloads() == []


def test_offline(site: Site) -> None:
    site.fetch()
    site.hub.log.clear()
    site.fetch(**OFFLINE)
    assert site.has(site.published.new)
    fresh = site.other("fresh")
    fresh.fetch("--json", code=8, kind="offline-miss", **OFFLINE)
    assert fresh.has()
    for args in (("--arch", "sm_90"), ("--revision", "v1.0.0")):
        site.fetch(*args, "--json", code=8, kind="offline-miss", **OFFLINE)
    assert site.has(site.published.new)
    assert site.hub.log == []


@pytest.mark.parametrize("gone", ["gdn-aot", "huggingface"])
def test_offline_from_the_cache_or_the_store_alone(site: Site, gone: str) -> None:
    """The store is gone, or the client's cache, as in an image that keeps the store only."""
    site.fetch()
    (site.machine.home / gone).rename(site.machine.home / "gone")
    site.hub.log.clear()
    site.fetch(**OFFLINE)
    assert site.has(site.published.new)
    assert site.hub.log == []
