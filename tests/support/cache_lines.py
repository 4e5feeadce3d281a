"""What `providers/vllm_cache_lines.py` has to find, in Triton's interpreter and on a device."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers import ROOT, python

from gdn_aot.providers.vllm.relaxations import LINES

PROGRAM = ROOT / "tests" / "providers" / "vllm_cache_lines.py"


def rows_of(home: Path, *arguments: str, extra: Mapping[str, str] | None = None) -> Sequence[dict[str, Any]]:
    """Run the program."""
    rows: Sequence[dict[str, Any]] = python(PROGRAM.read_text(encoding="utf-8"), *arguments, home=home, extra=extra)
    return rows


def check(rows: Sequence[dict[str, Any]]) -> None:
    """Check that every number of pages gives the same with the number that stands for all, in the last page.

    A number that is too small is noticed: then the window that a short prompt shifts is lost.
    """
    assert {(row["kind"], row["pages"]) for row in rows} == {
        (kind, pages) for kind in ("forward", "update", "drafts") for pages in (2, 36310, LINES - 1)
    }
    for row in rows:
        assert row["same"], row
        assert row["finite"], row
    shifted = [row for row in rows if row["shifts"]]
    assert shifted
    assert not any(row["same with 1"] for row in shifted)
