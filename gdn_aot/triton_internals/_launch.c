/*
 * Loads and launches compiled Triton kernels through the CUDA driver. What the functions do is in _launch.pyi.
 *
 * One binary serves every CPython from 3.10 on (limited API) and every Linux with glibc. Neither CUDA's headers nor
 * its libraries are needed to build or to import it: libcuda.so.1 is opened when the first function needs it.
 *
 * Shared between threads are only the table of driver functions, filled once while holding the GIL, and the plans of
 * launchers, which do not change after they are made. No lock is held across a fork.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_driver.h"

/* ---- Modules and devices ---- */

typedef struct {
    void *module, *function;
    int registers, local, threads;
} Loaded;

enum { SHARED_WITHOUT_OPT_IN = 49152 }; /* bytes; CUDA C++ Programming Guide, compute capability 7.x, shared memory */

static CUresult prepare(const Driver *cuda, Loaded *it, const char *name, int shared, int ordinal) {
    CUresult status;
    CUdevice device;
    int most = 0, fixed = 0;
    TRY(cuda->cuModuleGetFunction(&it->function, it->module, name));
    TRY(cuda->cuFuncGetAttribute(&it->registers, CU_FUNC_ATTRIBUTE_NUM_REGS, it->function));
    TRY(cuda->cuFuncGetAttribute(&it->local, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, it->function));
    TRY(cuda->cuFuncGetAttribute(&it->threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, it->function));
    if (shared <= SHARED_WITHOUT_OPT_IN) return CUDA_SUCCESS;
    TRY(cuda->cuDeviceGet(&device, ordinal));
    TRY(cuda->cuDeviceGetAttribute(&most, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, device));
    if (most <= SHARED_WITHOUT_OPT_IN) return CUDA_SUCCESS;
    TRY(cuda->cuFuncSetCacheConfig(it->function, CU_FUNC_CACHE_PREFER_SHARED));
    TRY(cuda->cuFuncGetAttribute(&fixed, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, it->function));
    return cuda->cuFuncSetAttribute(it->function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most - fixed);
}

static PyObject *load_binary(PyObject *Py_UNUSED(self), PyObject *args) {
    const char *name;
    PyObject *cubin;
    int shared, device;
    if (!PyArg_ParseTuple(args, "sSii:load_binary", &name, &cubin, &shared, &device)) return NULL;
    if (PyBytes_Size(cubin) == 0) {
        PyErr_SetString(PyExc_ValueError, "cubin is empty");
        return NULL;
    }
    const Driver *cuda = get_driver();
    if (cuda == NULL) return NULL;
    const char *image = PyBytes_AsString(cubin);
    Loaded it = {0};
    CUresult status;
    Py_BEGIN_ALLOW_THREADS
    status = ensure_context(cuda, device);
    if (status == CUDA_SUCCESS) status = cuda->cuModuleLoadData(&it.module, image);
    if (status == CUDA_SUCCESS && (status = prepare(cuda, &it, name, shared, device)) != CUDA_SUCCESS)
        cuda->cuModuleUnload(it.module);
    Py_END_ALLOW_THREADS
    if (status != CUDA_SUCCESS) return raise_status(cuda, status);
    unsigned long long module = (uintptr_t)it.module, function = (uintptr_t)it.function;
    return Py_BuildValue("(KKiii)", module, function, it.registers, it.local / 4, it.threads);
}

static const struct {
    const char *key;
    int attribute;
} PROPERTIES[] = {
    {"max_shared_mem", CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN},
    {"max_num_regs", CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK},
    {"multiprocessor_count", CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT},
    {"warpSize", CU_DEVICE_ATTRIBUTE_WARP_SIZE},
    {"sm_clock_rate", CU_DEVICE_ATTRIBUTE_CLOCK_RATE},
    {"mem_clock_rate", CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE},
    {"mem_bus_width", CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH},
};
enum { PROPERTY_COUNT = sizeof PROPERTIES / sizeof PROPERTIES[0] };

static CUresult read_properties(const Driver *cuda, int ordinal, int values[PROPERTY_COUNT]) {
    CUresult status;
    CUdevice device;
    TRY(cuda->cuInit(0));
    TRY(cuda->cuDeviceGet(&device, ordinal));
    for (int i = 0; i < PROPERTY_COUNT; i++)
        TRY(cuda->cuDeviceGetAttribute(&values[i], PROPERTIES[i].attribute, device));
    return CUDA_SUCCESS;
}

