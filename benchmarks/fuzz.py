"""Attack gdn-aot with hostile artifacts and other files, and count what comes of it.

    python benchmarks/fuzz.py [artifacts|others ...] [--cases 10000] [--seed 1] [--first 0] [--save]

Every case is made anew by seed, number and class: ``--first N --cases 1`` runs one again. Children run them, with 2 GiB
of address space and 10 s of a core for each; a case that holds over 512 MiB is a fault too. Ends with 1 if anything is
a fault. ``--save`` puts the counts into benchmarks/results/fuzz.json. Takes some minutes for 15,000 on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, load, machine, run, save

sys.path[:0] = [str(ROOT), str(ROOT / "tests/support"), str(ROOT / "tests")]

from hostile import campaign  # noqa: E402
from hostile.trials import Outcome  # noqa: E402, TC002

OUT = RESULTS / "fuzz.json"


def real(folder: Path) -> Path:
    """Build the smallest artifact with real kernels; needs the provider."""
    words = ("--arch", "sm_120", "--model", "qwen3.5-9b", "--workload", "transformers-decode")
    run("-m", "gdn_aot", "build", *words, "-o", folder / "out", env={"GDN_AOT_HOME": str(folder / "home")})
    (found,) = (folder / "out").glob("*.tar.zst")
    return found


def tell(outcome: Outcome) -> None:
    """Say at once what is a fault."""
    if outcome.fault:
        print(f"{outcome.kind} {outcome.number}: {outcome.fault}: {outcome.detail}", file=sys.stderr, flush=True)


def main() -> None:
    """Run what is asked for, and print a table and the faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*campaign.SIZES, []], help="all by default")
    parser.add_argument("--cases", type=int, help="how many of each; by default 10,000 artifacts and 5,000 others")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--real", type=Path, help="a real artifact; built if none is given")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    options = parser.parse_args()
    document: dict[str, Any] = {"machine": machine("triton", "fla-core", "zstandard", "msgspec"), "seed": options.seed}
    with tempfile.TemporaryDirectory(dir=campaign.scratch()) as folder:
        artifact = options.real or real(Path(folder))
        for what in options.what or campaign.SIZES:
            count, start = options.cases or campaign.SIZES[what], time.monotonic()
            numbers = range(options.first, options.first + count)
            place = Path(folder, what)
            tally = campaign.run(what, options.seed, numbers, place, artifact, jobs=options.jobs, tell=tell)
            document[what] = {**tally.document(), "seconds": round(time.monotonic() - start)}
            print(f"{what}, seed {options.seed}\n{tally.table()}\n", file=sys.stderr)
    if options.json:
        print(json.dumps(document, indent=1))
    faults = [fault for what in campaign.SIZES for fault in document.get(what, {}).get("faults", [])]
    if options.save:
        save(OUT, {**load(OUT), **document})
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
