"""How long builds take and how large artifacts are, on this machine, each with an empty build cache of its own.

    python benchmarks/build.py [PART ...]      parts: one old ten all

Writes benchmarks/results/build.json; parts that are not run keep their last figures. ``machine`` there is that of parts
which do not have one of their own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import RESULTS, gdn_aot, load, machine, save

if TYPE_CHECKING:
    from collections.abc import Callable

OUT = RESULTS / "build.json"
MODEL = ("--model", "qwen3.5-9b")
_KEPT = ("identifier", "size", "kernels", "choices", "binaries", "compiled", "seconds")


def build(*args: str, home: str) -> dict[str, Any]:
    """Build and return wall seconds with what ``--json`` says; the artifacts are in ``out`` below ``home``."""
    start = time.perf_counter()
    document = gdn_aot("build", *args, "-o", f"{home}/out", home=home)
    seconds = time.perf_counter() - start
    artifacts = [
        {name: item[name] for name in _KEPT}
        | {"cpu_seconds": round(sum(item["compile_seconds"].values()), 1), "not_covered": len(item["not_covered"])}
        | {"most": dict(list(item["compile_seconds"].items())[:4])}
        for item in document["artifacts"]
    ]
    return {"seconds": round(seconds, 2), "artifacts": artifacts}


def fresh(*args: str) -> dict[str, Any]:
    """Build in a home of its own."""
    with tempfile.TemporaryDirectory() as home:
        return build(*args, home=home)


def one() -> dict[str, Any]:
    """Build one model for one target, then the same again unchanged, then coverage."""
    with tempfile.TemporaryDirectory() as home:
        cold, again = (build("--arch", "sm_120", *MODEL, home=home) for _ in range(2))
        (file,) = Path(home, "out").glob("*.zst")
        covered = gdn_aot("coverage", file, *MODEL, "--calls", "1000", "--seed", "1", codes=(0, 5))
        found = {name: covered[name] for name in ("seconds", "calls", "launches", "hits")}
        return {"cold": cold, "unchanged": again, "coverage": {**found, "misses": len(covered["misses"])}}


def old() -> dict[str, Any]:
    """Build one model for the oldest target, and say what the artifact takes of a card for registers that spill."""
    with tempfile.TemporaryDirectory() as home:
        built = build("--arch", "sm_70", *MODEL, home=home)
        (file,) = Path(home, "out").glob("*.zst")
        cost = gdn_aot("inspect", file)["cost"]
        return {**built, "local": max(kernel["local"] for kernel in cost["spills"]), "reserve": cost["reserve"]}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "one": one,
    "old": old,
    "ten": lambda: fresh("--arch", "all", *MODEL),
    "all": lambda: fresh("--arch", "sm_120", "--model", "all", "--tp", "1,2,4,8"),
}
"""One model for one target; for the oldest; for every target; every model at every size for one target."""


def main() -> None:
    """Run the parts asked for and merge them into the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART")
    wanted = parser.parse_args().parts
    if unknown := sorted({*wanted} - {*PARTS}):
        parser.error(f"unknown parts: {', '.join(unknown)}")
    for name in wanted:
        results = load(OUT)
        results[name] = PARTS[name]() | {"machine": machine("triton", "torch", "fla-core", "zstandard")}
        print(name, json.dumps(results[name], indent=1))
        save(OUT, results)


if __name__ == "__main__":
    main()
