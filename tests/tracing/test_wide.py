"""Wide and relieved candidates: what is generated, its bounds, and in what order it is cut."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import make_wanted
from msgspec.structs import replace

from gdn_aot.catalogue.models import find_model
from gdn_aot.catalogue.providers import Limits
from gdn_aot.catalogue.targets import all_targets, get_target
from gdn_aot.compiling.client import Worker
from gdn_aot.launches import Config
from gdn_aot.tracing.records import Trace, Tuning
from gdn_aot.tracing.wide import MIN_BLOCK, MOST, beyond, candidates, covers, load, registers, relieved, searched

SM_70, SM_90 = get_target("sm_70"), get_target("sm_90")
_KKT = [Config(kwargs=(("BK", bk),), num_warps=warps, num_stages=3) for bk in (32, 64) for warps in (1, 2, 4)]
_OUT = [
    Config(kwargs=(("BK", size), ("BV", size)), num_warps=warps, num_stages=3)
    for size, warps in ((128, 8), (64, 4), (32, 2))
]
_CONFIGS = st.builds(
    lambda bk, bv, precision, warps, stages: Config(
        kwargs=(("BK", bk), ("P", precision), ("BV", bv)), num_warps=warps, num_stages=stages
    ),
    st.sampled_from([8, 16, 32, 64, 128, 512]),
    st.sampled_from([16, 100, 64]),
    st.sampled_from(["ieee", "tf32"]),
    st.sampled_from([1, 2, 4, 8, 32]),
    st.integers(1, 4),
)


def test_the_gain_known_for_kkt_solve_is_among_the_first() -> None:
    made = candidates(_KKT, SM_90)
    known = Config(kwargs=(("BK", 128),), num_warps=1, num_stages=3)
    assert known in made[:20]


def test_blocks_warps_and_stages_reach_so_far() -> None:
    made = [config for config in candidates(_KKT[:1], SM_90) if config.maxnreg is None]
    assert {dict(config.kwargs)["BK"] for config in made} == {16, 32, 64, 128}
    assert {config.num_warps for config in made} == {1, 2, 4, 8, 16}
    assert {config.num_stages for config in made} == {1, 2, 3, 4, 5}


def test_the_nearest_come_first_and_the_farthest_are_cut() -> None:
    made = candidates(_OUT, SM_90)
    assert len(made) == MOST
    assert made[0] == Config(kwargs=(("BK", 64), ("BV", 128)), num_warps=8, num_stages=3)
    assert Config(kwargs=(("BK", 16), ("BV", 256)), num_warps=16, num_stages=5) not in made


def test_caps_only_where_more_blocks_share_an_sm() -> None:
    offered = Config(kwargs=(), num_warps=8, num_stages=3)
    caps = [config.maxnreg for config in candidates([offered], SM_90) if config.maxnreg]
    assert caps == [128, 64, 48, 32]  # at 168 and 96 registers an SM holds as many blocks as at 255 and 128
    assert all(config.num_warps == 8 for config in candidates([offered], SM_90) if config.maxnreg)


def test_no_more_warps_than_offered_on_blackwell() -> None:
    assert max(config.num_warps for config in candidates(_KKT, get_target("sm_120"))) == 4


def test_two_stages_at_most_without_asynchronous_copies() -> None:
    offered = [Config(kwargs=(("BV", 32),), num_warps=4, num_stages=1)]
    assert {config.num_stages for config in candidates(offered, get_target("sm_75"))} == {1, 2}


def test_a_tile_that_shared_memory_cannot_hold_is_left_out() -> None:
    offered = [Config(kwargs=(("BK", 128), ("BV", 256)), num_warps=4, num_stages=1)]
    sizes = [dict(config.kwargs) for config in candidates(offered, get_target("sm_75"))]
    assert max(size["BK"] * size["BV"] * 2 for size in sizes) == 65536
    assert {"BK": 256, "BV": 256} in [dict(config.kwargs) for config in candidates(offered, SM_90)]


@pytest.mark.parametrize("kwargs", [(("BV", 100),), (("BIAS", True),), (("num", 64),), (("BT", "64"),)])
def test_what_is_no_block_keeps_its_value(kwargs: tuple[tuple[str, int], ...]) -> None:
    made = candidates([Config(kwargs=kwargs, num_warps=4, num_stages=2)], SM_90)
    assert made
    assert {config.kwargs for config in made} == {kwargs}


def test_what_a_record_names_comes_first_if_a_search_would_try_it() -> None:
    near, nearer = (Config(kwargs=(("BK", bk),), num_warps=1, num_stages=3) for bk in (256, 128))
    strange = Config(kwargs=(("BK", 96),), num_warps=1, num_stages=3)
    assert beyond(_KKT, [near, strange, nearer, _KKT[0]], "", SM_90) == [nearer, near]
    assert beyond(_KKT, [near], "relieved", SM_90) == [near, *relieved(_KKT, SM_90)]
    far = relieved(_OUT, SM_70)[-1]
    assert far not in candidates(_OUT, SM_70)
    assert beyond(_OUT, [far], "", SM_70) == [far]
    wide = beyond(_KKT, [near], "wide", SM_90)
    assert wide[0] == near
    assert sorted(map(str, wide)) == sorted(map(str, candidates(_KKT, SM_90)))
    assert beyond(_KKT, [], "", SM_90) == []


@given(st.lists(_CONFIGS, max_size=5), st.sampled_from(all_targets()))
def test_each_is_new_and_within_bounds(offered: list[Config], target: object) -> None:
    made = candidates(offered, target)  # type: ignore[arg-type]
    assert made == candidates(offered, target)  # type: ignore[arg-type]
    assert len(set(made)) == len(made) <= MOST
    assert not set(made) & set(offered)
    others = {config.kwargs[1] for config in offered}
    for config in made:
        assert [name for name, _ in config.kwargs] == ["BK", "P", "BV"]
        assert config.kwargs[1] in others
        assert 8 <= dict(config.kwargs)["BK"] <= 512
        assert 1 <= config.num_warps <= 32
        assert 1 <= config.num_stages <= 5


# Traces of the real provider under the stub, with and without candidates beyond its own


KKT, STATE, OUT = (
    "chunk_gated_delta_rule_fwd_kkt_solve_kernel",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "chunk_fwd_kernel_o",
)
KNOWN = Config(kwargs=(("BK", 128),), num_warps=1, num_stages=3)
"""Measured 6 % faster than the provider's best for kkt_solve on an H100."""


