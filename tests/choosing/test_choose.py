"""Choosing: which candidate an autotune key gets, from outcomes made by hand."""

from collections.abc import Callable, Sequence

import pytest
from traces import make_trace

from gdn_aot.catalogue.targets import get_target
from gdn_aot.choosing.choose import Choices, Chooser, misfit
from gdn_aot.errors import UsageError
from gdn_aot.launches import CompiledKernel, Config, Outcome, Scalar
from gdn_aot.records.tuning import TunedChoice, TuningTable
from gdn_aot.tracing import wide
from gdn_aot.tracing.records import Trace, Tuning

Suggest = Callable[..., list[TunedChoice]]
SM_75 = get_target("sm_75")
KEY = (16, "torch.bfloat16")
ODD = Config(kwargs=(("BV", 64),), num_warps=4, num_stages=77)
A, B, C, SMALLER = (Config(kwargs=(("BV", size),), num_warps=4, num_stages=2) for size in (128, 64, 32, 16))


def _fits(shared: int = 1024, *, warps: int = 4, registers: int = 64) -> Outcome:
    return Outcome(
        object=CompiledKernel(cubin="c", metadata={"shared": shared, "num_warps": warps}, registers=registers, local=0)
    )


FITS = _fits()
TOO_BIG = _fits(70000)


def _trace(candidates: list[Config], *, derived: int = 0, variants: int = 1, plain: int = 0) -> Trace:
    """One autotune key of kernel m:k, whose candidate c in variant v is launch ``v * 10 + c``; plain ones from 90."""
    last = max((variants - 1) * 10 + len(candidates), 90 + plain if plain else 0)
    tuning = Tuning(
        kernel=0,
        key=KEY,
        candidates=candidates,
        derived=derived,
        variants=[[v * 10 + c for c in range(len(candidates))] for v in range(variants)],
        users=[{(0, 0)}] * variants,
    )
    return make_trace(
        ("k", "p"), [int(index >= 90) for index in range(last)], [tuning], {90 + p: {(0, 0)} for p in range(plain)}
    )


def _choose(
    trace: Trace, outcomes: dict[int, Outcome], table: TuningTable | None = None, suggest: Suggest | None = None
) -> tuple[Choices, list[int]]:
    """Drive a chooser to its end. Returns what it chose, and the launches it had compiled, in order."""
    chooser = Chooser(trace, SM_75, table or {}, suggest)
    asked: list[int] = []
    pending = list(chooser.wanted())
    while pending:
        launch = pending.pop(0)
        if launch not in asked:
            asked.append(launch)
            pending.extend(chooser.take(launch, outcomes[launch]))
    return chooser.result, asked


def _tuned(config: Config, provenance: str = "measured", *, wide: bool = False) -> TuningTable:
    return {("m:k", KEY): TunedChoice(config=config, provenance=provenance, note="3 runs", wide=wide)}


def _suggest(*configs: Config) -> Suggest:
    def suggest(kernel: str, key: tuple[Scalar, ...], offered: Sequence[Config]) -> list[TunedChoice]:
        assert (kernel, key) == ("m:k", KEY)
        assert SMALLER not in offered
        return [
            TunedChoice(config=config, provenance="transferred", note=f"from sm_90: {config}") for config in configs
        ]

    return suggest


_OTHERS = {("m:k", (17, "torch.bfloat16")): _tuned(C)["m:k", KEY], ("m:other", KEY): _tuned(C)["m:k", KEY]}
_BIG = "needs 70000 bytes of shared memory, sm_75 has 65536"


