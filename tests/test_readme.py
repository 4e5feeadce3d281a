"""What a reader relies on: the README is short, its figures are those of the results, and links lead somewhere."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

MOST = 8192
"""Bytes of the README."""
LINK = re.compile(r"\]\(([^()\s]+)\)")


def result(name: str) -> Any:
    return json.loads((ROOT / "benchmarks/results" / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows() -> dict[str, tuple[str, str]]:
    """The table of the README: what, without and with gdn-aot."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {what: (without, with_it) for what, without, with_it, _ in cells[2:]}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= MOST


def test_figures_of_fla_are_those_of_the_result(rows: dict[str, tuple[str, str]]) -> None:
    summary = result("cold_start.json")["summary"]
    first, served = summary["a-first"], summary["e"]["dense"]
    plain = first["dense"]["first_ms"]["median"] / 1000
    assert rows["first prompt of a process with FLA, H100"] == (
        f"{plain:.1f} s",
        f"{served['first_ms']['median']:.1f} ms",
    )
    tried = sum(first[call]["benchmarked"]["median"] for call in ("dense", "then"))
    (row,) = (value for what, value in rows.items() if what.startswith("configurations"))
    assert row == (str(tried), str(served["benchmarked"]["median"]))


def test_figures_of_vllm_are_those_of_the_result(rows: dict[str, tuple[str, str]]) -> None:
    summary = result("vllm_gdn.json")["summary"]
    warm, served = summary["b"], summary["d"]
    assert rows["GDN part of a start of vLLM 0.24.0, H200"] == (
        f"{warm['warm_up_seconds']:.1f} s",
        f"{served['warm_up_seconds']:.2f} s",
    )
    assert rows["six GDN kernels there, 8192 tokens, a layer"] == (
        f"{warm['tuned_us_per_layer']['8192']:.0f} us",
        f"{served['tuned_us_per_layer']['8192']:.0f} us",
    )


def test_figures_of_warm_caches_are_those_of_the_results() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    fla, vllm = result("cold_start.json")["summary"], result("vllm_gdn.json")["summary"]
    warm, served = (fla[case]["dense"]["first_ms"]["median"] for case in ("b", "e"))
    said = f"a first prompt with FLA takes {warm:.0f} ms instead of {served:.1f} ms"
    start = f"{vllm['c']['warm_up_seconds']:.2f} s instead of {vllm['d']['warm_up_seconds']:.2f} s"
    assert f"With warm caches {said}, and the GDN part of a start of vLLM {start}" in text


def test_a_tight_card_is_answered_as_the_result_says(rows: dict[str, tuple[str, str]]) -> None:
    found = result("gpu_tests_h200.json")["test_first_prefill_with_300_mib_left"]
    assert "OutOfMemoryError" in found["plain_first"]["error"]
    assert not found["served_first"]["error"]
    assert rows["first prompt with 300 MiB of the card left"] == ("out of memory", "answered")


def test_each_figure_of_the_readme_names_its_command_and_its_result() -> None:
    lines = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")][2:]
    named = ""
    for line in lines:
        shown = line.strip("|").split("|")[-1].strip()
        named = named if shown == "the same" else shown
        assert "`python " in named
        assert LINK.search(named)


def pages() -> list[Path]:
    folders = ("docs", "artifacts", "benchmarks", "tests")
    return [*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [link.partition("#")[0] for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]
    lost = [target for target in targets if target and not (page.parent / target).exists()]
    assert lost == []
