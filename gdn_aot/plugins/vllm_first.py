"""Have a vLLM engine answer two requests before it is ready: users' requests do not wait for what these load.

Beside kernels that Triton compiles, a first request waits for PyTorch, cuBLAS and vLLM: each loads modules and builds
tables when it first meets a shape. Asked for by ``GDN_AOT_FIRST_REQUEST=1``. The engine core itself schedules, runs and
ends the requests, on every rank; their pages of the cache are free afterwards, prefixes are forgotten, and the random
state is as vLLM sets it. What they load comes after vLLM has measured memory, as it would with a user's request.
"""

from __future__ import annotations

import functools
import sys
import time
from typing import Any

from gdn_aot.plugins.engine import hold
from gdn_aot.serving import log

VARIABLE = "GDN_AOT_FIRST_REQUEST"
CORE = "vllm.v1.engine.core"
TOKENS, ANSWERS = 50, 3
"""Of a prompt, no multiple of 16, and of what is answered: steps that prefill and steps that decode."""
_SAMPLING: tuple[dict[str, Any], ...] = ({"temperature": 0.0}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9})
"""The two ways through the sampler that requests take most: greedy, and as models' generation_config.json has it."""
_CACHES, _LAST = "_initialize_kv_caches", "freeze_gc_heap"
"""A method of ``EngineCore``, and a function of its module that its ``__init__`` calls when all is made. vLLM loads
plugins inside that ``__init__``, so that it cannot be wrapped itself."""
_MARK = "_gdn_aot_first"


def watch(module: str) -> None:
    """Have engine cores of a module answer requests as the last step of being made."""
    hold(lambda: _watch(sys.modules[module]), f"{VARIABLE}: {module} cannot be watched")


def _watch(core: Any) -> None:
    caches, last = vars(core.EngineCore).get(_CACHES), getattr(core, _LAST, None)
    if hasattr(last, _MARK):
        return
    if not callable(caches) or not callable(last):
        log.notice(f"{core.__name__} has no {_CACHES} or {_LAST} that is known; {VARIABLE} does nothing")
        return
    made: list[Any] = []

    @functools.wraps(caches)
    def remembering(engine: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(engine)
        return caches(engine, *args, **kwargs)

    @functools.wraps(last)
    def answering_first(*args: Any, **kwargs: Any) -> Any:
        while made:
            engine = made.pop()
            hold(lambda engine=engine: answer(engine), f"{VARIABLE}: no request was answered")  # type: ignore[misc]
        return last(*args, **kwargs)

    setattr(answering_first, _MARK, True)
    setattr(core.EngineCore, _CACHES, remembering)
    setattr(core, _LAST, answering_first)


def answer(engine: Any) -> None:
    """Have an engine core answer the requests, one after the other, and say how long each took."""
    config = engine.vllm_config
    if left_out := _left_out(config):
        log.notice(f"{VARIABLE}: no request is answered first with {left_out}")
        return
    tokens = min(TOKENS, config.model_config.max_model_len - ANSWERS)
    took = []
    try:
        for number, sampling in enumerate(_SAMPLING):
            start = time.perf_counter()
            _serve(engine, f"gdn-aot-first-{number}", tokens, sampling)
            took.append(f"{time.perf_counter() - start:.2f} s")
    finally:
        engine.abort_requests([*engine.scheduler.requests])
        engine.reset_prefix_cache()
        engine.model_executor.collective_rpc(_reseed)
    log.notice(f"answered requests of {tokens} tokens before the engine is ready: {', '.join(took)}")


def _left_out(config: Any) -> str:
    """Return why an engine is left alone, or nothing."""
    if config.model_config.runner_type != "generate":
        return "a model that generates nothing"
    if config.parallel_config.data_parallel_size > 1:
        return "data parallelism: engines would have to step together"
    return "a KV connector: others would be sent the pages" if config.kv_transfer_config is not None else ""


def _serve(engine: Any, name: str, tokens: int, sampling: dict[str, Any]) -> None:
    from vllm import SamplingParams
    from vllm.v1.request import Request

    parameters = SamplingParams(max_tokens=ANSWERS, ignore_eos=True, **sampling)
    engine.add_request(
        Request(request_id=name, prompt_token_ids=[1] * tokens, sampling_params=parameters, pooling_params=None)
    )
    while engine.scheduler.has_requests() or engine.batch_queue:
        _, executed = engine.step_fn()
        engine.post_step(executed)


def _reseed(worker: Any) -> None:
    """Set the random state of a worker as the last step of its warm-up does."""
    from vllm.utils.torch_utils import set_random_seed

    set_random_seed(worker.model_config.seed)
