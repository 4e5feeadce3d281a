"""What fetching an artifact costs, against the bare download of its file, and what fetching it again costs.

    .venv/bin/python benchmarks/fetch.py ARTIFACT [--rounds N]

The hub is the tests' stand-in, in a process of its own. Writes benchmarks/results/fetch.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "fetch.json"
REPO = "acme/kernels"
MOST_TIMES, MOST_MORE = 1.5, 100.0
"""What a fetch may take: times the bare download, and milliseconds on top."""
MOST_REPEATED = 300.0
"""Milliseconds that a repeated fetch may take, interpreter and all."""

SERVE = """
import sys
from registry.loopback import WRITER, LoopbackHub
with LoopbackHub() as hub:
    print(hub.url, WRITER, flush=True)
    sys.stdin.read()
"""


def environment(home: Path, url: str, token: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GDN_AOT"))}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "HF_ENDPOINT": url,
        "HF_TOKEN": token,
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "GDN_AOT_HOME": str(home / "gdn-aot"),
        "NO_PROXY": "*",
    }


@contextlib.contextmanager
def hub() -> Iterator[tuple[str, str]]:
    """Run the stand-in; yields its address and a token that may write."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url, token = (process.stdout.readline() if process.stdout else "").split()
        yield url, token
    finally:
        process.communicate("")


def run(*args: object, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, args)], env=env, cwd=env["HF_HOME"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, args))} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


Times = tuple[float, float]
"""Milliseconds on the clock, and of processor time in this process and those that it waited for."""


def timed(step: Callable[[], object]) -> Times:
    before, start = os.times(), time.perf_counter()
    step()
    took, after = time.perf_counter() - start, os.times()
    return 1000 * took, 1000 * (sum(after[:4]) - sum(before[:4]))


def summary(values: list[Times]) -> dict[str, float]:
    clock = [took for took, _ in values]
    return {
        "median": round(statistics.median(clock), 1),
        "least": round(min(clock), 1),
        "greatest": round(max(clock), 1),
        "cpu": round(statistics.median(cpu for _, cpu in values), 1),
    }


def measure(options: dict[str, Any]) -> dict[str, Any]:
    """Inside one process: download and fetch in turn, each into empty directories."""
    from huggingface_hub import constants, hf_hub_download

    from gdn_aot.artifact.verify import open_artifact
    from gdn_aot.registry.fetch import FetchOrder, fetch
    from gdn_aot.registry.select import Request
    from gdn_aot.store.install import install
    from gdn_aot.store.store import Store, default_home

    request = Request(targets=(options["target"],), providers=(), others=True, triton=None)
    order = FetchOrder(repo=f"hf://{REPO}", revision=None, request=request)
    found: dict[str, list[Times]] = {"download": [], "fetch": [], "verify": [], "install": []}

    def empty() -> None:
        for place in (constants.HF_HUB_CACHE, default_home()):
            shutil.rmtree(place, ignore_errors=True)

    def download() -> None:
        hf_hub_download(REPO, options["path"], revision="v1")

    def fetch_it() -> None:
        fetch(order, Store(default_home()), lambda _: None, lambda _: None)

    for number in range(options["rounds"] + 1):
        for name, step in (("download", download), ("fetch", fetch_it)):
            empty()
            took = timed(step)
            if number:  # the first round imports and connects
                found[name].append(took)
        empty()
        opened = []
        verified = timed(lambda opened=opened: opened.append(open_artifact(options["artifact"])))  # type: ignore[misc]
        installed = timed(lambda opened=opened: install(Store(default_home()), opened[0]))  # type: ignore[misc]
        if number:
            found["verify"].append(verified)
            found["install"].append(installed)
    return {name: summary(values) for name, values in found.items()}


def repeated(home: Path, env: dict[str, str], target: str, rounds: int, artifact: Path) -> dict[str, Any]:
    """Whole processes that find everything installed."""
    wanted = ("--arch", target, "--provider", "fla", "--provider-version", "0.6.0", "--triton", "3.6.0")
    directory = home / "directory"
    run("-m", "gdn_aot", "publish", artifact, "--repo", directory, "--create", env=env)
    document = json.loads(run("-m", "gdn_aot", "fetch", "--repo", f"hf://{REPO}", *wanted, "--json", env=env))
    run("-m", "gdn_aot", "fetch", "--repo", directory, *wanted, env=env)
    run("-m", "gdn_aot", "lock", "--repo", f"hf://{REPO}", *wanted, env=env)
    cases = {
        "python": ("-c", "pass"),
        "directory": ("-m", "gdn_aot", "fetch", "--repo", directory, *wanted),
        "hub, branch": ("-m", "gdn_aot", "fetch", "--repo", f"hf://{REPO}", *wanted),
        "hub, commit": ("-m", "gdn_aot", "fetch", "--repo", f"hf://{REPO}", "--revision", document["commit"], *wanted),
        "hub, locked": ("-m", "gdn_aot", "fetch", "--locked", *wanted),
        "hub, offline": ("-m", "gdn_aot", "fetch", "--repo", f"hf://{REPO}", *wanted),
    }
    found: dict[str, list[Times]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, command in cases.items():
            extra = {"HF_HUB_OFFLINE": "1"} if name == "hub, offline" else {}
            took = timed(lambda command=command, extra=extra: run(*command, env={**env, **extra}))  # type: ignore[misc]
            if number:
                found[name].append(took)
    return {name: summary(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="an artifact of fla 0.6.0 for Triton 3.6.0, about 5 MB")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(json.loads(options.inside))))
        return
    from gdn_aot.artifact.verify import open_artifact
    from gdn_aot.registry.layout import artifact_path

    artifact = options.artifact.resolve()
    load = round(os.getloadavg()[0], 1)
    manifest = open_artifact(artifact).manifest
    with tempfile.TemporaryDirectory() as folder, hub() as (url, token):
        home = Path(folder)
        env = environment(home, url, token)
        (home / "huggingface").mkdir()
        run("-m", "gdn_aot", "publish", artifact, "--repo", f"hf://{REPO}", "--create", env=env)
        inside = {
            "artifact": str(artifact),
            "path": artifact_path(manifest.identifier),
            "target": manifest.target.name,
            "rounds": options.rounds,
        }
        stages = json.loads(run(__file__, artifact, "--inside", json.dumps(inside), env=env))
        repeats = repeated(home, env, manifest.target.name, options.rounds, artifact)
    allowed = MOST_TIMES * stages["download"]["median"] + MOST_MORE
    result = {
        "artifact": {
            "identifier": manifest.identifier,
            "bytes": artifact.stat().st_size,
            "kernels": len(manifest.kernels),
            "binaries": sum(len(kernel.binaries) for kernel in manifest.kernels),
            "blobs": len(manifest.blobs),
        },
        "rounds": options.rounds,
        "first_ms": stages,
        "repeated_ms": repeats,
        "goals": [
            {
                "goal": f"a fetch takes at most {MOST_TIMES} times the download and {MOST_MORE:.0f} ms",
                "found": f"{stages['fetch']['median']} ms of {allowed:.1f} ms",
                "met": stages["fetch"]["median"] <= allowed,
            },
            *(
                {
                    "goal": f"a repeated fetch ({name}) takes at most {MOST_REPEATED:.0f} ms",
                    "found": f"{values['median']} ms",
                    "met": values["median"] <= MOST_REPEATED,
                }
                for name, values in repeats.items()
                if name != "python"
            ),
        ],
        "machine": machine("huggingface_hub", "zstandard", "triton") | {"load": load},
    }
    print(json.dumps(result, indent=1))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
