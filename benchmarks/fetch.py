"""What fetching an artifact costs, against the bare download of its file, and what fetching it again costs.

    python benchmarks/fetch.py ARTIFACT [--rounds N]

The Hub is the tests' stand-in, in a process of its own. Writes benchmarks/results/fetch.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import RESULTS, ROOT, described, environment, goal, goals_text, interleaved, machine, run, save

from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.registry.fetch import FetchOrder, fetch
from gdn_aot.registry.layout import artifact_path
from gdn_aot.registry.select import Request
from gdn_aot.store.install import install
from gdn_aot.store.store import Store, default_home

if TYPE_CHECKING:
    from collections.abc import Iterator

OUT = RESULTS / "fetch.json"
REPO = "acme/kernels"
MOST_TIMES, MOST_MORE = 1.5, 100.0
"""What a fetch may take: times the bare download, and milliseconds on top."""
MOST_REPEATED = 300.0
"""Milliseconds that a repeated fetch may take, interpreter and all."""

SERVE = """
import sys
from loopback import WRITER, LoopbackHub
with LoopbackHub() as hub:
    print(hub.url, WRITER, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def hub() -> Iterator[tuple[str, str]]:
    """Run the stand-in; yields its address and a token that may write."""
    env, pipe = environment(PYTHONPATH=str(ROOT / "tests/support")), subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SERVE], env=env, stdin=pipe, stdout=pipe, text=True) as process:
        url, token = (process.stdout.readline() if process.stdout else "").split()
        yield url, token  # it ends when its stdin is closed


def client(home: Path, url: str, token: str) -> dict[str, str]:
    """Return the variables of a process that fetches."""
    return {
        "HF_ENDPOINT": url,
        "HF_TOKEN": token,
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "GDN_AOT_HOME": str(home / "gdn-aot"),
        "GDN_AOT_KEYS": str(home / "known"),
        "NO_PROXY": "*",
    }


def publish(artifact: Path, repo: object, home: Path, env: dict[str, str]) -> None:
    """Sign and publish an artifact, by somebody whom the processes that fetch know."""
    keys = home / "keys"
    if not keys.exists():
        run("-m", "gdn_aot", "keys", "new", "--repo", f"hf://{REPO}", "-o", keys, env=env)
        run("-m", "gdn_aot", "keys", "add", keys / "keyring.json", env=env)
    signing = ("--key", keys / "signing.pem", "--keyring", keys / "keyring.json")
    run("-m", "gdn_aot", "publish", artifact, "--repo", repo, "--create", *signing, env=env)


def first(opened: Artifact, rounds: int) -> dict[str, Any]:
    """In this process: download and fetch, and the parts of a fetch, in turn, each into empty directories."""
    from huggingface_hub import constants, hf_hub_download  # reads the variables when it is imported

    request = Request(targets=(opened.manifest.target.name,), providers=(), others=True, triton=None)
    order = FetchOrder(repo=f"hf://{REPO}", revision=None, request=request)
    path = artifact_path(opened.manifest.identifier)

    def empty(_: str) -> None:
        for place in (constants.HF_HUB_CACHE, default_home()):
            shutil.rmtree(place, ignore_errors=True)

    steps = {
        "download": lambda: hf_hub_download(REPO, path, revision="v1"),
        "fetch": lambda: fetch(order, Store(default_home()), lambda _: None, lambda _: None),
        "verify": lambda: open_artifact(opened.path),
        "install": lambda: install(Store(default_home()), opened),
    }
    return interleaved(steps, rounds, empty)  # the round that is not counted imports and connects


def repeated(home: Path, env: dict[str, str], artifact: Path, target: str, rounds: int) -> dict[str, Any]:
    """Whole processes that find everything installed."""
    cli = partial(run, "-m", "gdn_aot", env=env, cwd=home)
    wanted = ("--arch", target, "--provider", "fla", "--provider-version", "0.6.0", "--triton", "3.6.0")
    remote, directory = ("--repo", f"hf://{REPO}", *wanted), ("--repo", home / "directory", *wanted)
    publish(artifact, home / "directory", home, env)
    commit = json.loads(cli("fetch", *remote, "--json"))["commit"]
    cli("fetch", *directory)
    cli("lock", *remote)
    steps = {
        "python": partial(run, "-c", "pass"),
        "directory": partial(cli, "fetch", *directory),
        "hub, branch": partial(cli, "fetch", *remote),
        "hub, commit": partial(cli, "fetch", "--revision", commit, *remote),
        "hub, locked": partial(cli, "fetch", "--locked", *wanted),
        "hub, offline": partial(cli, "fetch", *remote, env={**env, "HF_HUB_OFFLINE": "1"}),
    }
    return interleaved(steps, rounds)


def main() -> None:
    """Publish the artifact to the stand-in and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="an artifact of fla 0.6.0 for Triton 3.6.0, about 5 MB")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    artifact = options.artifact.resolve()
    opened = open_artifact(artifact)
    about = machine("huggingface_hub", "zstandard", "triton")
    with tempfile.TemporaryDirectory() as folder, hub() as (url, token):
        env = client(Path(folder), url, token)
        os.environ.update(env)
        publish(artifact, f"hf://{REPO}", Path(folder), env)
        stages = first(opened, options.rounds)
        repeats = repeated(Path(folder), env, artifact, opened.manifest.target.name, options.rounds)
    allowed = {"first": MOST_TIMES * stages["download"]["median"] + MOST_MORE}
    allowed |= {f"repeated, {name}": MOST_REPEATED for name in repeats if name != "python"}
    took = {"first": stages["fetch"], **{f"repeated, {name}": values for name, values in repeats.items()}}
    goals = []
    for name, most in allowed.items():
        median = took[name]["median"]
        goals.append(goal(f"a fetch ({name}) takes at most {most:.0f} ms", f"{median} ms", median <= most))
    result = {
        "artifact": described(opened),
        "rounds": options.rounds,
        "first_ms": stages,
        "repeated_ms": repeats,
        "goals": goals,
        "machine": about,
    }
    print(json.dumps(result, indent=1))
    print(goals_text(goals))
    save(OUT, result)


if __name__ == "__main__":
    main()
