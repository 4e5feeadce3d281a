"""A provider that is not as its workloads take it to be, or lacks a model, gives no artifact of what is left."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gdn_aot.building import pack, pipeline
from gdn_aot.catalogue.models import ModelShape, find_model
from gdn_aot.catalogue.providers import PROVIDERS, Limits
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling import worker
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.errors import UnsupportedProviderError, UsageError
from gdn_aot.providers.workload import Call, Workload
from gdn_aot.tracing.records import Trace
from gdn_aot.tracing.wanted import Wanted

SHAPES = tuple(find_model(name).shape(1) for name in ("qwen3.5-9b", "olmo-hybrid-7b"))


class Breaking(Workload):
    """Raises what it is made with, for each model."""

    name = "breaking"

    def __init__(self, *errors: Exception) -> None:
        self.errors = errors

    def cases(self, shape: ModelShape, limits: Limits) -> list[Call]:
        del shape, limits
        return [Call.of("breaking", number=number) for number in range(len(self.errors))]

    def run(self, shape: ModelShape, call: Call) -> None:
        del shape
        raise self.errors[dict(call.arguments)["number"]]  # type: ignore[index]


def traced(*errors: Exception, lacks: Any = None) -> Trace:
    module = SimpleNamespace(WORKLOADS={"breaking": lambda: Breaking(*errors)}, **({"lacks": lacks} if lacks else {}))
    request = {"shapes": list(map(asdict, SHAPES)), "limits": asdict(Limits()), "workloads": ["breaking"]}
    return worker.trace(module, {"provider": "fla", "target": "sm_90", "ptxas": "12", **request})


def build(tmp_path: Path, made: Trace, *, keep_going: bool = False) -> Trace:
    wanted = Wanted(
        provider=PROVIDERS["fla"], shapes=SHAPES, fp16_fallback=False, limits=Limits(), workloads=("gated-norm",)
    )
    cache = BuildCache(tmp_path / "cache")
    job = pipeline.Job(
        wanted=wanted, cache=cache, output=tmp_path, jobs=1, timeout=60.0, keep_going=keep_going
    )  # fmt: skip
    there: Any = SimpleNamespace(trace=lambda *_, **__: made.to_json())
    return pipeline.traced(job, get_target("sm_90"), lambda: there)


def test_what_python_raises_for_what_is_not_there_is_no_refusal() -> None:
    made = traced(
        AttributeError("no hf_config"),
        RuntimeError("wrong results on Hopper"),
        TypeError("not callable"),
        KeyError("x"),
    )
    assert [reason.partition(" (")[0] for _, reason in made.misfits] == [
        "AttributeError: no hf_config",
        "TypeError: not callable",
        "KeyError: 'x'",
    ]
    ((_, refused),) = made.refused
    assert refused.startswith("RuntimeError: wrong results on Hopper (first in breaking(number=1) on qwen3.5-9b tp 1)")


def test_such_a_release_is_refused(tmp_path: Path) -> None:
    made = traced(AttributeError("no hf_config"), TypeError("not callable"))
    for _ in range(2):  # the second time from the build cache
        with pytest.raises(UnsupportedProviderError) as caught:
            build(tmp_path, made)
        said = "is not as provider fla calls it: workload breaking: AttributeError: no hf_config"
        assert said in caught.value.message
        assert (caught.value.exit_code, len(caught.value.problems)) == (2, 2)
    assert build(tmp_path, made, keep_going=True).misfits == made.misfits


def test_a_model_that_a_release_lacks(tmp_path: Path) -> None:
    made = traced(lacks=lambda shape: "no layer for it" if shape.name.startswith("olmo") else "")
    assert made.lacking == [(1, "no layer for it")]
    assert build(tmp_path, made).lacking == made.lacking, "the others are built"
    covered, of_traced, lacking = pack._models_of_traced(SHAPES, made, paged=False)
    assert ([shape.name for shape in covered], of_traced) == (["qwen3.5-9b"], [[0], []])
    assert lacking == {"olmo-hybrid-7b": "no layer for it"}
    with pytest.raises(UsageError, match=r"nothing can be built for qwen3.5-9b from fla-core .*: no layer") as caught:
        build(tmp_path / "all", traced(lacks=lambda _: "no layer for it"))
    assert caught.value.exit_code == 2
