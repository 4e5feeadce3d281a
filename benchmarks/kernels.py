"""Device time of the kernels of a prefill, GDN or KDA: FLA's choices, gdn-aot's, the best there are, the memory floor.

    python benchmarks/kernels.py --prepare --cache-dir DIR    # without a GPU: compiles, for hours on 2 cores
    python benchmarks/kernels.py --cache-dir DIR [--record RECORD] [--out JSON]    # on the GPU
    python benchmarks/kernels.py --compare RECORD RECORD      # two tuning runs: do they choose alike?

DIR is carried to the machine with the GPU; without it the second command compiles first. Measured are the seven
launches of six kernels in one dense prompt through ``chunk_gated_delta_rule`` as transformers calls it (no state
before, the state after wanted, queries and keys normalized by one kernel each; these two launches have one key and are
timed once). The columns, per kernel and in sum:

fla_tuned      what FLA's own autotuner takes when it is first called at this length. Plain FLA in a fresh process, its
               Triton cache seeded with the binaries of all candidates and with no choice (``gdn-aot build --candidates
               all``, ``gdn-aot seed``, ``FLA_CACHE_RESULTS=0``); it must compile nothing and benchmark everything.
               Its autotuners are emptied between lengths. All lengths for the first shape, 64 and 8192 for the others
pick64         the same, first called on 64 tokens, as vLLM's warm-up does. Done three times: the first counts,
               ``pick64_sums`` has the sums of all. A kernel whose key depends on the length is tuned again by FLA when
               the prompt comes, so there its choice at this length is taken (``retuned``)
shipped        gdn-aot's choice, from the tuning record
provider_best  the fastest of FLA's own candidates at this length by this run's times
wide_best      the fastest of all that ``gdn-aot tune --search wide`` times in full, FLA's included
floor          bytes of all tensors among the launch's arguments (each is read once or written once, as a whole; taken
               from the shapes of the real arguments) over the bandwidth of a large device-to-device copy in this run

Times are those of ``gdn-aot tune`` into a record of its own, never the shipped one: all times of a kernel at a length
come of the same interleaved rounds in one process, L2 overwritten before each launch, CUDA events, medians. What FLA
chose is looked up in them: FLA's own figures are not used. ``benchmarks/plots.py`` draws the results. ``--dry`` goes
through the rest without a GPU, with the times of ``--record``; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, ask, gdn_aot, goals_text, machine, place, save, serve
from kernels import compare, process, report

from gdn_aot.catalogue.models import ModelShape, select_shapes
from gdn_aot.catalogue.providers import get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.choosing.transfer import Transfer
from gdn_aot.launches import config_from_json
from gdn_aot.machine import card, installed
from gdn_aot.records import tuning

SHAPES = "qwen3.5-9b:1,qwen3.5-27b:1,qwen3.5-9b:4"
FEW = (64, 8192)
"""Lengths at which FLA tunes itself on shapes after the first."""
DUMMY, DUMMIES = 64, 3
"""Tokens of the prompt that a warm-up tunes on, and the times that FLA tunes itself on it."""
METHOD = {
    "clock": "cuda events, L2 overwritten before each launch, interleaved rounds, medians",
    "floor": "bytes of all tensor arguments of the launch over copy bandwidth",
    "call": "one dense prompt, the operator of chunks as transformers calls it",
}


def parse() -> argparse.Namespace:
    """Read the command line."""

    def counts(text: str) -> tuple[int, ...]:
        return tuple(sorted({int(part) for part in text.split(",")}))

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", type=Path, help="tuning record; by default those of artifacts/tuning")
    parser.add_argument("--shapes", default=SHAPES, help="model:tp,...; default " + SHAPES)
    parser.add_argument("--tokens", type=counts, default=(64, 512, 2048, 8192, 32768))
    parser.add_argument("--search", choices=["provider", "wide"], default="wide")
    parser.add_argument("--cache-dir", type=Path, default=ROOT / "build" / "kernels", help="build cache")
    parser.add_argument("--jobs", "-j", type=int, default=2)
    parser.add_argument("--arch", default="sm_90", help="of --prepare and --dry")
    parser.add_argument("--prepare", action="store_true", help="compile only; needs no GPU")
    parser.add_argument("--dry", action="store_true", help="without a GPU; the figures mean nothing")
    parser.add_argument("--compare", type=Path, nargs=2, help="only compare two tuning records")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results, with --dry a temporary file")
    options = parser.parse_args()
    options.out = place("kernels.json", options.out, dry=options.dry)
    options.cache_dir = options.cache_dir.absolute()
    return options


def shapes(options: argparse.Namespace) -> list[ModelShape]:
    """Return the shapes that are asked for."""
    pairs = [text.partition(":") for text in options.shapes.split(",")]
    return [select_shapes([model], [int(tp or 1)]).shapes[0] for model, _, tp in pairs]


def words(shape: ModelShape, options: argparse.Namespace) -> tuple[object, ...]:
    """Return the options that building and tuning a shape have in common."""
    workload = process.WORKLOADS[shape.family]
    chosen = ("--model", shape.name, "--tp", shape.tp, "--workload", workload, "--max-batch", 1)
    return ("--provider", process.PROVIDER, *chosen, "--jobs", options.jobs, "--cache-dir", options.cache_dir)


def build(shape: ModelShape, options: argparse.Namespace, target: str) -> Path:
    """Return an artifact with the binaries of all of FLA's own candidates, built unless it is there."""
    folder = options.cache_dir / "artifacts" / f"{shape.name}-tp{shape.tp}"
    if not list(folder.glob("*.tar.zst")):
        most = ("--max-tokens", max(options.tokens), "--candidates", "all", "--keep-going", "--allow-spills")
        gdn_aot("build", "--arch", target, *words(shape, options), *most, "-o", folder)
    (found,) = folder.glob("*.tar.zst")
    return found


