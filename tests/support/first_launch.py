"""One small kernel served from an artifact that is objects alone, and may be wrong in any way.

For a process of ``tests/triton_versions``: imported where its kernels can be, that becomes one with a card that
launches nothing.
"""

import json
import logging
import os
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import launching
from cubins import make_cubin

driver = launching.start("sm_90")
counter = launching.Counter()

import kernels  # type: ignore[import-not-found]  # noqa: E402

from gdn_aot import triton_internals  # noqa: E402
from gdn_aot.artifact.cubins import parameters_of  # noqa: E402
from gdn_aot.serving import log  # noqa: E402
from gdn_aot.serving.kernels import ServedKernel  # noqa: E402
from gdn_aot.serving.state import State  # noqa: E402
from gdn_aot.store.index_records import BinaryRecord, ChoiceRecord, ConfigRecord  # noqa: E402

every, (tuned, tuner) = kernels.every, triton_internals.layers(kernels.tuned)
inner = tuner.fn
fail: list[Exception] = []
"""What the first launches of the artifact's code raise, and the ones of all code with ``both``."""
both: list[Exception] = []
said: list[str] = []
_launcher = driver.launcher_cls
_sizes: set[int] = set()
"""Bytes of the code that artifacts have; code that Triton compiles has other sizes."""


def _launcher_cls(src: Any, metadata: Any) -> Any:
    launch = _launcher(src, metadata)

    def checked(x: int, y: int, z: int, stream: int, function: int, *rest: Any) -> None:
        errors = both or (fail if driver.loaded[function - 1][1] in _sizes else [])
        if errors:
            raise errors.pop()
        launch(x, y, z, stream, function, *rest)

    return checked


driver.launcher_cls = _launcher_cls  # type: ignore[method-assign]


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            said.append(record.getMessage())


logging.getLogger("gdn_aot").addHandler(_Handler())
logging.getLogger("gdn_aot").propagate = False


def choice(kwargs: Any, key: Any = (4096, False, *["torch.float32"] * 3), **more: Any) -> ChoiceRecord:
    config = {"num_warps": 4, "num_stages": 3, "num_ctas": 1, "maxnreg": None, **more}
    return ChoiceRecord(key, ConfigRecord(kwargs, **config), "default")


def binary(jit: Any, args: tuple[Any, ...], **changes: Any) -> BinaryRecord:
    """What Triton would make for a launch of ``jit``; changed fields of the specialization, the metadata, or both."""
    launch = triton_internals.Launch(jit, args, {"num_warps": 4, "num_stages": 3, "num_ctas": 1})
    made = {
        "name": jit.__name__, "shared": 0, "num_warps": 4, "num_ctas": 1, "launch_pdl": False,
        "launch_cooperative_grid": False, "cluster_dims": (1, 1, 1),
        "target": {"backend": "cuda", "arch": 90, "warp_size": 32},
    }  # fmt: skip
    fields = launch.specialization()
    return BinaryRecord(
        launch.key,
        "00" * 32,
        changes.get("metadata", lambda old: old)(made),
        {name: changes.get(name, lambda old: old)(value) for name, value in fields.items()},
    )


def code_of(record: BinaryRecord, *more: int) -> bytes:
    """A cubin with the parameters of a binary's signature, and more of so many bytes."""
    signature = record.specialization["signature"]
    taken = parameters_of(signature) if isinstance(signature, dict) else ()
    code = make_cubin(record.metadata.get("name", every.__name__), arch=90, parameters=(*(taken or ()), *more))
    _sizes.add(len(code))
    return code


CODE = code_of(binary(every, tuple(kernels.arguments().values())))


class Found:
    """An artifact."""

    def __init__(self, choices: Any = (), binaries: Any = (), code: bytes = CODE) -> None:
        records = {record.launch_key: record for record in binaries}
        header: dict[str, Any] = {
            "identifier": "found\x1b[2J",
            "capability": [9, 0],
            "target": "sm_90",
            "provider": "fla",
        }
        header["packages"] = ["kernels"]
        self.header = header
        self.elsewhere, self.same, self.is_read = "", None, True
        self.place = "/found"
        self.index = SimpleNamespace(
            kernels=list,
            choices=lambda _: choices,
            binary=lambda _, key: records.get(key),
            launch_keys=lambda _: iter(records),
            relaxations=lambda _: [],
        )
        self.read_blob = lambda _: code


def serve(jit: Any, found: Found, **policy: Any) -> ServedKernel:
    """Serve a kernel of which nothing was launched, from an artifact."""
    log._said.clear()
    for past in (fail, both, said, counter.compiled, driver.launched, driver.loaded):
        past.clear()  # type: ignore[attr-defined]
    counter.benchmarked, counter.found, jit.used_global_vals = 0, 0, {}
    jit.device_caches = defaultdict(jit.create_binder)
    tuner.cache, tuner.fn = {}, inner
    state = State()
    for name, value in policy.items():
        setattr(state, name, value)
    state.found = [found]  # type: ignore[list-item]
    kernel = ServedKernel(state, "kernels:it", jit, tuner if jit is tuned else None, state.found)
    kernel.seed({})
    return kernel


def launch_every(**changes: Any) -> Any:
    options = {"num_warps": 4, "num_stages": 3, "num_ctas": 1}
    return every[(2,)](*kernels.arguments(**changes).values(), **options)


def launch_tuned(n: int = 4096) -> Any:
    storage = kernels.STORAGE
    return kernels.tuned[(2,)](storage, storage, storage, n, WIDE=False)


def raised(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> list[str]:
    """The kind and the text of what a call raises, and of what caused it."""
    try:
        function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001
        return [type(error).__name__, str(error), type(error.__cause__).__name__]
    return []


def outcome(kernel: ServedKernel, **more: Any) -> dict[str, Any]:
    """What happened since `serve`."""
    state = kernel._state
    return {
        "compiled": len(counter.compiled) + counter.found, "benchmarked": counter.benchmarked,
        "launched": len(driver.launched),
        "said": [*said], "misses": [[miss.what, miss.reason, miss.answer] for miss in state.misses.values()],
        "loaded": sum(state.loaded.values()), "chosen": state.chosen, "trial": tuner.fn is not inner, **more,
    }  # fmt: skip


def at_once(launch: Callable[[], Any]) -> list[str]:
    """What eight threads raise that launch at the same time."""
    barrier, errors = threading.Barrier(8), list[str]()

    def work() -> None:
        barrier.wait()
        errors.extend(raised(launch))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def play(codes: dict[str, str]) -> dict[str, Any]:
    """Run each code in a fork of this process; return what each gave to ``answer``, or its traceback."""
    return {name: _play(code) for name, code in codes.items()}


def _play(code: str) -> Any:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(write, "w") as pipe:
            try:
                names = {**globals(), "answer": lambda value: json.dump(value, pipe)}
                exec(code, names)  # noqa: S102
            except BaseException:  # noqa: BLE001
                json.dump(traceback.format_exc(), pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)
