"""What the store costs: verifying and installing artifacts, and the bytes of a store of many.

    python benchmarks/store.py ARTIFACT ... [--rounds N]

Each artifact is timed for itself; then all are put into one store. Writes benchmarks/results/store.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from harness import RESULTS, described, goal, interleaved, machine, save

from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.whole import find_installed

MOST = 1.3
"""What a store of the targets of one provider may take: times the bytes of its unique blobs."""


def time(artifact: Artifact, home: str, rounds: int) -> dict[str, Any]:
    """Return an artifact's sizes and the milliseconds of verifying, installing, finding and installing it again."""
    steps = {
        "verify": lambda: open_artifact(artifact.path),
        "install": lambda: install(Store(home), artifact),
        "find": lambda: find_installed(Store(home), artifact.sha256),
        "again": lambda: install(Store(home), artifact),
    }

    def before(name: str) -> None:
        if name == "install":
            shutil.rmtree(home, ignore_errors=True)

    return {**described(artifact), "now_ms": interleaved(steps, rounds, before)}


def size(artifacts: list[Artifact], home: str) -> dict[str, Any]:
    """Return the bytes of a store that has all of them."""
    for artifact in artifacts:
        install(Store(home), artifact)
    unique = {blob.sha256: blob.size for artifact in artifacts for blob in artifact.manifest.blobs}
    files = [path for path in Path(home).rglob("*") if path.is_file()]
    store, blobs = sum(path.stat().st_size for path in files), sum(unique.values())
    text = f"a store of {len(artifacts)} targets takes at most {MOST} times its unique blobs"
    return {
        "artifacts": [{"identifier": one.manifest.identifier, "bytes": one.size} for one in artifacts],
        "unique_blobs": len(unique),
        "unique_blob_bytes": blobs,
        "store_bytes": store,
        "store_disk_bytes": sum(path.lstat().st_blocks * 512 for path in Path(home).rglob("*")),
        "store_files": len(files),
        "ratio": round(store / blobs, 3),
        **goal(text, f"{store / blobs:.3f}", store <= MOST * blobs),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    artifacts = [open_artifact(path.resolve()) for path in options.artifacts]
    with tempfile.TemporaryDirectory(dir=artifacts[0].path.parent) as folder:  # on a disk, as stores are
        results = {
            "machine": machine("zstandard", "triton"),
            "install": [time(artifact, f"{folder}/one", options.rounds) for artifact in artifacts],
            "size": size(artifacts, f"{folder}/all"),
        }
    print(json.dumps(results, indent=1))
    save(RESULTS / "store.json", results)


if __name__ == "__main__":
    main()
