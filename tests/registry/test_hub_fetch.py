"""``gdn-aot fetch`` and ``lock`` through the real client, with nothing going wrong on the way."""

import pytest
from helpers import TIMEOUT
from loopback import OUTSIDER, UNKNOWN, WRITER, Meanwhile
from machines import Site

OFFLINE = {"HF_HUB_OFFLINE": "1"}


def move_on(site: Site, to: str) -> None:
    """Have branch v1 hold what a tag holds, in a commit of its own, as a publisher would."""
    with site.hub.repository(site.repo) as repository:
        repository.add("v1", repository.resolve(to).files)


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
    out, err = process.process.communicate(timeout=TIMEOUT)
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
