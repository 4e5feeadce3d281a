"""Candidates of sm_70, where FLA's own spill: what is derived, compiled by the real compiler, and chosen."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from jobs import make_job
from msgspec.structs import replace

from gdn_aot.building import pipeline
from gdn_aot.catalogue.models import find_model
from gdn_aot.catalogue.providers import Limits
from gdn_aot.catalogue.targets import get_target
from gdn_aot.choosing.choose import Choices
from gdn_aot.choosing.known import Known
from gdn_aot.compiling.compilation import Compilation
from gdn_aot.compiling.executor import Compiling
from gdn_aot.launches import SOUND_LOCAL, Config, Key
from gdn_aot.records.tuning import TunedChoice
from gdn_aot.tracing.records import Trace

SM_70 = get_target("sm_70")
OUT, KKT = "chunk_fwd_kernel_o", "chunk_gated_delta_rule_fwd_kkt_solve_kernel"
_NAMED = {
    OUT: Config(kwargs=(("BK", 32), ("BV", 32)), num_warps=2, num_stages=3),
    KKT: Config(kwargs=(("BK", 32),), num_warps=1, num_stages=3),
}
"""What a record of a target with matrix units might name: fewest warps, so that compiling them here takes seconds."""


def _suggest(
    kernel: str, _key: Key, _own: Sequence[Config], _others: Sequence[Config], _digest: str
) -> list[TunedChoice]:
    return [TunedChoice(config=_NAMED[kernel.partition(":")[2]], provenance="transferred", note="from sm_90")]


@pytest.fixture(scope="module")
def workshop(session_home: Path) -> Iterator[tuple[pipeline.Job, pipeline.LazyWorker, Compiling]]:
    shape, limits = find_model("qwen3.5-9b").shape(1), Limits(max_tokens=512, max_batch=1)
    workloads = ["transformers-prefill"]
    job = make_job(
        session_home / "build", session_home, shapes=[shape], workloads=workloads, limits=limits, fp16_fallback=True
    )
    with ExitStack() as stack:
        lazy = pipeline.LazyWorker(stack, job.wanted.provider, SM_70)
        trace = pipeline.traced(job, SM_70, lazy.get)
        workers = job.executor.compiling(pipeline.order(job, SM_70, trace), lazy.get)
        yield job, lazy, stack.enter_context(workers)


def _one_key(trace: Trace, kernel: str) -> Trace:
    """Leave the first autotune key of one kernel, and nothing else."""
    kept = next(tuning for tuning in trace.tunings if trace.kernels[tuning.kernel].qualname == kernel)
    return replace(trace, tunings=[kept], plain={})


def _choices(
    workshop: tuple[pipeline.Job, pipeline.LazyWorker, Compiling], kernel: str, derive: str, *, final: bool
) -> tuple[Choices, Compilation]:
    job, lazy, workers = workshop
    trace = _one_key(pipeline.traced(job, SM_70, lazy.get, derive=derive), kernel)
    run = Compilation(pipeline.order(job, SM_70, trace), trace, workers, lambda *_: None)
    known = Known(measured={}, suggest=_suggest, extras={})
    return run.choose(known, all_candidates=False, final=final), run


def test_none_of_the_providers_own_is_sound_for_fwd_o_and_a_relieved_one_is(
    workshop: tuple[pipeline.Job, pipeline.LazyWorker, Compiling],
) -> None:
    first, _ = _choices(workshop, OUT, "", final=False)
    assert not first.chosen
    assert len(first.uncovered) == 1
    assert [reason.partition(" spills ")[0] for _, _, reason in first.rejected] == [str(_NAMED[OUT])]

    choices, run = _choices(workshop, OUT, "relieved", final=True)
    (chosen,) = choices.chosen
    assert chosen.derived
    assert chosen.provenance == "default"
    assert chosen.config.num_warps > 2
    assert all(run.kept(choices)[launch].local <= SOUND_LOCAL for launch in chosen.launches)
    assert (choices.uncovered, choices.spills) == ([], [])
    assert len(choices.rejected) <= 3  # few are compiled to find it


def test_the_providers_own_is_shipped_where_one_is_sound(
    workshop: tuple[pipeline.Job, pipeline.LazyWorker, Compiling],
) -> None:
    choices, run = _choices(workshop, KKT, "", final=False)
    (chosen,) = choices.chosen
    assert not chosen.derived
    assert chosen.config != _NAMED[KKT]
    assert f"{_NAMED[KKT]} spills " in chosen.note
    assert all(run.kept(choices)[launch].local <= SOUND_LOCAL for launch in chosen.launches)
