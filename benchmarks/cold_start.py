"""Time to the first result of a gated delta rule prefill, in fresh processes, with and without an artifact.

    python benchmarks/cold_start.py --artifact FILE [--provider fla] [--repeat 6] [--cases a,b,...] [--out JSON]
    python benchmarks/cold_start.py --join JSON... --out JSON

States, each measured with a dense prefill of 4096 tokens and, in other processes, with three packed prompts (varlen) of
the same 4096 tokens, in the shape of Qwen3.5-9B, called as transformers calls it; with ``--model kimi-linear-48b-a3b``
``chunk_kda`` in the shape of that model:

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
    equal those of (e) bit for bit;
(e-torch) and (f-torch): (e) and (f) in processes that made the call once before without its launches, so that PyTorch,
    cuBLAS and the provider have what of theirs it takes, as in a server, where other layers ran before. What is left
    are the loader, or the floor, and the kernels.

With ``--provider sglang`` the call is a step of new prompts in a server that has started: its slots are cleared, the
backend's metadata are made and SGLang's own layer runs, on its own pool of states. There is no (c), and (b) is what (e)
is compared with in the steady state: SGLang benchmarks the candidates of the one kernel that has several, and both take
the one that they hold for the best. With ``--provider vllm`` it is such a step of vLLM's own layer of Kimi Delta
Attention, whose pages are there and whose metadata vLLM's builder makes.

The clock runs from the call to the end of a ``torch.cuda.synchronize()`` after it. Before it, provider and PyTorch are
imported, the context exists, inputs are on the device; they were made on the host: no PyTorch kernel ran before.
Counted from before the provider's import on, and read around the call: binaries compiled and found in Triton's cache,
configurations benchmarked, C builds, modules loaded, Python's modules imported. Memory: PyTorch's peak above what was
allocated before; growth of what the driver says is in use, less what PyTorch reserved ("other device"); growth of
resident host memory.

Processes run one after the other, in rounds that are shuffled; those of (e) and (f) of one round and call are
neighbours, and how much longer (e) takes is judged from such pairs (`cold_start.pairs`). With ``--at-once N``, N of
them import and get ready together and are then measured one at a time, each alone at work until it has ended
(`cold_start.turns`). In the steady state (c), which is plain Triton with the artifact's configurations, is what (e) is
compared with, also in a call of 64 tokens that is bound by launching. ``benchmarks/plots.py`` draws the results.
``--join`` puts the results of several runs together, in one file; each record says of which it is, and runs are not
compared with each other. ``--dry`` goes through all of it on a machine without a GPU: Triton compiles, nothing is
launched, and the figures mean nothing.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import harness

NAMES = {
    "fla": "cold_start.json",
    "kda": "cold_start_kda.json",
    "sglang": "cold_start_sglang.json",
    "sglang_kda": "cold_start_sglang_kda.json",
    "vllm_kda": "cold_start_vllm_kda.json",
}
"""What is called -> where its results are."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    from cold_start import plan

    from gdn_aot.catalogue.models import KDA, find_model

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifact", help="the .tar.zst of this card, with the model")
    parser.add_argument("--join", type=Path, nargs="+", metavar="JSON", help="measure nothing: put results together")
    parser.add_argument("--model", default="qwen3.5-9b", help="what to preload; with KDA, chunk_kda is called")
    parser.add_argument("--repeat", type=int, default=6, help="rounds over the states that start warm")
    parser.add_argument("--steady-calls", type=int, default=plan.STEADY, help="calls after the first two")
    parser.add_argument("--provider", default="fla", choices=("fla", "sglang", "vllm"))
    parser.add_argument("--cases", help="of " + ",".join(plan.CASES))
    parser.add_argument("--calls", default=",".join(plan.CALLS), help="of " + ",".join(plan.CALLS))
    parser.add_argument("--at-once", type=int, default=1, help="processes that get ready together and take turns")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no process after so many")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results, with --dry a temporary file")
    parser.add_argument("--dry", action="store_true", help="without a GPU; the figures mean nothing")
    options = parser.parse_args()
    is_kda, of_fla = find_model(options.model).family == KDA, options.provider == "fla"
    options.called = options.provider
    if is_kda:
        options.called = "kda" if of_fla else f"{options.provider}_kda"
    if options.called not in NAMES:
        parser.error("of vLLM only a model with Kimi Delta Attention is measured here; of others, by vllm_gdn.py")
    options.out = harness.place(NAMES[options.called], options.out, dry=options.dry)
    has = [case for case in plan.CASES if of_fla or case not in plan.OF_FLA]
    options.cases = options.cases.split(",") if options.cases else has
    options.calls = options.calls.split(",")
    if unknown := sorted({*options.calls} - {*plan.CALLS}):
        parser.error(f"unknown calls: {', '.join(unknown)}")
    if unknown := sorted({*options.cases} - {*has}):
        parser.error(f"unknown cases: {', '.join(unknown)}")
    if not options.artifact and not options.join:
        parser.error("--artifact is needed")
    options.artifact = options.artifact and str(Path(options.artifact).resolve(strict=True))
    return options


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    from cold_start import measured, report

    harness.serve(measured.KINDS)
    options = parse()
    if options.join:
        document = report.joined([harness.load(file) for file in options.join])
        harness.save(options.out, document)
    else:
        document = _measured(options)
    print(report.table(document), harness.goals_text(document["goals"]), sep="\n\n")


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, keep what there is after each step, and return it."""
    from cold_start import plan, report

    from gdn_aot.catalogue.providers import get_provider

    about = harness.machine("torch", "triton", get_provider(options.provider).distribution)

    def save(document: dict[str, Any]) -> None:
        document |= {"machine": about, "provider": options.provider}
        document |= report.derived(document)
        harness.save(options.out, document)

    with tempfile.TemporaryDirectory(prefix="cold-start-", ignore_cleanup_errors=True) as folder:
        if options.dry:
            import stand_in

        options.dry = str(stand_in.build_driver(Path(folder, "driver"))) if options.dry else ""
        return plan.Run(options, Path(folder), save).all()


if __name__ == "__main__":
    main()
