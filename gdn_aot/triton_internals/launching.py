"""The part of `gdn_aot.triton_internals` that makes kernels from artifacts launch.

What is relied on beyond the list in the package:

* a ready kernel is launched by ``kernel.run(grid0, grid1, grid2, stream, kernel.function, kernel.packed_metadata,
  launch metadata, enter hook, exit hook, *arguments)``
* ``CudaDriver()`` makes its ``utils`` by calling ``CudaUtils`` of its own module, launchers through ``launcher_cls``
* a compiled kernel takes two pointers after its own arguments: global and profile scratch
* before ``JITFunction.run`` looks a kernel up, the second member of ``device_caches[device]`` has the launch key by
  (specialization, text of the options)
"""

from __future__ import annotations

import ast
import functools
import sys
from typing import TYPE_CHECKING, Any

from gdn_aot.artifact.cubins import parameters_of
from gdn_aot.artifact.elf import describe
from gdn_aot.errors import VerificationError
from gdn_aot.triton_internals import active_driver, make_source
from gdn_aot.triton_internals.relaxing import RUN_TIME

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from gdn_aot.store.index_records import BinaryRecord

NVIDIA_DRIVER = "triton.backends.nvidia.driver"
"""The module whose import is the moment to call `defer_cuda_utils`."""

_KINDS = {"constexpr": "x", "fp16": "e", "bf16": "g", "fp32": "f", "f32": "f", "fp64": "d", "i1": "?", "u1": "?"}
_KINDS |= {"i8": "b", "i16": "h", "i32": "i", "i64": "l", "u8": "B", "u16": "H", "u32": "I", "u64": "L"}
"""Triton's type names -> kinds of `gdn_aot.triton_internals._launch.make_launcher`; pointers are ``P``."""


_HOOKED, _LEADING = 6, 9
"""Arguments of ``kernel.run`` before the launch metadata and the two hooks, and before the kernel's own."""


def check_record(jit: Any, record: BinaryRecord, code: bytes) -> None:
    """Check that a binary can be one of a ``JITFunction``, before it is loaded.

    Raises:
        ValueError: It cannot, with the reason.
    """
    named, expected = [*record.specialization["signature"]], [*jit.arg_names]
    if named != expected:
        unlike = [name for name in (*named, *expected) if (name in named) != (name in expected)] or named
        raise ValueError(f"its signature has {len(named)} of {len(expected)} parameters; see {unlike[0]}")
    try:
        entry = describe(code).entries.get(record.metadata["name"])
    except VerificationError as error:
        raise ValueError("its code is not a cubin") from error
    taken = parameters_of(record.specialization["signature"])
    if entry is None or (taken is not None and entry.parameters != taken):
        raise ValueError("its code takes other parameters than its signature says")


def kernel_kinds(record: BinaryRecord) -> str | None:
    """Return a binary's arguments as kinds of ``_launch.make_launcher``, or None if it needs Triton's own launcher."""
    if record.metadata.get("global_scratch_size") or record.metadata.get("profile_scratch_size"):
        return None
    names = map(str, record.specialization["signature"].values())
    kinds = ["P" if name.startswith("*") else _KINDS.get(name, "") for name in names]
    return "".join(kinds) if all(kinds) else None


def uses_cuda_driver() -> bool:
    """Say whether Triton's active driver is its CUDA driver."""
    return type(active_driver()).__module__ == NVIDIA_DRIVER


def load_binary(native: Any, record: BinaryRecord, code: bytes, device: int) -> tuple[int, int, int, int, int]:
    """Load a cubin on a device, which must be the current one.

    Returns (module, function, registers per thread, spilled 4-byte words per thread, most threads per block).

    Raises:
        RuntimeError: The CUDA driver refused.
    """
    load = native.load_binary if native and uses_cuda_driver() else active_driver().utils.load_binary
    found: tuple[int, int, int, int, int] = load(record.metadata["name"], code, record.metadata["shared"], device)
    return found


