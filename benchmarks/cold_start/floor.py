"""The floor: the provider's Python and PyTorch work of a call, and of Triton only the machine code.

`record` runs with the loader and notes each launch of a call: which kernel, which binary, which grid. `Floor` then
replaces ``kernel[grid](...)`` in another process: the n-th launch of the call gets the n-th binary, whose code was read
and whose parameter buffers were laid out beforehand. Inside the clock remain: calling the provider, all that it asks of
PyTorch, ``cuModuleLoadData``, ``cuModuleGetFunction`` and ``cuFuncSetAttribute`` once for each binary, and for each
launch writing the arguments and ``cuLaunchKernel``, or ``cuLaunchKernelEx`` for a dependent launch. No autotuner, no
binder, no launch key, no lookup.
"""

from __future__ import annotations

import ctypes
import inspect
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TYPES = {
    **{f"{sign}{bits}": getattr(ctypes, f"c_{name}{max(bits, 8)}")
       for bits in (1, 8, 16, 32, 64) for sign, name in (("i", "int"), ("u", "uint"))},
    "fp32": ctypes.c_float, "f32": ctypes.c_float, "fp64": ctypes.c_double,
}  # fmt: skip
"""Triton's type names -> those of C."""
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_uint
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (_NUMBER,),
    "cuModuleLoadData": (_POINTER, ctypes.c_char_p),
    "cuModuleGetFunction": (_POINTER, _POINTER, ctypes.c_char_p),
    "cuFuncSetAttribute": (_POINTER, ctypes.c_int, ctypes.c_int),
    "cuLaunchKernel": (_POINTER, *[_NUMBER] * 7, _POINTER, _POINTER, _POINTER),
    "cuLaunchKernelEx": (_POINTER, _POINTER, _POINTER, _POINTER),
}
"""What is called of the CUDA driver, with its arguments."""
_MAX_DYNAMIC_SHARED = 8
"""``CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES``."""
_DEFAULT_SHARED = 48 << 10
"""Bytes of dynamic shared memory that a kernel may have without asking."""


_DEPENDENT = 6
"""``CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION``."""


class _Attribute(ctypes.Structure):
    """``CUlaunchAttribute``, of which the value has 64 bytes."""

    _fields_ = (("kind", _NUMBER), ("_pad", _NUMBER), ("value", ctypes.c_int), ("_rest", ctypes.c_byte * 60))


class _Config(ctypes.Structure):
    """``CUlaunchConfig``."""

    _fields_ = (
        ("grid", _NUMBER * 3),
        ("block", _NUMBER * 3),
        ("shared", _NUMBER),
        ("stream", _POINTER),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", _NUMBER),
    )


