"""A machine of its own for the commands: its cache, its store, its token, and the hub that it talks to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import ROOT, SUPPORT, TIMEOUT, Done
from loopback import OUTSIDER, READER, UNKNOWN, WRITER, LoopbackHub
from loopback.exchange import Record
from making import WANTED, Published
from storing import check_store

from gdn_aot.artifact.archive import Written

_OURS = ("HF_", "HUGGING", "GDN_AOT", "TRITON_", "FLA_", "XDG_", "TRANSFORMERS_", "PYTHON")
_LIMIT = 120.0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine. ``home`` holds all it keeps, ``endpoint`` is the address of the Hub."""

    home: Path
    endpoint: str

    def environment(self, token: str | None = WRITER, **more: str) -> dict[str, str]:
        """Return the environment of its processes, with nothing of the user's own in it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        own = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT)]),
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "huggingface"),
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "GDN_AOT_HOME": str(self.home / "gdn-aot"),
            "NO_COLOR": "1",
            "NO_PROXY": "*",
        }
        return {**kept, **own, **({"HF_TOKEN": token} if token else {}), **more}

    def start(self, *args: object, token: str | None = WRITER, before: tuple[str, ...] = (), **more: str) -> Process:
        """Start ``gdn-aot``; ``before`` is a command that runs it."""
        self.home.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "gdn_aot", *map(str, args)],
            env=self.environment(token, **more),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Process(process, [token] if token else [])

    def run(self, *args: object, code: int = 0, kind: str | None = None, **options: Any) -> Done:
        """Run ``gdn-aot`` to its end, as `start`, and check what every command owes; see `Process.end`."""
        return self.start(*args, **options).end(code, kind)

    def fetch(self, repo: str, *args: object, **options: Any) -> Done:
        """Run ``gdn-aot fetch`` for what `registry.making.make` makes, for sm_120 unless told otherwise."""
        arch = () if "--arch" in args else ("--arch", "sm_120")
        return self.run("fetch", "--allow-unsigned", "--repo", f"hf://{repo}", *arch, *WANTED, *args, **options)

    def installed(self) -> list[str]:
        """Return the SHA-256 of every artifact in the store, after a look at all of the store's bytes."""
        return check_store(self.home / "gdn-aot")


@dataclass(frozen=True, kw_only=True)
class Site:
    """A machine with nothing on it, and a repository that has what `Published` says."""

    hub: LoopbackHub
    machine: Machine
    repo: str
    published: Published

    @property
    def wanted(self) -> tuple[str, ...]:
        """The arguments of ``gdn-aot`` that fetch what is newest for sm_120."""
        return ("fetch", "--allow-unsigned", "--repo", f"hf://{self.repo}", "--arch", "sm_120", *WANTED)

    def fetch(self, *args: object, **options: Any) -> Done:
        """Run ``gdn-aot fetch`` on the machine."""
        return self.machine.fetch(self.repo, *args, **options)

    def has(self, *made: Written) -> bool:
        """Look at all of the store's bytes, and say whether it has these artifacts and no others, in this order."""
        return self.machine.installed() == [one.sha256 for one in made]

    def downloads(self) -> list[Record]:
        """What was asked of the storage of large files."""
        return self.hub.requests(path="/storage/")


class Process:
    """A command that runs."""

    def __init__(self, process: subprocess.Popen[str], secrets: Sequence[str] = ()) -> None:
        self.process = process
        self.secrets = [*secrets, WRITER, READER, OUTSIDER, UNKNOWN, "signature="]

    def end(self, code: int = 0, kind: str | None = None) -> Done:
        """Wait for its end and check its exit code, the ``code`` of its error in JSON, and what every command owes.

        That is: no token is shown, no signed link and no traceback, and a failure has one line with a hint.
        """
        try:
            out, err = self.process.communicate(timeout=_LIMIT)
        finally:
            self.process.kill()
        done = Done(self.process.returncode, out, err)
        assert done.code == code, f"exit {done.code}, expected {code}\n{out[-3000:]}\n{err[-3000:]}"
        for secret in self.secrets:
            assert secret not in out + err
        assert "Traceback" not in out + err
        hints = [line for line in err.splitlines() if line.startswith("Hint: ")]
        assert len(hints) <= 1 if code == 0 else len(hints) == 1, err
        if code and kind:
            error = done.json["error"]
            assert error["code"] == kind, error
            assert hints == [f"Hint: {error['hint']}"]
            assert f"Error: {error['message']}" in err
        return done


# Many fetches at once, and fetches that are killed


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
