"""Traces survive the pipe, and relaxations are recorded in them."""

from pathlib import Path

import strategies
from helpers import SUPPORT, python
from hypothesis import given
from hypothesis import strategies as st

from gdn_aot.launches import Config, Dependency, Global, Kernel, Key, Relaxed, SourceFile, Specialization
from gdn_aot.tracing.records import Trace, TracedLaunch, Tuning

SPECIALIZATION = Specialization(
    signature={"x": "*bf16", "pair": ["i32", "constexpr"]},
    constants=(((1,), None), ((2, 0), {"constexpr": [1, 2.5]})),
    attributes=(((0,), (("tt.divisibility", 16),)),),
    options={"num_warps": 4},
)


def _trace(configs: list[Config], key: Key, specialization: Specialization = SPECIALIZATION) -> Trace:
    kernel = Kernel(
        module="fla.ops",
        qualname="kernel",
        cache_key="ab" * 32,
        source_sha256="ef" * 32,
        sources=(SourceFile("fla/ops.py", "cd" * 32), SourceFile("fla/utils.py", "ef" * 32)),
        dependencies=(Dependency("exp", "fla.ops.op", "exp", "cd" * 32),),
        globals=(Global("EPS", "1e-06"),),
        relaxations=(Relaxed("x", 7, "a bound"),),
    )
    return Trace(
        provider_version="0.6.0",
        triton_version="3.6.0",
        ptxas_version="12.9.86",
        kernels=[kernel],
        launches=[TracedLaunch(kernel=0, key="key", specialization=specialization)],
        tunings=[
            Tuning(0, key, candidates=configs, derived=1, variants=[[0] * len(configs)], users=[{(1, 0), (0, 0)}])
        ],
        workloads=["decode"],
        plain={0: {(0, 0)}},
        refused=[("train", "ValueError: no")],
        calls=3,
    )


@given(
    st.lists(strategies.configs(), min_size=1, max_size=3),
    strategies.keys,
    strategies.launches().map(lambda launch: launch[1]),
)
def test_round_trip(configs: list[Config], key: Key, specialization: Specialization) -> None:
    trace = _trace(configs, key, specialization)
    assert Trace.from_json(trace.to_json()) == trace


def test_a_key_keeps_the_types_that_json_tells_apart() -> None:
    key = (64, True, 1, 1.0, None, "torch.bfloat16")
    trace = Trace.from_json(_trace([Config(kwargs=(), num_warps=1, num_stages=1)], key).to_json())
    assert list(map(type, trace.tunings[0].key)) == list(map(type, key))


def test_a_config_names_what_is_unusual_about_it() -> None:
    assert str(Config(kwargs=(("BV", 32),), num_warps=4, num_stages=2)) == "BV=32 num_warps=4 num_stages=2"
    odd = Config(kwargs=(), num_warps=4, num_stages=2, num_ctas=2, maxnreg=96)
    assert str(odd) == "num_warps=4 num_stages=2 num_ctas=2 maxnreg=96"


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