static PyObject *get_device_properties(PyObject *Py_UNUSED(self), PyObject *args) {
    int device, values[PROPERTY_COUNT] = {0};
    if (!PyArg_ParseTuple(args, "i:get_device_properties", &device)) return NULL;
    const Driver *cuda = get_driver();
    if (cuda == NULL) return NULL;
    CUresult status;
    Py_BEGIN_ALLOW_THREADS
    status = read_properties(cuda, device, values);
    Py_END_ALLOW_THREADS
    if (status != CUDA_SUCCESS) return raise_status(cuda, status);
    PyObject *result = PyDict_New();
    for (int i = 0; result != NULL && i < PROPERTY_COUNT; i++) {
        PyObject *value = PyLong_FromLong(values[i]);
        if (value == NULL || PyDict_SetItemString(result, PROPERTIES[i].key, value) < 0) Py_CLEAR(result);
        Py_XDECREF(value);
    }
    return result;
}

static PyObject *driver_version(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(args)) {
    const Driver *cuda = get_driver();
    if (cuda == NULL) return NULL;
    int version = 0;
    CUresult status = cuda->cuDriverGetVersion(&version);
    if (status != CUDA_SUCCESS) return raise_status(cuda, status);
    return PyLong_FromLong(version);
}

/* ---- Launches ---- */

enum { MOST_PARAMETERS = 128, LEADING = 9, SCRATCH = 2, WARP = 32 };
static const char *const LEADING_NAMES[LEADING] = {"grid_0",          "grid_1",          "grid_2",
                                                   "stream",          "function",        "packed_metadata",
                                                   "launch_metadata", "launch_enter_hook", "launch_exit_hook"};
static const char KINDS[] = "Pxbhil?BHILfdeg";
static const char PLAN[] = "gdn_aot.triton_internals._launch.plan";

/* What a launcher knows. Never written after make_launcher, so that any number of threads may use it. */
typedef struct {
    PyObject *data_ptr; /* the interned string */
    uint32_t threads, ctas, shared, attribute_count;
    CUlaunchAttribute attributes[4];
    Py_ssize_t count; /* of kernel arguments, constexpr included */
    char kinds[];     /* one for each */
} Plan;

/* Positions of kernel arguments count from 0; the leading arguments are -LEADING to -1. Both return -1. */
static int wrong_type(Py_ssize_t at, const char *wanted, PyObject *value) {
    if (at < 0)
        PyErr_Format(PyExc_TypeError, "%s must be %s, not %R", LEADING_NAMES[at + LEADING], wanted, Py_TYPE(value));
    else
        PyErr_Format(PyExc_TypeError, "Kernel argument (at %zd) must be %s, not %R", at, wanted, Py_TYPE(value));
    return -1;
}

static int out_of_range(Py_ssize_t at, const char *type) {
    if (at < 0)
        PyErr_Format(PyExc_OverflowError, "%s is out of range of %s", LEADING_NAMES[at + LEADING], type);
    else
        PyErr_Format(PyExc_OverflowError, "Kernel argument (at %zd) is out of range of %s", at, type);
    return -1;
}

/* Read an int, or what has __index__, into the low bytes of *out. Also used for bool, which is an int of one bit. */
static int read_int(PyObject *value, Py_ssize_t at, int bits, int is_signed, const char *type, uint64_t *out) {
    if (!PyLong_CheckExact(value) && !PyLong_Check(value)) {
        PyObject *index = PyNumber_Index(value);
        if (index == NULL) return PyErr_ExceptionMatches(PyExc_TypeError) ? wrong_type(at, "an int", value) : -1;
        int result = read_int(index, at, bits, is_signed, type, out);
        Py_DECREF(index);
        return result;
    }
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (number == -1 && overflow == 0 && PyErr_Occurred()) return -1;
    if (overflow > 0 && bits == 64 && !is_signed) {
        *out = PyLong_AsUnsignedLongLong(value);
        if (*out != UINT64_MAX || !PyErr_Occurred()) return 0;
        PyErr_Clear();
        return out_of_range(at, type);
    }
    long long most = INT64_MAX >> (64 - bits), least = is_signed ? -most - 1 : 0;
    if (!is_signed && bits < 64) most = 2 * most + 1;
    if (overflow != 0 || number < least || number > most) return out_of_range(at, type);
    *out = (uint64_t)number;
    return 0;
}

