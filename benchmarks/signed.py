"""What signatures cost a serving process: install() with three artifacts that fit, signed and not.

    python benchmarks/signed.py [--rounds 21]

Builds decoding of one model for three targets, which all fit the versions that are installed here, and fills three
stores with them: without signatures, signed, and signed under a keyring that followed from a registry. Fresh processes
import gdn_aot and call install(), in interleaved rounds; time is taken inside. Where a process serves, the standard
library's modules that torch imports are there already: so they are here. benchmarks/results/signed.json keeps the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, gdn_aot, goal, goals_text, machine, run, save, summary

from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.publish import publish

sys.path.insert(0, str(ROOT / "tests/support"))
from signing import Publisher

OUT = RESULTS / "signed.json"
TARGETS = ("sm_80", "sm_90", "sm_120")
MOST_MORE = 4.0
"""Milliseconds that install() may take longer for three signed artifacts than for three that are not, in the median."""

INSTALL = """
import binascii, contextlib, hashlib, importlib.util, json, logging, os, re, struct, sys, threading, time
import traceback, typing
start = time.perf_counter(), time.process_time()
import gdn_aot
gdn_aot.install()
took = [1000 * (after - before) for before, after in zip(start, (time.perf_counter(), time.process_time()))]
report = gdn_aot.report()
accepted = [verdict.artifact for verdict in report.artifacts if verdict.accepted]
names = "cryptography", "torch", "triton", "msgspec", "sigstore", "_cffi_backend"
foreign = [name for name in names if name in sys.modules]
print(json.dumps({"took": took, "accepted": accepted, "foreign": foreign, "problem": report.problem}))
"""


def stores(folder: Path) -> dict[str, dict[str, str]]:
    """Return the environment of processes for each store."""
    built = folder / "built"
    options = [word for target in TARGETS for word in ("--arch", target)]
    gdn_aot(
        "build", *options, "--model", "qwen3.5-9b", "--workload", "transformers-decode", "-o", built, home=str(folder)
    )
    files = sorted(built.glob("*.tar.zst"))
    org = Publisher()
    plain, signed = DirectoryRegistry(str(folder / "plain")), DirectoryRegistry(str(folder / "signed"))
    publish(plain, files, create=True)
    publish(signed, files, create=True, signing=org.signing())
    known = org.known_in(folder / "keys")
    env = {way: {"GDN_AOT_HOME": str(folder / f"home {way}"), **known} for way in ("unsigned", "signed", "rotated")}
    for way, registry in (("unsigned", plain), ("signed", signed), ("rotated", signed)):
        if way == "rotated":
            publish(signed, [], signing=org.signing(org.signed(org.keyring(2))))
        words = ("fetch", "--repo", registry.name, "--arch", ",".join(TARGETS), "--provider", "fla", "--allow-unsigned")
        run("-m", "gdn_aot", *words, env=env[way])
    return env


def measure(rounds: int) -> dict[str, Any]:
    """Return one run."""
    with tempfile.TemporaryDirectory() as folder:
        env = stores(Path(folder))
        said: dict[str, list[dict[str, Any]]] = {way: [] for way in env}
        for number in range(rounds + 1):
            for way, variables in env.items():
                row = json.loads(run("-c", INSTALL, env=variables))
                said[way] += [row] if number else []
    times = {way: summary([row["took"] for row in rows]) for way, rows in said.items()}
    goals = [
        goal(
            f"{way}: at most {MOST_MORE:.0f} ms more than unsigned",
            f"{(more := times[way]['median'] - times['unsigned']['median']):.2f} ms",
            more <= MOST_MORE,
        )
        for way in ("signed", "rotated")
    ]
    goals.append(
        goal(
            "three artifacts are accepted in each process",
            sorted({len(row["accepted"]) for rows in said.values() for row in rows}),
            all(len(row["accepted"]) == len(TARGETS) for rows in said.values() for row in rows),
        )
    )
    foreign = sorted({name for rows in said.values() for row in rows for name in row["foreign"]})
    goals.append(goal("nothing beyond the standard library is imported", foreign, not foreign))
    return {"machine": machine("fla-core", "triton"), "ms": times, "goals": goals}


def main() -> None:
    """Measure and keep the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    found = measure(parser.parse_args().rounds)
    print(json.dumps(found, indent=1))
    print(goals_text(found["goals"]))
    save(OUT, found)


if __name__ == "__main__":
    main()
