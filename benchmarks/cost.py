"""What it costs to build the matrix: rows measured by building them, and a plain estimate of the whole.

    python benchmarks/cost.py measure [--jobs N] IDENTIFIER ...     rows of artifacts/matrix.toml
    python benchmarks/cost.py page                              docs/explanation/cost.md

``measure`` is ``gdn-aot build --only IDENTIFIER`` from an empty build cache, in the environment that runs it: vLLM's
rows are measured by a Python with vLLM in it. One takes 10 to 40 minutes on 2 cores. Rows that are not measured again
keep their figures. It ends with ``page``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

from harness import RESULTS, ROOT, gdn_aot, load, machine, save

from gdn_aot import matrix
from gdn_aot.catalogue.targets import get_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OUT = RESULTS / "cost.json"
PAGE = ROOT / "docs" / "explanation" / "cost.md"
MATRIX = ROOT / "artifacts" / "matrix.toml"
ENVIRONMENT = 60.0
"""Seconds of wall time in which a job makes its environment: assumed; pip took half of it for fla on 2 cores."""
RUNNER = 2
"""Cores of the machine that one job of CI gets here; those of hosted runners are 2 to 4."""
_SHOWN = 8
"""Kernels in the table."""
_WIDTH = 120

Row = dict[str, Any]
"""A row of ``results/cost.json``: seconds are CPU seconds, those of the assembler included."""


def measure(identifier: str, jobs: int) -> Row:
    """Build a row of the matrix from an empty build cache."""
    with tempfile.TemporaryDirectory(prefix="gdn-aot-cost-") as home:
        words = ("--only", identifier, "--matrix", MATRIX, "--jobs", jobs, "--keep-going", "-o", f"{home}/out")
        (made,) = gdn_aot("build", *words, home=home)["artifacts"]
    return {
        "identifier": identifier,
        "built": "whole",
        "compiles": made["compiled"],
        "bytes": made["size"],
        "trace": made["seconds"]["trace"],
        "pack": made["seconds"]["pack"],
        "compile": made["compile_seconds"],
    }


def provider_and_target(identifier: str) -> tuple[str, str]:
    """Split ``fla0.6.0-triton3.6.0-sm_75``."""
    provider, _, target = identifier.split("-")
    return provider.rstrip(".0123456789"), target


def stand_in(rows: Sequence[Row], provider: str, target: str) -> Row:
    """Return the measured row nearest to an artifact: first the provider counts, then bf16 arithmetic, then the target.

    Targets without bf16 arithmetic are those whose tensor cores Triton does not use, which is what makes code long.
    """

    def distance(row: Row) -> tuple[bool, bool, int]:
        its_provider, its_target = provider_and_target(row["identifier"])
        ours, theirs = get_target(target), get_target(its_target)
        return its_provider != provider, ours.bf16 != theirs.bf16, abs(ours.arch_number - theirs.arch_number)

    return min(rows, key=distance)


def job_seconds(row: Row) -> float:
    """Return the wall seconds of one job of CI: environment, trace, compiling on all its cores, packing."""
    return float(ENVIRONMENT + row["trace"] + sum(row["compile"].values()) / RUNNER + row["pack"])


def page(results: Mapping[str, Any]) -> str:
    """Return ``docs/explanation/cost.md``, made of the results so that its figures are those of one file."""
    rows: list[Row] = results["rows"]
    about = results["machine"]
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row["compile"])
    every = sum(total.values())
    share = [(f"`{kernel}`", f"{spent / every:.0%}") for kernel, spent in total.most_common(_SHOWN)]
    parts = [
        "# What the matrix costs",
        "<!-- Made by `python benchmarks/cost.py page` of benchmarks/results/cost.json; not edited by hand. -->",
        _text(
            "This page says how much computing time it takes to build every artifact of the matrix.",
            f"Measured on {about['cores']} cores of {about['cpu']}, Triton {about['triton']}, with {results['jobs']}",
            f"compile workers. {results.get('note', '')}",
        ),
        _text(
            "Seconds are CPU seconds, with those of the assembler, unless a column says wall time. Builds are of all",
            f"models{results.get('models', '')} at tensor-parallel sizes 1, 2, 4 and 8. *Built* says which part of an",
            "artifact was built; we",
            "multiply its result. This is a little high: a kernel with fewer keys than parts counts too much,",
            "and a whole build compiles only once the launches that several parts share.",
        ),
        "## One artifact",
        _table("artifact,built,compiles,compile (s),trace (s),pack (s)", map(_shown, rows)),
        "The kernels that take the most compile time, over all artifacts above:",
        _table("kernel,share of compiling", share),
        "## The whole matrix",
        *_estimate(rows),
        _text(
            f"A job makes its environment ({ENVIRONMENT:.0f} s of wall time, assumed, not measured), traces on one",
            f"core, compiles on {RUNNER} and packs. `gdn-aot build --executor ray` spreads the compiles of an artifact",
            "over a cluster.",
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _shown(row: Row) -> tuple[object, ...]:
    seconds = (f"{sum(row['compile'].values()):.0f}", f"{row['trace']:.1f}", f"{row['pack']:.1f}")
    return row["identifier"], row["built"], row["compiles"], *seconds


def _estimate(rows: Sequence[Row]) -> list[str]:
    """Return the table of the environments of the matrix, and which artifacts it takes from a neighbour."""
    costs: dict[str, list[Row]] = {}
    missing: list[str] = []
    for published in matrix.load(MATRIX).rows:
        wanted = published.environment.provider, published.target
        row = stand_in(rows, *wanted)
        costs.setdefault(published.environment.name, []).append(row)
        if provider_and_target(row["identifier"]) != wanted:
            missing.append(" ".join(wanted))
    costs["all"] = [row for some in costs.values() for row in some]
    lines = []
    for name, some in costs.items():
        jobs = [job_seconds(row) for row in some]
        hours = sum(row["trace"] + sum(row["compile"].values()) for row in some) / 3600
        lines.append((name, len(some), f"{hours:.1f}", f"{sum(jobs) / 3600:.1f} h", f"{max(jobs) / 60:.1f} min"))
    heads = f"environment,artifacts,CPU hours,all on one machine of {RUNNER} cores,a machine for each artifact"
    taken = f"We did not measure these and count them as the nearest measured row: {', '.join(dict.fromkeys(missing))}."
    return [_table(heads, lines), _text("The table is a plain sum.", taken if missing else "")]


def _text(*sentences: str) -> str:
    """Return a paragraph."""
    text = " ".join(sentences).rstrip()
    return "\n".join(textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False))


def _table(heads: str, rows: Iterable[Sequence[object]]) -> str:
    names = heads.split(",")
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (names, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(names), *lines[1:]])


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--jobs", type=int, default=os.cpu_count())
    measuring.add_argument("identifiers", nargs="+")
    commands.add_parser("page")
    asked = parser.parse_args()
    results = {"rows": [], **load(OUT)}
    if asked.command == "measure":
        for identifier in asked.identifiers:
            made = measure(identifier, asked.jobs)
            others = [old for old in results["rows"] if old["identifier"] != identifier]
            results |= {"machine": machine("triton", "torch"), "jobs": asked.jobs}
            results["rows"] = sorted([*others, made], key=lambda row: str(row["identifier"]))
            save(OUT, results)
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
