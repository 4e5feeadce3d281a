"""Who needs a binary: the models and workloads that each one names."""

from collections.abc import Iterable

from jobs import make_wanted
from traces import make_trace

from gdn_aot.artifact.manifest import Binary, Numerics
from gdn_aot.building import pack
from gdn_aot.catalogue.models import ModelShape, find_model
from gdn_aot.catalogue.targets import get_target
from gdn_aot.choosing.choose import Choices, Chosen
from gdn_aot.launches import CompiledKernel, Config
from gdn_aot.tracing.records import Trace, Tuning

SMALL, LARGE = (Config(kwargs=(("BV", size),), num_warps=4, num_stages=2) for size in (32, 64))


def _trace() -> Trace:
    """Kernel m:tuned with a key for each of two shapes, and m:plain.

    Launch 0 is the first candidate of both keys; the second candidate is launch 1 for the first key, 2 for the other.
    """
    keys = ((16, [0, 1], {(0, 0)}), (8, [0, 2], {(1, 0), (1, 1)}))
    tunings = [
        Tuning(kernel=0, key=(key,), candidates=[SMALL, LARGE], derived=0, variants=[variant], users=[users])
        for key, variant, users in keys
    ]
    return make_trace(("tuned", "plain"), [0, 0, 0, 1], tunings, {3: {(0, 0), (1, 1)}})


def _pack(shapes: Iterable[ModelShape], chosen: tuple[int, int], kept: Iterable[int]) -> dict[str, Binary]:
    """Pack a trace with a candidate chosen for each key. Returns the binaries by launch key."""
    trace = _trace()
    choices = Choices(
        chosen=[
            Chosen(tuning=tuning, candidate=candidate, provenance="default", note="")
            for tuning, candidate in zip(trace.tunings, chosen, strict=True)
        ],
        plain=[3],
    )
    compiled = CompiledKernel(cubin="cd" * 32, metadata={"shared": 0, "num_warps": 4}, registers=1, local=0)
    manifest = pack.make_manifest(
        make_wanted(shapes),
        get_target("sm_120"),
        trace=trace,
        choices=choices,
        objects=dict.fromkeys(kept, compiled),
        licenses=[],
        numerics=Numerics(status="not run", detail=""),
    )
    return {binary.launch_key: binary for kernel in manifest.kernels for binary in kernel.binaries}


_SHAPES = tuple(find_model("qwen3.5-9b").shape(tp) for tp in (1, 2))


def test_a_launch_belongs_to_those_whose_choice_causes_it() -> None:
    binaries = _pack(_SHAPES, (0, 0), (0, 3))
    assert {key: (binary.models, binary.workloads) for key, binary in binaries.items()} == {
        "0": ((0, 1), (0, 1)),
        "3": ((0, 1), (0, 1)),
    }
    binaries = _pack(_SHAPES, (0, 1), (0, 2, 3))
    assert {key: (binary.models, binary.workloads) for key, binary in binaries.items()} == {
        "0": ((0,), (0,)),
        "2": ((1,), (0, 1)),
        "3": ((0, 1), (0, 1)),
    }


def test_a_launch_without_choice_belongs_to_those_with_the_candidate() -> None:
    binaries = _pack(_SHAPES, (0, 0), range(4))
    assert [binaries[key].models for key in "0123"] == [(0, 1), (0,), (1,), (0, 1)]
    binaries = _pack(_SHAPES, (1, 1), range(4))
    assert [binaries[key].models for key in "0123"] == [(0, 1), (0,), (1,), (0, 1)]
