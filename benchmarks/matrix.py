"""How long the commands about the matrix take: median of nine fresh processes, in milliseconds.

    .venv/bin/python benchmarks/matrix.py

Writes benchmarks/results/matrix.json. ``python`` is the interpreter alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from machine import load, machine

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "matrix.json"
COMMANDS = {
    "json": (["matrix", "--json"], 0),
    "select": (["matrix", "--select", "vllm*-sm_8?"], 0),
    "changed": (["matrix", "--json", "--changed", "HEAD"], 0),
    "refused": (["build", "--only", "fla0.6.0-triton3.6.0-sm_99"], 3),
}
"""Arguments of each, and the exit code that it must have."""
TIMES = 9


def figures(command: list[str], code: int = 0) -> dict[str, float]:
    """Run a command in fresh processes. Returns milliseconds: median and least of the wall's, median of processors'."""
    walls, processor = [], []
    for _ in range(TIMES):
        before, start = os.times(), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        walls.append(1000 * (time.perf_counter() - start))
        if done.returncode != code:
            sys.exit(f"{command} ended with {done.returncode}:\n{done.stderr}")
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        processor.append(1000 * used)
    return {
        "wall_ms": round(sorted(walls)[TIMES // 2], 1),
        "least_wall_ms": round(min(walls), 1),
        "processor_ms": round(sorted(processor)[TIMES // 2], 1),
    }


def main() -> None:
    results: dict[str, object] = {
        "python": figures([sys.executable, "-c", "pass"]),
        **{name: figures([sys.executable, "-m", "gdn_aot", *rest], code) for name, (rest, code) in COMMANDS.items()},
        "load": load(),
        "nice": os.nice(0),
        "machine": machine("click"),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
