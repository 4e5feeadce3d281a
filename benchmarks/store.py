"""What the store costs: verifying and installing artifacts, and the bytes of a store of many.

    .venv/bin/python benchmarks/store.py install ARTIFACT ... [--rounds N] [--before CHECKOUT]
    .venv/bin/python benchmarks/store.py size ARTIFACT ...

``install`` takes each artifact for itself; with ``--before`` an older checkout does the same in turn. ``size`` takes
one artifact of each target. Writes benchmarks/results/store.json; parts that are not run keep their last figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import machine

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "store.json"
MOST = 1.3
"""What a store of the targets of one provider may take: times the bytes of its unique blobs."""

MEASURE = """
import json, shutil, sys, time
from gdn_aot.store.store import Store
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.store.install import install
try:
    from gdn_aot.store.whole import find_installed
except ImportError:  # an older checkout
    from gdn_aot.store.install import find_installed
path, home, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
found = []
for number in range(rounds + 1):
    shutil.rmtree(home, ignore_errors=True)
    took = {}
    def timed(name, step):
        start, cpu = time.perf_counter(), time.process_time()
        result = step()
        took[name] = 1000 * (time.perf_counter() - start)
        took[name + "_cpu"] = 1000 * (time.process_time() - cpu)
        return result
    artifact = timed("verify", lambda: open_artifact(path))
    timed("install", lambda: install(Store(home), artifact))
    timed("find", lambda: find_installed(Store(home), artifact.sha256))
    timed("again", lambda: install(Store(home), artifact))
    if number:
        found.append(took)
print(json.dumps(found))
"""


def measure(checkout: Path, artifact: Path, rounds: int) -> list[dict[str, float]]:
    """Verify and install in one process of a checkout; the first round, which imports, is left out."""
    with tempfile.TemporaryDirectory(dir=artifact.parent) as folder:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(artifact), f"{folder}/home", str(rounds)],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


def summary(found: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    def of(values: list[float]) -> dict[str, float]:
        return {
            name: round(of(values), 1) for name, of in (("median", statistics.median), ("least", min), ("most", max))
        }

    return {name: of([took[name] for took in found]) for name in found[0]}


def part_install(artifacts: list[Path], rounds: int, before: Path | None) -> list[dict[str, Any]]:
    """Milliseconds of each step, now and before."""
    from gdn_aot.artifact.verify import open_artifact

    rows = []
    for path in artifacts:
        manifest = open_artifact(path).manifest
        checkouts = {"now": ROOT, **({"before": before} if before else {})}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
        for _ in range(2):  # in turn
            for name, checkout in checkouts.items():
                found[name] += measure(checkout, path, rounds)
        rows.append(
            {
                "identifier": manifest.identifier,
                "bytes": path.stat().st_size,
                "manifest_bytes": len(open_artifact(path).manifest_json),
                "binaries": sum(len(kernel.binaries) for kernel in manifest.kernels),
                "blobs": len(manifest.blobs),
                "blob_bytes": sum(blob.size for blob in manifest.blobs),
                **{f"{name}_ms": summary(some) for name, some in found.items()},
            }
        )
    return rows


def part_size(artifacts: list[Path]) -> dict[str, Any]:
    """Bytes of a store that has all of them."""
    from gdn_aot.artifact.verify import open_artifact
    from gdn_aot.store.install import install
    from gdn_aot.store.store import Store

    blobs: dict[str, int] = {}
    rows = []
    with tempfile.TemporaryDirectory() as home:
        store = Store(home)
        for path in artifacts:
            artifact = open_artifact(path)
            place = Path(install(store, artifact).place)
            blobs |= {blob.sha256: blob.size for blob in artifact.manifest.blobs}
            rows.append(
                {
                    "identifier": artifact.manifest.identifier,
                    "bytes": artifact.size,
                    "binaries": sum(len(kernel.binaries) for kernel in artifact.manifest.kernels),
                    "index_bytes": (place / "index").stat().st_size,
                    "manifest_bytes": (place / "manifest.json.zst").stat().st_size,
                }
            )
        files = [path for path in Path(home).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        disk = sum(path.lstat().st_blocks * 512 for path in Path(home).rglob("*"))
    unique = sum(blobs.values())
    return {
        "artifacts": rows,
        "unique_blobs": len(blobs),
        "unique_blob_bytes": unique,
        "store_bytes": size,
        "store_disk_bytes": disk,
        "store_files": len(files),
        "ratio": round(size / unique, 3),
        "disk_ratio": round(disk / unique, 3),
        "goal": f"a store of {len(rows)} targets takes at most {MOST} times its unique blobs",
        "met": size <= MOST * unique,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["install", "size"])
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--before", type=Path, help="an older checkout to measure in turn with this one")
    options = parser.parse_args()
    paths = [path.resolve() for path in options.artifacts]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.part == "install":
        results["install"] = part_install(paths, options.rounds, options.before)
    else:
        results["size"] = part_size(paths)
    results["machine"] = machine("zstandard", "triton") | {"load": os.getloadavg()[0]}
    print(json.dumps(results[options.part], indent=1))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
