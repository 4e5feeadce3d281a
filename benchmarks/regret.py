"""How good the choices of each provenance are: computed from tuning records alone, without a card.

    python benchmarks/regret.py measure [--root DIR]    results/regret.json, and page
    python benchmarks/regret.py whole [--root DIR]      results/regret_whole.json, and page
    python benchmarks/regret.py page                    docs/explanation/choices.md, and the table of a decision

Below the root lie records of cards of their target, ``sm_90/fla-core-0.6.0.json`` (measured), and of another card that
ran the target's code, ``proxy/sm_80/fla-core-0.6.0.json`` (proxy). Records with keys and candidates in common judge
each other: each chooses, and the other one has the times. ``page`` writes the tables into the page, each between its
two comments; the rest of it is written by hand. ``python benchmarks/plots.py`` draws the figure.

``whole`` adds up the kernels of whole calls of Kimi Delta Attention. It asks the installed provider what they launch,
so it is run where FLA is, where vLLM is and where SGLang is; each run replaces what is of its releases.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import RESULTS, ROOT, load, save
from regret import whole
from regret.figures import measure
from regret.report import decision, page

OUT = RESULTS / "regret.json"
WHOLE = RESULTS / "regret_whole.json"
PAGE = ROOT / "docs" / "explanation" / "choices.md"
DECISION = ROOT / "docs" / "adr" / "0038-one-choice-for-every-length.md"
TUNING = ROOT / "artifacts" / "tuning"


H200 = RESULTS / "tuning_h200_sm_90.json"
"""Keys of the catalogue at tensor-parallel sizes 1, 2, 4 and 8, one sequence each, on an H200."""
PAIRS = (
    (
        "choices by sm_80's code on an H200, scored on an H200 as what it is",
        TUNING / "proxy" / "sm_80" / "fla-core-0.6.0.json",
        H200,
    ),
    ("an H100 and an H200, both measured", TUNING / "sm_90" / "fla-core-0.6.0.json", H200),
    (
        "by proxy for sm_86 and for sm_89",
        TUNING / "proxy" / "sm_86" / "fla-core-0.6.0.json",
        TUNING / "proxy" / "sm_89" / "fla-core-0.6.0.json",
    ),
)


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("measure", "whole"):
        commands.add_parser(name).add_argument("--root", type=Path, default=TUNING)
    commands.add_parser("page")
    asked = parser.parse_args()
    if asked.command == "measure":
        pairs = PAIRS if asked.root == TUNING else ()
        save(OUT, measure(asked.root, pairs, H200 if pairs else None))
    if asked.command == "whole":
        save(WHOLE, whole.measure(asked.root, load(WHOLE)))
    PAGE.write_text(page(PAGE.read_text(), load(OUT)))
    DECISION.write_text(decision(DECISION.read_text(), load(WHOLE)))


if __name__ == "__main__":
    main()