@pytest.mark.parametrize(
    ("fits", "table", "suggested", "expected", "asked"),
    [
        (0, {}, (), (A, "default", ""), [0]),
        (2, _tuned(C), (), (C, "measured", "3 runs"), [2]),
        (2, _tuned(C, "transferred"), (), (C, "transferred", "3 runs"), [2]),
        (0, _tuned(C), (), (A, "default", f"1 candidates before it do not fit: {C} {_BIG}"), [2, 0]),
        (0, _OTHERS, (), (A, "default", ""), [0]),
        (2, {}, (C, B), (C, "transferred", f"from sm_90: {C}"), [2]),
        (1, {}, (C, B), (B, "transferred", f"from sm_90: {B}; 1 candidates before it do not fit: {C} {_BIG}"), [2, 1]),
        (0, {}, (C, B), (A, "default", f"2 candidates before it do not fit: {C} {_BIG}"), [2, 1, 0]),
        (1, _tuned(B), (C,), (B, "measured", "3 runs"), [1]),
    ],
    ids=["the first", "measured", "recorded as transferred", "measured, too big", "of another key or kernel",
         "transferred", "the next transferred", "transferred, too big", "measured before transferred"],
)  # fmt: skip
def test_what_is_measured_comes_first_then_what_is_transferred_then_the_providers_own(
    fits: int, table: TuningTable, suggested: tuple[Config, ...], expected: tuple[Config, str, str], asked: list[int]
) -> None:
    """Only one candidate fits, and none after it is compiled."""
    outcomes = {index: FITS if index == fits else TOO_BIG for index in range(3)}
    result, tried = _choose(_trace([A, B, C, SMALLER], derived=1), outcomes, table, _suggest(*suggested))
    (chosen,) = result.chosen
    assert (chosen.config, chosen.provenance, chosen.note) == expected
    assert (chosen.launches, chosen.derived) == ([fits], False)
    assert tried == asked
    assert len(result.rejected) == len(asked) - 1
    assert (result.uncovered, result.failures) == ([], [])


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (_fits(65537), "needs 65537 bytes of shared memory, sm_75 has 65536"),
        (_fits(warps=33), "needs 1056 threads per block, sm_75 has 1024"),
        (_fits(warps=16, registers=136), "needs 69632 registers per block, sm_75 has 65536"),
        (Outcome(rejected="OutOfResources: tensor memory"), "was refused by the compiler: OutOfResources"),
    ],
    ids=["shared memory", "threads", "registers", "compiler"],
)
def test_what_does_not_fit_is_rejected_with_the_reason(outcome: Outcome, reason: str) -> None:
    result, asked = _choose(_trace([A, B, C]), {0: outcome, 1: FITS})
    assert asked == [0, 1]
    ((kernel, candidate, why),) = result.rejected
    assert (kernel, candidate) == ("m:k", str(A))
    assert reason in why
    (chosen,) = result.chosen
    assert (chosen.config, chosen.provenance) == (B, "default")
    assert "1 candidates before it do not fit" in chosen.note
    assert reason in chosen.note
    assert not result.failures


def test_the_limits_themselves_fit() -> None:
    full = _fits(65536, warps=32, registers=64)
    assert full.object is not None
    assert misfit(full.object, SM_75) is None


def test_a_candidate_must_fit_for_every_variant() -> None:
    outcomes = {0: FITS, 10: TOO_BIG, 20: FITS, 1: FITS, 11: FITS, 21: FITS}
    result, asked = _choose(_trace([A, B], variants=3), outcomes)
    (chosen,) = result.chosen
    assert chosen.config == B
    assert chosen.launches == [1, 11, 21]
    assert sorted(asked) == [0, 1, 10, 11, 20, 21]
    assert len(result.rejected) == 1


def test_the_next_candidate_is_asked_for_when_all_of_the_one_before_is_there() -> None:
    chooser = Chooser(_trace([A, B, C], variants=2), SM_75, {})
    assert list(chooser.wanted()) == [0, 10]
    list(chooser.take(0, TOO_BIG))
    assert list(chooser.take(10, FITS)) == [1, 11]


def test_outcomes_may_come_in_any_order() -> None:
    chooser = Chooser(_trace([A, B], variants=3), SM_75, {})
    assert list(chooser.wanted()) == [0, 10, 20]
    followed = [*chooser.take(20, FITS), *chooser.take(10, TOO_BIG), *chooser.take(0, FITS)]
    assert set(followed) == {1, 11, 21}
    for launch in (11, 21, 1):
        assert not list(chooser.take(launch, FITS))
    assert [chosen.config for chosen in chooser.result.chosen] == [B]


