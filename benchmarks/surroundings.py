"""Start hosts in broken surroundings, and see what gdn-aot does to them.

    python benchmarks/surroundings.py [--artifact FILE] [--only WORD ...] [--save]

In each of the surroundings three hosts are started, each three times in a fresh process: ``import gdn_aot.auto``,
vLLM's plugin, ``install(FILE)``. None may raise, hang for 10 s, or be delayed by over 50 ms in the median: of a core,
or on the clock but for waiting for a core. A process without gdn-aot has to get through too, else the surroundings say
nothing of us and are skipped. ``--save`` puts the table into benchmarks/results/surroundings.json. Ends with 1 if
anything is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from harness import RESULTS, ROOT, described, machine, save

sys.path[:0] = [str(ROOT), str(ROOT / "tests/support"), str(ROOT / "tests")]

from fuzz import real  # noqa: E402
from hostile import hosts  # noqa: E402
from hostile.campaign import scratch  # noqa: E402
from hostile.conditions import CONDITIONS  # noqa: E402

from gdn_aot.artifact.verify import open_artifact  # noqa: E402

OUT = RESULTS / "surroundings.json"


def main() -> None:
    """Start them all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, help="one that fits what is installed; built if none is given")
    parser.add_argument("--only", nargs="*", default=[], help="conditions whose names have one of these words")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    names = [name for name in CONDITIONS if not options.only or any(word in name for word in options.only)]
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        artifact = options.artifact or real(Path(folder, "built"))
        about = {"machine": machine("triton", "fla-core"), "artifact": described(open_artifact(artifact))}
        source = hosts.template(Path(folder, "sound"), artifact)
        rows = []
        for row in hosts.everything(source, Path(folder), names):
            rows.append(row)
            print(
                f"{row.condition}; {row.way}: {row.problem or 'ok'}, {row.cpu} ms ({row.wall}), {row.served}",
                flush=True,
            )
    wrong = [row for row in rows if row.problem and not row.problem.startswith("skipped")]
    skipped = [row for row in rows if row.problem.startswith("skipped")]
    print(f"{len(names)} surroundings, {len(rows)} hosts: {len(wrong)} wrong, {len(skipped)} skipped")
    if options.save:
        save(OUT, {**about, "surroundings": len(names), "wrong": len(wrong), "rows": list(map(asdict, rows))})
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