@pytest.fixture(scope="module")
def traced() -> Iterator[Callable[..., Trace]]:
    shape = find_model("qwen3.5-9b").shape(1)
    wanted = make_wanted([shape], ["transformers-prefill"], Limits(max_tokens=512, max_batch=1))
    with Worker("fla", SM_90) as worker:

        def traced(**options: object) -> Trace:
            return Trace.from_json(worker.trace(wanted, "12", **options))  # type: ignore[arg-type]

        yield traced


def _tunings(trace: Trace, kernel: str) -> list[Tuning]:
    found = [tuning for tuning in trace.tunings if trace.kernels[tuning.kernel].qualname == kernel]
    assert found
    return found


def test_wide_candidates_come_after_the_providers_own(traced: Callable[..., Trace]) -> None:
    plain, wide = traced(), traced(derive="wide")
    for kernel in (KKT, STATE, OUT):
        for before, after in zip(_tunings(plain, kernel), _tunings(wide, kernel), strict=True):
            assert before.derived == 0
            assert 0 < after.derived <= MOST
            assert after.candidates == before.candidates + candidates(before.candidates, SM_90)
            assert all(len(variant) == len(after.candidates) for variant in after.variants)
            assert all(len(set(variant)) == len(variant) for variant in after.variants)
    assert KNOWN in _tunings(wide, KKT)[0].candidates


