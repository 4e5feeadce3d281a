"""Transferred choices: from which target, in which order, and what is never transferred."""

from pathlib import Path

import pytest
import tuning_records as records
from msgspec.structs import replace
from tuning_records import KERNEL, KEY, choice, config, kernel, record, times

from gdn_aot.catalogue.targets import all_targets, get_target
from gdn_aot.choosing.transfer import Transfer, nearness, origin, ranked
from gdn_aot.errors import UsageError
from gdn_aot.records import tuning as r
from gdn_aot.records.files import RecordedDevice, RecordedProvider

A, B, C, D = config(16), config(32), config(64), config(128)
GOAL = r.Objective(weights={64: 0.1, 2048: 0.9}, bound=1.1)


def _transfer(root: Path | None, target: str, triton: str | None = None) -> Transfer:
    return Transfer(root, get_target(target), "fla-core", "0.6.0", triton)


def _configs(found: list[r.TunedChoice]) -> list[r.Config]:
    return [item.config for item in found]


STOOD_IN = r.StoodIn(
    code="sm_80",
    card="sm_90",
    limits=r.Limits(shared_per_sm=167936, registers_per_sm=65536, threads_per_sm=2048, blocks_per_sm=32),
)


@pytest.mark.parametrize(
    ("target", "order"),
    [
        ("sm_70", "sm_70 sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_103 sm_120 sm_121"),
        ("sm_80", "sm_80 sm_86 sm_89 sm_120 sm_121 sm_90 sm_100 sm_103 sm_75 sm_70"),
        ("sm_89", "sm_89 sm_86 sm_80 sm_120 sm_121 sm_90 sm_100 sm_103 sm_75 sm_70"),
        ("sm_90", "sm_90 sm_89 sm_86 sm_80 sm_100 sm_103 sm_120 sm_121 sm_75 sm_70"),
        ("sm_100", "sm_100 sm_103 sm_90 sm_89 sm_86 sm_80 sm_120 sm_121 sm_75 sm_70"),
        ("sm_120", "sm_120 sm_121 sm_89 sm_86 sm_80 sm_103 sm_100 sm_90 sm_75 sm_70"),
    ],
)
def test_the_same_instruction_is_nearest_then_a_matrix_unit_then_the_major_capability(target: str, order: str) -> None:
    """Then the distance of the capability's number decides, and of two as far the lower one."""
    wanted = get_target(target)
    assert [item.name for item in sorted(all_targets(), key=lambda other: nearness(wanted, other))] == order.split()


def test_the_choice_is_first_then_the_objective_decides() -> None:
    candidates = [A, B, C, D]
    # B is fastest by weight, A and C are slower; D is fast for 2048 but out of bound at 64.
    rows = times(64, 10.0, 10.5, 10.2, 20.0), times(2048, 40.0, 30.0, 31.0, 30.0)
    made = kernel(candidates, choice(*rows, chosen=2))
    assert ranked(made, made.choices[0], GOAL) == [C, B, A, D]
    assert ranked(made, replace(made.choices[0], chosen=1), replace(GOAL, bound=3.0)) == [B, C, D, A]


def test_rejected_unmeasured_and_wide_candidates_are_not_ranked() -> None:
    rows = times(64, 1.0, 2.0, None, 0.1), times(2048, 1.0, 2.0, 0.1, 0.1)
    rejected = (r.Rejected(candidate=0, tokens=None, reason="wrong numbers"),)
    made = kernel([A, B, C, D], choice(*rows, chosen=3, rejected=rejected, reference=1), offered=3)
    assert ranked(made, made.choices[0], GOAL) == [B]
    none = kernel([A, D], choice(times(64, None, 0.1), chosen=1), offered=1)
    assert ranked(none, none.choices[0], GOAL) == []


