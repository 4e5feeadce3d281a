"""What it costs that one binary of the cumulative sum serves every dense batch: its time beside a constant batch's.

On a GPU: ``python benchmarks/batch.py ARTIFACT -o FILE``. Two processes take turns, one served from the artifact,
whose binary takes the batch as an argument, one plain FLA, in which Triton compiles for the batch. Both have the
configuration that the artifact names. Times are medians of CUDA graphs, in microseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from harness import machine

SIZES = ((2, 32), (2, 2048), (8, 512), (8, 4096), (64, 64), (64, 512))
"""Dense batch, tokens of each sequence."""
ROUNDS = 5

_PROGRAM = """
import json, sys
artifact, sizes = sys.argv[1], json.loads(sys.argv[2])
import torch, triton
import gdn_aot
from gdn_aot.artifact.verify import open_artifact
NAME = "chunk_local_cumsum_scalar_kernel"
if sys.argv[3] == "served":
    gdn_aot.install(artifact, strict=True)
from fla.ops.utils import chunk_local_cumsum, cumsum
if sys.argv[3] != "served":
    kernel = next(one for one in open_artifact(artifact).manifest.kernels if one.qualname == NAME)
    warps = {choice.key[0]: choice.config.num_warps for choice in kernel.choices if choice.key[1] == 32}
    tuner = cumsum.chunk_local_cumsum_scalar_kernel.fn
    (tuner.configs,) = ([one for one in tuner.configs if one.num_warps == warps[2]],)
found = {}
for batch, tokens in sizes:
    gate = torch.randn(batch, tokens, 32, device="cuda")
    run = lambda: chunk_local_cumsum(gate, chunk_size=64, scale=1.0)
    run()
    found[f"{batch}x{tokens}"] = 1000 * triton.testing.do_bench_cudagraph(run, rep=100, return_mode="median")
print(json.dumps({"times": found, "misses": len(gdn_aot.report().misses)}))
"""


def main() -> None:
    """Measure, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    times: dict[str, dict[str, list[float]]] = {"served": {}, "plain": {}}
    last = {}
    for _ in range(ROUNDS):
        for which, rows in times.items():
            command = [sys.executable, "-c", _PROGRAM, str(options.artifact.resolve()), json.dumps(SIZES), which]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            last = json.loads(done.stdout.splitlines()[-1])
            for size, us in last.pop("times").items():
                rows.setdefault(size, []).append(us)
    medians = {
        which: {size: round(statistics.median(all_), 3) for size, all_ in rows.items()} for which, rows in times.items()
    }
    ratios = {size: round(us / medians["plain"][size], 3) for size, us in medians["served"].items()}
    document = {
        **machine("torch", "triton", "fla-core"),
        **last,
        "rounds": ROUNDS,
        "us": medians,
        "served_to_plain": ratios,
    }
    options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document["served_to_plain"]))


if __name__ == "__main__":
    main()
