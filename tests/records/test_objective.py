"""The objective: bound, ties, and that neither order nor unit of the times decides."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdn_aot.errors import UsageError
from gdn_aot.records.objective import DEFAULT, NEAR, Decision, Objective, Sample, choose, parse

COUNTS = (64, 512, 2048)
_SAMPLE = st.builds(Sample, us=st.floats(1, 1000), noise=st.floats(0, 5))
_ANY_SAMPLE = st.none() | _SAMPLE | st.builds(Sample, us=st.sampled_from([math.nan, math.inf, 0.0]), noise=st.just(0.1))
_OBJECTIVE = st.builds(
    Objective, weights=st.fixed_dictionaries(dict.fromkeys(COUNTS, st.floats(0.01, 1))), bound=st.floats(1, 2)
)


def _table(sample: st.SearchStrategy[Sample | None]) -> st.SearchStrategy[dict[int, list[Sample | None]]]:
    return st.integers(1, 6).flatmap(
        lambda width: st.fixed_dictionaries(dict.fromkeys(COUNTS, st.lists(sample, min_size=width, max_size=width)))
    )


def _sizes(samples: dict[int, list[Sample | None]]) -> list[tuple[int, ...]]:
    """Unlike each other, and not in the order of the candidates."""
    return [(index * 7 % 5, index) for index in range(len(samples[64]))]


def _exact(rows: dict[int, list[float | None]], noise: float = 0.0) -> dict[int, list[Sample | None]]:
    return {
        tokens: [None if us is None else Sample(us, noise * us) for us in values] for tokens, values in rows.items()
    }


def _choose(rows: dict[int, list[float | None]], *, noise: float = 0.0, sizes: list[int] | None = None) -> Decision:
    width = len(next(iter(rows.values())))
    verdict = choose(_exact(rows, noise), [(size,) for size in sizes or range(width)], DEFAULT)
    assert isinstance(verdict, Decision)
    return verdict


def test_the_favoured_lengths_decide() -> None:
    verdict = _choose({64: [10, 10.9], 512: [20, 18], 2048: [50, 40]})
    assert verdict.chosen == 1
    assert verdict.worst == 1  # 64 tokens have less than a tenth of the weight
    assert verdict.regret == pytest.approx({64: 0.09, 512: 0, 2048: 0})
    assert verdict.ranking == (1, 0)


def test_if_none_is_within_the_bound_the_least_worst_ratio_decides() -> None:
    verdict = _choose({64: [10, 15], 2048: [60, 40]})
    assert (verdict.chosen, verdict.worst) == (0, 1.5)
    verdict = _choose({64: [10, 13], 2048: [60, 40]})
    assert verdict.chosen == 1
    assert "none stays within 1.10" in verdict.note


def test_what_is_near_the_best_at_every_length_comes_first() -> None:
    """Although another one is better on average."""
    verdict = _choose({64: [10, 10], 512: [100, 104], 2048: [102.5, 100], 8192: [102.5, 100], 32768: [100, 100]})
    assert verdict.chosen == 0
    assert verdict.worst == pytest.approx(1.025)
    assert verdict.score > 0.25 * 1.04 + 0.75


def test_lengths_of_little_weight_have_no_bound() -> None:
    """64 tokens have a twentieth; alone they have all."""
    rows: dict[int, list[float | None]] = {64: [10, 14], 512: [100, 90], 2048: [100, 90], 8192: [10, 9], 32768: [10, 9]}
    assert _choose(rows).chosen == 1
    assert _choose(rows).worst == 1
    assert _choose({64: [10, 14]}).chosen == 0


def test_ties_go_to_the_smaller_one() -> None:
    rows: dict[int, list[float | None]] = {512: [100.0, 101.0, 103.0]}
    assert _choose(rows, sizes=[3, 2, 1]).chosen == 0
    tied = _choose(rows, noise=0.008, sizes=[3, 2, 1])
    assert (tied.chosen, tied.tied) == (1, (0, 1))
    assert "smallest of 2" in tied.note
    assert _choose({512: [100.0, 100.4]}, sizes=[2, 1]).chosen == 1


def test_much_noise_gives_away_no_more_than_five_per_cent() -> None:
    assert _choose({512: [100.0, 106.0]}, noise=0.5, sizes=[2, 1]).chosen == 0
    assert _choose({512: [100.0, 102.9]}, noise=0.5, sizes=[2, 1]).chosen == 1
    assert _choose({64: [100.0, 104.0], 512: [104.0, 100.0]}, noise=0.5, sizes=[2, 1]).chosen == 1


@pytest.mark.parametrize("samples", [{}, {64: []}, {64: [None]}, {64: [Sample(math.nan, 0)]}, {64: [Sample(1, -1)]}])
def test_none_eligible(samples: dict[int, list[Sample | None]]) -> None:
    assert choose(samples, [(0,)] * len(samples.get(64, []))) is None


def test_rows_of_unequal_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 samples"):
        choose({64: [None]}, [(1,), (2,)])


@given(_table(_ANY_SAMPLE), _OBJECTIVE)
def test_what_was_not_measured_everywhere_is_never_chosen(
    samples: dict[int, list[Sample | None]], objective: Objective
) -> None:
    verdict = choose(samples, _sizes(samples), objective)
    eligible = [
        index
        for index in range(len(samples[64]))
        if all((sample := row[index]) is not None and sample.valid for row in samples.values())
    ]
    if verdict is None:
        assert eligible == []
    else:
        assert sorted(verdict.ranking) == eligible
        assert verdict.chosen in verdict.tied
        assert set(verdict.tied) <= set(eligible)
        assert verdict.worst >= 1
        assert max(verdict.regret.values()) + 1 >= verdict.score - 1e-9 >= 1 - 2e-9


@given(_table(_SAMPLE.map(lambda sample: Sample(sample.us, 0.0))), _OBJECTIVE)
def test_the_bound_holds_if_it_can(samples: dict[int, list[Sample | None]], objective: Objective) -> None:
    verdict = choose(samples, _sizes(samples), objective)
    assert isinstance(verdict, Decision)
    times = {tokens: [sample.us for sample in row if sample] for tokens, row in samples.items()}
    shares = objective.shares(COUNTS)
    bounded = [tokens for tokens in COUNTS if shares[tokens] >= 0.1]
    worst = [max(times[tokens][index] / min(times[tokens]) for tokens in bounded) for index in range(len(times[64]))]
    assert verdict.worst == worst[verdict.chosen]
    for most in (min(NEAR, objective.bound), objective.bound):
        if min(worst) <= most:
            assert verdict.worst <= most


@given(_table(_ANY_SAMPLE), _OBJECTIVE, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(
    samples: dict[int, list[Sample | None]], objective: Objective, random: object
) -> None:
    order = list(range(len(samples[64])))
    random.shuffle(order)  # type: ignore[attr-defined]
    sizes = _sizes(samples)
    shuffled = {tokens: [row[index] for index in order] for tokens, row in reversed(samples.items())}
    one = choose(samples, sizes, objective)
    other = choose(shuffled, [sizes[index] for index in order], objective)
    if one is None:
        assert other is None
    else:
        assert isinstance(other, Decision)
        assert order[other.chosen] == one.chosen
        assert sorted(order[index] for index in other.tied) == list(one.tied)
        assert (other.score, other.note) == (one.score, one.note)


@given(_table(_ANY_SAMPLE), _OBJECTIVE, st.integers(-8, 8))
def test_the_unit_of_the_times_does_not_matter(
    samples: dict[int, list[Sample | None]], objective: Objective, power: int
) -> None:
    scaled = {
        tokens: [sample and Sample(math.ldexp(sample.us, power), math.ldexp(sample.noise, power)) for sample in row]
        for tokens, row in samples.items()
    }
    assert choose(scaled, _sizes(samples), objective) == choose(samples, _sizes(samples), objective)


def test_shares_leave_out_renormalize_and_interpolate() -> None:
    assert DEFAULT.shares([512, 2048]) == pytest.approx({512: 25 / 55, 2048: 30 / 55})
    between = Objective({64: 0.1, 1024: 0.5}).shares([64, 256, 4096])
    assert between == pytest.approx({64: 0.1 / 0.9, 256: 0.3 / 0.9, 4096: 0.5 / 0.9})
    assert Objective({64: 0.0, 512: 1.0}).shares([16, 64]) == {16: 0.5, 64: 0.5}
    assert DEFAULT.shares([]) == {}


def test_weights_are_read() -> None:
    assert parse("64=0.1, 512=4e-1") == Objective({64: 0.1, 512: 0.4})


@pytest.mark.parametrize(
    "text", ["", "64", "64:1", "a=1", "64=b", "64=-1", "64=nan", "64=inf", "64=0", "0=1", "64=1,64=2", "64=1,", "64="]
)
def test_other_weights_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "\n" not in caught.value.hint


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="bound"):
        parse("64=1", bound=0.9)
