"""How large the page of ``gdn-aot report`` is, and how soon a browser shows it.

    python benchmarks/report.py ARTIFACT... [--rounds N]

Needs Chromium or Chrome. Each round opens the page from the disk in a new window of a browser that runs already. Times
are milliseconds from the start of the navigation. Writes benchmarks/results/report.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, described, goal, goals_text, machine, run, save

from gdn_aot.artifact.verify import open_artifact

sys.path.insert(0, str(ROOT / "tests" / "support"))
import browser  # the tests' way of asking a browser

OUT = RESULTS / "report.json"
MOST_BYTES, MOST_MS = 3_000_000, 1000.0
"""What the page of the artifact of all models may have, and what it may take to open."""
SHOWN = """
(() => {
  const [loaded] = performance.getEntriesByType("navigation");
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return paint && { shown: paint.startTime, ready: loaded.domContentLoadedEventEnd, loaded: loaded.loadEventEnd };
})()
"""
PLOT = """
new Promise((done) => {
  const details = document.querySelector("details.kernel"), begin = performance.now();
  const drawn = () => details.querySelector("svg .mark-group");
  const look = () => drawn() ? done(performance.now() - begin) : requestAnimationFrame(look);
  details.open = true;
  look();
})
"""


def measure(page: Path, rounds: int) -> tuple[str, dict[str, Any]]:
    """Return the browser, and medians and most of the times of a page."""
    program = browser.find()
    if program is None:
        raise SystemExit("neither Chromium nor Chrome is installed")
    times: dict[str, list[float]] = {"shown": [], "ready": [], "loaded": [], "first plot": []}
    with browser.started(program) as opened:
        version = opened.call("Browser.getVersion")["product"]
        for number in range(rounds + 1):
            opened.open(page)
            opened.until(SHOWN)
            found = {**opened.run(SHOWN), "first plot": opened.run(PLOT)}
            for name, value in found.items() if number else ():
                times[name].append(value)
    return version, {
        name: {"median": round(statistics.median(values), 1), "greatest": round(max(values), 1)}
        for name, values in times.items()
    }


def main() -> None:
    """Write, open and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path, metavar="ARTIFACT")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="benchmark-report-") as scratch:
        for place, artifact in enumerate(given.artifacts):
            page = Path(scratch) / f"{place}.html"
            written = json.loads(run("-m", "gdn_aot", "report", artifact.absolute(), "-o", page, "--json"))
            version, times = measure(page, given.rounds)
            opened = open_artifact(artifact)
            models = len({row.name for row in opened.manifest.models})
            choices = sum(len(kernel.choices) for kernel in opened.manifest.kernels)
            rows.append(
                {**described(opened), "models": models, "choices": choices, "page": written["size"], "ms": times}
            )
    largest = max(rows, key=lambda row: row["models"])
    goals = [
        goal(f"the page of {largest['models']} models is below {MOST_BYTES:,} bytes", largest["page"],
             largest["page"] < MOST_BYTES),
        goal(f"it is shown and ready within {MOST_MS:.0f} ms, the slowest of {given.rounds}",
             max(largest["ms"][name]["greatest"] for name in ("shown", "ready")),
             max(largest["ms"][name]["greatest"] for name in ("shown", "ready")) < MOST_MS),
    ]  # fmt: skip
    about = {**machine("gdn-aot", "vl-convert-python"), "browser": version, "rounds": given.rounds}
    save(given.output, {"machine": about, "goals": goals, "artifacts": rows})
    print(goals_text(goals))


if __name__ == "__main__":
    main()
