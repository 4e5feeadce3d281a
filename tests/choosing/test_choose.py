"""Choosing: which candidate an autotune key gets, from outcomes made by hand."""

from collections.abc import Callable, Sequence

import pytest
from traces import make_kernel, make_trace

from gdn_aot.catalogue.targets import Target, get_target
from gdn_aot.choosing.choose import Choices, Chooser, misfit
from gdn_aot.errors import UsageError
from gdn_aot.launches import SOUND_LOCAL, CompiledKernel, Config, Outcome, Scalar
from gdn_aot.records.tuning import TunedChoice, TuningTable
from gdn_aot.tracing import wide
from gdn_aot.tracing.records import Trace, Tuning

Suggest = Callable[..., list[TunedChoice]]
SM_70, SM_75 = get_target("sm_70"), get_target("sm_75")
KEY = (16, "torch.bfloat16")
ODD = Config(kwargs=(("BV", 64),), num_warps=4, num_stages=77)
A, B, C, SMALLER = (Config(kwargs=(("BV", size),), num_warps=4, num_stages=2) for size in (128, 64, 32, 16))


def _fits(shared: int = 1024, *, warps: int = 4, registers: int = 64, local: int = 0) -> Outcome:
    metadata = {"shared": shared, "num_warps": warps}
    return Outcome(object=CompiledKernel(cubin="c", metadata=metadata, registers=registers, local=local))


def _spills(local: int) -> Outcome:
    return _fits(registers=255, local=local)


FITS, TOO_BIG = _fits(), _fits(70000)


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
    trace: Trace,
    outcomes: dict[int, Outcome],
    table: TuningTable | None = None,
    suggest: Suggest | None = None,
    *,
    final: bool = True,
    target: Target = SM_75,
) -> tuple[Choices, list[int]]:
    """Drive a chooser to its end. Returns what it chose, and the launches it had compiled, in order."""
    chooser = Chooser(trace, target, table or {}, suggest, final=final)
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
    def suggest(
        kernel: str, key: tuple[Scalar, ...], own: Sequence[Config], others: Sequence[Config], digest: str
    ) -> list[TunedChoice]:
        assert (kernel, key, digest) == ("m:k", KEY, make_kernel("k").digest)
        assert (SMALLER in own, others) == (False, [SMALLER])
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


def test_the_next_choices_of_a_record_follow_its_first_and_keep_its_provenance() -> None:
    """What is suggested may be what is measured, too, and what the provider does not offer."""
    own = [TunedChoice(config=config, provenance="proxy", note=f"on it: {config}") for config in (B, SMALLER, C)]
    trace = _trace([A, B, C, SMALLER], derived=1)

    def suggest(*_: object) -> list[TunedChoice]:
        return own

    result, asked = _choose(trace, {1: _spills(400), 3: FITS}, _tuned(B, "proxy"), suggest)
    (chosen,) = result.chosen
    assert (chosen.config, chosen.provenance, chosen.derived) == (SMALLER, "proxy", True)
    reason = f"{B} spills 400 bytes per thread, more than {SOUND_LOCAL}"
    assert chosen.note == f"on it: {SMALLER}; 1 candidates before it do not fit or are not sound: {reason}"
    assert asked == [1, 3]
    result, asked = _choose(trace, {1: TOO_BIG, 3: TOO_BIG, 2: TOO_BIG, 0: FITS}, _tuned(B, "proxy"), suggest)
    assert [(chosen.config, chosen.provenance) for chosen in result.chosen] == [(A, "default")]
    assert asked == [1, 3, 2, 0]


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


def test_a_choice_of_another_release_that_this_one_does_not_offer_is_passed_over() -> None:
    for config, chosen in ((ODD, A), (C, C)):
        tuned = TunedChoice(config=config, provenance="measured", note="there", wide=True, elsewhere=True)
        result, _ = _choose(_trace([A, B, C]), {0: FITS, 2: FITS}, {(make_kernel("k").digest, KEY): tuned})
        assert [one.config for one in result.chosen] == [chosen]


