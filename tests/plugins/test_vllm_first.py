"""``GDN_AOT_FIRST_REQUEST=1``: an engine answers requests before it is ready. The engine of these tests is a stand-in;
`providers/test_vllm_deployment.py` has vLLM's own, `test_vllm_itself.py` what is read of it."""

import logging
import sys
import types
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gdn_aot.plugins import vllm_first


class Scheduler:
    def __init__(self) -> None:
        self.requests: dict[str, Any] = {}
        self.ended = 0

    def has_requests(self) -> bool:
        return bool(self.requests)


class Core:
    """As much of vLLM's ``EngineCore`` as is called."""

    def __init__(self, *, fails: bool = False, **config: Any) -> None:
        self.vllm_config = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=4096, runner_type=config.get("runner", "generate")),
            parallel_config=SimpleNamespace(data_parallel_size=config.get("data_parallel", 1)),
            kv_transfer_config=config.get("connector"),
        )
        self.calls: list[str] = []
        self.model_executor = SimpleNamespace(collective_rpc=lambda what: self.calls.append(what.__name__))
        self.scheduler, self.batch_queue, self.fails, self.steps = Scheduler(), [], fails, 0
        self._initialize_kv_caches()
        sys.modules["a_core"].freeze_gc_heap()

    def _initialize_kv_caches(self) -> str:
        return "made"

    def add_request(self, request: Any) -> None:
        self.scheduler.requests[request.request_id] = request

    def step_fn(self) -> tuple[None, bool]:
        if self.fails:
            raise RuntimeError("the card is gone")
        self.steps += 1
        for name, request in [*self.scheduler.requests.items()]:
            request.sampling_params.max_tokens -= 1
            if not request.sampling_params.max_tokens:
                del self.scheduler.requests[name]
        return None, True

    def post_step(self, executed: bool) -> None:
        assert executed

    def abort_requests(self, names: list[str]) -> None:
        self.calls.append(f"abort {len(names)}")
        for name in names:
            del self.scheduler.requests[name]

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset_prefix_cache")


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module with an engine core, watched twice."""
    frozen: list[int] = []
    module: Any = types.ModuleType("a_core")
    module.EngineCore = type("EngineCore", (Core,), {"_initialize_kv_caches": Core._initialize_kv_caches})
    module.freeze_gc_heap, module.frozen = lambda: frozen.append(1), frozen
    monkeypatch.setitem(sys.modules, "a_core", module)
    records: Any = {"vllm": {"SamplingParams": SimpleNamespace}, "vllm.v1.request": {"Request": SimpleNamespace}}
    for name, content in records.items():
        stand_in = types.ModuleType(name)
        stand_in.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, stand_in)
    vllm_first.watch("a_core")
    vllm_first.watch("a_core")
    return module


def test_each_engine_answers_before_it_is_ready(core: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gdn_aot")
    for number in (1, 2):
        engine = core.EngineCore()
        assert engine.steps == 2 * vllm_first.ANSWERS
        assert engine.calls == ["abort 0", "reset_prefix_cache", "_reseed"]
        assert core.frozen == [1] * number
    assert "answered requests of 50 tokens before the engine is ready: " in caplog.text


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"runner": "pooling"}, "a model that generates nothing"),
        ({"data_parallel": 2}, "data parallelism"),
        ({"connector": object()}, "a KV connector"),
    ],
)
def test_some_engines_are_left_alone(
    core: Any, config: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gdn_aot")
    engine = core.EngineCore(**config)
    assert (engine.steps, engine.calls, core.frozen) == (0, [], [1])
    assert said in caplog.text


def test_an_engine_that_cannot_answer_is_made_all_the_same(core: Any, caplog: pytest.LogCaptureFixture) -> None:
    engine = core.EngineCore(fails=True)
    assert engine.calls == ["abort 1", "reset_prefix_cache", "_reseed"]
    assert core.frozen == [1]
    (warning,) = [row.getMessage() for row in caplog.records if row.levelno == logging.WARNING]
    assert warning.endswith("GDN_AOT_FIRST_REQUEST: no request was answered: RuntimeError: the card is gone")


def test_an_engine_that_is_not_known_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gdn_aot")
    module: Any = types.ModuleType("another_core")
    module.EngineCore = type("EngineCore", (), {})
    monkeypatch.setitem(sys.modules, "another_core", module)
    vllm_first.watch("another_core")
    assert not hasattr(module, "freeze_gc_heap")
    assert "another_core has no _initialize_kv_caches or freeze_gc_heap that is known" in caplog.text