def test_what_a_record_names_follows_the_providers_own(traced: Callable[..., Trace]) -> None:
    plain = traced()
    ((name, digest),) = {(kernel.name, kernel.digest) for kernel in plain.kernels if kernel.qualname == KKT}
    made = traced(extras={name: [KNOWN, replace(KNOWN, num_warps=64)]})
    own = _tunings(plain, KKT)[0].candidates
    assert [(tuning.candidates, tuning.derived) for tuning in _tunings(made, KKT)] == [
        ([*own, KNOWN], 1) for _ in _tunings(plain, KKT)
    ]
    assert all(tuning.derived == 0 for tuning in _tunings(made, STATE))
    tuning = _tunings(traced(extras={digest: [KNOWN]}, derive="relieved"), KKT)[0]
    assert tuning.candidates == [*own, KNOWN, *(config for config in relieved(own, SM_90) if config != KNOWN)]


# Relieved candidates: order, bounds, and that they ask for less


def test_what_keeps_the_blocks_comes_first() -> None:
    made = relieved([Config(kwargs=(("BV", 32),), num_warps=4, num_stages=2)], get_target("sm_80"))
    assert [(config.numbers["BV"], config.num_warps, config.num_stages) for config in made] == [
        (32, 4, 1), (32, 8, 2), (32, 8, 1), (32, 16, 2), (32, 16, 1),
        (16, 4, 2), (16, 4, 1), (16, 8, 2), (16, 8, 1), (16, 16, 2), (16, 16, 1),
    ]  # fmt: skip


def test_stages_are_left_out_where_they_pipeline_nothing() -> None:
    made = relieved([Config(kwargs=(("BV", 32),), num_warps=8, num_stages=3)], SM_70)
    assert [(config.numbers["BV"], config.num_warps, config.num_stages) for config in made] == [
        (32, 8, 1), (32, 16, 1), (16, 8, 1), (16, 16, 1),
    ]  # fmt: skip


def test_no_more_warps_than_offered_on_blackwell_to_relieve() -> None:
    assert {config.num_warps for config in relieved(_KKT, get_target("sm_100"))} == {1, 2, 4}


@pytest.mark.parametrize(
    "kwargs",
    [(("BV", 16),), (("BV", 100),), (("IS_VARLEN", 64),), (("num_heads", 64),), ()],
    ids=["smallest", "no power of two", "other keyword", "lower case", "nothing"],
)
def test_what_is_no_halvable_block_is_kept(kwargs: tuple[tuple[str, int], ...]) -> None:
    made = relieved([Config(kwargs=kwargs, num_warps=4, num_stages=1)], SM_90)
    assert [(config.kwargs, config.num_warps) for config in made] == [(kwargs, 8), (kwargs, 16)]


def test_other_options_are_kept() -> None:
    given_config = Config(kwargs=(("BV", 32),), num_warps=2, num_stages=2, num_ctas=1, maxnreg=96)
    assert {config.maxnreg for config in relieved([given_config], SM_90)} == {96}


@given(st.lists(_CONFIGS, max_size=4), st.sampled_from(all_targets()))
def test_each_is_new_and_asks_for_less(configs: list[Config], target: object) -> None:
    made = relieved(configs, target)  # type: ignore[arg-type]
    assert len(set(made)) == len(made)
    assert not set(made) & set(configs)
    assert set(made) <= set(searched(configs, target))  # type: ignore[arg-type]
    for config in made:
        assert any(covers(other, config) and config.num_warps >= other.num_warps for other in configs)
        assert config.num_stages >= 1
        assert all(
            value >= min(MIN_BLOCK, *(other.numbers[name] for other in configs))
            for name, value in config.numbers.items()
        )


def test_load_is_elements_per_register() -> None:
    tile = Config(kwargs=(("BK", 64), ("BV", 32)), num_warps=4, num_stages=1)
    assert registers(tile, SM_70) == 255
    assert load(tile, SM_70) == 64 * 32 / (128 * 256)
    many = replace(tile, num_warps=16)
    assert registers(many, SM_70) == 128
    assert registers(replace(many, maxnreg=96), SM_70) == 96
    assert load(many, SM_70) == 64 * 32 / (512 * 128)
