"""Device time of the GDN prefill kernels: FLA's choices, gdn-aot's, the best there are, and the memory floor.

    python benchmarks/kernels.py --prepare --pack FILE                # without a GPU: compiles, for hours on 2 cores
    python benchmarks/kernels.py --pack FILE [--record RECORD] [--out JSON] [--svg SVG]   # on the GPU, some 6 minutes
    python benchmarks/kernels.py compare RECORD RECORD [--out JSON]   # two tuning runs: do they choose alike?

Without ``--pack`` the second command compiles what the build cache lacks. Measured are the seven launches of six
kernels in one dense prompt through ``chunk_gated_delta_rule`` as transformers calls it (no state before, the state
after wanted, queries and keys normalized by one kernel each; these two launches have one key and are timed once).
Shapes with the same kernels are measured once and reported under each name. The columns, per kernel and in sum:

fla_tuned      what FLA's own autotuner takes when it is first called at this length. Plain FLA in a fresh process, its
               Triton cache seeded with the binaries of all candidates and with no choice (``gdn-aot build --candidates
               all``, ``gdn-aot seed``, ``FLA_CACHE_RESULTS=0``); it must compile nothing and benchmark everything.
               Its autotuners are emptied between lengths. All lengths for the first shape, 64 and 8192 for the others
pick64         the same, first called on 64 tokens, as vLLM's warm-up does. Done three times: the first counts,
               ``pick64_sums`` has the sums of all. A kernel whose key depends on the length is tuned again by FLA when
               the prompt comes, so there its choice at this length is taken (``retuned``)
shipped        gdn-aot's choice, from the tuning record
provider_best  the fastest of FLA's own candidates at this length by this run's times
wide_best      the fastest of all, FLA's and those of a wide search at this length
floor          bytes of all tensors among the launch's arguments (each is read once or written once, as a whole; taken
               from the shapes of the real arguments) over the bandwidth of a large device-to-device copy in this run

All times of a row come of the same interleaved rounds in one process, `measuring`'s own: L2 overwritten before each
launch, CUDA events, medians. What FLA chose is looked up in them: FLA's own figures are not used. Results are written
after each shape. A candidate of the wide search that ended the measuring process is spared later shapes. ``--dry`` goes
through all of it without a GPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SHAPES = "qwen3.5-9b:1,qwen3.5-27b:1,qwen3.5-35b-a3b:1,qwen3.5-9b:4"
FEW = (64, 8192)
"""Lengths at which FLA tunes itself on shapes after the first."""


def parse(arguments: list[str]) -> argparse.Namespace:
    def counts(text: str) -> tuple[int, ...]:
        return tuple(sorted({int(part) for part in text.split(",")}))

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", type=Path, help="tuning record; of this card and provider version by default")
    parser.add_argument("--shapes", default=SHAPES, help="model:tp,...; default " + SHAPES)
    parser.add_argument("--tokens", type=counts, default=(64, 512, 2048, 8192, 32768))
    parser.add_argument("--search", choices=["provider", "wide"], default="wide")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--search-seconds", type=float, default=1.0, help="per key and length")
    parser.add_argument("--cache-dir", type=Path, default=ROOT / "build" / "kernels", help="build cache")
    parser.add_argument("--pack", type=Path, help="with --prepare: write all that is needed; else read it first")
    parser.add_argument("--jobs", "-j", type=int, default=2)
    parser.add_argument("--arch", default="sm_90", help="of --prepare and --dry")
    parser.add_argument("--prepare", action="store_true", help="compile only; needs no GPU")
    parser.add_argument("--dry", action="store_true", help="without a GPU; the figures mean nothing")
    parser.add_argument("--no-fla", action="store_true", help="without what FLA chooses itself")
    parser.add_argument("--out", type=Path, default=RESULTS / "kernels.json")
    parser.add_argument("--svg", type=Path, default=RESULTS / "kernels.svg")
    return parser.parse_args(arguments)


def prepare(options: argparse.Namespace) -> None:
    from kernels import pack, plan

    from gdn_aot.catalogue.targets import get_target

    made = plan.Preparation(options, get_target(options.arch))
    groups = plan.groups(options.shapes.split(","))
    artifacts = []
    for group in groups:
        artifacts.append(made.artifact(group))
        print(f"{group.names[0]}: {artifacts[-1]}, {artifacts[-1].stat().st_size} bytes", flush=True)
    for group in groups:
        prepared = made.compile(group, made.prompts(group))
        count = sum(len(state.configs) for state in prepared.keys.values())
        what = f"{len(prepared.keys)} keys, {count} candidates, {prepared.compiled} compiled"
        print(f"{group.names[0]}: {what}", flush=True)
        if options.pack is not None:
            size = pack.write(options.pack, made.cache.root, [*made.cache.used, *artifacts])
            print(f"{options.pack}: {size} bytes", flush=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure shape after shape; results are written after each."""
    from kernels import plan, run
    from kernels.worker import ask

    from gdn_aot.catalogue.targets import get_target

    if options.dry:
        target, about = get_target(options.arch), {"device": "none (dry)", "driver": "none"}
        copied = {"bytes_per_second": 2.5e12}
    else:
        from gdn_aot.machine import card as device

        card = device.probe()
        target, about = card.target, {"device": card.name, "driver": card.driver}
        if warning := card.warning():
            about["warning"] = warning
            run.say(f"Warning: {warning}")
        copied = ask("copy")
    made = plan.Preparation(options, target)
    table, where = shipped(options, target.name)
    document: dict[str, Any] = {
        "machine": {**about, **versions(), "date": time.strftime("%Y-%m-%d", time.gmtime())},
        "method": {
            "rounds": options.rounds,
            "search": options.search,
            "search_seconds": options.search_seconds,
            "clock": "cuda events, L2 overwritten before each launch, interleaved rounds, medians",
            "record": where,
            "floor": "bytes of all tensor arguments of the launch over copy bandwidth",
            "call": "one dense prompt, chunk_gated_delta_rule as transformers calls it",
        },
        "copy": copied,
        "shapes": {},
        "details": {},
    }
    crashes = run.Crashes()
    for number, group in enumerate(plan.groups(options.shapes.split(","))):
        name = group.names[0]
        start = time.monotonic()
        prompts = made.prompts(group)
        prepared = made.compile(group, prompts)
        ready = time.monotonic()
        wanted = [count for count in options.tokens if number == 0 or count in FEW]
        fla = run.Fla() if options.no_fla else run.Fla.tuned(made, group, wanted, dry=options.dry)
        tuned = time.monotonic()
        crashes.spare(prepared)
        run.keep(prepared, table)
        found = run.measure(made, prepared)
        crashes.note(prepared)
        rows = run.Table(prepared, fla, table, copied["bytes_per_second"])
        tokens = {str(prompt.tokens): rows.at(prompt) for prompt in prompts}
        for label in group.names:
            same = {} if label == name else {"same_kernels_as": name}
            document["shapes"][label] = {**same, "tokens": tokens}
        seconds = {"prepare": ready - start, "fla": tuned - ready, "measure": time.monotonic() - tuned}
        document["details"][name] = {
            **found,
            "compiled": prepared.compiled,
            "fla": fla.runs,
            "fla_error": fla.error,
            "wall_seconds": {what: round(value, 1) for what, value in seconds.items()},
            "timings": run.timings(prepared),
        }
        save(options, document)
        run.say(f"{name}: {document['details'][name]['wall_seconds']}")
    return document


