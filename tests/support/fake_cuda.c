/*
 * A libcuda.so.1 without a GPU. It writes each call as a line of JSON to the file that FAKE_CUDA_LOG names, and keeps
 * the driver's rules that callers trip over: cuInit comes first and not after a fork, contexts belong to threads.
 * The other environment variables, read at each call, are described in fake_cuda.py. -DFAKE_CUDA_QUIET leaves the
 * reading and writing out, for timing; -DFAKE_CUDA_OLD leaves cuLaunchKernelEx out.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, NOT_FOUND = 500 };
enum { DEVICES = 2, FUNCTIONS = 4096, LINE = 65536 };

typedef struct {
    unsigned grid[3], block[3], shared;
    void *stream;
    struct {
        unsigned id, unused, value[16];
    } *attributes;
    unsigned attribute_count;
} LaunchConfig;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *function_names[FUNCTIONS]; /* function handle 0x20000 + 16 * index */
static unsigned function_count = 0, module_count = 0;
static pid_t initialised = 0;
static __thread void *current = NULL;

static const char *setting(const char *name) {
#ifdef FAKE_CUDA_QUIET
    return (void)name, NULL;
#else
    return getenv(name);
#endif
}

static void record(const char *call, const char *format, ...) {
    const char *path = setting("FAKE_CUDA_LOG");
    if (path == NULL) return;
    static __thread char line[LINE];
    int size = snprintf(line, LINE, "{\"call\": \"%s\", \"process\": %d, \"thread\": %ld", call, (int)getpid(),
                        (long)syscall(SYS_gettid));
    va_list values;
    va_start(values, format);
    size += vsnprintf(line + size, (size_t)(LINE - size - 3), format, values);
    va_end(values);
    size += snprintf(line + size, 3, "}\n");
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file < 0 || write(file, line, (size_t)size) != size) abort();
    close(file);
}

/* The value of "key=value" in a setting of the form "key=value,key=value", or a default. */
static long long look_up(const char *name, const char *key, long long otherwise) {
    const char *text = setting(name);
    if (text == NULL) return otherwise;
    size_t size = strlen(key);
    while (text != NULL && *text != '\0') {
        if (strncmp(text, key, size) == 0 && text[size] == '=') return strtoll(text + size + 1, NULL, 0);
        text = strchr(text, ',');
        if (text != NULL) text++;
    }
    return otherwise;
}

/* What a call must fail with, or 0. */
static int verdict(const char *call) {
#ifdef FAKE_CUDA_QUIET
    return (void)call, initialised != 0 ? SUCCESS : NOT_INITIALIZED;
#else
    int failure = (int)look_up("FAKE_CUDA_FAIL", call, SUCCESS);
    if (failure != SUCCESS) return failure;
    return initialised != 0 && initialised == getpid() ? SUCCESS : NOT_INITIALIZED;
#endif
}

#define BEGIN(...)                                                                                                     \
    record(__func__, __VA_ARGS__);                                                                                     \
    int status = verdict(__func__);                                                                                    \
    if (status != SUCCESS) return status

API int cuInit(unsigned flags) {
    record("cuInit", ", \"flags\": %u", flags);
    int failure = (int)look_up("FAKE_CUDA_FAIL", "cuInit", SUCCESS);
    if (failure != SUCCESS) return failure;
    if (initialised != 0 && initialised != getpid()) return NOT_INITIALIZED;
    initialised = getpid();
    return SUCCESS;
}

API int cuGetErrorString(int error, const char **text) {
    switch (error) {
    case SUCCESS: *text = "no error"; break;
    case INVALID_VALUE: *text = "invalid argument"; break;
    case 2: *text = "out of memory"; break;
    case NOT_INITIALIZED: *text = "initialization error"; break;
    case INVALID_DEVICE: *text = "invalid device ordinal"; break;
    case 200: *text = "device kernel image is invalid"; break;
    case 209: *text = "no kernel image is available for execution on the device"; break;
    case NOT_FOUND: *text = "named symbol not found"; break;
    case 700: *text = "an illegal memory access was encountered"; break;
    case 701: *text = "too many resources requested for launch"; break;
    default: *text = NULL; return INVALID_VALUE;
    }
    return SUCCESS;
}

