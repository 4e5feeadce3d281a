"""Time to the first result of a gated delta rule prefill, in fresh processes, with and without an artifact.

    python benchmarks/cold_start.py --artifact FILE [--repeat 5] [--cases a,b,...] [--out JSON] [--svg SVG]

States, each measured with a dense prefill of 4096 tokens and, in other processes, with three packed prompts (varlen) of
the same 4096 tokens, in the shape of Qwen3.5-9B, called as transformers calls it:

(a) empty Triton cache. One process makes both calls; the second is shown with a ``+``;
(b) Triton cache as the process of (a) left it, FLA's autotuning results included;
(c) ``FLA_CACHE_MODE=strict`` with configuration files made from the artifact's choices. ``c-first`` starts with an
    empty Triton cache and so compiles; ``c`` is every start after it;
(d) a directory that ``gdn-aot seed`` wrote as ``TRITON_CACHE_DIR``. ``d-first`` is the first start, in which Triton
    builds its helper and launchers with the C compiler; ``d`` is every start after it;
(e) the loader, with its store filled and an empty Triton cache; also without a C compiler on ``PATH`` (nocc), after
    ``gdn_aot.preload`` (preload), and that in a process whose PyTorch has memory in its pool, as every process has
    whose other layers ran (preload-pool);
(f) the floor: FLA's Python code and all PyTorch work of the call, and of Triton only ``cuModuleLoadData`` of the same
    binaries and the same launches through the CUDA driver, prepared beforehand (`cold_start.floor`). Its results must
    equal those of (e) bit for bit.

The clock runs from the call to the end of a ``torch.cuda.synchronize()`` after it. Before it, provider and PyTorch are
imported, the context exists, inputs are on the device; they were made on the host: no PyTorch kernel ran before.
Counted from before the provider's import on, and read around the call: binaries compiled and found in Triton's cache,
configurations benchmarked, C builds, modules loaded. Memory: PyTorch's peak above what was allocated before; growth of
what the driver says is in use, less what PyTorch reserved ("other device"); growth of resident host memory.

Processes of a round start together and get ready side by side; then one after the other measures while the others wait
in a ``read``. Rounds are shuffled. Import and install are timed in bare interpreters that run alone.

``steady`` compares loader and plain Triton call by call in one process (`cold_start.steady`), ``profile`` says where
the time of (e) goes (`cold_start.profiling`). ``--dry`` goes through all of it on a machine without a GPU: Triton
compiles, nothing is launched, and the figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def parse(arguments: list[str]) -> argparse.Namespace:
    from cold_start import plan

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifact", required=True, help="the .tar.zst of this card, with the model")
    parser.add_argument("--model", default="qwen3.5-9b", help="what to preload")
    parser.add_argument("--repeat", type=int, default=5, help="rounds over the states that start warm")
    parser.add_argument("--repeat-cold", type=int, default=1, help="processes with an empty Triton cache")
    parser.add_argument("--steady-calls", type=int, default=plan.STEADY, help="calls after the first two")
    parser.add_argument("--cases", default=",".join(plan.PARTS), help="of " + ",".join(plan.PARTS))
    parser.add_argument("--together", type=int, default=16, help="processes that get ready side by side")
    parser.add_argument("--budget", type=float, default=0, help="seconds after which no further round starts")
    parser.add_argument("--out", type=Path, default=RESULTS / "cold_start.json")
    parser.add_argument("--svg", type=Path, default=RESULTS / "cold_start.svg")
    parser.add_argument("--dry", action="store_true", help="without a GPU; the figures mean nothing")
    options = parser.parse_args(arguments)
    options.cases = options.cases.split(",")
    if unknown := sorted({*options.cases} - {*plan.PARTS}):
        parser.error(f"unknown cases: {', '.join(unknown)}")
    options.artifact = str(Path(options.artifact).resolve(strict=True))
    return options


def machine(*, dry: bool) -> dict[str, Any]:
    """Return what identifies the machine and the software. The device is asked by another process, which then ends."""
    import importlib.metadata
    import os
    import platform
    import time

    from cold_start.session import command

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "?"

    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    asked = {"ok": False, "error": "dry"} if dry else command(*query, env={}, seconds=60)
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "device": asked["stdout"].splitlines()[0] if asked["ok"] else asked["error"],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "triton", "fla-core")},
    }


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        from cold_start import worker

        worker.main(sys.argv[2])
        return
    sys.path.insert(0, str(ROOT))
    from cold_start import dry, plan, plot, report

    options = parse(sys.argv[1:])
    about = machine(dry=options.dry)
    caption = f"{about['device']}; torch {about['torch']}, Triton {about['triton']}, fla-core {about['fla-core']}"

    def save(document: dict[str, Any]) -> None:
        document["machine"] = about
        document["summary"] = report.summarize(document["records"])
        document["goals"] = report.goals(document)
        for path, text in (
            (options.out, json.dumps(document, indent=1) + "\n"),
            (options.svg, plot.draw(document["summary"], caption)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    with tempfile.TemporaryDirectory(prefix="cold-start-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        options.dry = str(dry.build_driver(root / "driver")) if options.dry else ""
        document = plan.Run(options, root, save).all()
    print(report.table(document))
    print()
    print(report.goals_text(document["goals"]))


if __name__ == "__main__":
    main()
