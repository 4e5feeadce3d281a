"""The floor: FLA's Python and PyTorch work of a call, and of Triton only the machine code.

`record` runs with the loader and notes each launch of a call: which kernel, which binary, which grid. `Floor` then
replaces ``kernel[grid](...)`` in another process: the n-th launch of the call gets the n-th binary, whose code was read
and whose parameter buffers were laid out beforehand. Inside the clock remain: calling FLA, all that FLA asks of
PyTorch, ``cuModuleLoadData``, ``cuModuleGetFunction`` and ``cuFuncSetAttribute`` once for each binary, and for each
launch writing the arguments and ``cuLaunchKernel``. No autotuner, no binder, no launch key, no lookup.
"""

from __future__ import annotations

import ctypes
import inspect
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TYPES = {
    "i1": ctypes.c_int8,
    "u1": ctypes.c_uint8,
    "i8": ctypes.c_int8,
    "u8": ctypes.c_uint8,
    "i16": ctypes.c_int16,
    "u16": ctypes.c_uint16,
    "i32": ctypes.c_int32,
    "u32": ctypes.c_uint32,
    "i64": ctypes.c_int64,
    "u64": ctypes.c_uint64,
    "fp32": ctypes.c_float,
    "f32": ctypes.c_float,
    "fp64": ctypes.c_double,
}
_MAX_DYNAMIC_SHARED = 8
"""``CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES``."""
_DEFAULT_SHARED = 48 << 10
"""Bytes of dynamic shared memory that a kernel may have without asking."""