/* IEEE 754 binary16, round half to even; -1 if a finite number is too large. */
static int to_half(double number, uint64_t *out) {
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    uint64_t sign = bits >> 63 << 15, fraction = bits & ((1ULL << 52) - 1), half;
    int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
    if (exponent == 1024) {
        half = fraction == 0 ? 0x7c00 : 0x7e00;
    } else if (exponent < -25) {
        half = 0;
    } else {
        int shift = exponent >= -14 ? 42 : 28 - exponent; /* below 2**-14 the unit is 2**-24 */
        if (exponent < -14) fraction |= 1ULL << 52;
        uint64_t rest = fraction & ((1ULL << shift) - 1), middle = 1ULL << (shift - 1);
        half = (fraction >> shift) + (exponent >= -14 ? (uint64_t)(exponent + 15) << 10 : 0);
        half += rest > middle || (rest == middle && (half & 1));
        if (exponent >= 16 || half >= 0x7c00) return -1;
    }
    *out = sign | half;
    return 0;
}

static int read_float(PyObject *value, Py_ssize_t at, char kind, uint64_t *out) {
    double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred())
        return PyErr_ExceptionMatches(PyExc_TypeError) ? wrong_type(at, "a float", value) : -1;
    float narrow = (float)number;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    if (kind == 'd')
        memcpy(out, &number, sizeof number);
    else if (kind == 'e')
        return to_half(number, out) < 0 ? out_of_range(at, "fp16") : 0;
    else
        *out = kind == 'f' ? bits : bits >> 16;
    return 0;
}

static int read_pointer(const Plan *plan, const Driver *cuda, PyObject *value, Py_ssize_t at, uint64_t *out) {
    *out = 0;
    if (value == Py_None) return 0;
    if (PyLong_CheckExact(value) || PyLong_Check(value)) return read_int(value, at, 64, 0, "a pointer", out);
    PyObject *address = PyObject_CallMethodObjArgs(value, plan->data_ptr, NULL);
    if (address == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return -1;
        return wrong_type(at, "a pointer: None, an int, or an object with data_ptr()", value);
    }
    int result = PyLong_Check(address) ? read_int(address, at, 64, 0, "a pointer", out)
                                       : wrong_type(at, "a pointer: data_ptr() must return an int", value);
    Py_DECREF(address);
    if (result < 0 || *out == 0) return result;
    CUresult status = cuda->cuPointerGetAttribute(out, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, *out);
    if (status == CUDA_SUCCESS) return 0;
    if (status == CUDA_ERROR_INVALID_VALUE)
        PyErr_Format(PyExc_ValueError, "Pointer argument (at %zd) cannot be accessed from Triton (cpu tensor?)", at);
    else
        raise_status(cuda, status);
    return -1;
}

static int read_argument(const Plan *plan, const Driver *cuda, PyObject *value, Py_ssize_t at, uint64_t *out) {
    switch (plan->kinds[at]) {
    case 'P': return read_pointer(plan, cuda, value, at, out);
    case 'b': return read_int(value, at, 8, 1, "i8", out);
    case 'h': return read_int(value, at, 16, 1, "i16", out);
    case 'i': return read_int(value, at, 32, 1, "i32", out);
    case 'l': return read_int(value, at, 64, 1, "i64", out);
    case '?': return read_int(value, at, 1, 0, "i1", out);
    case 'B': return read_int(value, at, 8, 0, "u8", out);
    case 'H': return read_int(value, at, 16, 0, "u16", out);
    case 'I': return read_int(value, at, 32, 0, "u32", out);
    case 'L': return read_int(value, at, 64, 0, "u64", out);
    default: return read_float(value, at, plan->kinds[at], out);
    }
}

