"""A real vLLM 0.24.0 engine with a GDN model: start, first requests, memory and prefill, with and without gdn-aot.

    python benchmarks/vllm_gdn.py --engine FOLDER [--artifact FILE] [--captured FILE] [--cases a,b,...] [--dry]

``FOLDER`` holds what runs the engine on a machine without a network: ``parts/`` (vLLM 0.24.0 and what it needs besides
torch and Triton, as a split ``.tar.xz`` of one folder ``vb``) and ``model/`` (the configuration of a four-layer
Qwen3-Next; weights are random). Cases, each in a process of its own, in this order:

(a) as vLLM was before it had a warm-up: none, empty caches, and 300 MiB left on the card after the engine is ready;
(b) with its warm-up of 64 tokens, empty caches;
(c) with the caches that (b) left, autotuning results included;
(d) with gdn-aot through its entry point, empty caches; (d-tight) the same under the conditions of (a);
(e) with an artifact of a capture of this deployment, empty caches; (e-loaded) the same with all of PyTorch's kernels
    loaded at start, which takes memory from the KV cache.

``capture`` records such a deployment into ``capture.json`` beside the results; build ``--captured`` from it. Measured
are the time to ready, vLLM's GDN warm-up within it, compiles and benchmarks, the memory that vLLM has for the KV cache
and what is free on the card, the time to the first token at 20, 46, 1000 and 8000 tokens (first and later requests),
and the GPU time of a GDN layer's kernels at 2048 and 8192 tokens. Records of earlier runs in ``--out`` are kept for
cases that do not run now. ``--dry`` says what would run, for how long, and checks the files; it needs neither GPU nor
engine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomllib

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from vllm_gdn import plan, report  # noqa: E402 - the path comes first

if TYPE_CHECKING:
    from gdn_aot.records.tuning import TuningRecord


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[plan.Case], plan.Places]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", type=Path, required=True, help="the folder with parts/ and model/")
    parser.add_argument("--artifact", type=Path, help="the artifact of vllm 0.24.0 for this card")
    parser.add_argument("--captured", type=Path, help="one built from capture.json of this deployment")
    parser.add_argument("--cases", default=",".join(plan.DEFAULT), help="of " + ",".join(plan.CASES))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/vllm_gdn.json")
    parser.add_argument("--work", type=Path, default=Path("/tmp/gdn-aot-vllm"), help="caches and records")  # noqa: S108
    parser.add_argument("--unpacked", type=Path, default=Path("/tmp/vb"), help="where the engine is unpacked")  # noqa: S108
    parser.add_argument("--limit", type=int, default=280, help="seconds after which a process is ended")
    parser.add_argument("--dry", action="store_true", help="only say what would run, and check the files")
    options = parser.parse_args(arguments)
    names = options.cases.split(",")
    if unknown := sorted(set(names) - set(plan.CASES)):
        parser.error(f"unknown cases: {', '.join(unknown)}")
    cases = [case for case in plan.CASES.values() if case.name in names]
    for case in cases:
        option = plan.needs(case)
        if option and not getattr(options, option.removeprefix("--")):
            parser.error(f"case {case.name} needs {option}")
    if "c" in names and "b" not in names and not (options.work / "caches").is_dir():
        parser.error("case c starts with the caches that b leaves: run b before it")
    places = plan.Places(
        engine=options.engine.resolve(),
        unpacked=options.unpacked.resolve(),
        work=options.work.resolve(),
        out=options.out.resolve(),
        artifact=options.artifact and options.artifact.resolve(),
        captured=options.captured and options.captured.resolve(),
    )
    return options, cases, places


def problems(places: plan.Places, cases: list[plan.Case]) -> list[str]:
    """Return what would keep a run from working, as far as files tell."""
    found = []
    if not sorted((places.engine / "parts").glob("vb.tar.xz.*")):
        found.append(f"{places.engine}/parts has no vb.tar.xz.*: run its build_bundle.sh first")
    if not (places.engine / "model/config.json").is_file():
        found.append(f"{places.engine}/model/config.json is missing")
    wanted = {places.artifact for case in cases if case.artifact == "artifact"}
    wanted |= {places.captured for case in cases if case.artifact == "captured"}
    return found + [text for path in sorted(filter(None, wanted)) if (text := artifact_problem(path))]


def artifact_problem(path: Path) -> str:
    from gdn_aot.artifact.verify import open_artifact
    from gdn_aot.errors import GdnAotError

    try:
        manifest = open_artifact(path).manifest
    except (GdnAotError, OSError) as error:
        return f"{path}: {error}"
    made = (manifest.provider.distribution, manifest.provider.version, manifest.triton.version)
    if made != ("vllm", "0.24.0", "3.6.0"):
        return f"{path} is of {made[0]} {made[1]} and Triton {made[2]}, not of vllm 0.24.0 and Triton 3.6.0"
    return ""


def unpack(places: plan.Places) -> None:
    """Unpack the engine, unless that was done on this machine."""
    done = places.unpacked / ".ok"
    if done.exists():
        return
    shutil.rmtree(places.unpacked, ignore_errors=True)
    places.unpacked.mkdir(parents=True)
    parts = sorted((places.engine / "parts").glob("vb.tar.xz.*"))
    with (
        subprocess.Popen(["cat", *map(str, parts)], stdout=subprocess.PIPE) as joined,
        tarfile.open(fileobj=joined.stdout, mode="r|xz") as archive,
    ):
        for member in archive:
            member.name = member.name.removeprefix("vb").lstrip("/")
            if member.name:
                archive.extract(member, places.unpacked, filter="fully_trusted")
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-j", "0", str(places.unpacked)], check=False)
    done.touch()


def declare_entry_point(folder: Path) -> None:
    """Make the metadata by which vLLM finds our entry point, as installing the package would."""
    place = folder / "gdn_aot-0.0.0.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in names.items()) for group, names in groups.items()]
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: gdn-aot\nVersion: 0.0.0\n")
    (place / "entry_points.txt").write_text("\n".join(lines))


def run(case: plan.Case, places: plan.Places, limit: int) -> dict[str, Any]:
    """Run one case to its end. Returns its record; where it left none, what its log ended with."""
    if case.cold:
        shutil.rmtree(places.work / "caches", ignore_errors=True)
    spec, log = places.work / f"{case.name}.spec.json", places.out.with_name(f"vllm_gdn-{case.name}.log")
    record = places.work / f"{case.name}.json"
    record.unlink(missing_ok=True)
    spec.write_text(json.dumps(plan.specification(case, places)))
    env = {**os.environ, **plan.environment(case, places)}
    if case.artifact:  # as an image has it: the artifact is in the store before the first process starts
        subprocess.run([sys.executable, "-c", "import gdn_aot; gdn_aot.install()"], env=env, check=False)
    start = time.monotonic()
    with log.open("wb") as output:
        command = plan.command(case, places, spec)
        with subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True) as process:
            try:
                process.wait(limit)
                ended = ""
            except subprocess.TimeoutExpired:
                ended = f"ended after {limit} s"
                os.killpg(process.pid, signal.SIGKILL)  # the engine of a recording too
    found: dict[str, Any] = {"case": case.name, "error": "it left no record", "requests": [], "prefill": {}}
    if record.exists():
        found = json.loads(record.read_text())
    if ended or not record.exists():
        lines = log.read_text(errors="replace").splitlines()
        found["error"] = "; ".join(filter(None, [ended, *lines[-3:]]))[:800]
    print(f"({case.name}) {time.monotonic() - start:.0f} s {found['error'] or ''}", flush=True)
    return found


def measured() -> TuningRecord | None:
    """Return the tuning record of vLLM 0.24.0."""
    from gdn_aot.records import tuning as record

    return record.load(ROOT / "artifacts/tuning/sm_90/vllm-0.24.0.json")


def machine(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a case ran on: card, driver, versions."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    found = {"device": record.get("device"), "driver": driver[0] if driver else None, **record.get("versions", {})}
    return {name: value for name, value in found.items() if value} | {"python": platform.python_version()}


def main() -> int:
    options, cases, places = parse(sys.argv[1:])
    wrong = problems(places, cases)
    if options.dry:
        for case in cases:
            print(f"({case.name}) {case.says}: about {case.seconds} s")
            for name, value in plan.environment(case, places).items():
                print(f"    {name}={value}")
            print("    " + " ".join(plan.command(case, places, places.work / f"{case.name}.spec.json")))
        print(f"about {plan.seconds(cases)} s with {plan.SETUP} s for unpacking")
    for text in wrong:
        print(f"problem: {text}", file=sys.stderr)
    if wrong or options.dry:
        return 1 if wrong else 0
    places.work.mkdir(parents=True, exist_ok=True)
    places.out.parent.mkdir(parents=True, exist_ok=True)
    unpack(places)
    declare_entry_point(places.work / "site")
    document = json.loads(places.out.read_text()) if places.out.exists() else {"machine": {}, "records": {}}
    tuning = measured()
    for case in cases:
        record = document["records"][case.name] = run(case, places, options.limit)
        if tuning and record.get("device") == tuning.device.name:
            record["by_record"] = report.by_record(record.get("choices", {}), tuning)
        document["summary"] = report.summarize(document["records"])
        document["goals"] = report.goals(document["records"])
        document["machine"] |= machine(document["records"][case.name])
        document["date"] = time.strftime("%Y-%m-%d", time.gmtime())
        places.out.write_text(json.dumps(document, indent=1) + "\n")
    print(report.table(document["records"], {name: case.says for name, case in plan.CASES.items()}))
    print()
    print(report.goals_text(document["goals"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