def test_derived_candidates_come_after_the_providers() -> None:
    result, _ = _choose(_trace([A, B, SMALLER], derived=1), {0: TOO_BIG, 1: TOO_BIG, 2: FITS})
    (chosen,) = result.chosen
    assert (chosen.config, chosen.derived, chosen.provenance) == (SMALLER, True, "default")
    result, asked = _choose(_trace([A, B, SMALLER], derived=1), {0: TOO_BIG, 1: FITS})
    assert [(chosen.config, chosen.derived) for chosen in result.chosen] == [(B, False)]
    assert asked == [0, 1]


def test_a_key_that_nothing_fits_is_listed_with_key_and_reason() -> None:
    result, _ = _choose(_trace([A, B]), {0: TOO_BIG, 1: _fits(66000)})
    assert not result.chosen
    ((kernel, reason, key),) = result.uncovered
    assert (kernel, key) == ("m:k", KEY)
    assert reason.startswith("no candidate fits: ")
    assert "needs 66000 bytes of shared memory, sm_75 has 65536" in reason
    assert [candidate for _, candidate, _ in result.rejected] == [str(A), str(B)]


def test_a_failure_is_recorded_and_the_next_candidate_tried() -> None:
    result, _ = _choose(_trace([A, B]), {0: Outcome(failed="signal SIGSEGV"), 1: FITS})
    assert [chosen.config for chosen in result.chosen] == [B]
    (failure,) = result.failures
    assert (failure.kernel, failure.candidate, failure.message) == ("m:k", str(A), "signal SIGSEGV")


def test_every_failure_is_recorded() -> None:
    outcomes = {index: Outcome(failed=f"broke {index}") for index in (0, 10, 1, 11, 90)}
    result, _ = _choose(_trace([A, B], variants=2, plain=1), outcomes)
    assert sorted(failure.message for failure in result.failures) == [f"broke {i}" for i in (0, 1, 10, 11, 90)]
    assert not result.chosen
    assert not result.plain


def test_kernels_without_autotuning() -> None:
    result, asked = _choose(_trace([A], plain=2), {0: FITS, 90: FITS, 91: TOO_BIG})
    assert result.plain == [90]
    ((kernel, reason, key),) = result.uncovered
    assert (kernel, key) == ("m:p", None)
    assert "needs 70000 bytes of shared memory" in reason
    assert set(asked) == {0, 90, 91}


@pytest.mark.parametrize(("block", "warps"), [(8, 4), (128, 8)])
def test_a_record_that_names_no_candidate_is_refused(block: int, warps: int) -> None:
    config = Config(kwargs=(("BV", block),), num_warps=warps, num_stages=2)
    with pytest.raises(UsageError) as caught:
        Chooser(_trace([A, B]), SM_75, _tuned(config))
    assert str(config) in caught.value.message
    assert "m:k" in caught.value.message


def test_a_wide_choice_is_taken_if_a_wide_search_makes_it_and_the_trace_has_it() -> None:
    beyond = wide.candidates([A, B], SM_75)[0]
    trace = _trace([A, B, beyond], derived=1)
    result, asked = _choose(trace, {2: FITS}, _tuned(beyond, wide=True))
    (chosen,) = result.chosen
    assert (chosen.config, chosen.provenance, chosen.derived) == (beyond, "measured", True)
    assert asked == [2]
    for table, candidates in (
        (_tuned(beyond, wide=True), _trace([A, B])),  # the trace lacks it
        (_tuned(beyond), trace),  # the record says that the provider offers it
        (_tuned(ODD, wide=True), trace),
        (_tuned(ODD, wide=True), _trace([A, B, ODD], derived=1)),  # no wide search makes it, though it was traced
    ):
        with pytest.raises(UsageError, match="is no candidate of it"):
            Chooser(candidates, SM_75, table)