@functools.cache
def _seeded_class() -> type:
    """Return the class of ready kernels, made on first use because its base is Triton's."""
    from triton import knobs
    from triton.compiler import CompiledKernel

    class SeededKernel(CompiledKernel):  # type: ignore[misc]
        """A kernel that came from an artifact, loaded and ready to launch."""

        run: Any = None
        """Hides the property of the base: each kernel has its launcher as a plain attribute."""

        def __init__(self, jit: Any, record: BinaryRecord, code: bytes) -> None:
            self._jit, self._record = jit, record
            self.name = record.metadata["name"]
            self.hash = record.cubin
            self.kernel = code
            self.asm = {"cubin": code}
            self.metadata_group: dict[str, str] = {}

        def launch_metadata(self, grid: Any, stream: int, *args: Any) -> Any:
            """Return what launch hooks are called with, or None if there are none."""
            enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
            if not (getattr(enter, "calls", enter) or getattr(leave, "calls", leave)):
                return None
            return super().launch_metadata(grid, stream, *args)

        @functools.cached_property
        def src(self) -> Any:
            return make_source(self._jit, self._record.specialization)

        @functools.cached_property
        def metadata(self) -> Any:
            return _metadata(self._record)

        def __del__(self) -> None:
            """Leave the module loaded: other kernels may share it, and Triton 3.8 would unload it here."""

    return SeededKernel


def _metadata(record: BinaryRecord) -> Any:
    from collections import namedtuple

    import triton
    from triton.backends.compiler import GPUTarget

    target = record.metadata["target"]
    fields = {
        **{name: tuple(value) if isinstance(value, list) else value for name, value in record.metadata.items()},
        "target": GPUTarget(target["backend"], target["arch"], target["warp_size"]),
        "hash": record.cubin,
        "extern_libs": (),
        "triton_version": triton.__version__,
    }
    return namedtuple("KernelMetadata", sorted(fields))(**fields)  # noqa: PYI024


def make_kernel(
    native: Any, jit: Any, record: BinaryRecord, code: bytes, loaded: tuple[int, int, int, int, int]
) -> Any:
    """Return a kernel that Triton can launch, of a cubin that `load_binary` has ``loaded``.

    ``native`` is `gdn_aot.triton_internals._launch`, or None to launch through Triton's own launcher.
    """
    kernel = _seeded_class()(jit, record, code)
    if jit.launch_metadata is not None:
        _ = kernel.metadata  # which hooks will ask for: a fault is to show before anything is launched
    kernel.module, kernel.function, kernel.n_regs, kernel.n_spills, kernel.n_max_threads = loaded
    made = record.metadata
    kinds = kernel_kinds(record) if native and uses_cuda_driver() else None
    if kinds is None:
        from triton.compiler.compiler import make_backend

        run = active_driver().launcher_cls(kernel.src, kernel.metadata)
        kernel.packed_metadata = make_backend(kernel.metadata.target).pack_metadata(kernel.metadata)
    else:
        shape = made["num_warps"], made["num_ctas"], made["shared"]
        run = native.make_launcher(kinds, *shape, made["launch_cooperative_grid"], made["launch_pdl"])
        kernel.packed_metadata = shape
    kernel.run = kernel._run = run  # noqa: SLF001
    return kernel


def guard(
    kernel: Any, jit: Any, device: int, key: str, failing: Callable[[Exception], AbstractContextManager[None]]
) -> None:
    """Have the first launch of a kernel made by `make_kernel` fall back to Triton's own if it fails.

    The next ones call the kernel's launcher directly. ``failing`` is called with the error; in its context Triton must
    not find the kernel under ``key``, its launch key on ``device``. What Triton then raises reaches whoever launched:
    it is what he did wrong. So does what launch hooks raise, and what the launcher raises of arguments whose types are
    those of the signature.
    """
    launcher = kernel.run
    signature = kernel.src.signature  # a source that cannot be made is to show before anything is launched
    other = kernel._record.launch_key != key  # noqa: SLF001 - of this module's own class

    def first(*args: Any) -> None:
        leading, (metadata, enter, leave), arguments = args[:_HOOKED], args[_HOOKED:_LEADING], args[_LEADING:]
        asked, text = _asked(jit, device, key)
        if metadata is not None and enter is not None:
            enter(metadata)
        try:
            _check_types(signature, asked, other=other)
            launcher(*leading, None, None, None, *arguments)
        except RuntimeError as error:
            options = _options(text)
            if options is None:
                raise
            with failing(error):
                _launch_tritons(jit, options, leading, arguments)
        else:
            kernel.run = launcher
        if metadata is not None and leave is not None:
            leave(metadata)

    kernel.run = first


