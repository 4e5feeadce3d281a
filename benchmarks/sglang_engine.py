"""A real SGLang 0.5.17 engine with a GDN model: start, first requests, compiles and pools, with and without gdn-aot.

    python benchmarks/sglang_engine.py --engine FOLDER --artifact FILE [--cases a,b,...] [--dry]

``FOLDER`` holds what runs the engine on a machine without a network: ``parts/``, archives (``.tar.xz``) of directories
for ``PYTHONPATH``, in the order of their names (SGLang, with the metadata and the licence of its wheel, and what it
needs besides torch and Triton; a directory ``jit`` in one of them has what SGLang's own JIT built), and ``model/`` (the
configuration of a four-layer Qwen3-Next; weights are random). Cases, each in processes of its own, in this order:

(prime) an engine that is not counted: it fills the page cache. If it answers nothing, nothing else is started;
(plain) SGLang alone with empty caches of Triton, Inductor and the user;
(aot) with gdn-aot through its entry point and ``--artifact``, empty caches;
(warm) SGLang alone with the caches that (plain) left;
(capture) recorded by ``gdn-aot capture``, empty caches; an artifact is built of what it recorded;
(captured) with both artifacts, empty caches.

Measured are the seconds from the process's start until the engine is ready; what Triton compiles, benchmarks and
finds compiled in all processes that load SGLang's plugins, at the start and in each request; the tokens and states of
the pools; and the time to answer prompts of 50, 1000 and 8000 tokens, first and later ones, with 1 and with 8 new
tokens. ``--answers`` more than four times each gives a distribution of these, and ``--again`` a second process of
each case, whose records end with ``-again`` and say in whose code the scheduler was in the first request and in some
answers. Before each request a fixed loop says how fast the machine is. Of prompts that are sent together, and of a
last one whose answer is drawn with a temperature, only the compiles count. What the C compiler builds for Triton's
launchers is counted too; what Inductor's own processes compile is not. ``--dry`` says what would run, for how long, and
checks the files; it needs neither GPU nor engine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import packed
from harness import RESULTS, command, described, goals_text, load, machine, save
from sglang_engine import plan, report

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.building.pack import own_commit
from gdn_aot.catalogue.providers import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

MADE_FOR = ("sglang", "0.5.17", "3.6.0")
"""Distribution, version and Triton of the engine."""
_LEAST = 0.6
"""Part of its usual seconds with which a case is begun."""


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[plan.Case], plan.Places]:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", type=Path, required=True, help="the folder with parts/ and model/")
    parser.add_argument("--artifact", type=Path, help="the artifact of SGLang 0.5.17 for this card")
    parser.add_argument("--cases", default=",".join(plan.CASES), help="of " + ",".join(plan.CASES))
    parser.add_argument("--answers", type=int, default=4, help="requests for eight tokens of each length")
    parser.add_argument("--again", action="store_true", help="a second process of each case, which says where it is")
    parser.add_argument("--out", type=Path, default=RESULTS / "sglang_engine.json")
    parser.add_argument("--work", type=Path, default=Path("/tmp/gdn-aot-sglang"), help="caches and records")  # noqa: S108
    parser.add_argument("--unpacked", type=Path, default=Path("/tmp/sg"), help="where the engine is unpacked")  # noqa: S108
    parser.add_argument("--options", type=json.loads, default={}, help="JSON: options of sglang.Engine")
    parser.add_argument("--commit", help="the commit of this checkout, where git cannot say it")
    parser.add_argument("--limit", type=int, default=150, help="seconds after which a process is ended")
    parser.add_argument("--seconds", type=float, default=3600.0, help="seconds that all cases may take together")
    parser.add_argument("--dry", action="store_true", help="only say what would run, and check the files")
    options = parser.parse_args(arguments)
    names = options.cases.split(",")
    if unknown := sorted(set(names) - set(plan.CASES)):
        parser.error(f"unknown cases: {', '.join(unknown)}")
    cases = [replace(case, answers=options.answers) for case in plan.CASES.values() if case.name in names]
    if options.again:
        cases = [plan.again(case) for case in cases if case.name != "prime"]
    work = options.work.resolve()
    for case in cases:
        if "artifact" in case.artifacts and not options.artifact:
            parser.error(f"case {case.name} needs --artifact")
        if case.keeps and case.caches not in names and not (work / case.caches).is_dir():
            maker = case.caches
            parser.error(f"case {case.name} starts with the caches that {maker} leaves: run {maker} before it")
        if "captured" in case.artifacts and "capture" not in names and not (work / "built").is_dir():
            parser.error(f"case {case.name} needs what is built of capture: run capture before it")
    places = plan.Places(
        engine=options.engine.resolve(),
        unpacked=options.unpacked.resolve(),
        work=work,
        artifact=options.artifact and options.artifact.resolve(),
        options=options.options,
    )
    return options, cases, places


def problems(cases: list[plan.Case], places: plan.Places) -> list[str]:
    """Return what would keep a run from working, as far as files tell."""
    found = [] if places.parts else [f"{places.engine}/parts has no .tar.xz"]
    found += packed.model_problems(places.engine)
    if places.artifact and (text := packed.artifact_problem(places.artifact, MADE_FOR)):
        found.append(text)
    if places.parts and any(case.record for case in cases):
        found += filter(None, [packed.licence_problem(places.parts, PROVIDERS["sglang"], MADE_FOR[1])])
    return found


def measure(case: plan.Case, places: plan.Places, limit: float) -> dict[str, Any]:
    """Run one case to its end. Returns its record; where it left none, what its log ended with."""
    plan.fill(case, places)
    spec, log = plan.specification(case, places), places.work / f"{case.name}.log"
    record = Path(spec["out"])
    record.unlink(missing_ok=True)
    (places.work / f"{case.name}.spec.json").write_text(json.dumps(spec))
    env = plan.environment(case, places)
    if case.artifacts:  # as an image has it: the artifacts are in the store before the first process starts
        command(sys.executable, "-c", "import gdn_aot; gdn_aot.install()", env=env, seconds=60)
    done = command(*plan.command(case, places), env=env, seconds=limit, log=log)
    found: dict[str, Any] = {"case": case.name, "error": "it left no record", "requests": []}
    if record.exists():
        found = json.loads(record.read_text())
    report.read(found, places.work / f"{case.name}.counts", log.read_text(errors="replace"))
    if not done["ok"] and not found.get("done"):
        said = [found["error"] or "", done["error"], *done["stderr"].splitlines()[-3:]]
        found["error"] = "; ".join(filter(None, said))[:800]
        print(done["stderr"], file=sys.stderr, flush=True)
    print(f"({case.name}) {done['seconds']:.0f} s {found['error'] or ''}", flush=True)
    return found


def build(places: plan.Places, seconds: float) -> dict[str, Any]:
    """Build the artifact of what (capture) recorded. Returns how long it took, and what it is or what went wrong."""
    done = command(*plan.build(places), env=plan.shared(places), seconds=seconds, log=places.work / "build.log")
    made = places.served("captured") if done["ok"] else None
    if made is None:
        print(done.get("stderr", ""), file=sys.stderr, flush=True)
    print(f"(build) {done['seconds']:.0f} s {done.get('error', '')}", flush=True)
    return {"seconds": done["seconds"], "error": done.get("error"), "captured": made and described(open_artifact(made))}


def dry(cases: list[plan.Case], places: plan.Places) -> None:
    """Say what would run."""
    for case in cases:
        after = [plan.build(places)] if case.record else []
        packed.show(case, plan.environment(case, places), plan.command(case, places), *after)
    print(f"about {plan.seconds(cases)} s with {plan.SETUP} s for unpacking")


def measured(
    cases: list[plan.Case], places: plan.Places, limit: float, end: float
) -> Iterator[tuple[plan.Case, dict[str, Any]]]:
    """Run the cases for which there is time before ``end``, and yield each with its record.

    After a (prime) that failed there are no more.
    """
    for case in cases:
        if any(places.served(name) is None for name in case.artifacts):
            print(f"({case.name}) is not run: nothing was built of (capture)", flush=True)
            continue
        if (left := end - time.monotonic()) < _LEAST * case.seconds:
            print(f"({case.name}) no time is left for it", flush=True)
            continue
        record = measure(case, places, min(limit, left))
        yield case, record
        if case.name == "prime" and not record.get("done"):
            return


def main() -> int:
    """Run the cases, or say what would run."""
    options, cases, places = parse(sys.argv[1:])
    wrong = problems(cases, places)
    if options.dry:
        dry(cases, places)
    packed.tell(wrong)
    if wrong or options.dry:
        return 1 if wrong else 0
    end = time.monotonic() + options.seconds
    places.work.mkdir(parents=True, exist_ok=True)
    for path, folder in places.parts.items():
        packed.unpack([path], folder)
    plan.install(places)
    document = load(options.out) or {"machine": {}, "records": {}}
    document["commit"] = options.commit or own_commit()[0]
    document["parts"] = plan.sizes(places)
    document["artifact"] = described(open_artifact(places.artifact)) if places.artifact else None
    records = document["records"]
    for case, record in measured(cases, places, options.limit, end):
        if case.name == "prime":
            continue
        records[case.name] = record
        if case.record and (places.work / "capture.json").exists():
            document["build"] = build(places, max(1.0, end - time.monotonic()))
        document |= {"summary": report.summarize(records), "goals": report.goals(records)}
        document["machine"] |= machine() | record.get("versions", {})
        save(options.out, document)
    both = [one for case in plan.CASES.values() for one in (case, plan.again(case))]
    print(report.table(records, {case.name: case.says for case in both}))
    print(goals_text(report.goals(records)))
    return 0 if records else 1


if __name__ == "__main__":
    sys.exit(main())
