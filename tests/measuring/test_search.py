"""Successive halving with a clock that stands still unless something is measured; leaving out by resources."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gdn_aot.catalogue.targets import get_target
from gdn_aot.choosing.occupancy import blocks_per_sm
from gdn_aot.launches import CompiledKernel, Config
from gdn_aot.measuring.halving import halve
from gdn_aot.measuring.prune import prune


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


# Leaving out by compiled resources


SM_90 = get_target("sm_90")
SM_75 = get_target("sm_75")
A, B, C, D = (Config(kwargs=(("BV", size),), num_warps=4, num_stages=3) for size in (32, 64, 128, 256))


def _object(cubin: str, *, shared: int = 4096, warps: int = 4, registers: int = 64, local: int = 0) -> CompiledKernel:
    return CompiledKernel(
        cubin=cubin, metadata={"shared": shared, "num_warps": warps}, registers=registers, local=local
    )


def test_what_does_not_fit_goes_even_if_it_is_the_providers() -> None:
    found = prune({A: _object("a", shared=300_000), B: _object("b", warps=16, registers=255)}, SM_90, [A])
    assert "300000 bytes of shared memory" in found[A]
    assert "registers per block" in found[B]


def test_registers_are_rounded_up_for_occupancy() -> None:
    assert blocks_per_sm(_object("a", warps=8, registers=249), SM_90) == 1
    assert blocks_per_sm(_object("a", warps=8, registers=64), SM_90) == 4
    assert blocks_per_sm(_object("a", shared=0, registers=0), SM_75) == 8
    assert blocks_per_sm(_object("a", shared=SM_90.max_shared), SM_90) == 1
    found = prune({A: _object("a", warps=16, registers=121)}, SM_90, [])
    assert found == {}  # 128 registers of 512 threads fill an SM
    assert blocks_per_sm(_object("a", warps=32, registers=66), SM_90) == 0


def test_more_spills_than_the_providers_go() -> None:
    objects = {
        A: _object("a", local=16),
        B: _object("b", local=64),
        C: _object("c", local=32),
        D: _object("d", local=8),
    }
    assert list(prune(objects, SM_90, [A, B])) == [C]
    assert "32 bytes" in prune(objects, SM_90, [A, B])[C]
    assert prune(objects, SM_90, []) == {}


def test_of_equal_binaries_the_first_stays() -> None:
    fewer = replace(A, num_stages=1)
    assert prune({A: _object("a"), fewer: _object("a")}, SM_90, [A, fewer]) == {
        fewer: "compiles to the same binary as BV=32 num_warps=4 num_stages=3"
    }
    assert prune({A: _object("a"), B: _object("a")}, SM_90, [A]) == {}  # the grid may differ
    assert prune({A: _object("a"), fewer: _object("a", shared=8192)}, SM_90, [A]) == {}


def test_one_that_does_not_fit_is_no_measure_for_the_others() -> None:
    objects = {A: _object("a", shared=300_000), B: _object("b", local=8), C: _object("c", local=4)}
    assert list(prune(objects, SM_90, [A, B])) == [A]