def shipped(options: argparse.Namespace, target: str) -> tuple[Any, str]:
    """Return the choices of the record, and its path and device."""
    from kernels import calls, run

    from gdn_aot.catalogue.providers import get_provider, require_installed
    from gdn_aot.records import tuning as record

    distribution, version = get_provider(calls.PROVIDER).distribution, require_installed(calls.PROVIDER)
    path = options.record or record.record_path(ROOT / "artifacts" / "tuning", target, distribution, version)
    found = record.load(path, target=target, distribution=distribution, version=version)
    if found is None:
        run.say(f"Warning: there is no record {path}: gdn-aot's choices are left out")
        return {}, "none"
    return record.table(found), f"{path.name}, {found.tool}, {record.origin(found)}"


def versions() -> dict[str, str]:
    import importlib.metadata
    import platform

    found = {"python": platform.python_version()}
    for name in ("torch", "triton", "fla-core"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "?"
    return found


def save(options: argparse.Namespace, document: dict[str, Any]) -> None:
    from kernels import plot, report

    document["goals"] = report.goals(document)
    document["gains"] = report.gains(document)
    about = document["machine"]
    caption = f"{about['device']}; torch {about['torch']}, Triton {about['triton']}, fla-core {about['fla-core']}"
    for path, text in (
        (options.out, json.dumps(document, indent=1) + "\n"),
        (options.svg, plot.draw(document, caption)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def show(document: dict[str, Any]) -> None:
    from kernels import report

    print(report.tables(document, markdown=False))
    print("FLA tuned at 64 tokens, sum of three tunings each:")
    for name, shape in document["shapes"].items():
        for tokens, row in shape["tokens"].items():
            print(f"  {name}, {tokens} tokens: {row['pick64_sums']}")
    print("\n".join(["Wide search gains:", *(f"  {line}" for line in document["gains"]), "Goals:"]))
    for goal in document["goals"]:
        print(f"  {'met   ' if goal['met'] else 'MISSED'} {goal['goal']}: {goal['found']}")


def compare(arguments: list[str]) -> None:
    from kernels import compare as comparison

    parser = argparse.ArgumentParser(prog="kernels.py compare", description="Compare the choices of two records.")
    parser.add_argument("records", type=Path, nargs=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "kernels_repeat.json")
    options = parser.parse_args(arguments)
    found = comparison.compare(tuple(options.records))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(comparison.text(found))


def main() -> None:
    import os

    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--worker"]:
        from kernels import worker

        worker.main(sys.argv[2])
        return
    if sys.argv[1:2] == ["compare"]:
        compare(sys.argv[2:])
        return
    options = parse(sys.argv[1:])
    more = [str(ROOT), *([str(ROOT / "benchmarks")] if options.dry else []), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, more))  # for the processes that compile and measure
    if options.pack is not None and not options.prepare:
        from kernels import pack

        pack.read(options.pack, options.cache_dir)
    if options.prepare:
        prepare(options)
    else:
        show(measure(options))


if __name__ == "__main__":
    main()
