"""The ways in which a process may use the loader, one for each mode: see `MODES`."""

import multiprocessing
import shutil
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from gpu import calls

THREADS = 8
CHILD_SECONDS = 120.0


def install(options: dict[str, Any]) -> None:
    import gdn_aot

    gdn_aot.install(options["artifact"], strict=True)


def outcome(watch: calls.Watch, **more: Any) -> dict[str, Any]:
    calls.synchronize()
    return {"watch": watch.to_dict(), "report": calls.report(), **more}


def before(options: dict[str, Any]) -> dict[str, Any]:
    """Install, then import the provider."""
    watch = calls.watched(options)
    return outcome(watch, digests=calls.digests(calls.sample_calls()))


def after(options: dict[str, Any]) -> dict[str, Any]:
    """Import the provider, then install."""
    import fla.modules
    import fla.ops.gated_delta_rule  # noqa: F401

    watch = calls.watched(options)
    return outcome(watch, digests=calls.digests(calls.sample_calls()))


def no_compiler(options: dict[str, Any]) -> dict[str, Any]:
    """Serve where there is no C compiler: the caller has emptied PATH."""
    compilers = {name: shutil.which(name) for name in ("gcc", "cc", "clang", "nvcc")}
    return {**before(options), "compilers": compilers}


def child(connection: Connection, options: dict[str, Any], *, installs: bool) -> None:
    """What spawned and forked children do."""
    try:
        if installs:
            install(options)
        watch = calls.Watch()
        connection.send(outcome(watch, digests=calls.digests(calls.sample_calls())))
    except BaseException:  # noqa: BLE001 - the parent shows it
        connection.send({"error": traceback.format_exc()})
    finally:
        connection.close()


