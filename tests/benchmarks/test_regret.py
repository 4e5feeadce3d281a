"""What choices cost, computed from records, and the page that is made of it."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from msgspec.structs import replace
from tuning_records import choice, config, kernel, record, times, write

sys.path.insert(0, str(ROOT / "benchmarks"))

import harness
from regret import figures, report

from gdn_aot.records import tuning as r

TUNING = ROOT / "artifacts/tuning"
RESULTS = harness.load(harness.RESULTS / "regret.json")
PAGE = (ROOT / "docs/explanation/choices.md").read_text()
DTYPES = ("torch.bfloat16",)
CANDIDATES = [config(32), config(64), config(128)]
H200 = replace(record().device, name="NVIDIA H200")


def small(*rows: r.Times, chosen: int = 1, heads: tuple[int, ...] = (16, 32), **more: object) -> r.TuningRecord:
    """Return a record of the kernels of one prompt, of models with these heads, with the same times for all."""
    made = []
    for name, begins in figures.FORWARD["fla"].items():
        key = (*begins(*heads, 128, 128), 64, *DTYPES)
        packed = choice(*rows, key=(*key, "torch.int32"), chosen=chosen, call="transformers-prefill(packed)")
        dense = choice(*rows, key=key, chosen=chosen)
        made.append(kernel(CANDIDATES, packed, dense, name=f"fla.{name}"))
    return record(*made, **more)


ROWS = (times(64, 10, 20, 30), times(2048, 100, 50, 80))


def test_the_regret_of_each_choice(tmp_path: Path) -> None:
    """The first is the default and the best at 64 tokens, the second is chosen, the record of sm_80 has the third."""
    write(tmp_path, small(*ROWS))
    write(tmp_path, small(times(64, 3, 2, 1), times(2048, 3, 2, 1), chosen=2, target="sm_80"))
    results = figures.measure(tmp_path)
    (ampere, hopper) = results["targets"]
    assert [(one["target"], one["own"]) for one in (ampere, hopper)] == [("sm_80", "measured"), ("sm_90", "measured")]
    expected = {
        "measured": (1.0, 0.0),
        "transferred": (2.0, 0.6),
        "default": (0.0, 1.0),
        "64 tokens": (0.0, 1.0),
    }
    for name, (short, long) in expected.items():
        rows = hopper["choices"][name]
        assert rows["64"] == {"count": 10, "median": short, "p90": short, "max": short}
        assert rows["2048"] == {"count": 10, "median": long, "p90": long, "max": long}
        assert rows["all"]["count"] == 20
        prompt = hopper["forward"]["16 32 128 128"]
        assert prompt["regret"][name] == {"64": short, "2048": long}
    assert prompt["best_us"] == {"64": 50, "2048": 250}
    assert "qwen3.5-9b" in prompt["models"]
    assert results["expected"]["transferred"] == {"targets": 2, "count": 2, "median": 0.8, "p90": 1.0, "max": 1.0}


def test_a_kernel_counts_by_its_time(tmp_path: Path) -> None:
    made = small(*ROWS)
    first, *rest = made.kernels
    slow = [replace(one, times=(times(64, 10, 20, 30), times(2048, 1000, 950, 80000))) for one in first.choices]
    write(tmp_path, replace(made, kernels=(replace(first, choices=tuple(slow)), *rest)))
    (found,) = figures.measure(tmp_path)["targets"]
    assert "transferred" not in found["choices"], "there is no record of another target"
    assert found["forward"]["16 32 128 128"]["regret"]["default"]["2048"] == round(1400 / 1150 - 1, 4)


def test_rejected_and_unmeasured_candidates_are_no_choices(tmp_path: Path) -> None:
    rows = (times(64, 10, 20, 30), times(2048, None, 50, 80))
    write(tmp_path, small(*rows))
    (found,) = figures.measure(tmp_path)["targets"]
    assert found["choices"]["default"]["2048"]["max"] == 0
    assert found["choices"]["64 tokens"]["64"]["max"] == 0, "the best is not one that has no time elsewhere"


def test_what_a_build_would_not_take_for_what_it_spills_is_neither_default_nor_transferred(tmp_path: Path) -> None:
    """The provider offers the first two, which spill; without a sound one of its own the next is the default."""
    write(tmp_path, small(*ROWS, chosen=0))
    made = small(*ROWS, target="sm_80")
    spills, sound = (r.Footprint(registers=255, shared=0, local=local, size=1) for local in (193, 192))

    def first_costs(*took: r.Footprint | None) -> tuple[float, float]:
        kernels = tuple(
            replace(one, offered=2, choices=tuple(replace(choice, resources=took) for choice in one.choices))
            for one in made.kernels
        )
        found = figures.of_target(replace(made, kernels=kernels), "measured", figures.read(tmp_path)["measured"])
        rows = (found["choices"][name]["2048"] for name in ("default", "transferred"))
        first, second = ((row["median"], row["max"]) for row in rows)
        assert {first[0], second[0]} == {first[1], second[1]}
        return first[0], second[0]

    assert first_costs(sound, sound, sound) == (1.0, 1.0), "100 us to 50"
    assert first_costs(spills, sound, sound) == (0.0, 0.0)
    assert first_costs(spills, spills, sound) == (0.6, 0.6), "80 us"
    with pytest.raises(KeyError):
        first_costs(spills, spills, spills)  # a build looks for others, of which there is no time


def test_models_that_are_held_out(tmp_path: Path) -> None:
    """The keys of 16 and 32 heads are taken from those of 16 and 64, which differ in one size."""
    here = small(*ROWS)
    other = small(times(64, 3, 2, 1), times(2048, 3, 2, 1), chosen=2, heads=(16, 64))
    pairs = zip(here.kernels, other.kernels, strict=True)
    both = [replace(one, choices=(*one.choices, *more.choices)) for one, more in pairs]
    found = figures.held_out(replace(here, kernels=tuple(both)))
    assert found["keys"] == found["known"] == 20
    assert found["regret"]["2048"]["max"] == 1.0, "50 us is the choice of the others: 2 us to 1"
    alone = figures.held_out(here)
    assert (alone["keys"], alone["known"]) == (10, 0)
    assert alone["regret"]["2048"]["max"] == 1.0, "the default"


def test_a_kernel_of_kda_with_the_name_of_one_of_gdn_is_none_of_its_prompts() -> None:
    """As vLLM's ``recompute_w_u_fwd_kernel``, whose key begins as that of Gated Delta Net."""
    gdn = small(*ROWS)
    rows = times(64, 1, 2, 9), times(2048, 1, 2, 9)
    kda = kernel(CANDIDATES, choice(*rows, key=(16, 32, 128, 128), chosen=2), name="fla.kda:recompute_w_u_fwd_kernel")
    both = replace(gdn, kernels=(kda, *gdn.kernels))
    sizes = (16, 32, 128, 128)
    assert figures.prompt_keys(both, sizes) == figures.prompt_keys(gdn, sizes) != []
    assert figures.held_out(both) == figures.held_out(gdn)
    assert figures.prompt_keys(replace(gdn, kernels=(kda, *gdn.kernels[:2], *gdn.kernels[3:])), sizes) == []


