"""How good the choices of each provenance are: computed from tuning records alone, without a card.

    python benchmarks/regret.py measure [--root DIR] [--pair LABEL RECORD RECORD]...    results/regret.json, and page
    python benchmarks/regret.py page                                                    docs/explanation/choices.md

Below the root lie records of cards of their target, ``sm_90/fla-core-0.6.0.json`` (measured), and of another card that
ran the target's code, ``proxy/sm_80/fla-core-0.6.0.json`` (proxy). A pair is two records with keys and candidates in
common: each chooses, and the other one has the times. ``page`` writes the tables into the page, each between its two
comments; the rest of it is written by hand. ``python benchmarks/plots.py`` draws the figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import RESULTS, ROOT, load, save
from regret.figures import measure
from regret.report import page

OUT = RESULTS / "regret.json"
PAGE = ROOT / "docs" / "explanation" / "choices.md"
TUNING = ROOT / "artifacts" / "tuning"


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--root", type=Path, default=TUNING)
    measuring.add_argument("--pair", nargs=3, action="append", default=[], metavar=("LABEL", "RECORD", "RECORD"))
    commands.add_parser("page")
    asked = parser.parse_args()
    if asked.command == "measure":
        save(OUT, measure(asked.root, asked.pair))
    PAGE.write_text(page(PAGE.read_text(), load(OUT)))


if __name__ == "__main__":
    main()
