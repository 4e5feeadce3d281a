"""``gdn-aot fetch`` while the network, the hub or the disk fails: what ends well, and how the rest ends."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from registry.loopback import Cut, Damage, Drip, LoopbackHub, Refuse, Serve, Stall
from registry.machines import Machine
from registry.making import WANTED, make

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from registry.machines import Process, Site
    from registry.making import Published

FIXED = {
    "429 with Retry-After": ("HEAD|GET", "resolve", Refuse(429, headers={"Retry-After": "0"})),
    "429 on the large file": ("GET", "/storage/", Refuse(429, headers={"Retry-After": "0"})),
    "503": ("HEAD|GET", "/api/|resolve", Refuse(503)),
    "503 on the index": ("GET", "index.json", Refuse(503)),
    "503 on the large file": ("GET", "/storage/", Refuse(503)),
    "no answer": ("HEAD|GET", "/api/|resolve", Cut()),
    "no answer for the large file": ("GET", "/storage/", Cut()),
    "cut": ("GET", "/storage/", Cut(after=5_000)),
    "cut index": ("GET", "index.json", Cut(after=100)),
    "reset": ("GET", "/storage/", Cut(after=5_000, reset=True)),
    "slow": ("GET", "/storage/", Drip(piece=2_000, pause=0.02)),
}
"""What happens once and is got over."""


@pytest.mark.parametrize("trouble", FIXED)
def test_trouble_that_passes(site: Site, trouble: str) -> None:
    struck = site.hub.fault(*FIXED[trouble])
    site.fetch()
    assert struck.struck == 1
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


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 99}', b"[]", b"\xff\xfe", b"null"])
def test_bad_index(site: Site, content: bytes) -> None:
    site.hub.commit(site.repo, "v1", {"index.json": content})
    site.fetch("--json", code=5, kind="unknown-format" if b"99" in content else "verification")
    assert site.has()


FOR_EVER = {
    "500": ("HEAD|GET", "", Refuse(500)),
    "502 of a proxy": ("HEAD|GET", "", Refuse(502, headers={"Content-Type": "text/html"})),
    "429": ("HEAD|GET", "", Refuse(429)),
    "no answer": ("HEAD|GET", "", Cut()),
    "stalled": ("HEAD|GET", "", Stall(600)),
    "500 for the file": ("HEAD|GET", "tar.zst", Refuse(500)),
    "500 for the large file": ("GET", "/storage/", Refuse(500)),
    "stalled large file": ("GET", "/storage/", Stall(600, after=3_000)),
    "cut large file": ("GET", "/storage/", Cut(after=3_000)),
    "reset large file": ("GET", "/storage/", Cut(after=3_000, reset=True)),
}
"""What does not pass."""


@pytest.fixture(scope="module", autouse=True)
def lasting(
    published: Published, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Machine, Process]]]:
    """One fetch for each of `FOR_EVER`, and one of a hub that is gone: started first, as most of the time they wait."""
    name = "acme/lasting"
    running: dict[str, tuple[Machine, Process]] = {}

    def start(trouble: str, hub: LoopbackHub) -> None:
        machine = Machine(home=tmp_path_factory.mktemp("lasting"), endpoint=hub.url)
        arguments = ("fetch", "--repo", f"hf://{name}", "--arch", "sm_120", *WANTED, "--json")
        process = machine.start(*arguments, HF_HUB_DOWNLOAD_TIMEOUT="2", HF_HUB_ETAG_TIMEOUT="2")
        running[trouble] = machine, process

    with LoopbackHub() as gone:
        pass
    with contextlib.ExitStack() as stack:
        start("refused", gone)
        for trouble, (method, path, fault) in FOR_EVER.items():
            hub = stack.enter_context(LoopbackHub())
            hub.adopt(name, published.repository, published.large)
            hub.fault(method, path, fault, times=None)
            start(trouble, hub)
        yield running
        for _, process in running.values():
            process.process.kill()
            process.process.communicate()


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
    done = site.fetch("--json", code=9, kind="not-writable", before=before)
    assert str(site.machine.home / full) in done.json["error"]["message"]
    assert site.has()
    site.fetch()
    assert site.has(site.published.new)


@pytest.mark.parametrize("limit", [1_000, 4_000, 16_000])
def test_files_may_not_grow(site: Site, limit: int) -> None:
    """As a disk that is full: files end at a limit. What was written up to it does no harm."""
    prefix = shutil.which("prlimit")
    before = (prefix, f"--fsize={limit}") if prefix else ("sh", "-c", f'ulimit -f {limit // 512}; exec "$@"', "sh")
    site.fetch("--json", code=9, kind="not-writable", before=before)
    assert site.has()
    site.fetch()
    assert site.has(site.published.new)


def test_store_cannot_be_made(site: Site) -> None:
    (site.machine.home / "gdn-aot").mkdir(parents=True)
    (site.machine.home / "gdn-aot" / "store").write_text("a file where a directory has to be")
    site.fetch("--json", code=9, kind="not-writable")


@pytest.mark.parametrize("trouble", [*FOR_EVER, "refused"])
def test_trouble_that_stays(lasting: dict[str, tuple[Machine, Process]], trouble: str) -> None:
    machine, process = lasting[trouble]
    done = process.end(7, "network")
    assert machine.endpoint in done.json["error"]["message"] or "50" in trouble or "429" in trouble
    assert machine.installed() == []