def tune(shape: ModelShape, options: argparse.Namespace, *more: object) -> dict[str, Any]:
    """Compile, and without ``--prepare`` time, every candidate; the record goes into ``times`` of the cache."""
    measured = ("--tokens", ",".join(map(str, options.tokens)), "--search", options.search)
    out = ("-o", options.cache_dir / "times")
    done: dict[str, Any] = gdn_aot("tune", *words(shape, options), *measured, *out, *more)
    return done


def answer(kind: str, spec: dict[str, Any], env: dict[str, str] | None = None) -> Any:
    """Run one of the processes of `kernels.process` and return its answer.

    Raises:
        SystemExit: It failed.
    """
    found = ask(Path(__file__).resolve(), kind, spec, env)
    if not found["ok"]:
        sys.exit(f"{kind}: {found['error']}\n{found['stderr']}")
    return found["answer"]


def picks(artifact: Path, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Let FLA tune itself in a fresh process whose Triton cache has all binaries and no choice."""
    with tempfile.TemporaryDirectory(prefix="kernels-triton-", ignore_cleanup_errors=True) as folder:
        gdn_aot("seed", artifact, "--into", folder)
        for path in Path(folder).rglob("*.autotune.json"):
            path.unlink()
        runs: list[dict[str, Any]] = answer("pick", spec, {"TRITON_CACHE_DIR": folder, "FLA_CACHE_RESULTS": "0"})
    for run in runs:
        run["picks"] = {(one["kernel"], tuple(one["key"])): config_from_json(one["config"]) for one in run["picks"]}
    return runs


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure shape after shape; results are written after each."""
    target = options.arch if options.dry else card.probe().target.name
    copied = {"bytes_per_second": 2.5e12} if options.dry else answer("copy", {})
    records, shipped = committed(options, target)
    where = "; ".join(f"{one.tool}, {tuning.origin(one)}" for one in records)
    document: dict[str, Any] = {
        "machine": machine("torch", "triton", "fla-core"),
        "method": {**METHOD, "search": options.search, "record": where},
        "copy": copied,
        "shapes": {},
        "details": {},
    }
    shutil.rmtree(options.cache_dir / "times", ignore_errors=True)
    for number, shape in enumerate(shapes(options)):
        name, spec = f"{shape.name} tp {shape.tp}", {"shape": asdict(shape), "target": target, "dry": options.dry}
        tuned = {} if options.dry else tune(shape, options)
        times = records[0] if options.dry else tuning.load(Path(tuned["record"]))
        launches = answer("launches", {**spec, "tokens": options.tokens})
        asked = [count for count in options.tokens if count != DUMMY and (number == 0 or count in FEW)]
        runs = picks(build(shape, options, target), {**spec, "tokens": [DUMMY] * DUMMIES + asked})
        found = [run.pop("picks") for run in runs]
        at = dict(zip([DUMMY, *asked], [found[0], *found[DUMMIES:]], strict=True))
        lookup = report.Lookup(times, shipped, found[:DUMMIES], copied["bytes_per_second"])
        rows = {tokens: lookup.at(of, int(tokens), at.get(int(tokens), {})) for tokens, of in launches.items()}
        document["shapes"][name] = {"tokens": rows}
        told = {key: value for key, value in tuned.items() if key != "record"}  # a path of the machine
        document["details"][name] = {"tuned": told, "fla": runs}
        document["goals"] = report.goals(document)
        save(options.out, document)
        print(f"{name}: done", file=sys.stderr, flush=True)
    return document


def committed(options: argparse.Namespace, target: str) -> tuple[list[tuning.TuningRecord], tuning.TuningTable]:
    """Return the records with gdn-aot's choices, the one that a build asks first first, and the choices."""
    distribution, version = get_provider(process.PROVIDER).distribution, installed.require(process.PROVIDER)
    if options.record:
        given = tuning.load(options.record, target=target, distribution=distribution, version=version)
        records = [given] if given else []
    else:
        records = Transfer(ROOT / "artifacts" / "tuning", get_target(target), distribution, version).own()
    if not records:
        sys.exit(f"there is no record of {target}")
    return records, {place: choice for record in reversed(records) for place, choice in tuning.table(record).items()}


def main() -> None:
    """Prepare, measure or compare; or be one of the processes that are measured."""
    serve(process.KINDS)
    options = parse()
    if options.compare:
        found = compare.compare(*map(tuning.load, options.compare))
        save(RESULTS / "tuning_repeat.json", found)
        print(json.dumps(found, indent=1))
    elif options.prepare:
        for shape in shapes(options):
            print(build(shape, options, options.arch), tune(shape, options, "--prepare", "--arch", options.arch))
    else:
        document = measure(options)
        print(report.tables(document))
        print(goals_text(document["goals"]))


if __name__ == "__main__":
    main()
