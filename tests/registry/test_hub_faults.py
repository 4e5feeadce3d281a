"""``gdn-aot fetch`` while the network, the hub or the disk fails: what ends well, and how the rest ends."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import NO_BYTECODE
from loopback import Cut, Damage, LoopbackHub, Refuse, Serve
from machines import Machine, Site
from making import make


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
