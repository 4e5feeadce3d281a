/*
 * The CUDA driver as _launch.c uses it: types, the table of its functions, opening its library, errors, contexts.
 */
#ifndef GDN_AOT_DRIVER_H
#define GDN_AOT_DRIVER_H

/* glibc 2.34 moved these from libdl to libc under a new version; the old one is in every glibc. */
#if defined(__GLIBC__) && defined(__x86_64__)
#define FIRST_GLIBC "GLIBC_2.2.5"
#elif defined(__GLIBC__) && defined(__aarch64__)
#define FIRST_GLIBC "GLIBC_2.17"
#endif
#ifdef FIRST_GLIBC
__asm__(".symver dlopen,dlopen@" FIRST_GLIBC);
__asm__(".symver dlsym,dlsym@" FIRST_GLIBC);
__asm__(".symver dlerror,dlerror@" FIRST_GLIBC);
#endif

/* ---- What is needed of the driver API: types, values and layouts of cuda.h of CUDA 12.8, ABI since 11.8 ---- */

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;

enum { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1, CUDA_ERROR_NOT_INITIALIZED = 3 };
enum { CU_POINTER_ATTRIBUTE_DEVICE_POINTER = 3 };
enum { CU_FUNC_CACHE_PREFER_SHARED = 1 };
enum { CU_CLUSTER_SCHEDULING_POLICY_SPREAD = 1 };
enum {
    CU_DEVICE_ATTRIBUTE_WARP_SIZE = 10,
    CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK = 12,
    CU_DEVICE_ATTRIBUTE_CLOCK_RATE = 13,
    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
    CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE = 36,
    CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH = 37,
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97
};
enum {
    CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
    CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
    CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3,
    CU_FUNC_ATTRIBUTE_NUM_REGS = 4,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
    CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 14
};
enum {
    CU_LAUNCH_ATTRIBUTE_COOPERATIVE = 2,
    CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION = 4,
    CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE = 5,
    CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6
};

typedef struct {
    uint32_t id;
    uint32_t unused;
    union {
        int32_t number;
        uint32_t cluster[3];
        uint64_t whole[8];
    } value;
} CUlaunchAttribute;

typedef struct {
    uint32_t grid[3];
    uint32_t block[3];
    uint32_t shared;
    void *stream;
    const CUlaunchAttribute *attributes; /* not const in cuda.h; only attributes that we do not use return a value */
    uint32_t attribute_count;
} CUlaunchConfig;

_Static_assert(sizeof(void *) == 8, "CUDA is 64-bit");
_Static_assert(sizeof(CUlaunchAttribute) == 72 && sizeof(CUlaunchConfig) == 56, "layout of the driver's structures");

#define REQUIRED(X)                                                                                                    \
    X(cuInit, (unsigned))                                                                                              \
    X(cuGetErrorString, (CUresult, const char **))                                                                     \
    X(cuDriverGetVersion, (int *))                                                                                     \
    X(cuDeviceGet, (CUdevice *, int))                                                                                  \
    X(cuDeviceGetAttribute, (int *, int, CUdevice))                                                                    \
    X(cuCtxGetCurrent, (void **))                                                                                      \
    X(cuCtxSetCurrent, (void *))                                                                                       \
    X(cuDevicePrimaryCtxRetain, (void **, CUdevice))                                                                   \
    X(cuModuleLoadData, (void **, const void *))                                                                       \
    X(cuModuleUnload, (void *))                                                                                        \
    X(cuModuleGetFunction, (void **, void *, const char *))                                                            \
    X(cuFuncGetAttribute, (int *, int, void *))                                                                        \
    X(cuFuncSetAttribute, (void *, int, int))                                                                          \
    X(cuFuncSetCacheConfig, (void *, int))                                                                             \
    X(cuPointerGetAttribute, (void *, int, CUdeviceptr))                                                               \
    X(cuLaunchKernel, (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,  \
                       void **))
#define OPTIONAL(X) X(cuLaunchKernelEx, (const CUlaunchConfig *, void *, void **, void **)) /* from CUDA 11.8 on */

typedef struct {
#define X(name, parameters) CUresult(*name) parameters;
    REQUIRED(X) OPTIONAL(X)
#undef X
} Driver;

/* Return the driver's functions, opening its library on first use, or NULL with an exception. The GIL is the lock. */
static const Driver *get_driver(void) {
    static Driver driver;
    static int ready = 0;
    if (ready) return &driver;
    /* A process must not get a second driver: one that is already there, say torch's, comes first. */
    void *library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    const char *folder = getenv("TRITON_LIBCUDA_PATH");
    if (library == NULL && folder != NULL && *folder != '\0') {
        PyObject *path = PyBytes_FromFormat("%s/libcuda.so.1", folder);
        if (path == NULL) return NULL;
        library = dlopen(PyBytes_AsString(path), RTLD_LAZY | RTLD_LOCAL);
        Py_DECREF(path);
        if (library == NULL) {
            PyErr_Format(PyExc_RuntimeError, "cannot load libcuda.so.1 from TRITON_LIBCUDA_PATH: %s", dlerror());
            return NULL;
        }
    }
    if (library == NULL) library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (library == NULL) {
        PyErr_Format(PyExc_RuntimeError, "cannot load libcuda.so.1, which comes with NVIDIA's driver: %s", dlerror());
        return NULL;
    }
    void *symbol;
#define X(name, parameters)                                                                                            \
    symbol = dlsym(library, #name);                                                                                    \
    memcpy(&driver.name, &symbol, sizeof symbol);
    OPTIONAL(X)
#undef X
#define X(name, parameters)                                                                                            \
    symbol = dlsym(library, #name);                                                                                    \
    if (symbol == NULL) {                                                                                              \
        PyErr_SetString(PyExc_RuntimeError, "libcuda.so.1 has no " #name "; NVIDIA's driver is too old");              \
        return NULL;                                                                                                   \
    }                                                                                                                  \
    memcpy(&driver.name, &symbol, sizeof symbol);
    REQUIRED(X)
#undef X
    ready = 1;
    return &driver;
}

static PyObject *raise_status(const Driver *cuda, CUresult status) {
    const char *text = NULL;
    if (cuda->cuGetErrorString(status, &text) != CUDA_SUCCESS || text == NULL)
        return PyErr_Format(PyExc_RuntimeError, "Triton Error [CUDA]: unknown error %d", status);
    return PyErr_Format(PyExc_RuntimeError, "Triton Error [CUDA]: %s", text);
}

/* Evaluate driver calls in turn; leave at the first that fails. `status` is the variable that they set. */
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        if ((status = (call)) != CUDA_SUCCESS) return status;                                                          \
    } while (0)

/* If this thread has no current context, make the primary context of a device current. Needs no GIL. */
static CUresult ensure_context(const Driver *cuda, int ordinal) {
    void *context = NULL;
    CUdevice device;
    CUresult status = cuda->cuCtxGetCurrent(&context);
    if (status == CUDA_ERROR_NOT_INITIALIZED) {
        TRY(cuda->cuInit(0));
        status = cuda->cuCtxGetCurrent(&context);
    }
    if (status != CUDA_SUCCESS || context != NULL) return status;
    TRY(cuda->cuDeviceGet(&device, ordinal));
    TRY(cuda->cuDevicePrimaryCtxRetain(&context, device));
    return cuda->cuCtxSetCurrent(context);
}

#endif
