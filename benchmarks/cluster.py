"""A build through two nodes of a Ray cluster with one CPU each, against two compile workers here; then one is killed.

    python benchmarks/cluster.py [--rounds N] [--model NAME ...]      needs gdn-aot[ray]

Both build the same three targets with an empty build cache, in turn. The cluster is there before the clock starts.
Writes benchmarks/results/cluster.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from machine import load, machine

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "cluster.json"
TARGETS = ("sm_80", "sm_90", "sm_120")
MOST = 1.25
"""Times the local build that the one through the cluster may take."""

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "executors")]


def build(models: list[str], *where: str, killed: Any = None) -> dict[str, Any]:
    """Build with an empty cache. Returns seconds, digests and how many kernels were compiled."""
    with tempfile.TemporaryDirectory(prefix="gdn-aot-benchmark-") as folder:
        words = [word for name in TARGETS for word in ("--arch", name)]
        words += [word for name in models for word in ("--model", name)]
        command = [sys.executable, "-m", "gdn_aot", "build", *words, *where, "-o", f"{folder}/out", "--json"]
        env = {**os.environ, "GDN_AOT_HOME": f"{folder}/home", "PYTHONPATH": str(ROOT)}
        start = time.perf_counter()
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            if killed is not None:
                threading.Thread(target=kill_half_way, args=(killed, Path(folder), process), daemon=True).start()
            out, err = process.communicate()
        seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{err}")
    made = json.loads(out)["artifacts"]
    return {
        "seconds": round(seconds, 2),
        "compiled": sum(row["compiled"] for row in made),
        "cpu_seconds": round(sum(sum(row["compile_seconds"].values()) for row in made), 1),
        "sha256": {row["arch"]: row["sha256"] for row in made},
        "notes": [line for line in err.splitlines() if "node" in line],
    }


def kill_half_way(node: Any, folder: Path, process: subprocess.Popen[str]) -> None:
    """Kill a node when the second target's first kernels have arrived."""
    while process.poll() is None and len(list((folder / "out").glob("*.zst"))) < 1:
        time.sleep(0.2)
    node.kill()


def main() -> None:
    from clusters import TestCluster

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", action="append")
    options = parser.parse_args()
    models = options.model or ["qwen3.5-9b"]
    local, remote = [], []
    with TestCluster() as cluster:
        cluster.start()
        second = cluster.start()
        where = ("--executor", "ray", "--address", cluster.address)
        for number in range(options.rounds):
            order = [(local, ("--jobs", "2")), (remote, where)]
            for found, words in order if number % 2 == 0 else order[::-1]:
                found.append(build(models, *words))
                print(words[:2], found[-1]["seconds"], found[-1]["compiled"], flush=True)
        killed = build(models, *where, killed=second)
    ratio = statistics.median(row["seconds"] for row in remote) / statistics.median(row["seconds"] for row in local)
    digests = {json.dumps(row["sha256"], sort_keys=True) for row in (*local, *remote, killed)}
    result = {
        "machine": machine("triton", "fla-core", "torch", "ray"),
        "load": load(),
        "targets": TARGETS,
        "models": models,
        "local": local,
        "ray": remote,
        "ray_with_a_node_killed": killed,
        "ratio": round(ratio, 3),
        "most": MOST,
        "same_bytes": len(digests) == 1,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(f"ratio {ratio:.3f}, same bytes: {len(digests) == 1}")
    if ratio > MOST or len(digests) > 1 or not any("ended" in line for line in killed["notes"]):
        sys.exit("that is not what is promised")


if __name__ == "__main__":
    main()
