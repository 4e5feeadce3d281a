"""A real vLLM 0.24.0 engine with a GDN model: start, first requests, memory and prefill, with and without gdn-aot.

    python benchmarks/vllm_gdn.py --engine FOLDER [--artifact FILE] [--captured FILE] [--deployment FILE]
        [--kinds FOLDER] [--cases a,b,...] [--dry]

``FOLDER`` holds what runs the engine on a machine without a network: ``parts/`` (vLLM 0.24.0 and what it needs besides
torch and Triton, as a split ``.tar.xz`` of one folder ``vb``) and ``model/`` (the configuration of a four-layer
Qwen3-Next; weights are random). Cases, each in a process of its own, in this order:

(a) as vLLM was before it had a warm-up: none, empty caches, and 300 MiB left on the card after the engine is ready;
(b) with its warm-up of 64 tokens, empty caches;
(c) with the caches that (b) left, autotuning results included;
(d) with gdn-aot through its entry point, empty caches; (d-tight) the same under the conditions of (a);
(e) with an artifact of a capture of this deployment, empty caches; (e-loaded) the same with all of PyTorch's kernels
    loaded at start, which takes memory from the KV cache.

``capture`` records such a deployment into ``capture.json`` beside the results; build ``--captured`` from it. Cases of
a whole deployment, whose artifact ``--deployment`` is built without a card from ``engine.toml`` of docs/how-to/vllm.md:

(f) with it, empty caches, and ``GDN_AOT_FIRST_REQUEST=1``; (f-later) without that variable; (f-graphs) with CUDA
    graphs; (f-drafts), (f-ngram), (f-prefix), (f-adapters), (f-fp8), (f-fp8-blocks), (f-v2) with deployments of other
    kinds, each built from the file of its name in ``benchmarks/vllm_gdn/kinds``. ``--kinds`` is the folder with these
    artifacts, as ``drafts.tar.zst`` and so on; the engine is started as the artifact's manifest has it;
(warm), (warm-graphs) vLLM alone with all caches that ``capture-graphs`` left, which records with CUDA graphs;
(e-graphs) with ``--deployment`` and with ``--captured`` of ``capture-graphs``, CUDA graphs, empty caches;
(e-graphs-packed) the same with the compile cache of vLLM that ``capture-graphs`` left, out of ``--captured``, which is
    built with the folder ``kept/vllm/torch_compile_cache`` of ``--work`` as its ``--compile-cache``. vLLM's key has the
    user's directory, so that this case empties the folders of those before it and uses them.

Before ``capture`` and ``capture-graphs`` the deployment's artifact is seeded into their caches, which spares them the
autotuning; they compile what the seed lacks.

Measured are the time to ready, vLLM's GDN warm-up within it, compiles and benchmarks, the memory that vLLM has for the
KV cache and what is free on the card, the time to the first token at 20, 46, 1000 and 8000 tokens (first and later
requests), and the GPU time of a GDN layer's kernels at 2048 and 8192 tokens. Records of earlier runs in ``--out`` are
kept for cases that do not run now. ``--dry`` says what would run, for how long, and checks the files; it needs neither
GPU nor engine.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import packed
from harness import RESULTS, command, described, goals_text, load, machine, run, save
from vllm_gdn import plan, report

from gdn_aot.artifact.verify import open_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

MADE_FOR = ("vllm", "0.24.0", "3.6.0")
"""Distribution, version and Triton of the engine."""
_MAKERS = ("b", "capture", "capture-graphs")
"""Cases that fill caches, with which others may start."""
_LEAST = 0.6
"""Part of its usual seconds with which a case is begun."""
_ANSWERED = re.compile(r"answered requests of \d+ tokens before the engine is ready: (.+)")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[plan.Case], plan.Places]:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", type=Path, required=True, help="the folder with parts/ and model/")
    parser.add_argument("--artifact", type=Path, help="the artifact of vllm 0.24.0 for this card")
    parser.add_argument("--captured", type=Path, help="one built from capture.json of this deployment")
    parser.add_argument("--deployment", type=Path, help="one built from a description of this deployment")
    parser.add_argument("--kinds", type=Path, help="the folder with artifacts of deployments of other kinds")
    parser.add_argument("--cases", default=",".join(plan.DEFAULT), help="of " + ",".join(plan.CASES))
    parser.add_argument("--out", type=Path, default=RESULTS / "vllm_gdn.json")
    parser.add_argument("--work", type=Path, default=Path("/tmp/gdn-aot-vllm"), help="caches and records")  # noqa: S108
    parser.add_argument("--unpacked", type=Path, default=Path("/tmp/vb"), help="where the engine is unpacked")  # noqa: S108
    parser.add_argument("--limit", type=int, default=280, help="seconds after which a process is ended")
    parser.add_argument("--seconds", type=float, default=3600.0, help="seconds that all cases may take together")
    parser.add_argument("--dry", action="store_true", help="only say what would run, and check the files")
    options = parser.parse_args(arguments)
    names = options.cases.split(",")
    if unknown := sorted(set(names) - set(plan.CASES)):
        parser.error(f"unknown cases: {', '.join(unknown)}")
    cases = [case for case in plan.CASES.values() if case.name in names]
    served = {name: getattr(options, name) for name in ("artifact", "captured", "deployment")}
    served |= {kind: options.kinds and options.kinds / f"{kind}.tar.zst" for kind in plan.KINDS}
    for case in cases:
        for needed in filter(None, (*case.artifacts, case.seeded)):
            if not served[needed]:
                parser.error(f"case {case.name} needs --{'kinds' if needed in plan.KINDS else needed}")
        makers = [one.name for one in plan.CASES.values() if one.caches == case.caches and one.name in _MAKERS]
        if case.keeps and not {case.name, *names} & {*makers} and not (options.work / case.caches).is_dir():
            parser.error(f"case {case.name} starts with the caches that {makers[0]} leaves: run {makers[0]} before it")
    places = plan.Places(
        engine=options.engine.resolve(),
        unpacked=options.unpacked.resolve(),
        work=options.work.resolve(),
        out=options.out.resolve(),
        artifacts={name: path and path.resolve() for name, path in served.items()},
    )
    return options, cases, places


def problems(places: plan.Places, cases: list[plan.Case]) -> list[str]:
    """Return what would keep a run from working, as far as files tell."""
    there = sorted((places.engine / "parts").glob("vb.tar.xz.*"))
    found = [] if there else [f"{places.engine}/parts has no vb.tar.xz.*"]
    found += packed.model_problems(places.engine)
    wanted = {places.artifacts.get(name) for case in cases for name in (*case.artifacts, case.seeded)}
    return found + [text for path in sorted(filter(None, wanted)) if (text := packed.artifact_problem(path, MADE_FOR))]


def seed(case: plan.Case, places: plan.Places) -> str:
    """Write an artifact into the otherwise empty caches of a case, as an image may have it; return what went wrong."""
    shutil.rmtree(places.work / case.caches, ignore_errors=True)
    env = plan.environment(case, places)
    into = ("--into", env["TRITON_CACHE_DIR"], "--vllm-cache", env["VLLM_CACHE_ROOT"])
    words = (sys.executable, "-m", "gdn_aot", "seed", places.artifacts[case.seeded], *into)
    # An image is built where no card is.
    done = command(*words, env={"PYTHONPATH": env["PYTHONPATH"], "CUDA_VISIBLE_DEVICES": "-1"}, seconds=120)
    print(f"(seed) {done['seconds']:.0f} s {done['stdout']}{done.get('error', '')}", flush=True)
    return "" if done["ok"] else f"{done['error']}: {done['stderr']}"


def measure(case: plan.Case, places: plan.Places, limit: float) -> dict[str, Any]:
    """Run one case to its end. Returns its record; where it left none, what its log ended with."""
    plan.fill(case, places)
    record, log = places.work / f"{case.name}.json", places.out.with_name(f"vllm_gdn-{case.name}.log")
    record.unlink(missing_ok=True)
    (places.work / f"{case.name}.spec.json").write_text(json.dumps(plan.specification(case, places)))
    env = plan.environment(case, places)
    if case.artifacts:  # as an image has it: the artifact is in the store before the first process starts
        run("-c", "import gdn_aot; gdn_aot.install()", env=env)
    done = command(*plan.command(case, places), env=env, seconds=limit, log=log)
    found: dict[str, Any] = {"case": case.name, "error": "it left no record", "requests": [], "prefill": {}}
    if record.exists():
        found = json.loads(record.read_text())
    found["artifacts"] = [described(open_artifact(path)) for name in case.artifacts if (path := places.artifacts[name])]
    if answered := _ANSWERED.search(log.read_text(errors="replace")):
        found["answered_first"] = [float(taken.removesuffix(" s")) for taken in answered[1].split(", ")]
    if not done["ok"]:
        found["error"] = "; ".join([done["error"], *done["stderr"].splitlines()[-3:]])[:800]
    print(f"({case.name}) {done['seconds']:.0f} s {found['error'] or ''}", flush=True)
    return found


def dry(cases: list[plan.Case], places: plan.Places) -> None:
    """Say what would run."""
    for case in cases:
        packed.show(case, plan.environment(case, places), plan.command(case, places))
    print(f"about {plan.seconds(cases)} s with {plan.SETUP} s for unpacking")


def measured(
    cases: list[plan.Case], places: plan.Places, limit: float, end: float
) -> Iterator[tuple[plan.Case, dict[str, Any]]]:
    """Run the cases for which there is time before ``end``, and yield each with its record.

    Left out are those whose caches could not be seeded, or were not filled by the case that should have.
    """
    unmade: set[str] = set()
    for case in cases:
        if case.seeded and (text := seed(case, places)):
            print(f"problem: {text}", file=sys.stderr)
            unmade.add(case.caches)
    for case in cases:
        if case.keeps and case.caches in unmade:
            print(f"({case.name}) no time is taken for it: nothing filled its caches", flush=True)
            continue
        if case.name in _MAKERS:
            unmade.add(case.caches)
        if (left := end - time.monotonic()) < _LEAST * case.seconds:
            print(f"({case.name}) no time is left for it", flush=True)
            continue
        record = measure(case, places, min(limit, left))
        if case.name in _MAKERS and record.get("ready"):
            unmade.discard(case.caches)
        yield case, record


def main() -> int:
    """Run the cases, or say what would run."""
    options, cases, places = parse(sys.argv[1:])
    wrong = problems(places, cases)
    if options.dry:
        dry(cases, places)
    packed.tell(wrong)
    if wrong or options.dry:
        return 1 if wrong else 0
    end = time.monotonic() + options.seconds
    places.work.mkdir(parents=True, exist_ok=True)
    packed.unpack(sorted((places.engine / "parts").glob("vb.tar.xz.*")), places.unpacked, "vb")
    packed.declare_ours(places.work / "site")
    document = load(places.out) or {"machine": {}, "records": {}}
    for case, record in measured(cases, places, options.limit, end):
        document["records"][case.name] = record
        document["summary"] = report.summarize(document["records"])
        document["goals"] = report.goals(document["records"])
        document["machine"] |= machine() | record.get("versions", {})
        save(places.out, document)
    print(report.table(document["records"], {name: case.says for name, case in plan.CASES.items()}))
    print(goals_text(document["goals"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