def test_the_nearest_measured_target_answers_with_a_note(tmp_path: Path) -> None:
    records.write(tmp_path, record(kernel([A, B, C], choice(times(64, 1.0, 2.0, 3.0), chosen=0)), target="sm_90"))
    records.write(tmp_path, record(kernel([A, B, C], choice(times(64, 3.0, 2.0, 1.0), chosen=2)), target="sm_80"))
    found = _transfer(tmp_path, "sm_89").suggest(KERNEL, KEY, [A, B, C])
    assert _configs(found) == [C, B, A]
    assert {item.provenance for item in found} == {"transferred"}
    device = "NVIDIA H100 80GB HBM3, driver 580.159.04"
    assert found[0].note == f"from sm_80 ({device}): its choice, rank 1 of 3 there"
    assert found[1].note == f"from sm_80 ({device}): rank 2 of 3 there"
    assert origin(found[0].note) == f"from sm_80 ({device})"
    assert _configs(_transfer(tmp_path, "sm_100").suggest(KERNEL, KEY, [A, B, C])) == [A, B, C]
    other = _transfer(tmp_path, "sm_89", "3.8.0").suggest(KERNEL, KEY, [A])
    assert other[0].note == f"from sm_80 ({device}, Triton 3.6.0): rank 3 of 3 there"


def test_only_what_the_provider_offers_for_the_target_is_transferred(tmp_path: Path) -> None:
    records.write(tmp_path, record(kernel([A, B, C], choice(times(64, 1.0, 2.0, 3.0)), offered=2)))
    transfer = _transfer(tmp_path, "sm_120")
    (found,) = transfer.suggest(KERNEL, KEY, [C, B])
    assert found.config == B
    assert "rank 2 of 2 there" in found.note
    assert transfer.suggest(KERNEL, KEY, [C]) == [], "C comes of a wide search"
    assert transfer.suggest("m:other", KEY, [A]) == []
    assert transfer.suggest(KERNEL, (1, *KEY), [A]) == []


def test_a_key_that_the_nearest_lacks_comes_from_the_next(tmp_path: Path) -> None:
    records.write(tmp_path, record(kernel([A, B], choice(times(64, 1.0, 2.0))), target="sm_90"))
    records.write(tmp_path, record(kernel([A, B], choice(times(64, 1.0, 2.0), key=(1,))), target="sm_80"))
    transfer = _transfer(tmp_path, "sm_86")
    assert transfer.suggest(KERNEL, KEY, [A])[0].note.startswith("from sm_90 (")
    assert transfer.suggest(KERNEL, (1,), [A])[0].note.startswith("from sm_80 (")


def test_keys_of_the_other_16_bit_type_serve_too(tmp_path: Path) -> None:
    half = tuple("torch.float16" if part == "torch.bfloat16" else part for part in KEY)
    records.write(tmp_path, record(kernel([A, B], choice(times(64, 2.0, 1.0), chosen=1))))
    (first, _) = _transfer(tmp_path, "sm_75").suggest(KERNEL, half, [A, B])
    assert first.config == B
    assert first.note.endswith("its choice, rank 1 of 2 there, for bfloat16")
    # The exact key of the same record is better, and the target's own record may serve its other type.
    rows = choice(times(64, 2.0, 1.0), chosen=1), choice(times(64, 1.0, 2.0), key=half)
    records.write(tmp_path, record(kernel([A, B], *rows)))
    (first, _) = _transfer(tmp_path, "sm_75").suggest(KERNEL, half, [A, B])
    assert (first.config, "bfloat16" in first.note) == (A, False)
    records.write(tmp_path, record(kernel([A, B], rows[0])))
    (own,) = _transfer(tmp_path, "sm_90").suggest(KERNEL, half, [A])
    assert (own.provenance, own.note.partition(" (")[0]) == ("transferred", "from sm_90")


