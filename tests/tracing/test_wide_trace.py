"""Traces of the real provider under the stub, with and without candidates beyond its own."""

from collections.abc import Callable, Iterator

import pytest
from jobs import make_wanted
from msgspec.structs import replace

from gdn_aot.catalogue.models import find_model
from gdn_aot.catalogue.providers import Limits
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.client import Worker
from gdn_aot.launches import Config
from gdn_aot.tracing.records import Trace, Tuning
from gdn_aot.tracing.wide import MOST, candidates

SM_90 = get_target("sm_90")
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
    (name,) = {kernel.name for kernel in plain.kernels if kernel.qualname == KKT}
    made = traced(extras={name: [KNOWN, replace(KNOWN, num_warps=64)]})
    own = _tunings(plain, KKT)[0].candidates
    assert [(tuning.candidates, tuning.derived) for tuning in _tunings(made, KKT)] == [
        ([*own, KNOWN], 1) for _ in _tunings(plain, KKT)
    ]
    assert all(tuning.derived == 0 for tuning in _tunings(made, STATE))
    smaller = _tunings(traced(extras={name: [KNOWN]}, derive="smaller"), KKT)[0]
    assert smaller.candidates[len(own)] == KNOWN
    assert smaller.derived > 1


def test_without_any_of_it_a_trace_is_as_it_was(traced: Callable[..., Trace]) -> None:
    first, second = traced(), traced(derive="", extras={})
    assert first == second
    assert all(tuning.derived == 0 for tuning in first.tunings)
