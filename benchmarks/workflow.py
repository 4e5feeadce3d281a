"""How long artifacts.yml takes: its steps for some identifiers, run one after the other on this machine.

    .venv/bin/python benchmarks/workflow.py fla0.6.0-triton3.6.0-sm_120 fla0.6.0-triton3.8.0-sm_120 --model qwen3.5-9b

Rows are those of artifacts/matrix.toml, with --model and --tp in the place of all models and sizes where given. The
runner is that of the tests: environments are installed by pip (whose cache of downloads is used), and everything is
published to a directory. Writes benchmarks/results/workflow.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from machine import load, machine

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "workflow.json"
MOST = 600.0
"""Seconds that all jobs of two identifiers may take."""

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def matrix(model: str | None, tp: int | None) -> str:
    """Return the project's matrix, perhaps with one model or one tensor-parallel size."""
    text = (ROOT / "artifacts" / "matrix.toml").read_text()
    for key, value in (("models", json.dumps(model)), ("tp", tp)):
        if value not in (None, "null"):
            text, count = re.subn(rf"(?m)^{key} = \[.*\]$", f"{key} = [{value}]", text)
            if not count:
                raise SystemExit(f"artifacts/matrix.toml has no default {key} on a line")
    return text


def run(identifiers: list[str], root: Path, model: str | None, tp: int | None) -> dict[str, object]:
    """Run all jobs and return what they took.

    Args:
        identifiers: Rows of the matrix.
        root: Where everything is written; not there yet.
        model: Instead of those of the rows.
        tp: Instead of those of the rows.
    """
    from workflows.runner import Runner

    from gdn_aot.registry.open import open_registry

    registry = root / "kernels"
    open_registry(str(registry)).create(private=False)
    runner = Runner(
        workflow=ROOT / ".github/workflows/artifacts.yml",
        root=root / "run",
        source=ROOT,
        inputs={"select": " ".join(identifiers), "matrix": "artifacts/measured.toml", "tag": "v1.0.0"},
        extra={"artifacts/measured.toml": matrix(model, tp)},
        variables={"GDN_AOT_REPO": str(registry)},
        env={"PIP_EXTRA_INDEX_URL": os.environ.get("PIP_EXTRA_INDEX_URL")},  # this machine's, not the workflow's
        id_token={"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "unused: a directory asks for none"},
    )
    start = time.perf_counter()
    runner.run()
    took = time.perf_counter() - start
    failed = {name: [job.failed for job in jobs if job.failed] for name, jobs in runner.jobs.items()}
    if any(failed.values()) or set(runner.results.values()) != {"success"}:
        raise SystemExit(f"failed: {failed}; the logs are below {root}")
    jobs = [
        {
            "job": job.matrix.get("identifier", name),
            "seconds": {step: round(seconds, 1) for step, seconds in job.seconds.items() if seconds >= 0.1},
            "cpu_seconds": {step: round(seconds, 1) for step, seconds in job.cpu.items() if seconds >= 0.1},
        }
        for name, done in runner.jobs.items()
        for job in done
    ]
    sizes = {file.name: file.stat().st_size for file in sorted((root / "run").glob("build-*/work/dist/*.tar.zst"))}
    return {
        "machine": machine(),
        "load": load(),
        "identifiers": identifiers,
        "models": model or "all",
        "tp": tp or "all",
        "seconds": round(took, 1),
        "cpu_seconds": round(sum(sum(job.cpu.values()) for done in runner.jobs.values() for job in done), 1),
        "allowed": MOST,
        "within": took <= MOST,
        "jobs": jobs,
        "artifacts": sizes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("identifiers", nargs="+", metavar="IDENTIFIER")
    parser.add_argument("--model", help="instead of all models")
    parser.add_argument("--tp", type=int, help="instead of all sizes")
    parser.add_argument("--logs", type=Path, help="keep everything below this directory, which must not be there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(options.identifiers, options.logs or Path(folder) / "all", options.model, options.tp)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['seconds']} s of {MOST:.0f} s allowed, {found['cpu_seconds']} s of processor time; wrote {RESULTS}")


if __name__ == "__main__":
    main()
