"""The CUDA devices of this machine, asked of the driver library itself: without torch, and without a CUDA context."""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gdn_aot.catalogue.targets import known_target

DriverState: TypeAlias = Literal["ready", "absent", "no-device", "broken"]

_LIBRARY = "libcuda.so.1"
_KERNEL_DRIVER = "/proc/driver/nvidia/version"
_CAPABILITY = (75, 76)
"""``CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`` and ``_MINOR`` of cuda.h."""
_SM_COUNT = 16
"""``CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`` of cuda.h."""
_NO_DEVICE = 100
"""``CUDA_ERROR_NO_DEVICE`` of cuda.h."""
_NAME_BYTES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One CUDA device that this process may use."""

    index: int
    """As CUDA counts it, after ``CUDA_VISIBLE_DEVICES``."""
    name: str | None
    target: str
    """``sm_<major><minor>``."""
    capability: tuple[int, int]
    memory: int | None
    """Bytes."""
    sm_count: int | None
    buildable: bool
    """``gdn-aot build`` knows its target."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Devices:
    """What the CUDA driver says."""

    driver: DriverState
    """``absent``: there is no driver library; ``broken``: there is one, and it does not work."""
    cuda: str | None
    """Newest CUDA that the driver library supports, as ``13.0``."""
    kernel_driver: str | None
    """Version of the loaded kernel module."""
    visible: str | None
    """``CUDA_VISIBLE_DEVICES``."""
    problem: str
    """Why no device is listed, and what that means, or empty."""
    found: tuple[Device, ...]


class _DriverError(Exception):
    def __init__(self, state: DriverState, problem: str) -> None:
        super().__init__(problem)
        self.state: DriverState = state


def read_devices() -> Devices:
    """Ask the driver. That it is absent or broken is a result, not an error."""
    cuda, problem = None, ""
    state: DriverState = "ready"
    found: tuple[Device, ...] = ()
    try:
        driver = _load()
        cuda = _cuda_version(driver)
        found = _found(driver)
    except _DriverError as error:
        state, problem = error.state, str(error)
    except AttributeError as error:  # ctypes: the library lacks a function
        state, problem = "broken", f"{_LIBRARY} is not a CUDA driver: {error}"
    return Devices(
        driver=state,
        cuda=cuda,
        kernel_driver=_kernel_driver(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        problem=problem,
        found=found,
    )


def _load() -> ctypes.CDLL:
    """Open the library that a serving process would open; see ``get_driver`` in ``_launch.c``."""
    lazy, loaded = getattr(os, "RTLD_LAZY", 0), getattr(os, "RTLD_NOLOAD", 0)  # Windows has neither, nor the library
    if loaded:
        with suppress(OSError):  # nobody has loaded it yet
            return ctypes.CDLL(_LIBRARY, mode=lazy | loaded)
    folder = os.environ.get("TRITON_LIBCUDA_PATH")
    if folder:
        try:
            return ctypes.CDLL(f"{folder}/{_LIBRARY}", mode=lazy)
        except OSError as error:
            raise _DriverError("broken", f"cannot load {_LIBRARY} from TRITON_LIBCUDA_PATH: {error}") from None
    try:
        return ctypes.CDLL(_LIBRARY, mode=lazy)
    except OSError:
        raise _DriverError("absent", "no CUDA driver here: versions are checked, the device is not") from None


def _cuda_version(driver: ctypes.CDLL) -> str | None:
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _found(driver: ctypes.CDLL) -> tuple[Device, ...]:
    status = driver.cuInit(0)
    if status == _NO_DEVICE:
        hidden = "CUDA_VISIBLE_DEVICES" in os.environ
        why = ", or CUDA_VISIBLE_DEVICES hides all" if hidden else ""
        raise _DriverError("no-device", f"there is no CUDA device{why}: versions are checked, the device is not")
    _check(driver, "cuInit", status)
    count = ctypes.c_int()
    _check(driver, "cuDeviceGetCount", driver.cuDeviceGetCount(ctypes.byref(count)))
    return tuple(_device(driver, index) for index in range(count.value))


def _device(driver: ctypes.CDLL, index: int) -> Device:
    handle = ctypes.c_int()
    _check(driver, "cuDeviceGet", driver.cuDeviceGet(ctypes.byref(handle), index))
    major, minor, sm_count = (_attribute(driver, handle, number) for number in (*_CAPABILITY, _SM_COUNT))
    target = f"sm_{major}{minor}"
    return Device(
        index=index,
        name=_name(driver, handle),
        target=target,
        capability=(major, minor),
        memory=_memory(driver, handle),
        sm_count=sm_count if sm_count > 0 else None,
        buildable=known_target(target) is not None,
    )


def _attribute(driver: ctypes.CDLL, handle: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    _check(driver, "cuDeviceGetAttribute", driver.cuDeviceGetAttribute(ctypes.byref(value), number, handle))
    return value.value


def _name(driver: ctypes.CDLL, handle: ctypes.c_int) -> str | None:
    text = ctypes.create_string_buffer(_NAME_BYTES)
    ask = getattr(driver, "cuDeviceGetName", None)
    if ask is None or ask(text, _NAME_BYTES, handle) != 0:
        return None
    return text.value.decode("utf-8", "replace")


def _memory(driver: ctypes.CDLL, handle: ctypes.c_int) -> int | None:
    size = ctypes.c_size_t()
    ask = getattr(driver, "cuDeviceTotalMem_v2", None)
    return size.value if ask is not None and ask(ctypes.byref(size), handle) == 0 else None


def _check(driver: ctypes.CDLL, call: str, status: int) -> None:
    if status == 0:
        return
    text = ctypes.c_char_p()
    known = driver.cuGetErrorString(status, ctypes.byref(text)) == 0 and text.value
    said = known.decode("utf-8", "replace") if known else "unknown error"
    raise _DriverError("broken", f"the CUDA driver does not work: {call}: {said} ({status})")


def _kernel_driver() -> str | None:
    try:
        with open(_KERNEL_DRIVER, encoding="ascii", errors="replace") as file:
            text = file.read(4096)
    except OSError:
        return None
    version = re.search(r"\s(\d+(?:\.\d+)+)\s", text)
    return version[1] if version else None
