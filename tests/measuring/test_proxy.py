"""A card that stands in for another target: whose code it runs, how full an SM gets, and what the record says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import simulated
from hypothesis import given
from hypothesis import strategies as st
from tuning_tasks import choices_of, quiet, recorded

from gdn_aot.artifact import elf
from gdn_aot.catalogue.targets import Target, all_targets, get_target
from gdn_aot.choosing.occupancy import blocks_per_sm, shared_for
from gdn_aot.compiling.proxy import proxy_for
from gdn_aot.errors import UsageError
from gdn_aot.launches import CompiledKernel
from gdn_aot.measuring import plan, tuner
from gdn_aot.measuring.cards import this_card
from gdn_aot.measuring.plan import TuneTask
from gdn_aot.measuring.process import PlannedBinary
from gdn_aot.records import merging
from gdn_aot.records import tuning as records

SM_90 = get_target("sm_90")


def kernel(registers: int = 32, shared: int = 0, warps: int = 4) -> CompiledKernel:
    return CompiledKernel(cubin="0" * 64, metadata={"shared": shared, "num_warps": warps}, registers=registers, local=0)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        *((name, name) for name in ("sm_70", "sm_75", "sm_80", "sm_86", "sm_89")),
        *((name, "sm_89") for name in ("sm_120", "sm_121")),
    ],
)
def test_the_card_runs_the_targets_own_code_or_that_of_the_same_instruction(target: str, code: str) -> None:
    assert proxy_for(get_target(target), SM_90).code.name == code


@pytest.mark.parametrize(("target", "card"), [("sm_90", "sm_100"), ("sm_100", "sm_103"), ("sm_103", "sm_120")])
def test_code_for_the_features_of_one_target_runs_on_no_newer_card(target: str, card: str) -> None:
    with pytest.raises(UsageError, match="does not run the PTX"):
        proxy_for(get_target(target), get_target(card))
    assert proxy_for(get_target("sm_120"), get_target("sm_121")).code.name == "sm_89"


@pytest.mark.parametrize("target", ["sm_100", "sm_103", "sm_90"])
def test_a_target_that_nothing_stands_in_for_is_refused(target: str) -> None:
    with pytest.raises(UsageError) as caught:
        proxy_for(get_target(target), SM_90)
    assert caught.value.hint


@given(
    st.sampled_from([target for target in all_targets() if target.capability < SM_90.capability]),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.integers(16, 255),
    st.integers(0, 65536),
)
def test_occupancy_is_held_to_that_of_the_target(target: Target, warps: int, registers: int, shared: int) -> None:
    made = kernel(registers, shared, warps)
    wanted = blocks_per_sm(made, target)
    if wanted < 1:
        return
    padded = shared_for(made, SM_90, wanted)
    assert shared <= padded <= SM_90.max_shared
    assert blocks_per_sm(made, SM_90, padded) == min(wanted, blocks_per_sm(made, SM_90))


def test_blocks_are_limited_by_threads_and_by_their_number() -> None:
    assert blocks_per_sm(kernel(registers=16, warps=8), get_target("sm_75")) == 4  # 1024 threads
    assert blocks_per_sm(kernel(registers=16, warps=1), get_target("sm_86")) == 16
    assert blocks_per_sm(kernel(registers=16, warps=1), get_target("sm_89")) == 24
    assert blocks_per_sm(kernel(registers=16, shared=30000, warps=1), get_target("sm_80")) == 5


def by_proxy(task: Callable[..., TuneTask], name: str) -> TuneTask:
    made, target = task(tokens=(64, 512, 2048)), get_target(name)
    return replace(
        made,
        job=replace(made.job, proxy=proxy_for(target, SM_90)),
        target=target,
        method=replace(made.method, target=name),
        path=records.record_path(made.path.parent.parent / records.PROXY, name, "fla-core", "0.6.0"),
    )


@pytest.mark.parametrize(("name", "code"), [("sm_80", "sm_80"), ("sm_120", "sm_89")])
def test_what_is_launched_is_the_targets_code_for_the_card(task: Callable[..., Any], name: str, code: str) -> None:
    wanted = by_proxy(task, name)
    prepared = plan.prepare(wanted, quiet)
    rows = [row for unit in prepared.units for kernels in unit.binaries.values() for row in kernels.values()]
    planned = [row for row in rows if isinstance(row, PlannedBinary)]
    assert len(planned) == len(rows) > 0
    cache = wanted.job.cache
    assert {elf.describe(cache.cubin(row.cubin)).arch for row in planned} == {90}
    own = [made for state in prepared.keys.values() for made in state.objects if made]
    assert {f"sm_{elf.describe(cache.cubin(made.cubin)).arch}" for made in own} == {code}
    assert f".target {code}" in cache.ptx(own[0].cubin)
    again = plan.prepare(wanted, quiet)
    assert again.compiled == 0


def test_the_record_says_who_stood_in_and_with_what_limits(task: Callable[..., Any]) -> None:
    wanted = by_proxy(task, "sm_86")
    done = tuner.tune(wanted, this_card(simulated.INFO, wanted.job.cache), quiet, pytest.fail)
    assert (done.missing, done.out, done.ended, done.dropped) == (0, 0, "", {})
    record = recorded(wanted)
    assert record.target == "sm_86"
    assert record.device.name == simulated.INFO.name
    assert record.proxy == records.StoodIn(
        code="sm_86",
        card="sm_90",
        limits=records.Limits(shared_per_sm=102400, registers_per_sm=65536, threads_per_sm=1536, blocks_per_sm=16),
    )
    assert choices_of(record)
    table = records.table(record)
    assert {choice.provenance for choice in table.values()} == {"proxy"}
    assert all("by proxy with PTX of sm_86: " in choice.note for choice in table.values())
    own = replace_proxy(record)
    with pytest.raises(UsageError, match="its proxy is"):
        merging.merge(record, own)


def replace_proxy(record: records.TuningRecord) -> records.TuningRecord:
    from msgspec import UNSET
    from msgspec.structs import replace as changed

    return changed(record, proxy=UNSET)