@pytest.mark.parametrize(("proxy", "provenance"), [(None, "measured"), (STOOD_IN, "proxy")])
def test_what_the_target_itself_has_for_the_key_is_no_transfer(
    tmp_path: Path, proxy: r.StoodIn | None, provenance: str
) -> None:
    """And it may be what the provider does not offer, if that was traced: D, but not C."""
    made = record(kernel([A, B, C, D], choice(times(64, 3.0, 2.0, 0.9, 1.0), chosen=3), offered=2), target="sm_80")
    root = tmp_path / "proxy" if proxy else tmp_path
    records.write(root, replace(made, proxy=proxy) if proxy else made)
    found = _transfer(tmp_path, "sm_80").suggest(KERNEL, KEY, [A, B], [D])
    assert _configs(found) == [D, B, A]
    assert {item.provenance for item in found} == {provenance}
    where = "on NVIDIA H100 80GB HBM3, driver 580.159.04" + (", by proxy with PTX of sm_80" if proxy else "")
    assert [item.note for item in found] == [
        f"{where}: its choice, rank 1 of 4 there", f"{where}: rank 3 of 4 there", f"{where}: rank 4 of 4 there",
    ]  # fmt: skip
    near = _transfer(tmp_path, "sm_80").suggest(KERNEL, (32, *KEY[1:]), [A, B], [D])
    assert _configs(near) == [D, B, A], "from one key of the target to another, too"
    assert {item.provenance for item in near} == {"transferred"}
    (other, _) = _transfer(tmp_path, "sm_86").suggest(KERNEL, KEY, [A, B], [D])
    assert (other.config, other.provenance) == (B, "transferred"), "never to another target"


def test_a_near_key_of_the_same_instruction_is_before_the_very_key_of_another(tmp_path: Path) -> None:
    records.write(tmp_path, record(kernel([A, B], choice(times(64, 1.0, 2.0))), target="sm_90"))
    near = choice(times(64, 2.0, 1.0), key=(32, *KEY[1:]), chosen=1)
    records.write(tmp_path, record(kernel([A, B], near), target="sm_86"))
    for target, source, first in (("sm_80", "sm_86", B), ("sm_120", "sm_86", B), ("sm_100", "sm_90", A)):
        found = _transfer(tmp_path, target).suggest(KERNEL, KEY, [A, B])
        assert (found[0].config, found[0].note.split()[1]) == (first, source)
    own = choice(times(64, 1.0, 2.0, 0.5), key=(64, *KEY[1:]), chosen=2)
    records.write(tmp_path, record(kernel([A, B, C], own), target="sm_80"))
    found = _transfer(tmp_path, "sm_80").suggest(KERNEL, (32, *KEY[1:]), [A, B, C])
    assert found[0].config == C, "a near key of the target itself is before the very key of another"


def test_what_another_card_did_by_proxy_is_asked_after_the_targets_own(tmp_path: Path) -> None:
    """Of each target: so a proxy of the nearest is before what the card of the next one measured."""
    proxy = record(kernel([A, B], choice(times(64, 2.0, 1.0), chosen=1)), target="sm_86", proxy=STOOD_IN)
    records.write(tmp_path / "proxy", proxy)
    records.write(tmp_path, record(kernel([A, B], choice(times(64, 1.0, 2.0))), target="sm_89"))

    def first(target: str) -> tuple[r.Config, str, str]:
        found = _transfer(tmp_path, target).suggest(KERNEL, KEY, [A, B])[0]
        return found.config, found.provenance, found.note.partition(" (")[0].partition(" NVIDIA")[0]

    assert first("sm_80") == (B, "transferred", "from sm_86")
    assert first("sm_86") == (B, "proxy", "on")
    records.write(tmp_path, record(kernel([A, B], choice(times(64, 1.0, 2.0))), target="sm_86"))
    assert first("sm_80") == (A, "transferred", "from sm_86")
    assert first("sm_86") == (A, "measured", "on")
    lacking = record(kernel([A, B], choice(times(64, 1.0, 2.0), key=(32, *KEY[1:]))), target="sm_86")
    records.write(tmp_path, lacking)
    assert first("sm_86") == (B, "proxy", "on"), "the proxy has the very key, the card another"


