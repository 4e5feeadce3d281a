"""What whole calls take with the shipped choices, from records, and the table of the decision that is made of it."""

import json
import sys

import pytest
from helpers import ROOT
from msgspec.structs import replace
from tuning_records import choice, config, kernel, record, times

sys.path.insert(0, str(ROOT / "benchmarks"))

import harness
from regret import report, whole
from regret.whole import Traced

from gdn_aot.providers.workload import Call
from gdn_aot.records import tuning as r

RESULTS = harness.load(harness.RESULTS / "regret_whole.json")
DECISION = (ROOT / "docs/adr/0038-one-choice-for-every-length.md").read_text()
CANDIDATES = [config(32), config(64), config(128)]
SMALL, SPILLS = (r.Footprint(registers=9, shared=0, local=local, size=1) for local in (0, 193))
A, B = ("m:a", (1,)), ("m:b", (2,))


def measured(
    *rows: r.Times, chosen: int = 0, device: str = "", took: tuple[r.Footprint, ...] | None = None
) -> r.TuningRecord:
    """Return a record of key A, and of B, which has the first of these times alone."""
    made = [
        kernel(CANDIDATES, choice(*taken, key=key, chosen=chosen, resources=took), name=name)
        for (name, key), taken in ((A, rows), (B, rows[:1]))
    ]
    found = record(*made)
    return replace(found, device=replace(found.device, name=device)) if device else found


ROWS = (times(512, 12, 10, 8), times(2048, 50, 40, 60))


def test_the_choice_is_of_the_first_record_and_the_times_of_the_last_that_has_it() -> None:
    first = measured(times(512, 6, 5, 4), times(2048, 7, 5, 9), chosen=1, device="one")
    timed = whole.timing([first, measured(ROWS[0], chosen=2, device="two")])
    assert timed(A, 512) == (10, 8, 8, "two")
    assert timed(A, 2048) == (5, 5, 5, "one")
    assert (timed(B, 2048), timed(("m:a", (2,)), 512)) == (None, None)


def test_the_best_that_builds_ship_does_not_spill() -> None:
    timed = whole.timing([measured(*ROWS, took=(SMALL, SMALL, SPILLS))])
    assert timed(A, 512) == (12, 10, 8, record().device.name)
    derived = whole.timing([measured(*ROWS, took=(SPILLS, SMALL, SMALL))])
    assert derived(A, 512) is None, "a build ships another than the record's, of which there is no time"


def step(*calls: dict[tuple[str, tuple[int, ...]], int], heads: int = 4, tokens: int = 512) -> Traced:
    return Traced("prefill", f"of {heads}", 32 // heads, heads, tokens, calls)


def test_a_sum_has_each_launch_and_is_that_of_the_worst_call() -> None:
    one, two = measured(*ROWS, took=(SMALL, SMALL, SPILLS)), measured(times(512, 30, 20, 40))
    timed = whole.timing([replace(one, kernels=one.kernels[:1]), replace(two, kernels=two.kernels[1:])])
    (row,) = whole.sums([step({A: 1}, {A: 3, B: 1})], timed, "elsewhere")
    assert row["shipped"] == round(66 / 50, 4), "3 x 12 + 30 us to 3 x 10 + 20"
    assert row["all"] == 1.5, "12 us to 8, of A alone"
    assert (row["calls"], row["lacks"], row["elsewhere"]) == (2, [], ["a", "b"])


def test_a_kernel_without_a_time_is_named_and_a_second_one_is_too_many() -> None:
    timed = whole.timing([measured(*ROWS)])
    unknown = {("m:c", (place,)): 1 for place in range(2)}
    device = record().device.name
    rows = whole.sums(
        [step({A: 1, B: 1}, {A: 1}, {A: 1, **unknown}, {A: 1, B: 1, **unknown}, tokens=2048)], timed, device
    )
    assert [(row["lacks"], row["shipped"], row["elsewhere"]) for row in rows] == [
        (["b"], 1.25, []), ([], 1.25, []), (["c"], 1.25, []),
    ]  # fmt: skip


def test_times_of_a_key_without_heads_count_in_full_and_in_proportion() -> None:
    """Of 4 heads B is measured, at 20 us as fast as can be; of 1 head it would be 5."""
    one, two = measured(*ROWS), measured(times(512, 20, 20, 20))
    timed = whole.timing([replace(one, kernels=one.kernels[:1]), replace(two, kernels=two.kernels[1:])])
    big, small = whole.sums([step({B: 1}), step({A: 1, B: 1}, heads=1)], timed, "")
    assert (big["shipped"], small["shipped"]) == (1, round(17 / 13, 4)), "12 + 5 us to 8 + 5, not 32 to 28"


@pytest.mark.parametrize(
    ("arguments", "tokens", "usual"),
    [
        ({"groups": ((2, 0, 100, -1, 1), (1, 0, 300, -1, 1))}, 500, True),
        ({"packed": (204, 308), "batch": 1, "tokens": 0, "l2norm": True, "other": ("gate",)}, 512, True),
        ({"packed": None, "batch": 2, "tokens": 8, "l2norm": False, "other": ()}, 16, False),
        ({"packed": None, "batch": 1, "tokens": 8, "l2norm": True, "other": ("beta",)}, 8, False),
    ],
)
def test_what_is_known_of_a_call(arguments: dict[str, object], tokens: int, usual: bool) -> None:
    call = Call.of("prefill", **arguments)
    assert (whole.tokens_of(call), whole.is_usual(call)) == (tokens, usual)


def test_the_table_of_the_decision_is_that_of_the_results() -> None:
    assert report.decision(DECISION, RESULTS) == DECISION
    with pytest.raises(ValueError, match="has 0 places for the table 'whole'"):
        report.decision(DECISION.replace("<!-- whole -->", ""), RESULTS)


def test_the_results_are_those_of_the_record_and_of_what_fla_launches() -> None:
    name = "fla 0.6.0 sm_89"
    found = r.load(r.record_path(ROOT / "artifacts/tuning/proxy", "sm_89", "fla-core", "0.6.0"))
    assert found is not None
    computed = whole.of_records([found], ["kimi-linear-48b-a3b"], [1])
    assert json.loads(json.dumps(computed)) == RESULTS[name]


def test_what_the_sentences_of_the_decision_say() -> None:
    """Which kernels have times of an H100, which calls are left out, and where most is to be gained."""
    rows = RESULTS["fla 0.6.0 sm_90"]["rows"]
    states = "chunk_gated_delta_rule_fwd_kernel_h_blockdim64"
    assert {(row["model"], row["tp"]) for row in rows if states in row["elsewhere"]} == {
        ("kimi-linear-48b-a3b", tp) for tp in (4, 8, 16)
    }
    assert {name for row in rows for name in row["elsewhere"]} == {states, "l2norm_fwd_kernel"}
    assert not any(
        row["elsewhere"] for name, one in RESULTS.items() if name != "fla 0.6.0 sm_90" for row in one["rows"]
    )
    assert {row["tp"] for row in RESULTS["vllm 0.24.0 sm_90"]["rows"]} == {1, 2, 4, 8, 16}
    assert {row["tp"] for row in rows if row["workload"].startswith("layer")} == {1}
    every = [(row["shipped"], name, row["tokens"], row["tp"]) for name, one in RESULTS.items() for row in one["rows"]]
    assert [found[1:] for found in sorted(every)[-2:]] == [("vllm 0.24.0 sm_90", 512, tp) for tp in (8, 16)]
