"""Launches of a capture, recorded as if they had been made here.

Runs in the process that imported the provider under the stub driver. A kernel is called again with arguments of the
kinds that were recorded, so that the trace has what a call of the provider's own gives: of a kernel that is autotuned
the candidates that are offered on this target, and the launch key of each. A call counts only if it comes to the very
keys that were recorded; where it does not, the launch is taken as recorded.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from gdn_aot import triton_internals
from gdn_aot.launches import config_from_json
from gdn_aot.tracing.recorder import triton_config
from gdn_aot.tracing.records import NO_SHAPE, UNUSABLE
from gdn_aot.triton_internals import arguments, interception

if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.launches import Config
    from gdn_aot.tracing.recorder import TraceRecorder


def trace(recorder: TraceRecorder, kernels: list[dict[str, Any]], target: str, workload: int) -> list[tuple[str, str]]:
    """Record the launches of a capture's kernels. Returns (kernel, reason) for those that are left out."""
    left_out = []
    for kernel in kernels:
        name = f"{kernel['module']}:{kernel['qualname']}"
        try:
            jit, tuner = triton_internals.find_kernel(kernel["module"], kernel["qualname"])
            reason = _difference(jit, kernel, target)
            if not reason:
                for launch in kernel["launches"]:
                    _record(recorder, jit, tuner, launch, (NO_SHAPE, workload))
        except Exception as error:  # noqa: BLE001 - one kernel's module must not end the build
            reason = f"{UNUSABLE}: {triton_internals.compiler_message(error)}"
        if reason:
            left_out.append((name, reason))
    return left_out


def _difference(jit: Any, kernel: dict[str, Any], target: str) -> str:
    """Return why a kernel is not the one that was recorded, or nothing.

    On another target than that of the recording its globals may differ, as they do when a model is traced for it.
    """
    text = triton_internals.source_text(jit)
    if text is None or kernel["source_sha256"] is None:
        return "its source text is not known"
    if hashlib.sha256(text.encode()).hexdigest() != kernel["source_sha256"]:
        return "its source differs from the recorded one"
    same_target = any(launch["target"] == target for launch in kernel["launches"])
    if same_target and kernel["cache_key"] not in (None, triton_internals.cache_key(jit)):
        return "a function that it calls, a global that it reads or its place in the file differs from the recorded one"
    return ""


def _record(recorder: TraceRecorder, jit: Any, tuner: Any, launch: dict[str, Any], user: tuple[int, int]) -> None:
    taken = launch["key"], launch["specialization"]
    tuning = launch["tuning"]
    config = config_from_json(tuning["config"]) if tuning and tuner else None
    call = _tuned_call(tuner, launch, config) if config else _plain_call(jit, launch)
    if call is not None:
        recorder.record(call, user)
    elif config and tuning["key"] is not None:
        recorder.take_choice(jit, tuner, tuple(tuning["key"]), config, taken, user)
    else:
        recorder.take(jit, *taken, user)


def _plain_call(jit: Any, launch: dict[str, Any]) -> Callable[[], object] | None:
    """Return a call of a kernel that comes to the recorded launch key, or None if none can be made."""
    try:
        kwargs = arguments.make_plain(launch["specialization"])
        if triton_internals.Launch(jit, (), kwargs).key != launch["key"]:
            return None
    except Exception:  # noqa: BLE001 - of a kind that is not made here
        return None
    return lambda: jit.run(grid=(1,), warmup=False, **kwargs)


def _tuned_call(tuner: Any, launch: dict[str, Any], config: Config) -> Callable[[], object] | None:
    """Return a call of an autotuner that comes to the recorded keys, or None if none can be made."""
    tuning = launch["tuning"]
    try:
        args, kwargs = arguments.make(tuner, launch["specialization"], tuning)
        if tuning["key"] is not None:
            if triton_internals.autotune_key(tuner, args, kwargs) != tuple(tuning["key"]):
                return None
            triton_internals.candidates(tuner, args, kwargs)  # a provider's own pruning may want what is not there
        options = {**kwargs, "grid": (1,), "warmup": False}
        if _launch_key(tuner, args, options, config) != launch["key"]:
            return None
    except Exception:  # noqa: BLE001 - heuristics and pruning are the provider's, and may want real arguments
        return None
    return lambda: tuner.run(*args, **options)


def _launch_key(tuner: Any, args: tuple[Any, ...], options: dict[str, Any], config: Config) -> str | None:
    keys: list[str] = []
    # Another autotuner below this one is not known, so the launch is taken as recorded.
    with interception.intercept(lambda *_: None, lambda *launch: keys.append(triton_internals.Launch(*launch).key)):
        triton_internals.run_config(tuner, args, options, triton_config(config))
    return keys[0] if len(keys) == 1 else None