API int cuDriverGetVersion(int *version) {
    record("cuDriverGetVersion", "");
    *version = (int)look_up("FAKE_CUDA_DEVICE", "version", 13000);
    return (int)look_up("FAKE_CUDA_FAIL", "cuDriverGetVersion", SUCCESS);
}

/* ---- Devices and contexts ---- */

API int cuDeviceGetCount(int *count) {
    BEGIN("");
    *count = DEVICES;
    return SUCCESS;
}

API int cuDeviceGet(int *device, int ordinal) {
    BEGIN(", \"ordinal\": %d", ordinal);
    if (ordinal < 0 || ordinal >= DEVICES) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

API int cuDeviceGetAttribute(int *value, int attribute, int device) {
    BEGIN(", \"attribute\": %d, \"device\": %d", attribute, device);
    static const int h100[][2] = {{8, 49152},    {10, 32},   {12, 65536}, {13, 1980000}, {16, 132}, {36, 2619000},
                                  {37, 5120},    {75, 9},    {76, 0},     {81, 233472},  {97, 232448}};
    char key[16];
    snprintf(key, sizeof key, "%d", attribute);
    *value = 0;
    for (size_t i = 0; i < sizeof h100 / sizeof h100[0]; i++)
        if (h100[i][0] == attribute) *value = h100[i][1];
    *value = (int)look_up("FAKE_CUDA_DEVICE", key, *value);
    return SUCCESS;
}

API int cuCtxGetCurrent(void **context) {
    BEGIN("");
    *context = current;
    return SUCCESS;
}

API int cuCtxSetCurrent(void *context) {
    BEGIN(", \"context\": %llu", (unsigned long long)(uintptr_t)context);
    current = context;
    return SUCCESS;
}

API int cuCtxGetDevice(int *device) {
    BEGIN("");
    *device = (int)((uintptr_t)current / 0x100) - 1;
    return SUCCESS;
}

API int cuCtxGetLimit(size_t *value, int limit) {
    BEGIN(", \"limit\": %d", limit);
    *value = 0;
    return SUCCESS;
}

API int cuCtxSetLimit(int limit, size_t value) {
    BEGIN(", \"limit\": %d, \"value\": %zu", limit, value);
    return SUCCESS;
}

API int cuDevicePrimaryCtxRetain(void **context, int device) {
    BEGIN(", \"device\": %d", device);
    *context = (void *)(uintptr_t)(0x100 * (device + 1));
    return SUCCESS;
}

API int cuPointerGetAttribute(void *value, int attribute, unsigned long long pointer) {
    BEGIN(", \"attribute\": %d, \"pointer\": %llu", attribute, pointer);
    if (look_up("FAKE_CUDA_POINTERS", "host", 0) == (long long)pointer) return INVALID_VALUE;
    *(unsigned long long *)value = pointer + (unsigned long long)look_up("FAKE_CUDA_POINTERS", "offset", 0);
    return SUCCESS;
}

/* ---- Modules and functions ---- */

API int cuModuleLoadData(void **module, const void *image) {
    const unsigned char *bytes = image;
    BEGIN(", \"image\": \"%02x%02x%02x%02x\"", bytes[0], bytes[1], bytes[2], bytes[3]);
    *module = (void *)(uintptr_t)(0x10000 + 16 * __atomic_fetch_add(&module_count, 1, __ATOMIC_SEQ_CST));
    return SUCCESS;
}

API int cuModuleUnload(void *module) {
    BEGIN(", \"module\": %llu", (unsigned long long)(uintptr_t)module);
    return SUCCESS;
}

API int cuModuleGetFunction(void **function, void *module, const char *name) {
    BEGIN(", \"module\": %llu, \"name\": \"%s\"", (unsigned long long)(uintptr_t)module, name);
    pthread_mutex_lock(&lock);
    unsigned index = function_count;
    if (index < FUNCTIONS) function_names[function_count++] = strdup(name);
    pthread_mutex_unlock(&lock);
    *function = (void *)(uintptr_t)(0x20000 + 16 * index);
    return index < FUNCTIONS ? SUCCESS : NOT_FOUND;
}

static const char *name_of(void *function) {
    uintptr_t index = ((uintptr_t)function - 0x20000) / 16;
    return (uintptr_t)function >= 0x20000 && index < function_count ? function_names[index] : "";
}

API int cuFuncGetAttribute(int *value, int attribute, void *function) {
    BEGIN(", \"attribute\": %d, \"function\": %llu", attribute, (unsigned long long)(uintptr_t)function);
    static const int values[] = {1024, 16, 0, 24, 40}; /* threads, static shared, constant, local bytes, registers */
    *value = attribute >= 0 && attribute < 5 ? values[attribute] : 0;
    return SUCCESS;
}

API int cuFuncSetAttribute(void *function, int attribute, int value) {
    BEGIN(", \"attribute\": %d, \"function\": %llu, \"value\": %d", attribute, (unsigned long long)(uintptr_t)function,
          value);
    return SUCCESS;
}

API int cuFuncSetCacheConfig(void *function, int config) {
    BEGIN(", \"function\": %llu, \"config\": %d", (unsigned long long)(uintptr_t)function, config);
    return SUCCESS;
}

/* ---- Launches ---- */

/* The sizes of a kernel's parameters: "8,4,4", or "name:8,4,4;other:8" to tell kernels apart. */
static const char *sizes_of(const char *name) {
    const char *text = setting("FAKE_CUDA_PARAMETERS");
    if (text == NULL || strchr(text, ':') == NULL) return text;
    size_t length = strlen(name);
    while (text != NULL) {
        if (strncmp(text, name, length) == 0 && text[length] == ':') return text + length + 1;
        text = strchr(text, ';');
        if (text != NULL) text++;
    }
    return NULL;
}

static int log_launch(const char *call, const LaunchConfig *config, void *function, void **parameters, void **extra) {
    char attributes[1024] = "", bytes[16384] = "";
    size_t used = 0;
    const char *sizes = sizes_of(name_of(function));
    for (unsigned i = 0; i < config->attribute_count; i++)
        used += (size_t)snprintf(attributes + used, sizeof attributes - used, "%s[%u, [%u, %u, %u]]", i ? ", " : "",
                                 config->attributes[i].id, config->attributes[i].value[0],
                                 config->attributes[i].value[1], config->attributes[i].value[2]);
    used = 0;
    for (int i = 0; sizes != NULL && *sizes >= '0' && *sizes <= '9'; i++) {
        char *end;
        long size = strtol(sizes, &end, 10);
        used += (size_t)snprintf(bytes + used, sizeof bytes - used, "%s\"", i ? ", " : "");
        for (long at = 0; at < size; at++)
            used += (size_t)snprintf(bytes + used, sizeof bytes - used, "%02x", ((unsigned char *)parameters[i])[at]);
        used += (size_t)snprintf(bytes + used, sizeof bytes - used, "\"");
        sizes = *end == ',' ? end + 1 : NULL;
    }
    record(call,
           ", \"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], \"shared\": %u, \"stream\": %llu, \"function\": %llu, "
           "\"name\": \"%s\", \"extra\": %d, \"attributes\": [%s], \"parameters\": [%s]",
           config->grid[0], config->grid[1], config->grid[2], config->block[0], config->block[1], config->block[2],
           config->shared, (unsigned long long)(uintptr_t)config->stream, (unsigned long long)(uintptr_t)function,
           name_of(function), extra != NULL, attributes, bytes);
    return verdict(call);
}

#ifndef FAKE_CUDA_OLD
API int cuLaunchKernelEx(const LaunchConfig *config, void *function, void **parameters, void **extra) {
#ifdef FAKE_CUDA_QUIET
    return (void)config, (void)function, (void)parameters, (void)extra, SUCCESS;
#endif
    return log_launch("cuLaunchKernelEx", config, function, parameters, extra);
}
#endif

API int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                       unsigned block_y, unsigned block_z, unsigned shared, void *stream, void **parameters,
                       void **extra) {
    LaunchConfig config = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, stream, NULL, 0};
    return log_launch("cuLaunchKernel", &config, function, parameters, extra);
}
