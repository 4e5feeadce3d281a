"""The C extension that loads kernels and reads devices, against a stand-in for the driver."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gdn_aot.triton_internals._launch", reason="the C extension is not built")


def test_load_binary(play: Any) -> None:
    done = play("print(json.dumps(_launch.load_binary('kernel', b'\\x7fELF', 49152, 1)))")
    assert done.result == [0x10000, 0x20000, 40, 6, 1024]
    assert done.named("cuModuleLoadData")[0]["image"] == "7f454c46"
    assert [call["device"] for call in done.named("cuDevicePrimaryCtxRetain")] == [1]
    assert done.named("cuFuncSetAttribute", "cuModuleUnload", "cuFuncSetCacheConfig") == []


def test_load_binary_keeps_the_context(play: Any) -> None:
    done = play("call(make(''))\n_launch.load_binary('kernel', b'\\x7fELF', 0, 1)\nprint('null')")
    assert [call["device"] for call in done.named("cuDevicePrimaryCtxRetain")] == [0]


def test_load_binary_opts_in_to_shared_memory(play: Any) -> None:
    code = "_launch.load_binary('kernel', b'\\x7fELF', 49153, 0)\nprint('null')"
    done = play(code)
    (opted,) = done.named("cuFuncSetAttribute")
    assert (opted["attribute"], opted["value"]) == (8, 232448 - 16)
    assert done.named("cuFuncSetCacheConfig")[0]["config"] == 1
    assert play(code, device="97=49152").named("cuFuncSetAttribute", "cuFuncSetCacheConfig") == []


@pytest.mark.parametrize(
    "function",
    ["cuModuleGetFunction", "cuFuncGetAttribute", "cuDeviceGetAttribute", "cuFuncSetCacheConfig", "cuFuncSetAttribute"],
)
def test_load_binary_unloads_after_a_failure(play: Any, function: str) -> None:
    done = play("print(json.dumps(error(_launch.load_binary, 'k', b'\\x7fELF', 65536, 0)))", fail=f"{function}=500")
    assert done.result == "RuntimeError: Triton Error [CUDA]: named symbol not found"
    assert [call["module"] for call in done.named("cuModuleUnload")] == [0x10000]


@pytest.mark.parametrize(
    "function", ["cuInit", "cuCtxGetCurrent", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent"]
)
def test_no_context(play: Any, function: str) -> None:
    done = play(
        "print(json.dumps([error(_launch.load_binary, 'k', b'\\x7fELF', 0, 0), error(call, make('P'), Tensor(1))]))",
        fail=f"{function}=2",
    )
    assert done.result == ["RuntimeError: Triton Error [CUDA]: out of memory"] * 2
    assert done.named("cuModuleLoadData", "cuModuleUnload", "cuPointerGetAttribute") == []


def test_load_binary_refuses(play: Any) -> None:
    done = play(
        "bad = [('k', b'', 0, 0), ('k\\0', b'x', 0, 0), ('k', 'x', 0, 0), ('k', b'x', 2**40, 0), ('k', b'x', 0)]\n"
        "print(json.dumps([error(_launch.load_binary, *arguments).split(':')[0] for arguments in bad]))"
    )
    assert done.result == ["ValueError", "ValueError", "TypeError", "OverflowError", "TypeError"]
    assert done.calls == []


def test_device_properties(play: Any) -> None:
    code = "print(json.dumps(_launch.get_device_properties(1)))"
    done = play(code)
    assert done.result == {
        "max_shared_mem": 232448,
        "max_num_regs": 65536,
        "multiprocessor_count": 132,
        "warpSize": 32,
        "sm_clock_rate": 1980000,
        "mem_clock_rate": 2619000,
        "mem_bus_width": 5120,
    }
    assert done.named("cuDevicePrimaryCtxRetain") == []
    failing = "print(json.dumps(error(_launch.get_device_properties, int(sys.argv[1]))))"
    assert play(failing, "2").result == "RuntimeError: Triton Error [CUDA]: invalid device ordinal"
    failed = play(failing, "0", fail="cuDeviceGetAttribute=1")
    assert failed.result == "RuntimeError: Triton Error [CUDA]: invalid argument"


def test_driver_version(play: Any) -> None:
    done = play("print(_launch.driver_version())", device="version=12080")
    assert done.result == 12080
    assert [call["call"] for call in done.calls] == ["cuDriverGetVersion"]
    done = play("print(json.dumps(error(_launch.driver_version)))", fail="cuDriverGetVersion=1")
    assert done.result == "RuntimeError: Triton Error [CUDA]: invalid argument"


def test_no_driver(play: Any, tmp_path: Path) -> None:
    done = play(
        "print(json.dumps([error(_launch.driver_version), error(call, make('')), error(_launch.driver_version)]))",
        cuda=tmp_path / "nowhere",
    )
    assert len(set(done.result)) == 1
    assert done.result[0].startswith("RuntimeError: cannot load libcuda.so.1 from TRITON_LIBCUDA_PATH: ")
    assert "nowhere/libcuda.so.1" in done.result[0]


@pytest.mark.skipif(os.path.lexists("/dev/nvidiactl"), reason="this machine has a driver")
def test_no_driver_in_the_usual_places(play: Any) -> None:
    done = play("del os.environ['TRITON_LIBCUDA_PATH']\nprint(json.dumps(error(_launch.driver_version)))")
    assert done.result.startswith("RuntimeError: cannot load libcuda.so.1, which comes with NVIDIA's driver: ")


def test_incomplete_driver(play: Any, tmp_path: Path) -> None:
    source = tmp_path / "other.c"
    source.write_text("int cuInit(unsigned flags) { return (int)flags; }\n")
    subprocess.run(["gcc", "-shared", "-o", str(tmp_path / "libcuda.so.1"), str(source)], check=True)
    done = play("print(json.dumps(error(_launch.driver_version)))", cuda=tmp_path)
    assert done.result == "RuntimeError: libcuda.so.1 has no cuGetErrorString; NVIDIA's driver is too old"


def test_a_driver_already_loaded_is_used(play: Any, library: Path) -> None:
    done = play(
        "import ctypes\nctypes.CDLL(sys.argv[1])\nprint(_launch.driver_version())",
        str(library / "libcuda.so.1"),
        cuda=library / "nowhere",
    )
    assert done.result == 13000