def record(call: Callable[[], Any]) -> list[dict[str, Any]]:
    """Make a call with Triton as it is and return its launches in order: ``kernel``, ``key`` and ``grid``."""
    from triton.runtime.jit import JITFunction

    from gdn_aot import triton_internals

    launches: list[dict[str, Any]] = []
    run = JITFunction.run

    def note(jit: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        launch = triton_internals.Launch(jit, args, kwargs)
        sizes = grid(launch._bound) if callable(grid) else grid  # noqa: SLF001
        launches.append(
            {
                "kernel": triton_internals.kernel_name(jit),
                "key": launch.key,
                "grid": [int(size) for size in (*sizes, 1, 1)[:3]],
            }
        )
        return run(jit, *args, grid=grid, warmup=warmup, **kwargs)

    JITFunction.run = note
    try:
        call()
    finally:
        JITFunction.run = run
    return launches


class _Driver:
    """The few functions of the CUDA driver that are needed."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(os.environ.get("COLD_START_LIBCUDA", "libcuda.so.1"))
        pointer, number = ctypes.c_void_p, ctypes.c_uint
        self._define("cuInit", number)
        self.load = self._define("cuModuleLoadData", pointer, ctypes.c_char_p)
        self.function = self._define("cuModuleGetFunction", pointer, pointer, ctypes.c_char_p)
        self.set = self._define("cuFuncSetAttribute", pointer, ctypes.c_int, ctypes.c_int)
        self.launch = self._define("cuLaunchKernel", pointer, *[number] * 7, pointer, pointer, pointer)
        self.check("cuInit", self.library.cuInit(0))

    def _define(self, name: str, *types: Any) -> Any:
        function = getattr(self.library, name)
        function.argtypes, function.restype = types, ctypes.c_int
        return function

    @staticmethod
    def check(what: str, status: int) -> None:
        if status:
            raise RuntimeError(f"{what} returned {status}")


class _Prepared:
    """One launch, ready but for the values of its arguments."""

    def __init__(self, launch: dict[str, Any], binary: Any, code: bytes) -> None:
        from gdn_aot.triton_internals import find_jit

        made = binary.metadata
        if made["num_ctas"] != 1 or made["launch_cooperative_grid"] or made["launch_pdl"]:
            raise ValueError(f"{launch['kernel']} needs launch attributes that the floor does not set")
        if made.get("global_scratch_size") or made.get("profile_scratch_size"):
            raise ValueError(f"{launch['kernel']} needs scratch memory that the floor does not have")
        module, _, qualname = launch["kernel"].partition(":")
        jit = find_jit(module, qualname)
        self.jit = jit.fn
        self.names = list(jit.arg_names)
        parameters = inspect.signature(jit.fn).parameters.values()
        defaults = {entry.name: entry.default for entry in parameters if entry.default is not entry.empty}
        self.cubin, self.code, self.entry = binary.cubin, code, made["name"].encode()
        self.shared = made["shared"]
        self.grid, self.threads = launch["grid"], 32 * made["num_warps"]
        self.slots: list[tuple[str, bool, Any, Any]] = []
        """(argument, whether it is a pointer, buffer, default)."""
        for name, kind in binary.specialization["signature"].items():
            if kind != "constexpr":
                pointer = kind.startswith("*")
                buffer = ctypes.c_uint64() if pointer else _TYPES[kind]()
                self.slots.append((name, pointer, buffer, defaults.get(name)))
        self.scratch = ctypes.c_uint64(), ctypes.c_uint64()
        buffers = [*(buffer for _, _, buffer, _ in self.slots), *self.scratch]
        self.parameters = (ctypes.c_void_p * len(buffers))(*map(ctypes.addressof, buffers))


class Floor:
    """Launches recorded launches. One call of the provider uses them up; `rewind` before the next.

    Args:
        launches: What `record` returned, for the same call.
        artifact: `gdn_aot.store.stored.StoredArtifact`.
    """

    def __init__(self, launches: Sequence[dict[str, Any]], artifact: Any) -> None:
        import torch

        self._driver = _Driver()
        self._stream = torch.cuda.current_stream().cuda_stream
        self._functions: dict[tuple[str, bytes], ctypes.c_void_p] = {}
        self._modules: dict[str, ctypes.c_void_p] = {}
        self._prepared = []
        for launch in launches:
            binary = artifact.index.binary(launch["kernel"], launch["key"])
            if binary is None:
                raise ValueError(f"the artifact has no binary for {launch}")
            self._prepared.append(_Prepared(launch, binary, artifact.read_blob(binary.cubin)))
        self._next = 0

    @property
    def modules(self) -> int:
        """Modules loaded so far."""
        return len(self._modules)

    def rewind(self) -> None:
        """Start again at the first launch.

        Raises:
            RuntimeError: The call before made fewer launches than were recorded.
        """
        if self._next not in (0, len(self._prepared)):
            raise RuntimeError(f"the call made {self._next} launches, {len(self._prepared)} were recorded")
        self._next = 0

    def take_over(self) -> None:
        """Launch in place of Triton from now on."""
        from triton.runtime.jit import KernelInterface

        launch = self._launch

        def bind(kernel: Any, _grid: Any) -> Callable[..., None]:
            return lambda *args, **kwargs: launch(kernel, args, kwargs)

        KernelInterface.__getitem__ = bind

    def _launch(self, kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        prepared = self._prepared[self._next]
        self._next += 1
        while kernel is not prepared.jit:  # Heuristics, Autotuner and JITFunction, down to the Python function
            kernel = kernel.fn  # an AttributeError here: another kernel than was recorded
        if args:
            kwargs = {**dict(zip(prepared.names, args, strict=False)), **kwargs}
        for name, pointer, buffer, default in prepared.slots:
            value = kwargs.get(name, default)
            buffer.value = (0 if value is None else value.data_ptr()) if pointer else value
        driver = self._driver
        place = prepared.cubin, prepared.entry
        function = self._functions.get(place)
        if function is None:
            function = self._functions[place] = self._load(prepared)
        status = driver.launch(
            function, *prepared.grid, prepared.threads, 1, 1, prepared.shared, self._stream, prepared.parameters, None
        )
        driver.check("cuLaunchKernel", status)

    def _load(self, prepared: _Prepared) -> ctypes.c_void_p:
        driver = self._driver
        module = self._modules.get(prepared.cubin)
        if module is None:
            module = self._modules[prepared.cubin] = ctypes.c_void_p()
            driver.check("cuModuleLoadData", driver.load(ctypes.byref(module), prepared.code))
        function = ctypes.c_void_p()
        status = driver.function(ctypes.byref(function), module, prepared.entry)
        driver.check("cuModuleGetFunction", status)
        if prepared.shared > _DEFAULT_SHARED:
            driver.check("cuFuncSetAttribute", driver.set(function, _MAX_DYNAMIC_SHARED, prepared.shared))
        return function