def record(call: Callable[[], Any], constants: Callable[..., Any]) -> list[dict[str, Any]]:
    """Make a call with Triton as it is and return its launches in order: ``kernel``, ``key`` and ``grid``.

    ``constants`` is as `gdn_aot.tracing.relax.Relaxer.constants`.
    """
    from triton.runtime.jit import JITFunction

    from gdn_aot import triton_internals
    from gdn_aot.triton_internals.direct import BoundLaunch

    launches: list[dict[str, Any]] = []
    run = JITFunction.run

    def note(jit: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        launch = BoundLaunch(jit, args, kwargs, grid, constants)
        launches.append({"kernel": triton_internals.kernel_name(jit), "key": launch.key, "grid": list(launch.grid)})
        return run(jit, *args, grid=grid, warmup=warmup, **kwargs)

    JITFunction.run = note
    try:
        call()
    finally:
        JITFunction.run = run
    return launches


class _Prepared:
    """One launch, ready but for the values of its arguments."""

    def __init__(self, launch: dict[str, Any], binary: Any, code: bytes) -> None:
        from gdn_aot.triton_internals import find_kernel

        made = binary.metadata
        unusual = ("launch_cooperative_grid", "global_scratch_size", "profile_scratch_size")
        if made["num_ctas"] != 1 or any(made.get(name) for name in unusual):
            raise ValueError(f"{launch['kernel']} needs what the floor does not have: {made}")
        module, _, qualname = launch["kernel"].partition(":")
        jit, _ = find_kernel(module, qualname)
        self.jit, self.names = jit.fn, list(jit.arg_names)
        parameters = inspect.signature(jit.fn).parameters.values()
        defaults = {entry.name: entry.default for entry in parameters if entry.default is not entry.empty}
        self.cubin, self.code, self.entry = binary.cubin, code, made["name"].encode()
        self.shared = made["shared"]
        self.grid, self.threads = launch["grid"], 32 * made["num_warps"]
        self.dependent = bool(made.get("launch_pdl"))
        self.slots: list[tuple[str, bool, Any, Any]] = []
        """(argument, whether it is a pointer, buffer, default)."""
        for name, kind in binary.specialization.signature.items():
            if kind != "constexpr":
                pointer = kind.startswith("*")
                buffer = ctypes.c_uint64() if pointer else _TYPES[kind]()
                self.slots.append((name, pointer, buffer, defaults.get(name)))
        buffers = [*(buffer for _, _, buffer, _ in self.slots), ctypes.c_uint64(), ctypes.c_uint64()]  # and scratch
        self.parameters = (ctypes.c_void_p * len(buffers))(*map(ctypes.addressof, buffers))
        self._kept = buffers


class Floor:
    """Launches recorded launches. One call of the provider uses them up; `rewind` before the next.

    Args:
        launches: What `record` returned, for the same call.
        path: The artifact.

    Raises:
        KeyError: The artifact lacks a binary.
    """

    def __init__(self, launches: Sequence[dict[str, Any]], path: str) -> None:
        import torch

        from gdn_aot.artifact.verify import open_artifact

        self._library = ctypes.CDLL(os.environ.get("COLD_START_LIBCUDA", "libcuda.so.1"))
        for name, types in _FUNCTIONS.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype, function.errcheck = types, ctypes.c_int, _check
        self._library.cuInit(0)
        self._stream = torch.cuda.current_stream().cuda_stream
        self._functions: dict[tuple[str, bytes], ctypes.c_void_p] = {}
        self.modules: dict[str, ctypes.c_void_p] = {}
        """Those loaded so far, by the SHA-256 of their cubin."""
        artifact = open_artifact(path)
        binaries = {
            (f"{kernel.module}:{kernel.qualname}", binary.launch_key): binary
            for kernel in artifact.manifest.kernels
            for binary in kernel.binaries
        }
        chosen = [binaries[launch["kernel"], launch["key"]] for launch in launches]
        self._prepared = [
            _Prepared(launch, binary, artifact.read_blob(binary.cubin))
            for launch, binary in zip(launches, chosen, strict=True)
        ]
        self._next = 0

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
        place = prepared.cubin, prepared.entry
        function = self._functions.get(place)
        if function is None:
            function = self._functions[place] = self._load(prepared)
        if prepared.dependent:
            config = self._config(prepared)
            self._library.cuLaunchKernelEx(ctypes.byref(config), function, prepared.parameters, None)
            return
        self._library.cuLaunchKernel(
            function, *prepared.grid, prepared.threads, 1, 1, prepared.shared, self._stream, prepared.parameters, None
        )

    def _config(self, prepared: _Prepared) -> _Config:
        attribute = _Attribute(kind=_DEPENDENT, value=1)
        return _Config(
            grid=(_NUMBER * 3)(*prepared.grid),
            block=(_NUMBER * 3)(prepared.threads, 1, 1),
            shared=prepared.shared,
            stream=self._stream,
            attributes=ctypes.pointer(attribute),
            count=1,
        )

    def _load(self, prepared: _Prepared) -> ctypes.c_void_p:
        module = self.modules.get(prepared.cubin)
        if module is None:
            module = self.modules[prepared.cubin] = ctypes.c_void_p()
            self._library.cuModuleLoadData(ctypes.byref(module), prepared.code)
        function = ctypes.c_void_p()
        self._library.cuModuleGetFunction(ctypes.byref(function), module, prepared.entry)
        if prepared.shared > _DEFAULT_SHARED:
            self._library.cuFuncSetAttribute(function, _MAX_DYNAMIC_SHARED, prepared.shared)
        return function


def _check(status: int, function: Any, _arguments: Any) -> None:
    if status:
        raise RuntimeError(f"{function.__name__} returned {status}")