def _blocks(*sizes: int, warps: int = 4) -> list[Config]:
    return [Config(kwargs=(("BV", size),), num_warps=warps, num_stages=1) for size in sizes]


def test_a_candidate_at_the_bound_is_sound_and_one_beyond_it_is_not() -> None:
    result, asked = _choose(_trace([A, B]), {0: _spills(SOUND_LOCAL)})
    assert ([chosen.config for chosen in result.chosen], asked, result.spills) == ([A], [0], [])
    result, asked = _choose(_trace([A, B]), {0: _spills(SOUND_LOCAL + 1), 1: FITS})
    (chosen,) = result.chosen
    reason = f"{A} spills {SOUND_LOCAL + 1} bytes per thread, more than {SOUND_LOCAL}"
    assert (chosen.config, chosen.provenance) == (B, "default")
    assert chosen.note == f"1 candidates before it do not fit or are not sound: {reason}"
    assert result.rejected == [("m:k", str(A), reason)]
    assert (result.uncovered, result.spills) == ([], [])


@pytest.mark.parametrize("provenance", ["measured", "transferred"])
def test_what_a_record_names_is_chosen_only_if_it_is_sound(provenance: str) -> None:
    outcomes = {0: _spills(4000), 1: FITS, 2: FITS}
    assert _choose(_trace([A, B, C]), outcomes, _tuned(B, provenance))[1] == [1]
    result, asked = _choose(_trace([B, A, C]), {1: _spills(400), 0: FITS}, _tuned(A, provenance))
    assert [(chosen.config, chosen.provenance) for chosen in result.chosen] == [(B, "default")]
    assert asked == [1, 0]


def test_a_key_is_sound_only_if_every_launch_of_it_is() -> None:
    outcomes = {0: FITS, 10: _spills(200), 1: FITS, 11: FITS}
    assert [chosen.config for chosen in _choose(_trace([A, B], variants=2), outcomes)[0].chosen] == [B]


def test_what_would_still_need_more_than_its_registers_is_not_compiled() -> None:
    """By its local memory the first needs 6.5 times its registers: half and a quarter of its tile are too much."""
    result, asked = _choose(_trace(_blocks(256, 128, 64, 32, 16), derived=3), {0: _spills(22 * 255), 3: FITS})
    assert [chosen.config.numbers for chosen in result.chosen] == [{"BV": 32}]
    assert asked == [0, 3]


def test_what_was_put_off_is_tried_before_an_unsound_one_is_chosen() -> None:
    few, many = _blocks(32, 16, warps=4), _blocks(32, 16, warps=16)
    outcomes = {0: _spills(40000), 1: FITS}
    result, asked = _choose(_trace([few[0], few[1]]), outcomes)
    assert [chosen.config for chosen in result.chosen] == [few[1]]
    assert asked == [0, 1]
    outcomes = {0: _spills(40000), 1: _spills(9000), 2: _spills(30000), 3: _spills(300)}
    result, asked = _choose(_trace([*few, *many], derived=3), outcomes)
    (chosen,) = result.chosen
    assert (chosen.config, chosen.derived) == (many[1], True)
    assert chosen.note == "none is sound, this one spills least: 300 bytes per thread"
    assert asked[:2] == [0, 3]  # that with the fewest elements per thread is tried before what asks for as much as it
    assert 2 not in asked
    assert result.spills == [("m:k", str(many[1]), 300)]
    assert result.uncovered == []


def test_before_the_last_pass_a_key_without_a_sound_candidate_is_uncovered() -> None:
    result, asked = _choose(_trace([A, B]), {0: _spills(40000)}, final=False)
    assert (result.chosen, result.spills, asked) == ([], [], [0])
    assert [key for _, _, key in result.uncovered] == [KEY]


