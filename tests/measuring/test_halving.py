"""Successive halving with a clock that stands still unless something is measured."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdn_aot.measuring.halving import halve


@dataclass
class Machine:
    """Measures candidates whose score is their index, or what ``scores`` says."""

    scores: dict[int, float | None] = field(default_factory=dict)
    cost: float = 0.01
    now: float = 1000.0
    rounds: list[tuple[tuple[int, ...], int]] = field(default_factory=list)

    def measure(self, candidates: tuple[int, ...], repetitions: int) -> dict[int, float | None]:
        self.rounds.append((candidates, repetitions))
        self.now += self.cost * len(candidates) * repetitions
        return {one: self.scores.get(one, float(one)) for one in candidates}

    def search(self, count: int, incumbent: int, budget: float, **options: float) -> tuple[int, ...]:
        return halve(range(count), incumbent, budget, self.measure, clock=lambda: self.now, **options)  # type: ignore[arg-type]


def test_the_better_half_is_measured_twice_as_often() -> None:
    machine = Machine()
    assert machine.search(32, incumbent=0, budget=100) == (0, 1, 2, 3)
    assert [(len(candidates), count) for candidates, count in machine.rounds] == [(32, 2), (16, 4), (8, 8), (4, 16)]


def test_the_incumbent_stays() -> None:
    machine = Machine()
    assert machine.search(32, incumbent=31, budget=100) == (0, 1, 2, 3, 31)
    assert all(31 in candidates for candidates, _ in machine.rounds)


def test_rejected_ones_are_not_measured_again() -> None:
    machine = Machine({0: None, 1: math.nan, 2: math.inf})
    assert machine.search(16, incumbent=0, budget=100)[0] == 3
    assert all(not {0, 1, 2} & {*candidates} for candidates, _ in machine.rounds[1:])


def test_a_short_budget_leaves_out_the_least_promising() -> None:
    machine = Machine()
    machine.search(100, incumbent=99, budget=0.5, cost=0.01)
    assert machine.rounds == [((99, *range(24)), 2)]


def test_time_that_runs_out_ends_it() -> None:
    machine = Machine()
    assert len(machine.search(32, incumbent=0, budget=0.7)) == 16
    assert [len(candidates) for candidates, _ in machine.rounds] == [32]


def test_without_time_only_the_incumbent_is_measured() -> None:
    machine = Machine()
    assert machine.search(8, incumbent=5, budget=0, cost=1) == (5,)
    assert machine.rounds == [((5,), 2)]


def test_all_rejected() -> None:
    assert Machine(dict.fromkeys(range(4))).search(4, incumbent=0, budget=10) == ()


@pytest.mark.parametrize(("incumbent", "first"), [(9, 2), (0, 0), (0, 17)])
def test_wrong_arguments(incumbent: int, first: int) -> None:
    with pytest.raises(ValueError, match=r"candidate|range"):
        Machine().search(4, incumbent, 1, first=first)


@given(
    st.lists(st.floats(1, 100), min_size=1, max_size=40, unique=True),
    st.randoms(use_true_random=False),
    st.floats(0, 20),
    st.integers(1, 4),
)
def test_it_ends_in_time_and_finds_the_best_it_measured(
    scores: list[float], random: object, budget: float, first: int
) -> None:
    incumbent = random.randrange(len(scores))  # type: ignore[attr-defined]
    machine = Machine(dict(enumerate(scores)))
    left = machine.search(len(scores), incumbent, budget, first=first, cost=machine.cost)
    assert machine.now - 1000 <= max(budget, first * machine.cost) + 1e-6
    measured = {one for candidates, _ in machine.rounds for one in candidates}
    assert measured == {*machine.rounds[0][0]}
    assert incumbent in left
    assert min(measured, key=lambda one: scores[one]) == left[0]
    assert [count for _, count in machine.rounds] == [
        min(first * 2**number, 16) for number in range(len(machine.rounds))
    ]
