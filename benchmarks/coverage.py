"""Replay random traffic against artifacts of the installed provider: for each model and TP, what would miss. No GPU.

    python benchmarks/coverage.py FILE... --model NAME,... [--tp N,...] [--workload GLOB,...] [--calls 1000] [--seed 7]
        [--resume]

Adds rows to benchmarks/results/coverage.json, which keeps those of other artifacts: a provider's versions are run one
after another, each with the Python that has it (for vLLM, `make vllm` makes one). Artifacts for training and call
patterns that were selected have rows of their own.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness import RESULTS, gdn_aot, load, machine, save

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.catalogue.models import select_shapes

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape

OUT = RESULTS / "coverage.json"


def place(shape: ModelShape, mode: str, workloads: str) -> str:
    """Return what a row is of, in an artifact of this mode; ``workloads`` are globs, or nothing for the usual ones."""
    return " ".join(filter(None, (f"{shape.name} tp {shape.tp}", mode * (mode != "inference"), workloads)))


def main() -> None:
    """Replay and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--model", required=True, help="models of the catalogue, comma-separated")
    parser.add_argument("--tp", default="1,2,4,8", help="sizes; those that do not divide a model's heads are left out")
    parser.add_argument("--workload", default="", help="only these call patterns, comma-separated globs")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--resume", action="store_true", help="leave out what has a row for an artifact like this one")
    options = parser.parse_args()
    document = load(OUT) or {"machine": {}, "rows": {}}
    sizes = [int(size) for size in options.tp.split(",")]
    selected = [word for glob in options.workload.split(",") if glob for word in ("--workload", glob)]
    for file in options.files:
        manifest = open_artifact(file).manifest
        rows = document["rows"].setdefault(manifest.identifier, {})
        document["machine"][manifest.identifier] = machine("torch", "triton")
        for shape in select_shapes(options.model.split(","), sizes, [], None).shapes:
            row = place(shape, manifest.mode, options.workload)
            wanted = {"calls": options.calls, "seed": options.seed, "commit": manifest.build.commit}
            if options.resume and wanted.items() <= rows.get(row, {}).items():
                continue
            traffic = ("--model", shape.name, "--tp", shape.tp, "--calls", options.calls, "--seed", options.seed)
            found = gdn_aot("coverage", file, *traffic, *selected, codes=(0, 5))  # 5: something would miss
            counts = {name: len(found[name]) for name in ("misses", "not_covered", "refused")}
            shown = {name: found[name] for name in ("calls", "launches", "hits", "seconds")}
            rows[row] = {**shown, **counts, **wanted}
            print(f"{manifest.identifier} {row}: {rows[row]}", flush=True)
            save(OUT, document)


if __name__ == "__main__":
    main()
