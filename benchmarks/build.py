"""How long builds take and how large artifacts are, on this machine, each with an empty build cache of its own.

    .venv/bin/python benchmarks/build.py [PART ...]      parts: start one workers ten all

Writes benchmarks/results/build.json; parts that are not run keep their last figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import machine

RESULTS = Path(__file__).parent / "results" / "build.json"
MODEL = ["--model", "qwen3.5-9b"]


def gdn_aot(*args: str, home: str | None = None) -> tuple[float, str]:
    """Run the command line in a fresh process. Returns wall seconds and stdout."""
    env = {**os.environ, **({"GDN_AOT_HOME": home} if home else {})}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "gdn_aot", *args], capture_output=True, text=True, env=env, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"gdn-aot {' '.join(args)} ended with {done.returncode}:\n{done.stderr}")
    return seconds, done.stdout


def build(*args: str, home: str, out: str) -> dict[str, Any]:
    """Build and return wall seconds with what --json says."""
    seconds, stdout = gdn_aot("build", *args, "-o", out, "--json", home=home)
    document = json.loads(stdout)
    artifacts = [
        {name: item[name] for name in ("identifier", "size", "kernels", "choices", "binaries", "compiled", "seconds")}
        | {"cpu_seconds": round(sum(item["compile_seconds"].values()), 1), "not_covered": len(item["not_covered"])}
        | {"most": dict(list(item["compile_seconds"].items())[:4])}
        for item in document["artifacts"]
    ]
    return {"seconds": round(seconds, 2), "artifacts": artifacts}


def part_start() -> dict[str, Any]:
    """Time gdn-aot --help and import gdn_aot: median of nine fresh processes, in milliseconds."""

    def median(command: list[str]) -> float:
        times = []
        for _ in range(9):
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            times.append(1000 * (time.perf_counter() - start))
        return round(sorted(times)[4], 1)

    return {
        "help_ms": median([sys.executable, "-m", "gdn_aot", "--help"]),
        "import_ms": median([sys.executable, "-c", "import gdn_aot"]),
        "python_ms": median([sys.executable, "-c", "pass"]),
    }


def part_one() -> dict[str, Any]:
    """Build one model for one target, then the same again unchanged, then coverage."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as out:
        cold = build("--arch", "sm_120", *MODEL, home=home, out=out)
        again = build("--arch", "sm_120", *MODEL, home=home, out=out)
        file = str(next(Path(out).glob("*.zst")))
        seconds, stdout = gdn_aot("coverage", file, *MODEL, "--calls", "1000", "--seed", "1", "--json")
        covered = json.loads(stdout)
        return {
            "cold": cold,
            "unchanged": again,
            "coverage": {
                "seconds": round(seconds, 2),
                **{name: covered[name] for name in ("calls", "launches", "hits")},
                "misses": len(covered["misses"]),
            },
        }


def part_workers() -> dict[str, Any]:
    """Build the same with one and with two compile workers, in turn."""
    found = {}
    for jobs in ("1", "2"):
        with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as out:
            found[jobs] = build("--arch", "sm_120", *MODEL, "--jobs", jobs, home=home, out=out)
    compile_seconds = {jobs: result["artifacts"][0]["seconds"]["compile"] for jobs, result in found.items()}
    return {
        **found,
        "speedup_whole": round(found["1"]["seconds"] / found["2"]["seconds"], 2),
        "speedup_compile": round(compile_seconds["1"] / compile_seconds["2"], 2),
    }


def part_ten() -> dict[str, Any]:
    """Build one model for every target in one command."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as out:
        return build("--arch", "all", *MODEL, home=home, out=out)


def part_all() -> dict[str, Any]:
    """Build every model at every tensor-parallel size for one target."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as out:
        return build("--arch", "sm_120", "--model", "all", "--tp", "1,2,4,8", home=home, out=out)


PARTS = {"start": part_start, "one": part_one, "workers": part_workers, "ten": part_ten, "all": part_all}


def main() -> None:
    """Run the parts asked for and merge them into the results."""
    wanted = sys.argv[1:] or list(PARTS)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in wanted:
        results[name] = PARTS[name]()
        print(name, json.dumps(results[name], indent=1))
        results["machine"] = machine("triton", "torch", "fla-core", "zstandard")
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
