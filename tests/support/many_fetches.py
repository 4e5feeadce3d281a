"""Many fetches at once, and fetches that are killed."""

import json
import subprocess
import sys

from helpers import TIMEOUT
from machines import Site

SEED = 20260101


def fetch_at_once(count: int, site: Site) -> None:
    """They share store and cache, as the containers of one host do."""
    for process in [site.machine.start(*site.wanted) for _ in range(count)]:
        process.end()
    assert site.has(site.published.new)
    places = site.machine.home / "gdn-aot/store/artifacts"
    assert len(list(places.iterdir())) == 1, "something was left behind"
    sent = sum(record.sent for record in site.hub.requests("GET", f"/storage/{site.published.new.sha256}"))
    assert sent >= site.published.new.size
    site.hub.log.clear()
    site.fetch()
    assert site.downloads() == []


def kill_fetches(count: int, site: Site) -> None:
    """Whatever a killed fetch leaves, the store has whole artifacts only, and the next fetch finishes the work."""
    site.machine.home.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "programs.killing", str(SEED), str(count), *site.wanted],
        env=site.machine.environment(),
        cwd=site.machine.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kills = json.loads(done.stdout)["kills"]
    assert len(kills) == count
    for kill in kills:
        # A look at every byte of the store: nothing, or all of it.
        assert kill["found"] in ([], [site.published.new.sha256]), kill
    struck = [kill for kill in kills if kill["running"]]
    assert len(struck) > count // 4, "the fetches were over before they were killed"
    assert any(kill["found"] == [] for kill in struck)
    site.fetch()
    assert site.has(site.published.new)
    site.hub.log.clear()
    site.fetch()
    assert site.downloads() == []
