"""``gdn-aot fetch``, ``publish`` and ``list`` through the real client; ``test_registry.py`` has publishing by steps."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import NO_BYTECODE, TIMEOUT, Done
from loopback import OUTSIDER, UNKNOWN, WRITER, Cut, Damage, LoopbackHub, Meanwhile, Refuse, Serve
from machines import Machine, Site, fetch_at_once, kill_fetches
from making import Published, expected, make

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


# Many fetches at once, and fetches that are killed


def test_fetchers_at_once(site: Site) -> None:
    fetch_at_once(4, site)


def test_fetchers_at_once_into_stores_of_their_own(site: Site) -> None:
    """They share the client's cache only: one download serves all that wait for it."""
    homes = [site.machine.home / f"home-{number}" for number in range(3)]
    for process in [site.machine.start(*site.wanted, GDN_AOT_HOME=str(home)) for home in homes]:
        process.end()
    for home in homes:
        assert len(list((home / "store/artifacts").iterdir())) == 1


def test_killed_at_any_moment(site: Site) -> None:
    kill_fetches(12, site)


# While the network, the hub or the disk fails


def test_trouble_that_passes(site: Site) -> None:
    """One of each; ``test_hub_remote.py`` has every kind at every request."""
    troubles = [
        site.hub.fault("HEAD|GET", "/api/|resolve", Refuse(503)),
        site.hub.fault("GET", "index.json", Cut(after=100)),
        site.hub.fault("GET", "/storage/", Cut(after=5_000)),
    ]
    site.fetch()
    assert [trouble.struck for trouble in troubles] == [1, 1, 1]
    assert site.has(site.published.new)


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
    assert site.published.new.identifier in done.out
    assert site.has()
    site.hub.faults.clear()
    site.fetch()
    assert site.has(site.published.new), "wrong bytes stayed in a cache"


def tmpfs(place: Path, kilobytes: int) -> tuple[str, ...]:
    """Return a command that runs another one with a small file system at a place, or nothing where that is forbidden.

    The mount is in a namespace of its own, which goes away with the command.
    """
    place.mkdir(parents=True, exist_ok=True)
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    script = f'mount -t tmpfs -o size={kilobytes}k tmpfs "{place}" && exec "$@"'
    before = (unshare, "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    tried = subprocess.run([*before, "true"], capture_output=True, check=False)
    return before if tried.returncode == 0 else ()


@pytest.mark.parametrize("full", ["huggingface", "gdn-aot"])
def test_disk_full(site: Site, full: str) -> None:
    """Of the client's cache, and of the store: 12 KiB take the index or the start of the store, not the artifact."""
    before = tmpfs(site.machine.home / full, 12)
    if not before:
        pytest.skip("no file system can be mounted here")
    done = site.fetch("--json", code=9, kind="not-writable", before=before, **NO_BYTECODE)
    assert str(site.machine.home / full) in done.json["error"]["message"]
    assert site.has()
    site.fetch()
    assert site.has(site.published.new)


@pytest.mark.parametrize("limit", [1_000, 4_000, 16_000])
def test_files_may_not_grow(site: Site, limit: int) -> None:
    """As a disk that is full: files end at a limit. What was written up to it does no harm."""
    prefix = shutil.which("prlimit")
    before = (prefix, f"--fsize={limit}") if prefix else ("sh", "-c", f'ulimit -f {limit // 512}; exec "$@"', "sh")
    site.fetch("--json", code=9, kind="not-writable", before=before, **NO_BYTECODE)
    assert site.has()
    site.fetch()
    assert site.has(site.published.new)


# Publish and list


def publish(machine: Machine, repo: str, *args: object, **options: Any) -> Done:
    return machine.run("publish", "--repo", f"hf://{repo}", *args, **options)


def test_create_publish_tag(hub: LoopbackHub, machine: Machine, name: str, tmp_path: Path) -> None:
    """What is in the repository afterwards, file by file, and what was sent."""
    made = make(tmp_path, build=1000)
    publish(machine, name, made.path, "--create", "--tag", "v1.0.0")
    with hub.repository(name) as repository:
        assert repository.private is False
        assert repository.tags == {"v1.0.0": repository.branches["v1"]}
        main, tree = (repository.resolve(branch).files for branch in ("main", "v1"))
    assert {path for path in main if not path.startswith(".")} == {"README.md", "index.json"}
    assert json.loads(main["index.json"].content)["tree"] == "v1"
    targets = {f"targets/{made.identifier}.tar.zst", f"targets/{made.identifier}.json"}
    assert {path for path in tree if not path.startswith(".")} == {"README.md", "index.json", *targets}
    (entry,) = json.loads(tree["index.json"].content)["entries"]
    assert {entry["identifier"]: entry["sha256"]} == expected(made)
    assert tree[f"targets/{made.identifier}.tar.zst"].sha256 == made.sha256
    assert json.loads(tree[f"targets/{made.identifier}.json"].content) == entry
    assert [(record.path, record.user) for record in hub.requests("PUT")] == [(f"/storage/{made.sha256}", None)]
    assert {record.user for record in hub.requests(path="/storage/")} == {None}


def test_publishers_at_once_lose_nothing(hub: LoopbackHub, machine: Machine, name: str, tmp_path: Path) -> None:
    made = [make(tmp_path, target, build=13) for target in ("sm_89", "sm_80", "sm_90", "sm_120")]
    publish(machine, name, made[0].path, "--create")
    running = [
        Machine(home=tmp_path / str(number), endpoint=hub.url).start("publish", "--repo", f"hf://{name}", one.path)
        for number, one in enumerate(made[1:])
    ]
    for process in running:
        process.end()
    with hub.repository(name) as repository:
        index = json.loads(repository.resolve("v1").files["index.json"].content)
    assert {entry["identifier"]: entry["sha256"] for entry in index["entries"]} == expected(*made)
    assert sorted(record.path for record in hub.requests("PUT")) == sorted(f"/storage/{one.sha256}" for one in made)


def test_list(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    done = machine.run("list", "--repo", f"hf://{repo}")
    assert published.new.identifier in done.out
    assert published.sm_90.identifier in done.out
    done = machine.run("list", "--repo", f"hf://{repo}", "--revision", "v1.0.0", "--json")
    assert published.old.sha256 in done.out
    assert published.new.sha256 not in done.out
    machine.fetch(repo)
    assert published.new.identifier in machine.run("list", "--installed").out
    assert hub.requests("PUT|POST|DELETE") == []


def test_token_option(hub: LoopbackHub, machine: Machine, name: str, tmp_path: Path) -> None:
    publish(machine, name, make(tmp_path).path, "--create", "--private", "--token", WRITER, token=None)
    assert {record.user for record in hub.requests(path=name)} == {"writer"}
    with hub.repository(name) as repository:
        assert repository.private
