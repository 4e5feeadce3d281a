"""Which constexprs one binary serves every value of: found by the front end's IR, or taken as arguments."""

from pathlib import Path
from typing import Any

from helpers import SUPPORT, python

_START = """
import json, sys
sys.path.insert(0, sys.argv[1])
import launching
launching.start("sm_90")
import relaxable, torch
from gdn_aot import triton_internals
from gdn_aot.tracing.recorder import TraceRecorder
from gdn_aot.tracing.records import Trace
from gdn_aot.tracing.relax import Relaxer
x = torch.zeros(64)
trace = Trace("", "", "")
recorder = TraceRecorder(trace, relaxer=Relaxer((), {"B": "a batch"}))
def said():
    return {kernel.qualname: [[one.argument, one.value, one.place] for one in kernel.relaxations]
        for kernel in trace.kernels}
"""
_OWN = (
    _START
    + """
def calls():
    for batch, bucket in ((1, 1), (2, 3), (5, 5), (300, 4099)):
        relaxable.every[(1,)](x, 64, N=16, B=batch, NB=bucket, H=2)
    for size in (16, 32): relaxable.as_a_size[(1,)](x, B=size)
    for size in (16, 32): relaxable.as_a_divisor[(1,)](x, B=size)
    for sized in (False, True):
        for size in (16, 32): relaxable.in_some_launches[(1,)](x, B=size, SIZED=sized)
    for bucket in (1, 2000): relaxable.in_a_branch[(1,)](x, NB=bucket)
    for size in (16, 17, 99):
        relaxable.as_a_bound[(1,)](x, B=size)
        relaxable.as_a_bound_of_a_branch[(1,)](x, B=size)
recorder.record(calls, (0, 0))
every = [launch for launch in trace.launches if trace.kernels[launch.kernel].qualname == "every"]
print(json.dumps({"said": said(), "keys": len(trace.tunings), "others": len(trace.launches) - len(every),
    "every": [launch.specialization.signature["B"] for launch in every]}))
"""
)


def test_what_a_kernel_does_not_use_and_what_it_only_computes_with(tmp_path: Path) -> None:
    got: Any = python(_OWN, SUPPORT, home=tmp_path)
    assert got["said"] == {
        "every": [["B", None, 1], ["NB", 1, 2]], "as_a_size": [], "as_a_divisor": [], "in_a_branch": [],
        "in_some_launches": [["B", None, None]], "as_a_bound": [["B", None, None]], "as_a_bound_of_a_branch": [],
    }  # fmt: skip
    assert got["keys"] == 4, "autotune keys are those of the calls"
    assert sorted(got["every"]) == ["constexpr", "constexpr", "i32", "i32"], "two candidates, each with B=1 and any B"
    assert got["others"] == 4 + 2 + 3 + 1 + 3, "one for any B, and one for each that is a size or decides on a branch"


_DECLARED = (
    _START
    + """
import hashlib
from gdn_aot.providers.workload import Relaxation
text = hashlib.sha256(triton_internals.source_text(relaxable.as_a_bound_of_a_branch).encode()).hexdigest()
kept = []
for source in (text, "0" * 64):
    trace = Trace("", "", "")
    rule = Relaxation(
        kernel="relaxable:as_a_bound_of_a_branch", argument="B", value=None, sources=(source,), reason="a test"
    )
    recorder = TraceRecorder(trace, relaxer=Relaxer((rule,)))
    recorder.record(lambda: [relaxable.as_a_bound_of_a_branch[(1,)](x, B=size) for size in (16, 17, 99)], (0, 0))
    found = [said(), *(launch.specialization.signature["B"] for launch in trace.launches)]
    kept.append(found)
print(json.dumps(kept))
"""
)


def test_a_declared_constant_is_an_argument_for_the_text_that_was_read(tmp_path: Path) -> None:
    read, unread = python(_DECLARED, SUPPORT, home=tmp_path)
    name = "as_a_bound_of_a_branch"
    assert read == [{name: [["B", None, None]]}, "i32"], "one binary, though it is no operand that is found by itself"
    assert unread == [{name: []}, "constexpr", "constexpr", "constexpr"]


_FLA = (
    _START
    + """
from gdn_aot.catalogue.models import find_model
from gdn_aot.catalogue.providers import Limits
from gdn_aot.providers.fla import workloads as fla
recorder = TraceRecorder(trace, relaxer=Relaxer.of(fla))
work, shape = fla.WORKLOADS["transformers-prefill"](), find_model("qwen3.5-9b").shape(1)
counts = []
for limits in (Limits(max_tokens=4096, max_batch=2), Limits(max_tokens=1_000_000, max_batch=4096)):
    for number, call in enumerate(work.cases(shape, limits)):
        recorder.record(lambda call=call: work.run(shape, call), (0, 0))
    counts.append(len(trace.launches))
print(json.dumps({"said": said(), "counts": counts}))
"""
)


def test_neither_length_nor_batch_costs_fla_a_binary(tmp_path: Path) -> None:
    got: Any = python(_FLA, SUPPORT, home=tmp_path)
    found = {name: relaxed for name, relaxed in got["said"].items() if relaxed}
    assert found["l2norm_fwd_kernel"] == [["NB", 1, 1]]
    assert found["chunk_local_cumsum_scalar_kernel"] == [["B", None, 0]]
    assert got["counts"][0] == got["counts"][1]