def test_what_a_second_gpu_measured_is_asked_after_the_first_and_before_a_proxy(tmp_path: Path) -> None:
    """It serves keys that the first lacks, and those alone; notes say which GPU it was."""
    h200 = RecordedDevice(name="NVIDIA H200", driver="1")
    missing = (32, *KEY[1:])
    rows = choice(times(64, 2.0, 1.0), chosen=1), choice(times(64, 2.0, 1.0), key=missing, chosen=1)
    proxy = record(kernel([A, B], *rows), target="sm_90", proxy=STOOD_IN)
    records.write(tmp_path / r.PROXY, proxy)
    records.write(tmp_path / r.SECOND, replace(record(kernel([A, B], *rows), target="sm_90"), device=h200))
    records.write(tmp_path, record(kernel([A, B], choice(times(64, 1.0, 2.0))), target="sm_90"))
    transfer = _transfer(tmp_path, "sm_90")
    found = [transfer.suggest(KERNEL, key, [A, B])[0] for key in (KEY, missing)]
    assert _configs(found) == [A, B]
    assert [one.provenance for one in found] == ["measured", "measured"]
    first = "NVIDIA H100 80GB HBM3"
    assert [origin(one.note) for one in found] == [f"on {first}, driver 580.159.04", "on NVIDIA H200, driver 1"]
    assert [one.device.name for one in transfer.own()] == [first, "NVIDIA H200", first]


def test_a_key_that_differs_in_one_size_or_type_serves_where_none_is_the_same(tmp_path: Path) -> None:
    measured = (16, 32, False, "torch.bfloat16")
    rows = choice(times(64, 1.0, 2.0), key=measured), choice(times(64, 2.0, 1.0), key=(64, *measured[1:]), chosen=1)
    records.write(tmp_path, record(kernel([A, B], *rows)))
    for target in ("sm_90", "sm_120"):
        transfer = _transfer(tmp_path, target)
        first = transfer.suggest(KERNEL, (24, *measured[1:]), [A, B])[0]
        assert (first.config, first.provenance) == (A, "transferred")
        assert first.note.endswith("its choice, rank 1 of 2 there, for 16 instead of 24")
        assert transfer.suggest(KERNEL, (48, *measured[1:]), [A, B])[0].config == B
        (typed, _) = transfer.suggest(KERNEL, (*measured[:3], "torch.float32"), [A, B])
        assert typed.note.endswith("for bfloat16 instead of float32")
        assert transfer.suggest(KERNEL, (24, 40, *measured[2:]), [A]) == [], "two sizes, by two factors"
        assert transfer.suggest(KERNEL, (16, 32, True, "torch.bfloat16"), [A]) == [], "a flag"
        assert transfer.suggest(KERNEL, measured[1:], [A]) == []


def test_of_keys_that_differ_in_several_sizes_those_by_one_factor_serve(tmp_path: Path) -> None:
    """As those of a model that is divided among cards: the nearest by the factor, but one size alone is nearer."""
    whole, half, quarter = (64, 32, "torch.bfloat16"), (32, 16, "torch.bfloat16"), (16, 8, "torch.bfloat16")
    far = choice(times(64, 1.0, 2.0, 3.0), key=quarter)
    near = choice(times(64, 2.0, 1.0, 3.0), key=half, chosen=1)
    records.write(tmp_path, record(kernel([A, B, C], far, near)))
    transfer = _transfer(tmp_path, "sm_120")
    found = transfer.suggest(KERNEL, whole, [A, B, C])
    assert found[0].config == B
    assert found[0].note.endswith("its choice, rank 1 of 3 there, for 32/16 instead of 64/32")
    assert transfer.suggest(KERNEL, (8, 4, "torch.bfloat16"), [A, B, C])[0].config == A
    assert transfer.suggest(KERNEL, (64, 64, "torch.bfloat16"), [A, B, C]) == [], "two factors"
    assert transfer.suggest(KERNEL, (64, 32, "torch.float32"), [A, B, C]) == [], "sizes and a number type"
    one = choice(times(64, 3.0, 2.0, 1.0), key=(512, *whole[1:]), chosen=2)
    records.write(tmp_path, record(kernel([A, B, C], far, near, one)))
    assert _transfer(tmp_path, "sm_120").suggest(KERNEL, whole, [A, B, C])[0].config == C


def test_a_broken_record_is_an_error_only_where_it_is_asked(tmp_path: Path) -> None:
    records.write(tmp_path, record(kernel([A], choice(times(64, 1.0))), target="sm_80"))
    far = records.write(tmp_path, record(target="sm_90"))
    far.write_text('{"format": 2}')
    transfer = _transfer(tmp_path, "sm_86")
    assert _configs(transfer.suggest(KERNEL, KEY, [A])) == [A]
    with pytest.raises(UsageError) as caught:
        transfer.suggest(KERNEL, (1,), [A])
    assert str(far) in caught.value.message
    assert "format: 2 is not a known format version, only 1 is" in caught.value.message


