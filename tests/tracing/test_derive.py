"""Smaller candidates: order, bounds, and that they end."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdn_aot.launches import Config
from gdn_aot.tracing.wide import MIN_BLOCK, smaller

_CONFIGS = st.builds(
    lambda bk, bv, warps, stages: Config(kwargs=(("BK", bk), ("BV", bv)), num_warps=warps, num_stages=stages),
    st.sampled_from([16, 32, 64, 100, 128]),
    st.sampled_from([16, 32, 64]),
    st.sampled_from([2, 4, 8]),
    st.integers(1, 4),
)


def _area(config: Config) -> int:
    return math.prod(value for _, value in config.kwargs)


def test_fewer_stages_come_before_smaller_blocks() -> None:
    made = smaller([Config(kwargs=(("BV", 32),), num_warps=4, num_stages=3)])
    assert made == [
        Config(kwargs=(("BV", 32),), num_warps=4, num_stages=2),
        Config(kwargs=(("BV", 32),), num_warps=4, num_stages=1),
        Config(kwargs=(("BV", 16),), num_warps=4, num_stages=1),
    ]


def test_largest_block_is_halved_first() -> None:
    made = smaller([Config(kwargs=(("BK", 32), ("BV", 64)), num_warps=4, num_stages=1)])
    assert [dict(config.kwargs) for config in made[:2]] == [{"BK": 32, "BV": 32}, {"BK": 16, "BV": 64}]


@pytest.mark.parametrize(
    "kwargs",
    [(("BV", 16),), (("BV", 100),), (("IS_VARLEN", 64),), (("num_heads", 64),), ()],
    ids=["smallest", "no power of two", "other keyword", "lower case", "nothing"],
)
def test_what_is_no_halvable_block_is_kept(kwargs: tuple[tuple[str, int], ...]) -> None:
    assert smaller([Config(kwargs=kwargs, num_warps=4, num_stages=1)]) == []


def test_other_options_are_kept() -> None:
    given_config = Config(kwargs=(("BV", 32),), num_warps=2, num_stages=2, num_ctas=1, maxnreg=96)
    assert {(config.num_warps, config.maxnreg) for config in smaller([given_config])} == {(2, 96)}


@given(st.lists(_CONFIGS, max_size=4))
def test_each_is_new_smaller_and_above_the_least_block(configs: list[Config]) -> None:
    made = smaller(configs)
    assert len(set(made)) == len(made)
    assert not set(made) & set(configs)
    for config in made:
        assert any(
            _area(config) <= _area(other)
            and config.num_stages <= other.num_stages
            and config.num_warps == other.num_warps
            for other in configs
        )
        assert config.num_stages >= 1
        assert min(value for _, value in config.kwargs) >= MIN_BLOCK