def test_more_warps_are_no_help_against_shared_memory() -> None:
    more = Config(kwargs=A.kwargs, num_warps=8, num_stages=2)
    result, asked = _choose(_trace([A, more, SMALLER], derived=2), {0: TOO_BIG, 2: FITS})
    assert [chosen.config for chosen in result.chosen] == [SMALLER]
    assert asked == [0, 2]


def test_a_kernel_without_autotuning_is_shipped_and_what_it_spills_is_said() -> None:
    result, _ = _choose(_trace([A], plain=2), {0: FITS, 90: _spills(3000), 91: _spills(100)})
    assert result.plain == [90, 91]
    assert result.spills == [("m:p", "its only configuration", 3000)]


def _keys(*keys: tuple[Scalar, ...]) -> Trace:
    """Several keys of kernel m:k with the candidates `_blocks` of 64, 32 and 16: those of key n are 10 n and so on."""
    tunings = [
        Tuning(
            kernel=0,
            key=key,
            candidates=_blocks(64, 32, 16),
            derived=1,
            variants=[[number * 10 + candidate for candidate in range(3)]],
            users=[{(0, 0)}],
        )
        for number, key in enumerate(keys)
    ]
    return make_trace(("k",), [0] * (10 * len(keys)), tunings, {})


def test_of_keys_that_differ_in_types_alone_one_goes_first_without_a_matrix_unit() -> None:
    trace = _keys((16, "torch.float16"), (16, "torch.float32"), (32, "torch.float16"))
    outcomes = {0: _spills(3000), 2: FITS, 12: FITS, 20: FITS}
    result, asked = _choose(trace, outcomes, target=SM_70)
    assert {chosen.tuning.key: chosen.config.numbers["BV"] for chosen in result.chosen} == {
        (16, "torch.float16"): 16, (16, "torch.float32"): 16, (32, "torch.float16"): 64,
    }  # fmt: skip
    assert asked == [0, 20, 2, 12]
    notes = {chosen.tuning.key: chosen.note for chosen in result.chosen}
    spilled = f"BV=64 num_warps=4 num_stages=1 spills 3000 bytes per thread, more than {SOUND_LOCAL}"
    assert notes[16, "torch.float32"] == f"by what was compiled for another key of these sizes: {spilled}"
    assert _choose(trace, {**outcomes, 10: FITS}, target=get_target("sm_80"))[1] == [0, 10, 20, 2]


def test_a_key_that_learnt_is_still_chosen_for_by_its_own_code() -> None:
    trace = _keys((16, "torch.float16"), (16, "torch.float32"))
    outcomes = {0: _spills(3000), 2: FITS, 12: _spills(200), 11: _spills(400), 10: FITS}
    result, asked = _choose(trace, outcomes, target=SM_70)
    assert asked == [0, 2, 12]  # the larger tiles ask for no less than the smallest, which spills
    assert result.spills == [("m:k", "BV=16 num_warps=4 num_stages=1", 200)]
    little = {0: _spills(200), 1: FITS, 10: FITS}
    assert _choose(trace, little, target=SM_70)[1] == [0, 1, 10]  # it spilled too little to be put off elsewhere


def test_what_is_measured_for_a_key_is_tried_whatever_another_key_spilled() -> None:
    trace = _keys((16, "torch.float16"), (16, "torch.bfloat16"))
    result, asked = _choose(
        trace, {0: _spills(3000), 2: FITS, 10: FITS}, _tuned(_blocks(64)[0]), target=SM_70
    )  # fmt: skip
    assert asked == [0, 10, 2]
    assert {chosen.provenance for chosen in result.chosen} == {"measured", "default"}


def test_all_keys_that_waited_are_uncovered_with_the_first_before_the_last_pass() -> None:
    trace = _keys((16, "torch.float16"), (16, "torch.float32"))
    result, asked = _choose(trace, {0: _spills(90000)}, target=SM_70, final=False)
    assert asked == [0]
    assert [key for _, _, key in result.uncovered] == [(16, "torch.float16"), (16, "torch.float32")]