def _asked(jit: Any, device: int, key: str) -> tuple[tuple[Any, ...] | None, str | None]:
    """Return the specialization and the text of the options that a launch key was made of; None if it is not known."""
    for (specialization, options), made in [*jit.device_caches[device][1].items()]:
        if made == key:
            return specialization[: len(jit.arg_names)], options
    return None, None


def _options(text: str | None) -> dict[str, Any] | None:
    """Return options from their text; None if they are not known, or one is no literal."""
    try:
        return None if text is None else dict(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError):
        return None


def _check_types(signature: dict[str, Any], asked: tuple[Any, ...] | None, *, other: bool) -> None:
    """Compare types; of a binary of an ``other`` launch key a constexpr may be an argument: see `relaxing`."""
    for (name, made), (kind, value, *_) in zip(signature.items(), asked or (), strict=False):
        relaxed = other and kind == "constexpr" and made == RUN_TIME and type(value) is int
        if made != kind and not relaxed:
            raise RuntimeError(f"its signature has {made} for {name}, and the launch {kind}")


def _launch_tritons(jit: Any, options: dict[str, Any], leading: tuple[Any, ...], arguments: tuple[Any, ...]) -> None:
    """Have Triton compile a kernel, unless it has it, and launch that; launch hooks are called by others."""
    *grid, stream = leading[: _HOOKED - 2]
    made = jit.run(*arguments, grid=grid, warmup=True, **options)
    if made is None:  # as a hook of Triton wants it
        return
    made = made.result() if hasattr(made, "result") else made
    run = made.run  # loads it
    run(*grid, stream, made.function, made.packed_metadata, None, None, None, *arguments)


def defer_cuda_utils(native: Any) -> bool:
    """Have Triton's CUDA driver load its compiled helper when something needs it, not when the driver is made.

    Triton builds that helper with a C compiler, or reads it from its cache; kernels from an artifact do not need it.
    Whatever does - a launcher that Triton makes for another kernel, a tensor descriptor - gets Triton's own. Returns
    False if nothing was done: the driver exists already, or is not as known.
    """
    nvidia: Any = sys.modules.get(NVIDIA_DRIVER)
    config = getattr(sys.modules.get("triton.runtime.driver"), "driver", None)  # imports us: not to be imported here
    made = getattr(config, "_active", None) or getattr(config, "_default", None)
    known = all(isinstance(getattr(nvidia, name, None), type) for name in ("CudaUtils", "CudaLauncher"))
    if made or not known or getattr(nvidia.CudaUtils, "deferred", False):
        return False
    utils, launcher = nvidia.CudaUtils, nvidia.CudaLauncher

    class CudaUtils(utils):  # type: ignore[misc, valid-type]
        """Triton's helper, loaded at the first use of what is not native."""

        deferred = True
        _made: Any = None

        def __new__(cls) -> Any:
            cls._made = cls.instance = cls._made or object.__new__(cls)
            return cls._made

        def __init__(self) -> None:
            if "load_binary" not in self.__dict__:
                self.load_binary = native.load_binary
                self.get_device_properties = native.get_device_properties

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            self.complete()
            return object.__getattribute__(self, name)

        def complete(self) -> None:
            """Load Triton's own helper, once."""
            if "fully" not in self.__dict__:
                utils.__init__(self)
                self.fully = True

    class CudaLauncher(launcher):  # type: ignore[misc, valid-type]
        """Triton's launcher, which needs the helper."""

        def __init__(self, src: Any, metadata: Any) -> None:
            active_driver().utils.complete()
            super().__init__(src, metadata)

    nvidia.CudaUtils, nvidia.CudaLauncher = CudaUtils, CudaLauncher
    return True
