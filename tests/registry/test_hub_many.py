"""Many fetches at once, and fetches that are killed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from registry.making import WANTED

if TYPE_CHECKING:
    from registry.loopback import LoopbackHub
    from registry.machines import Machine
    from registry.making import Published

SEED = 20260101


def test_fetchers_at_once(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    fetch_at_once(4, hub, machine, repo, published)


def fetch_at_once(count: int, hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    """They share store and cache, as the containers of one host do."""
    running = [machine.start("fetch", "--repo", f"hf://{repo}", "--arch", "sm_120", *WANTED) for _ in range(count)]
    for process in running:
        process.end()
    assert machine.installed() == [published.new.sha256]
    store = machine.home / "gdn-aot" / "store"
    assert len(list((store / "artifacts").iterdir())) == 1, "something was left behind"
    sent = sum(record.sent for record in hub.requests("GET", f"/storage/{published.new.sha256}"))
    assert sent >= published.new.size
    hub.log.clear()
    machine.fetch(repo)
    assert hub.requests(path="/storage/") == []


def test_fetchers_at_once_into_stores_of_their_own(
    hub: LoopbackHub, machine: Machine, repo: str, published: Published
) -> None:
    """They share the client's cache only: one download serves all that wait for it."""
    homes = [machine.home / f"home-{number}" for number in range(2)]
    arguments = ("fetch", "--repo", f"hf://{repo}", "--arch", "sm_120", *WANTED)
    running = [machine.start(*arguments, GDN_AOT_HOME=str(home)) for home in homes]
    for process in running:
        process.end()
    for home in homes:
        assert len(list((home / "store" / "artifacts").iterdir())) == 1


def test_killed_at_any_moment(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    kill_fetches(12, hub, machine, repo, published)


def kill_fetches(count: int, hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    """Whatever a killed fetch leaves, the store has whole artifacts only, and the next fetch finishes the work."""
    machine.home.mkdir(parents=True)
    arguments = ("fetch", "--repo", f"hf://{repo}", "--arch", "sm_120", *WANTED)
    done = subprocess.run(
        [sys.executable, "-m", "registry.programs.killing", str(SEED), str(count), *arguments],
        env=machine.environment(),
        cwd=machine.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kills = json.loads(done.stdout)["kills"]
    assert len(kills) == count
    for kill in kills:
        # A look at every byte of the store: nothing, or all of it.
        assert kill["found"] in ([], [published.new.sha256]), kill
    struck = [kill for kill in kills if kill["running"]]
    assert len(struck) > count // 4, "the fetches were over before they were killed"
    assert any(kill["found"] == [] for kill in struck)
    machine.fetch(repo)
    assert machine.installed() == [published.new.sha256]
    hub.log.clear()
    machine.fetch(repo)
    assert hub.requests(path="/storage/") == []