def run_child(method: str, options: dict[str, Any], *, installs: bool) -> dict[str, Any]:
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender, options), kwargs={"installs": installs})
    process.start()
    sender.close()
    try:
        answer = receiver.recv() if receiver.poll(CHILD_SECONDS) else {"error": "no answer"}
    except EOFError:
        answer = {"error": "it died"}
    process.join(CHILD_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    return {**answer, "exit": process.exitcode}


def children(options: dict[str, Any]) -> dict[str, Any]:
    """Fork a child before CUDA is used, spawn another that installs by itself, then go on in the parent."""
    install(options)
    initialized = torch.cuda.is_initialized()
    forked = run_child("fork", options, installs=False)
    spawned = run_child("spawn", options, installs=True)
    watch = calls.Watch()
    return outcome(
        watch,
        digests=calls.digests(calls.sample_calls()),
        initialized_before_fork=initialized,
        forked=forked,
        spawned=spawned,
    )


def threads(options: dict[str, Any]) -> dict[str, Any]:
    """Make the first calls of a process in many threads at once.

    FLA keeps the last results of its index functions in a ``deque`` without a lock, which breaks when threads share
    it: the caller sets ``FLA_DISABLE_TENSOR_CACHE=1``.
    """
    install(options)
    import fla.modules
    import fla.ops.gated_delta_rule  # noqa: F401

    watch = calls.Watch()
    barrier = threading.Barrier(THREADS)
    found: list[dict[str, str]] = []
    errors: list[str] = []

    def work() -> None:
        try:
            torch.cuda.set_device(0)
            barrier.wait(60)
            results = calls.sample_calls()
            calls.synchronize()
            found.append(calls.digests(results))
        except BaseException:  # noqa: BLE001 - shown by the test
            errors.append(traceback.format_exc())

    workers = [threading.Thread(target=work) for _ in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(CHILD_SECONDS)
    alive = sum(worker.is_alive() for worker in workers)
    return outcome(watch, found=found, errors=errors, alive=alive)


def devices(options: dict[str, Any]) -> dict[str, Any]:
    """Use two devices in one process, the second one first."""
    watch = calls.watched(options)
    found = {}
    for number in (1, 0):
        with torch.cuda.device(number):
            found[str(number)] = calls.digests(calls.sample_calls(device=f"cuda:{number}"))
            torch.cuda.synchronize(number)
    return outcome(watch, found=found)


def graph(options: dict[str, Any]) -> dict[str, Any]:
    """Capture a decode step in a CUDA graph right after `preload`, with no call before it, and replay it."""
    watch = calls.watched(options)
    import gdn_aot

    gdn_aot.preload(model="qwen3.5-9b", tp=1)
    shape = calls.model_shape()
    inputs, state = calls.operator_inputs(shape, 3, 1, seed=4), calls.states(shape, 3, seed=5)
    calls.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        result = calls.decode(inputs, state)
    equal, digests = [], {}
    for seed in (4, 40):  # the second time with other numbers in the same tensors
        for name, value in calls.operator_inputs(shape, 3, 1, seed=seed).items():
            inputs[name].copy_(value)
        state.copy_(calls.states(shape, 3, seed=seed + 1))
        captured.replay()
        calls.synchronize()
        replayed = {name: value.clone() for name, value in result.items()}
        eager = calls.decode(inputs, state)
        equal.append(all(torch.equal(replayed[name], eager[name]) for name in eager))
        if seed == 4:
            digests = {f"decode.{name}": calls.digest(value) for name, value in replayed.items()}
    return outcome(watch, equal=equal, digests=digests)


def inference_mode(_: calls.Watch) -> dict[str, Any]:
    with torch.inference_mode():
        return {"digests": calls.digests(calls.sample_calls())}


def compiled_caller(watch: calls.Watch) -> dict[str, Any]:
    """Call the operator from a function compiled by ``torch.compile``; FLA keeps its operator out of the graph."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    def caller(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        double = v + v  # exact, so that fusing it changes nothing
        out, state = chunk_gated_delta_rule(
            q=q, k=k, v=double, g=g, beta=beta, output_final_state=True, use_qk_l2norm_in_kernel=True
        )
        return out + out, state

    inputs = calls.operator_inputs(calls.model_shape(), 1, 300, seed=1)
    arguments = [inputs[name] for name in ("q", "k", "v", "g", "beta")]
    with torch.no_grad():
        expected = caller(*arguments)
        known = len(watch.compiled)
        found = torch.compile(caller)(*arguments)
    calls.synchronize()
    equal = [torch.equal(*pair) for pair in zip(found, expected, strict=True)]
    return {"equal": equal, "compiled": [f"{module}:{name}" for module, name in watch.compiled[known:]]}


def user_kernel(watch: calls.Watch) -> dict[str, Any]:
    """Compile and run a kernel that no artifact has, and then those that it has."""
    from gpu.programs.user_kernel import add

    known = len(watch.compiled)
    x, y = (torch.randn(1000, generator=calls.generator(seed), device=calls.DEVICE) for seed in (1, 2))
    equal = torch.equal(add(x, y), x + y)
    return {
        "equal": equal,
        "compiled": [name for _, name in watch.compiled[known:]],
        "digests": calls.digests(calls.sample_calls()),
    }


def launch_hooks(_: calls.Watch) -> dict[str, Any]:
    """Have Triton call hooks around every launch, as its profiler does."""
    from triton import knobs

    entered: list[dict[str, Any]] = []
    left: list[str] = []

    def enter(metadata: Any) -> None:
        entered.append(dict(metadata.get()))

    def leave(metadata: Any) -> None:
        left.append(str(metadata.get()["name"]))

    knobs.runtime.launch_enter_hook.add(enter)
    knobs.runtime.launch_exit_hook.add(leave)
    try:
        found = calls.digests(calls.sample_calls())
    finally:
        knobs.runtime.launch_enter_hook.remove(enter)
        knobs.runtime.launch_exit_hook.remove(leave)
    many = len(entered)
    calls.sample_calls()
    return {
        "digests": found,
        "entered": [str(metadata["name"]) for metadata in entered],
        "fields": sorted({str(name) for metadata in entered for name in metadata}),
        "left": left,
        "after_removal": len(entered) - many,
    }


SCENARIOS: dict[str, Callable[[calls.Watch], dict[str, Any]]] = {
    "launch_hooks": launch_hooks,
    "inference_mode": inference_mode,
    "user_kernel": user_kernel,
    "compiled_caller": compiled_caller,
}


def scenarios(options: dict[str, Any]) -> dict[str, Any]:
    """Go through what needs no process of its own; one that fails does not stop the next."""
    watch = calls.watched(options)
    found: dict[str, Any] = {}
    for name, scenario in SCENARIOS.items():
        try:
            found[name] = scenario(watch)
        except Exception:  # noqa: BLE001 - shown by the test
            found[name] = {"error": traceback.format_exc()}
    return outcome(watch, found=found)


MODES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "before": before,
    "after": after,
    "no-compiler": no_compiler,
    "children": children,
    "threads": threads,
    "devices": devices,
    "graph": graph,
    "scenarios": scenarios,
}


def main(options: dict[str, Any]) -> dict[str, Any]:
    return MODES[options["mode"]](options)


if __name__ == "__main__":
    calls.finish(main)
