"""What every start waits for: the command line, import and install() of a serving process, an unchanged build.

    python benchmarks/start.py [--arch sm_120] [--all FILE] [--rounds 9]

Builds one model for the target from an empty cache, fills a store with it, and times fresh processes in interleaved
rounds. Import and install() are timed inside theirs: in a bare interpreter, from the store and from the file; after the
modules of the standard library that torch imports; and after the provider, so that its kernels are seeded at once
(without a GPU under the tests' stand-in for one). With ``--all``, an artifact of all models, reading its manifest is
timed too. benchmarks/results/start.json keeps one run for each processor and card.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, gdn_aot, goal, goals_text, interleaved, load, machine, run, save, summary

from gdn_aot.artifact.manifest_json import load_manifest
from gdn_aot.artifact.verify import open_artifact

OUT = RESULTS / "start.json"
MODEL = ("--model", "qwen3.5-9b")
LIMITS = {
    "gdn-aot --help": 80.0,
    "unchanged build": 1500.0,
    "import gdn_aot": 20.0,
    "install, store": 15.0,
    "install, file": 15.0,
    "install, stdlib": 15.0,
    "install, provider": 15.0,
    "manifest of all models": 60.0,
}
"""Milliseconds on the clock that each may take in the median."""
MOST_BYTES, MOST_MANIFEST = 300_000, 3_500_000
"""Bytes of the artifact of one model for sm_120, and of the manifest of all models."""

INSTALL = """
import sys, time
way, arch, *file = sys.argv[1:]
if way == "stdlib":
    import contextlib, hashlib, importlib.util, json, logging, os, re, struct, threading, traceback, typing
if way == "provider":
    if arch:
        import launching
        launching.start(arch)
    import fla.ops.gated_delta_rule
def now():
    return 1000 * time.perf_counter(), 1000 * time.process_time()
start = now()
import gdn_aot
imported = now()
gdn_aot.install(*file)
installed = now()
import json
taken = [[after - before for before, after in zip(*both)] for both in ((start, imported), (imported, installed))]
loaded = [name for name in ("torch", "triton", "click", "zstandard", "msgspec") if name in sys.modules]
print(json.dumps({"import": taken[0], "install": taken[1], "loaded": loaded, "problem": gdn_aot.report().problem}))
"""


def processes(home: str, arch: str, rounds: int) -> dict[str, dict[str, float]]:
    """Time whole processes; what they build is in ``home`` already."""
    cli = partial(run, "-m", "gdn_aot", env={"GDN_AOT_HOME": home})
    steps = {
        "python": partial(run, "-c", "pass"),
        "gdn-aot --help": partial(cli, "--help"),
        "gdn-aot matrix --json": partial(cli, "matrix", "--json"),
        "unchanged build": partial(cli, "build", "--arch", arch, *MODEL, "-o", f"{home}/out"),
    }
    return interleaved(steps, rounds)


def installs(home: str, arch: str, artifact: Path, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Import and install() in four kinds of processes. Returns what each said; the first round is not counted."""
    ways = {"store": rounds, "file": rounds, "stdlib": rounds, "provider": max(2, rounds // 3)}
    env = {"GDN_AOT_HOME": home, "PYTHONPATH": str(ROOT / "tests/support")}
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way in [way for way, count in ways.items() if number <= count]:
            file = [artifact] if way == "file" else []
            said = json.loads(run("-c", INSTALL, way, arch, *file, env=env))
            found[way] += [said] if number else []
    return found


def measure(arch: str, every: Path | None, rounds: int) -> dict[str, Any]:
    """Return one run."""
    about = machine("torch", "triton", "fla-core")
    with tempfile.TemporaryDirectory() as home:
        (built,) = gdn_aot("build", "--arch", arch, *MODEL, "-o", f"{home}/out", home=home)["artifacts"]
        artifact = Path(built["path"])
        run("-c", "import sys, gdn_aot; gdn_aot.install(sys.argv[1])", artifact, env={"GDN_AOT_HOME": home})
        pretended = "" if "device" in about else arch
        said = installs(home, pretended, artifact, rounds)
        times = processes(home, arch, rounds)
    bare = said["store"] + said["file"]
    loaded = sorted({name for row in bare for name in row["loaded"]})
    times["import gdn_aot"] = summary([row["import"] for row in bare])
    times |= {f"install, {way}": summary([row["install"] for row in rows]) for way, rows in said.items()}
    text = "import and install() in a bare process load neither torch nor triton"
    goals = [goal(text, loaded, not {"torch", "triton"} & {*loaded})]
    if arch == "sm_120":
        goals.append(goal(f"the artifact is below {MOST_BYTES} bytes", built["size"], built["size"] < MOST_BYTES))
    if every is not None:
        data = open_artifact(every).manifest_json
        times |= interleaved({"manifest of all models": lambda: load_manifest(data)}, rounds)
        text = f"the manifest of all models is below {MOST_MANIFEST} bytes"
        goals.append(goal(text, len(data), len(data) < MOST_MANIFEST))
    for name, limit in LIMITS.items():
        if name in times:
            took = times[name]["median"]
            goals.append(goal(f"{name} takes at most {limit:.0f} ms", f"{took} ms", took <= limit))
    return {"machine": about, "arch": arch, "bytes": built["size"], "ms": times, "loaded": loaded, "goals": goals}


def main() -> None:
    """Measure and put the run in the place of an earlier one of such a machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="sm_120")
    parser.add_argument("--all", type=Path, help="an artifact of all models")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    found = measure(options.arch, options.all, options.rounds)
    print(json.dumps(found, indent=1))
    print(goals_text(found["goals"]))

    def place(one: dict[str, Any]) -> tuple[str, str]:
        return one["machine"].get("cpu", ""), one["machine"].get("device", "")

    others = [one for one in load(OUT).get("runs", []) if place(one) != place(found)]
    save(OUT, {"runs": [*others, found]})


if __name__ == "__main__":
    main()
