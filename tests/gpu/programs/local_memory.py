"""What the driver keeps of the device for kernels with local memory: after loading one, and after launching it."""

import ctypes
from typing import Any

import torch
from gpu import calls

PTX = """
.version 6.0
.target sm_70
.address_size 64
.visible .entry spill(.param .u64 out, .param .u32 at)
{{
    .local .align 16 .b8 kept[{local}];
    .reg .u32 %r<3>;
    .reg .u64 %rd<5>;
    ld.param.u64 %rd0, [out];
    ld.param.u32 %r0, [at];
    mov.u64 %rd1, kept;
    cvt.u64.u32 %rd2, %r0;
    add.u64 %rd3, %rd1, %rd2;
    st.local.u32 [%rd3], %r0;
    ld.local.u32 %r1, [%rd1];
    cvta.to.global.u64 %rd4, %rd0;
    st.global.u32 [%rd4], %r1;
    ret;
}}
"""
"""It writes where nobody knows before, so that its array stays in local memory."""
_LOCAL_BYTES, _THREADS_PER_SM = 3, 39
"""``CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES``, ``CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR`` of cuda.h."""


def free() -> int:
    torch.cuda.synchronize()
    return int(torch.cuda.mem_get_info()[0])


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Load and launch kernels with ``options["local"]`` bytes per thread, one after another, in one context."""
    out = torch.zeros(1, dtype=torch.int32, device=calls.DEVICE)
    driver = ctypes.CDLL("libcuda.so.1")
    threads = ctypes.c_int()
    assert driver.cuDeviceGetAttribute(ctypes.byref(threads), _THREADS_PER_SM, 0) == 0
    begin = free()
    steps = []
    for local in options["local"]:
        module, function, size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
        assert driver.cuModuleLoadData(ctypes.byref(module), PTX.format(local=local).encode()) == 0
        assert driver.cuModuleGetFunction(ctypes.byref(function), module, b"spill") == 0
        assert driver.cuFuncGetAttribute(ctypes.byref(size), _LOCAL_BYTES, function) == 0
        loaded = begin - free()
        values = (ctypes.c_uint64(out.data_ptr()), ctypes.c_uint32(16))
        arguments = (ctypes.c_void_p * 2)(*(ctypes.addressof(value) for value in values))
        grid = (1, 1, 1, 32, 1, 1)
        assert driver.cuLaunchKernel(function, *grid, 0, None, arguments, None) == 0
        steps.append({"local": size.value, "loaded": loaded, "launched": begin - free()})
    properties = torch.cuda.get_device_properties(0)
    return {"steps": steps, "sm_count": properties.multi_processor_count, "threads_per_sm": threads.value}


if __name__ == "__main__":
    calls.finish(main)