def _of_vllm(version: str, best: r.Config) -> r.TuningRecord:
    provider = RecordedProvider(name="vllm", distribution="vllm", version=version)
    return record(kernel([A, B], choice(times(64, 1.0, 1.0), chosen=[A, B].index(best))), provider=provider)


def test_a_record_of_a_version_with_the_same_source_counts_as_its_own(tmp_path: Path) -> None:
    """What vLLM 0.24.0 measured is measured of 0.23.0 and of local versions, too."""
    records.write(tmp_path, _of_vllm("0.24.0", B))
    for version in ("0.24.0", "0.23.0", "0.23.0+cu129"):
        transfer = Transfer(tmp_path, get_target("sm_90"), "vllm", version)
        first, *_ = transfer.suggest(KERNEL, KEY, [A, B])
        assert (first.config, first.provenance, len(transfer.own())) == (B, "measured", 1)


def test_a_record_of_another_release_is_transferred_where_there_is_none_of_its_own(tmp_path: Path) -> None:
    """The nearest release first, before other targets of those that are farther, and never another target's first."""
    records.write(tmp_path, _of_vllm("0.24.0", B))
    records.write(tmp_path, _of_vllm("0.20.2", A))
    transfer = Transfer(tmp_path, get_target("sm_90"), "vllm", "0.25.1")
    first, *_ = transfer.suggest(KERNEL, KEY, [A, B])
    assert (first.config, first.provenance, transfer.own()) == (B, "transferred", [])
    assert origin(first.note) == "from sm_90 (NVIDIA H100 80GB HBM3, driver 580.159.04, vllm 0.24.0)"
    own = record(
        kernel([A, B], choice(times(64, 1.0, 1.0), chosen=0)),
        target="sm_80",
        provider=RecordedProvider(name="vllm", distribution="vllm", version="0.25.1"),
    )
    records.write(tmp_path, own)
    first, *_ = Transfer(tmp_path, get_target("sm_90"), "vllm", "0.25.1").suggest(KERNEL, KEY, [A, B])
    assert (first.config, origin(first.note)) == (A, "from sm_80 (NVIDIA H100 80GB HBM3, driver 580.159.04)")
    first, *_ = Transfer(tmp_path, get_target("sm_90"), "vllm", "9.9.9").suggest(KERNEL, KEY, [A, B])
    assert origin(first.note).endswith("vllm 0.25.1)"), "a version that is not known is taken for the latest"
    assert Transfer(tmp_path, get_target("sm_90"), "org/name", "9.9.9").suggest(KERNEL, KEY, [A, B]) == []


def test_records_of_unknown_versions_and_targets_are_not_asked(tmp_path: Path) -> None:
    made = record(kernel([A], choice(times(64, 1.0))))
    for name in ("sm_90/fla-core-0.5.9.json", "sm_90/vllm-0.6.0.json", "sm_91/fla-core-0.6.0.json", "notes.txt"):
        r.save(made, tmp_path / name)
    assert _transfer(tmp_path, "sm_80").suggest(KERNEL, KEY, [A]) == []
    assert _transfer(tmp_path / "none", "sm_80").suggest(KERNEL, KEY, [A]) == []
    assert _transfer(None, "sm_80").suggest(KERNEL, KEY, [A]) == []


def test_a_record_in_the_folder_of_another_target_is_refused(tmp_path: Path) -> None:
    r.save(record(kernel([A], choice(times(64, 1.0))), target="sm_90"), tmp_path / "sm_80/fla-core-0.6.0.json")
    with pytest.raises(UsageError, match="target: 'sm_90' is not 'sm_80'"):
        _transfer(tmp_path, "sm_86").suggest(KERNEL, KEY, [A])


@pytest.mark.parametrize("note", ["", "lowest score", "2 candidates before it do not fit: A needs: much", "online: x"])
def test_notes_without_an_origin(note: str) -> None:
    assert origin(note) == ""