def test_pairs_are_compared_both_ways(tmp_path: Path) -> None:
    one = small(times(64, 20, 20, 30), times(2048, 100, 50, 80))
    two = small(times(64, 10, 20, 10), times(2048, 50, 60, 40), chosen=2, device=H200)
    first, second = (write(tmp_path / name, made) for name, made in (("a", one), ("b", two)))
    (pair,) = figures.measure(tmp_path / "none", [("two cards", first, second)])["pairs"]
    ours, theirs = pair["sides"]
    assert (ours["keys"], ours["device"], theirs["device"]) == (10, one.device.name, "NVIDIA H200")
    assert ours["regret"]["2048"]["median"] == 0.5, "64 by the first, 60 us to 40"
    assert theirs["regret"]["2048"]["median"] == 0.6, "128 by the second, 80 us to 50"


def test_what_a_build_ships_for_keys_that_the_record_has_and_lacks(tmp_path: Path) -> None:
    """The record has the first model, chosen is the second candidate; the judge times another model too."""
    write(tmp_path, small(*ROWS))
    known, lacking = small(*ROWS), small(times(64, 1, 3, 2), times(2048, 10, 15, 20), heads=(16, 64))
    pairs = zip(known.kernels, lacking.kernels, strict=True)
    both = [replace(one, choices=(*one.choices, *more.choices)) for one, more in pairs]
    found = figures.shipped(tmp_path, replace(known, kernels=tuple(both)))
    assert {kind: (row["keys"], row["untimed"]) for kind, row in found.items()} == {"own": (10, 0), "near": (10, 0)}
    assert found["own"]["regret"]["2048"]["max"] == 0
    assert found["near"]["regret"]["2048"]["median"] == 0.5, "15 us to 10"


def test_proxies_are_read_and_transferred_to_from_cards_alone(tmp_path: Path) -> None:
    write(tmp_path, small(*ROWS))
    for target in ("sm_80", "sm_89"):
        write(tmp_path / "proxy", small(*ROWS, chosen=0, target=target))
    results = figures.measure(tmp_path)
    assert [(one["target"], one["provenance"]) for one in results["records"]] == [
        ("sm_90", "measured"), ("sm_80", "proxy"), ("sm_89", "proxy"),
    ]  # fmt: skip
    assert set(results["targets"][1]["choices"]) == {"proxy", "transferred", "default", "64 tokens"}
    assert results["targets"][1]["choices"]["transferred"]["2048"]["max"] == 0, "from sm_90, not from sm_89"


def test_the_page_and_the_results_are_those_of_the_records() -> None:
    assert report.page(PAGE, RESULTS) == PAGE
    found = figures.read(TUNING)
    each = [(record, own) for own, records in found.items() for record in records]
    assert RESULTS["records"] == [figures.described(record, own) for record, own in each]
    place, (smallest, own) = min(enumerate(each), key=lambda item: len(item[1][0].kernels))
    computed = json.loads(json.dumps(figures.of_target(smallest, own, found["measured"])))
    assert RESULTS["targets"][place] == computed
    assert (harness.RESULTS / "regret.svg").is_file()


def test_a_page_without_a_place_for_a_table(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "docs/explanation/choices.md", tmp_path / "page.md")
    with pytest.raises(ValueError, match="the page has 0 places for the table 'pairs'"):
        report.page(PAGE.replace("<!-- pairs -->", ""), RESULTS)