static int call_hook(PyObject *hook, PyObject *metadata) {
    if (metadata == Py_None || hook == Py_None) return 0;
    PyObject *result = PyObject_CallFunctionObjArgs(hook, metadata, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static CUresult start(const Plan *plan, const Driver *cuda, CUlaunchConfig *config, void *function, void **parameters) {
    CUresult status;
    if (plan->ctas == 16)
        TRY(cuda->cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1));
    if (cuda->cuLaunchKernelEx != NULL) return cuda->cuLaunchKernelEx(config, function, parameters, NULL);
    return cuda->cuLaunchKernel(function, config->grid[0], config->grid[1], config->grid[2], config->block[0],
                                config->block[1], config->block[2], config->shared, config->stream, parameters, NULL);
}

static PyObject *launch(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    const Plan *plan = PyCapsule_GetPointer(self, PLAN);
    const Driver *cuda = plan == NULL ? NULL : get_driver();
    if (cuda == NULL) return NULL;
    if (given != LEADING + plan->count)
        return PyErr_Format(PyExc_TypeError, "launch takes %d leading and %zd kernel arguments, %zd in all; %zd given",
                            LEADING, plan->count, LEADING + plan->count, given);

    CUresult status;
    void *context = NULL;
    if (cuda->cuCtxGetCurrent(&context) != CUDA_SUCCESS || context == NULL) { /* the first launch of a thread */
        Py_BEGIN_ALLOW_THREADS
        status = ensure_context(cuda, 0);
        Py_END_ALLOW_THREADS
        if (status != CUDA_SUCCESS) return raise_status(cuda, status);
    }

    uint64_t grid[3], stream, function, values[MOST_PARAMETERS + SCRATCH];
    void *parameters[MOST_PARAMETERS + SCRATCH];
    for (int i = 0; i < 3; i++)
        if (read_int(args[i], i - LEADING, 32, 1, "a 32-bit int", &grid[i]) < 0) return NULL;
    if (read_int(args[3], 3 - LEADING, 64, 0, "a handle", &stream) < 0) return NULL;
    if (read_int(args[4], 4 - LEADING, 64, 0, "a handle", &function) < 0) return NULL;
    int count = 0;
    for (Py_ssize_t at = 0; at < plan->count; at++) {
        if (plan->kinds[at] == 'x') continue;
        parameters[count] = &values[count];
        if (read_argument(plan, cuda, args[LEADING + at], at, &values[count++]) < 0) return NULL;
    }
    for (int i = 0; i < SCRATCH; i++) { /* the kernel's last parameters: global and profile scratch */
        parameters[count] = &values[count];
        values[count++] = 0;
    }

    int empty = (int64_t)grid[0] <= 0 || (int64_t)grid[1] <= 0 || (int64_t)grid[2] <= 0;
    if (!empty && grid[0] * plan->ctas > UINT32_MAX) return out_of_range(-LEADING, "a grid of clusters"), NULL;
    if (cuda->cuLaunchKernelEx == NULL && plan->attribute_count > 0)
        return PyErr_Format(PyExc_RuntimeError, "libcuda.so.1 has no cuLaunchKernelEx, which this kernel needs; "
                                                "NVIDIA's driver is too old");

    if (call_hook(args[7], args[6]) < 0) return NULL;
    if (!empty) {
        CUlaunchConfig config = {
            .grid = {(uint32_t)grid[0] * plan->ctas, (uint32_t)grid[1], (uint32_t)grid[2]},
            .block = {plan->threads, 1, 1},
            .shared = plan->shared,
            .stream = (void *)(uintptr_t)stream,
            .attributes = plan->attributes,
            .attribute_count = plan->attribute_count,
        };
        Py_BEGIN_ALLOW_THREADS
        status = start(plan, cuda, &config, (void *)(uintptr_t)function, parameters);
        Py_END_ALLOW_THREADS
        if (status != CUDA_SUCCESS) return raise_status(cuda, status);
    }
    if (call_hook(args[8], args[6]) < 0) return NULL;
    Py_RETURN_NONE;
}

static void free_plan(PyObject *capsule) {
    Plan *plan = PyCapsule_GetPointer(capsule, PLAN);
    if (plan == NULL) return;
    Py_DECREF(plan->data_ptr);
    PyMem_Free(plan);
}

static CUlaunchAttribute *add_attribute(Plan *plan, uint32_t id, int32_t number) {
    CUlaunchAttribute *attribute = &plan->attributes[plan->attribute_count++];
    attribute->id = id;
    attribute->value.number = number;
    return attribute;
}

static PyObject *make_launcher(PyObject *Py_UNUSED(self), PyObject *args, PyObject *named) {
    static PyMethodDef METHOD = {"launch", (PyCFunction)(void (*)(void))launch, METH_FASTCALL,
                                 "Launch one kernel; called like CompiledKernel.run of Triton."};
    static char *names[] = {"kinds", "num_warps", "num_ctas", "shared", "cooperative", "pdl", NULL};
    const char *kinds;
    int warps, ctas, shared, cooperative, pdl;
    if (!PyArg_ParseTupleAndKeywords(args, named, "siiipp:make_launcher", names, &kinds, &warps, &ctas, &shared,
                                     &cooperative, &pdl))
        return NULL;
    size_t length = strlen(kinds), parameters = 0;
    for (size_t i = 0; i < length; i++) {
        if (strchr(KINDS, kinds[i]) == NULL)
            return PyErr_Format(PyExc_ValueError, "kinds[%zu] of '%s' is none of %s", i, kinds, KINDS);
        parameters += kinds[i] != 'x';
    }
    if (parameters > MOST_PARAMETERS)
        return PyErr_Format(PyExc_ValueError, "%zu kernel parameters; at most %d are supported", parameters,
                            MOST_PARAMETERS);
    if (warps < 1 || warps > 32 || ctas < 1 || ctas > 16 || shared < 0)
        return PyErr_Format(PyExc_ValueError, "out of range: num_warps=%d, num_ctas=%d or shared=%d", warps, ctas,
                            shared);

    Plan *plan = PyMem_Calloc(1, sizeof *plan + length);
    if (plan == NULL) return PyErr_NoMemory();
    plan->threads = (uint32_t)warps * WARP;
    plan->ctas = (uint32_t)ctas;
    plan->shared = (uint32_t)shared;
    plan->count = (Py_ssize_t)length;
    memcpy(plan->kinds, kinds, length);
    if (pdl) add_attribute(plan, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, 1);
    if (cooperative) add_attribute(plan, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, 1);
    if (ctas > 1) {
        CUlaunchAttribute *cluster = add_attribute(plan, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, ctas);
        cluster->value.cluster[1] = cluster->value.cluster[2] = 1;
        add_attribute(plan, CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE,
                      CU_CLUSTER_SCHEDULING_POLICY_SPREAD);
    }
    plan->data_ptr = PyUnicode_InternFromString("data_ptr");
    PyObject *capsule = plan->data_ptr == NULL ? NULL : PyCapsule_New(plan, PLAN, free_plan);
    if (capsule == NULL) {
        Py_XDECREF(plan->data_ptr);
        PyMem_Free(plan);
        return NULL;
    }
    PyObject *launcher = PyCFunction_NewEx(&METHOD, capsule, NULL);
    Py_DECREF(capsule);
    return launcher;
}

PyMODINIT_FUNC PyInit__launch(void) {
    static PyMethodDef methods[] = {
        {"load_binary", load_binary, METH_VARARGS,
         "load_binary(name, cubin, shared, device, /)\n--\n\nLoad a kernel; see _launch.pyi."},
        {"get_device_properties", get_device_properties, METH_VARARGS,
         "get_device_properties(device, /)\n--\n\nReturn figures of a device; see _launch.pyi."},
        {"driver_version", driver_version, METH_NOARGS,
         "driver_version()\n--\n\nReturn the CUDA version of the driver, 13000 for 13.0."},
        {"make_launcher", (PyCFunction)(void (*)(void))make_launcher, METH_VARARGS | METH_KEYWORDS,
         "make_launcher(kinds, num_warps, num_ctas, shared, cooperative, pdl)\n--\n\n"
         "Return a function that launches kernels of one signature; see _launch.pyi."},
        {NULL, NULL, 0, NULL}};
    static PyModuleDef_Slot slots[] = {{0, NULL}};
    static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "gdn_aot.triton_internals._launch",
                                            .m_methods = methods, .m_slots = slots};
    return PyModuleDef_Init(&definition);
}
