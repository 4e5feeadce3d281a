"""``gdn-aot fetch`` and ``publish`` through the real client; ``test_registry.py`` has publishing by steps."""

import shutil
from pathlib import Path

import pytest
from helpers import NO_BYTECODE, TIMEOUT
from loopback import OUTSIDER, UNKNOWN, WRITER, Cut, Damage, LoopbackHub, Meanwhile, Serve
from machines import Machine, Site, fetch_at_once, kill_fetches
from making import make

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


@pytest.mark.parametrize("gone", ["gdn-aot", "huggingface"])
def test_offline_from_the_cache_or_the_store_alone(site: Site, gone: str) -> None:
    """The store is gone, or the client's cache, as in an image that keeps the store only."""
    site.fetch()
    (site.machine.home / gone).rename(site.machine.home / "gone")
    site.hub.log.clear()
    site.fetch(**OFFLINE)
    assert site.has(site.published.new)
    assert site.hub.log == []


# Many fetches at once, and fetches that are killed


def test_fetchers_at_once(site: Site) -> None:
    fetch_at_once(4, site)


def test_killed_at_any_moment(site: Site) -> None:
    kill_fetches(12, site)


# While the network, the hub or the disk fails


def test_download_is_resumed(hub: LoopbackHub, machine: Machine, name: str, tmp_path: Path) -> None:
    large = make(tmp_path, size=11_500_000)
    machine.run("publish", large.path, "--repo", f"hf://{name}", "--create")
    hub.fault("GET", "/storage/", Cut(after=10_600_000))
    hub.fault("GET", "/storage/", Cut(after=500_000))
    hub.log.clear()
    machine.fetch(name)
    assert machine.installed() == [large.sha256]
    ranges = [record.range for record in hub.requests("GET", "/storage/")]
    assert ranges == [None, f"bytes={10 << 20}-", f"bytes={10 << 20}-"], "the client keeps what came by 10 MiB"


WRONG = {
    "wrong bytes": [("GET", "/storage/", Damage())],
    "wrong bytes every time": [("GET", "/storage/", Damage())] * 5,
    "another artifact": [("HEAD|GET", "tar.zst$", Serve)] * 10,
    "nonsense": [("HEAD|GET", "tar.zst$", Serve(b"\0" * 1000))] * 10,
    "nothing": [("HEAD|GET", "tar.zst$", Serve(b""))] * 10,
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_in_the_index_is_not_installed(site: Site, what: str) -> None:
    for method, path, fault in WRONG[what]:
        # The other artifact is sound and of the same identifier: only the index says that it is not the one.
        site.hub.fault(method, path, Serve(site.published.old.path.read_bytes()) if fault is Serve else fault)
    done = site.fetch("--json", code=5, kind="verification")
    error = done.json["error"]
    assert site.published.new.identifier in error["message"]
    if what.startswith("wrong bytes"):
        assert site.published.new.sha256 in str(error["problems"])
        assert "nothing was installed" in error["hint"]
    assert site.has()
    site.hub.faults.clear()
    site.fetch()
    assert site.has(site.published.new), "wrong bytes stayed in a cache"


@pytest.mark.parametrize("limit", [1_000, 4_000, 16_000])
def test_files_may_not_grow(site: Site, limit: int) -> None:
    """As a disk that is full: files end at a limit. What was written up to it does no harm."""
    prefix = shutil.which("prlimit")
    before = (prefix, f"--fsize={limit}") if prefix else ("sh", "-c", f'ulimit -f {limit // 512}; exec "$@"', "sh")
    site.fetch("--json", code=9, kind="not-writable", before=before, **NO_BYTECODE)
    assert site.has()
    site.fetch()
    assert site.has(site.published.new)


def test_token_option(hub: LoopbackHub, machine: Machine, name: str, tmp_path: Path) -> None:
    to = ("--repo", f"hf://{name}", "--create", "--private", "--token", WRITER)
    machine.run("publish", make(tmp_path).path, *to, token=None)
    assert {record.user for record in hub.requests(path=name)} == {"writer"}
    with hub.repository(name) as repository:
        assert repository.private
