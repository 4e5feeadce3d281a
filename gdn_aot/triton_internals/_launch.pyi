# ruff: noqa: PYI021 - the module is written in C and this is where its documentation lives
"""Loads and launches compiled Triton kernels through the CUDA driver, with no C compiler at run time.

Written in C with the limited API, so that one binary serves CPython 3.10 and later. It stands for two modules that
Triton compiles at first use: ``cuda_utils``, and one ``__triton_launcher`` per signature.

Importing it loads no driver. The first call of a function opens ``libcuda.so.1``: the one this process has already
loaded, else the one in the directory that the environment variable ``TRITON_LIBCUDA_PATH`` names, else the one the
dynamic linker finds. All functions may be called from any thread. After a fork the driver works in the child only if
the parent had not used it, as always with CUDA.

All functions but `make_launcher` raise ``RuntimeError``:

* ``cannot load libcuda.so.1 ...``, or ``libcuda.so.1 has no ...`` if it lacks a function;
* ``Triton Error [CUDA]: `` and the driver's own words, when a driver call fails.
"""

from collections.abc import Callable
from typing import Any, Protocol, type_check_only

@type_check_only
class Launcher(Protocol):
    """What `make_launcher` returns; called like ``CompiledKernel.run`` of Triton, with positional arguments."""

    def __call__(
        self,
        grid_0: int,
        grid_1: int,
        grid_2: int,
        stream: int,
        function: int,
        packed_metadata: object,
        launch_metadata: object,
        launch_enter_hook: Callable[[Any], object] | None,
        launch_exit_hook: Callable[[Any], object] | None,
        /,
        *args: object,
    ) -> None:
        """Launch a kernel, without waiting for it to end.

        If the calling thread has no current context, it gets the primary context of device 0. All arguments are read
        before the first hook is called. Two null pointers follow the arguments as the kernel's last parameters:
        global and profile scratch, so kernels that need either cannot be launched.

        Args:
            grid_0: Number of blocks, or of clusters if there is more than one CTA in each; if it, ``grid_1`` or
                ``grid_2`` is not positive, all arguments are checked, the hooks called and nothing is launched.
            grid_1: Number of blocks in the second dimension.
            grid_2: Number of blocks in the third dimension.
            stream: The ``CUstream`` handle; 0 is the default stream.
            function: The ``CUfunction`` handle, from `load_binary`.
            packed_metadata: Ignored; the launcher knows what it was made for.
            launch_metadata: What the hooks get. If it is None they are not called.
            launch_enter_hook: Called before the launch, or None.
            launch_exit_hook: Called after the launch, or None; not after an error.
            *args: One for each character of ``kinds``.

        Raises:
            OverflowError: A number does not fit its type.
            TypeError: A wrong number of arguments, or one of a wrong type; the text says at which position.
            ValueError: The driver cannot reach the memory of an object with ``data_ptr()``.
            RuntimeError: The driver failed.
        """

def load_binary(name: str, cubin: bytes, shared: int, device: int, /) -> tuple[int, int, int, int, int]:
    """Load one kernel into the current context, or the primary context of a device if none is current.

    Args:
        name: Name of the kernel in the cubin.
        cubin: The machine code. The driver reads it by its own headers: pass only bytes that were verified.
        shared: Dynamic shared memory that launches will ask for, in bytes. Above 49152 the kernel is allowed as
            much as the device has.
        device: Ordinal of the device, for the context and for its limit of shared memory.

    Returns:
        The ``CUmodule`` and ``CUfunction`` handles, registers per thread, local memory per thread in words of
        4 bytes (what Triton calls spills), and the most threads that a block of this kernel may have.

    Raises:
        TypeError: An argument of a wrong type.
        ValueError: An empty cubin, or a NUL character in the name.
        RuntimeError: The driver failed; nothing stays loaded.
    """

def get_device_properties(device: int, /) -> dict[str, int]:
    """Return the figures of a device that Triton uses.

    Returns:
        ``max_shared_mem`` in bytes per block after opting in, ``max_num_regs`` in 32-bit registers per block,
        ``multiprocessor_count``, ``warpSize`` in threads, ``sm_clock_rate`` and ``mem_clock_rate`` in kHz, and
        ``mem_bus_width`` in bits.

    Raises:
        RuntimeError: The driver failed, for example because there is no such device.
    """

def driver_version() -> int:
    """Return the latest CUDA version that the driver supports: 1000 * major + 10 * minor, so 13000 for CUDA 13.0.

    Makes no context and does not initialise the driver.

    Raises:
        RuntimeError: The driver failed.
    """

def make_launcher(kinds: str, num_warps: int, num_ctas: int, shared: int, cooperative: bool, pdl: bool) -> Launcher:
    """Return a function that launches kernels of one signature with one set of options.

    Calls no driver function. What it returns may be called by many threads at once.

    Args:
        kinds: One character for each positional argument of the kernel:

            * ``P`` pointer: an int, None for a null pointer, or an object with ``data_ptr()``. Only the last is
              checked with the driver, which may answer with another address to use, as in Triton;
            * ``x`` constexpr: skipped, whatever it is;
            * ``b`` ``h`` ``i`` ``l`` signed and ``B`` ``H`` ``I`` ``L`` unsigned integers of 8, 16, 32 and 64 bits,
              ``?`` i1, passed as a byte: ints, or objects with ``__index__``;
            * ``f`` fp32, ``d`` fp64, ``e`` fp16, ``g`` bf16: floats, or objects with ``__float__``. fp16 is rounded
              half to even and a finite number too large for it is an ``OverflowError``; fp32 is rounded, with
              infinity for what is too large; bf16 is the upper half of that fp32, cut off as Triton does.
        num_warps: Warps per block, 1 to 32.
        num_ctas: Blocks per cluster, 1 to 16; 1 makes no clusters.
        shared: Dynamic shared memory per block, in bytes.
        cooperative: Whether it is a cooperative launch.
        pdl: Whether programmatic dependent launch is allowed.

    Raises:
        ValueError: An unknown kind, more than 128 kernel parameters, or an option out of range.
        TypeError: An argument of a wrong type.
    """
