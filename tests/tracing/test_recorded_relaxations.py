"""A recorded launch of a kernel with a relaxation is built under the key that the loader looks up."""

from pathlib import Path

from helpers import SUPPORT, python

CODE = """
import hashlib, json, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import launching
launching.start("sm_90")
import kernels, msgspec, torch
from gdn_aot import triton_internals
from gdn_aot.launches import Specialization
from gdn_aot.tracing.recorder import TraceRecorder
from gdn_aot.tracing.records import Trace
from gdn_aot.tracing.relax import Relaxer
from gdn_aot.providers.workload import Relaxation
jit = kernels.every
text = hashlib.sha256(triton_internals.source_text(jit).encode()).hexdigest()
rule = Relaxation(kernel="kernels:every", argument="BLOCK", value=99, sources=(text,), reason="a test")

def launch(block):
    x = torch.zeros(64)
    rest = dict(NAME="a,b", FLAG=True, KIND=kernels.tl.float16, ABSENT=None, RATIO=0.25)
    return triton_internals.Launch(jit, (x, x, 1, 32, 3, 1 << 40, 0.5, None, 7, 5), dict(BLOCK=block, **rest))

def taken(*blocks, rules=(rule,)):
    trace = Trace("", "", "")
    recorder = TraceRecorder(trace, relaxer=Relaxer(rules))
    for block in blocks:
        made = launch(block)
        recorder.take(jit, made.key, json.loads(json.dumps(made.specialization())), (-1, 0))
    return [[item.key, item.specialization] for item in trace.launches]

wanted = launch(99)
print(json.dumps([
    taken(16, 32) == [[wanted.key, msgspec.convert(wanted.specialization(), Specialization)]],
    [key for key, _ in taken(16, 32, rules=())] == [launch(16).key, launch(32).key],
]))
"""


def test_every_value_of_a_relaxed_constant_is_one_launch(tmp_path: Path) -> None:
    assert python(CODE, SUPPORT, SUPPORT.parent / "triton_versions", home=tmp_path) == [True, True]
