"""What it costs to build the matrix: compiles measured here, and schedules simulated with them.

    python benchmarks/cost.py measure [--provider fla] [--part N] [--jobs N] [--note TEXT] TARGET ...   all: every one
    python benchmarks/cost.py environment constraints/FILE.txt      how long a job takes to make its own
    python benchmarks/cost.py simulate                              schedules of what was measured
    python benchmarks/cost.py page                                  docs/explanation/cost.md

``measure`` builds shard 1 of N of each artifact, all models at tensor-parallel sizes 1, 2, 4 and 8, from an empty build
cache. With N = 32 and 2 quiet cores the ten targets of fla take about a quarter of an hour; the Python that runs it is
the environment that is measured, so vLLM's rows come from one with vLLM in it. Rows that are not measured again keep
their figures. It ends with ``simulate`` and ``page``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from cost import document, layouts, measure
from machine import machine

from gdn_aot.catalogue.targets import all_targets

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "cost.json"
PAGE = ROOT / "docs" / "explanation" / "cost.md"


def load() -> dict[str, Any]:
    """Return the results so far."""
    if RESULTS.exists():
        found: dict[str, Any] = json.loads(RESULTS.read_text())
        return found
    return {"environment": {"seconds": layouts.ENVIRONMENT, "measured": False}, "note": "", "rows": []}


def save(results: dict[str, Any]) -> None:
    """Write the results: each row's compiles and chains on one line."""
    lines = []
    for row in results["rows"]:
        fields = [f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in row.items()]
        lines.append("  {" + ",\n   ".join(fields) + "}")
    rest = json.dumps({name: value for name, value in results.items() if name != "rows"}, indent=1)
    RESULTS.write_text(rest[:-2] + ',\n "rows": [\n' + ",\n".join(lines) + "\n ]\n}\n")


def simulate(results: dict[str, Any]) -> None:
    """Schedule the matrix."""
    rows = [layouts.read_row(row) for row in results["rows"]]
    results["matrix"] = layouts.compare(rows, results["environment"]["seconds"])


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    row = commands.add_parser("measure")
    row.add_argument("--provider", default="fla")
    row.add_argument("--part", type=int, default=32, help="build one shard of so many")
    row.add_argument("--jobs", type=int, default=os.cpu_count())
    row.add_argument("--note", default="", help="a sentence on the machine, for the page")
    row.add_argument("targets", nargs="+")
    commands.add_parser("environment").add_argument("requirements", type=Path)
    commands.add_parser("simulate")
    commands.add_parser("page")
    asked = parser.parse_args()
    results = load()
    if asked.command == "measure":
        names = [target.name for target in all_targets()] if asked.targets == ["all"] else asked.targets
        for name in names:
            made = measure.measure(asked.provider, name, asked.part, asked.jobs)
            print(
                made["identifier"], len(made["tasks"]), "compiles,", round(sum(task[1] for task in made["tasks"])), "s"
            )
            others = [old for old in results["rows"] if old["identifier"] != made["identifier"]]
            results["rows"] = sorted([*others, made], key=lambda old: (old["provider"], int(old["target"][3:])))
            distributions = ("triton", "torch") + (("fla-core",) if asked.provider == "fla" else ())
            results = {"machine": machine(*distributions), "jobs": asked.jobs, **results, "note": asked.note}
            save(results)
    if asked.command == "environment":
        results["environment"] = {"seconds": round(measure.environment(asked.requirements), 1), "measured": True}
    if asked.command != "page":
        simulate(results)
        save(results)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(document.page(results))


if __name__ == "__main__":
    main()
