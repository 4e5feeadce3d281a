"""The target table, names of targets, and the check against the installed ptxas."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdn_aot.catalogue import targets
from gdn_aot.catalogue.targets import all_targets, assembler_version, check_assembler, get_target, parse_archs
from gdn_aot.errors import UsageError

NAMES = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_103", "sm_120", "sm_121"]
FIGURES = {
    *("max_shared", "shared_per_sm", "registers_per_sm", "registers_per_block", "threads_per_sm", "blocks_per_sm"),
    *("warp_size", "bf16", "tf32"),
    *("card", "sm_count", "memory"),
}


def test_table_has_the_ten_targets_in_order() -> None:
    assert [target.name for target in all_targets()] == NAMES
    assert [target.max_shared for target in all_targets()] == [
        *(98304, 65536, 166912, 101376, 101376),
        *(232448, 232448, 232448, 101376, 101376),
    ]


@pytest.mark.parametrize("target", all_targets(), ids=str)
def test_rows_are_consistent_and_every_figure_has_one_source(target: object) -> None:
    row = get_target(str(target))
    assert row.name == f"sm_{row.arch_number}"
    reserved = 1024 if row.capability >= (8, 0) else 0
    assert row.shared_per_sm - row.max_shared == reserved
    assert row.bf16 == row.tf32 == (row.capability >= (8, 0))
    covered = [figure for source in row.sources for figure in source.figures]
    assert sorted(covered) == sorted(FIGURES)
    assert {source.confidence for source in row.sources} <= {"high", "medium", "low"}


@pytest.mark.parametrize("target", all_targets(), ids=str)
def test_a_byte_of_local_memory_is_kept_for_every_resident_thread(target: targets.Target) -> None:
    assert target.threads_per_sm % target.warp_size == 0
    assert target.local_reserve(1) == target.threads_per_sm * target.card.sm_count


def test_triton_suffix_is_in_the_assembler_arch() -> None:
    assert get_target("sm_89").assembler_arch == "sm_89"
    assert get_target("sm_90").assembler_arch == "sm_90a"
    assert get_target("sm_120").assembler_arch == "sm_120a"


@given(st.sampled_from(NAMES), st.sampled_from(["sm_{n}", "SM{n}", "{n}", "sm-{n}", "sm_{n}a", "compute_{n}", "{d}"]))
def test_names_match_leniently(name: str, form: str) -> None:
    number = name.removeprefix("sm_")
    written = form.format(n=number, d=f"{number[:-1]}.{number[-1]}")
    assert get_target(f" {written} ").name == name


@pytest.mark.parametrize("name", ["sm_91", "hopper", "", "sm_", "9", "120.0", "sm_12O", "native"])
def test_unknown_name_lists_the_known(name: str) -> None:
    with pytest.raises(UsageError, match=r"unknown target .*sm_70, sm_75") as caught:
        get_target(name)
    assert caught.value.hint


def test_parse_archs() -> None:
    assert [t.name for t in parse_archs(["sm_90,80", "9.0", "sm_120"])] == ["sm_90", "sm_80", "sm_120"]
    assert [t.name for t in parse_archs(["all"])] == NAMES
    for bad in (["native"], [""], ["sm_90,"], [], ["sm_90,nope"]):
        with pytest.raises(UsageError):
            parse_archs(bad)
    with pytest.raises(UsageError, match="explicit target"):
        parse_archs(["native"])


@pytest.mark.parametrize("name", NAMES)
def test_installed_ptxas_assembles(name: str) -> None:
    assert check_assembler(get_target(name)) is None
    version = assembler_version(get_target(name))
    assert version is not None
    assert version.count(".") == 2


def test_an_assembler_that_does_not_know_the_target_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refuse = 'test "$1" = --version && exec echo "release 1.2, V1.2.3"; echo "fatal: no such target" >&2; exit 1'
    (tmp_path / "old").write_text(f"#!/bin/sh\n{refuse}\n")
    (tmp_path / "old").chmod(0o755)
    monkeypatch.setenv("TRITON_PTXAS_BLACKWELL_PATH", str(tmp_path / "old"))
    reason = check_assembler(get_target("sm_121"))
    assert reason == "old 1.2.3 cannot assemble sm_121a: fatal: no such target"
    assert assembler_version(get_target("sm_121")) == "1.2.3"
    assert check_assembler(get_target("sm_90")) is None


def test_a_configured_assembler_that_does_not_run_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_PTXAS_PATH", str(tmp_path / "missing"))
    assert check_assembler(get_target("sm_80")) is None


def test_no_triton_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(targets, "_triton_dir", lambda: tmp_path)
    assert "no ptxas" in str(check_assembler(get_target("sm_80")))
    assert assembler_version(get_target("sm_80")) is None
