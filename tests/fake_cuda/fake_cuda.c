#include "fake_cuda.h"

#include "runtime/devices/nvtx.h"

#pragma GCC diagnostic ignored "-Wmissing-prototypes" /* the entries, which are found by dlsym */

#include "sluice/plan.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
  OUT_OF_MEMORY = 2,
  INVALID = 1,
  NO_DEVICE = 100,
  NO_BINARY = 209,
  INVALID_PTX = 218,
  NOT_FOUND = 500,
  PREFERRED_CARVEOUT = 9,
  MOST_OPERATIONS = 64
};

typedef unsigned long long pointer;

typedef struct operation { /* of a graph */
  void *to;
  const void *from;
  size_t bytes;
  struct function *function; /* NULL: a copy */
  void *arguments[11];
  const int *sizes;
  unsigned grid[2], shared;
} operation;

typedef struct graph {
  operation operations[MOST_OPERATIONS];
  int count;
} graph;

typedef struct function {
  sluice_host_kernel *run;
  int arguments, carveout;
  struct function *next;
} function;

typedef struct module {
  void *library;
  function *functions;
} module;

typedef struct queue {
  graph *recording; /* NULL: what is put in runs at once */
} queue;

/* Calls may come from several threads; `lock` guards the counters. Work runs outside of it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static fake_cuda_state state;
static int calls, stuck;
static size_t allocated;

static void count(int *counter, int by) {
  pthread_mutex_lock(&lock);
  *counter += by;
  pthread_mutex_unlock(&lock);
}

fake_cuda_state *fake_cuda_control(void) {
  int live = state.live;
  state = (fake_cuda_state){
      .version = 13000, .devices = 1, .major = 9, .minor = 0, .free_bytes = (size_t)1 << 30, .live = live};
  calls = stuck = 0;
  return &state;
}

static int fails_locked(const char *name) {
  if (state.devices == 0 && state.version == 0) fake_cuda_control();
  if (stuck) return stuck;
  if (!state.fail || (strcmp(state.fail, name) != 0 && strcmp(state.fail, "*") != 0) || calls++ != state.fail_at)
    return 0;
  state.failed = 1;
  if (state.sticky) stuck = state.fail_result;
  return state.fail_result;
}
/* The result of entry `name` when it is to fail, else 0. */
static int fails(const char *name) {
  pthread_mutex_lock(&lock);
  int result = fails_locked(name);
  pthread_mutex_unlock(&lock);
  return result;
}
#define ENTRY                                                                                                          \
  do {                                                                                                                 \
    int failure = fails(__func__);                                                                                     \
    if (failure) return failure;                                                                                       \
  } while (0)

int cuInit(unsigned flags) {
  (void)flags;
  ENTRY;
  return state.devices ? 0 : NO_DEVICE;
}
int cuDriverGetVersion(int *out) {
  ENTRY;
  *out = state.version;
  return 0;
}
int cuDeviceGetCount(int *out) {
  ENTRY;
  *out = state.devices;
  return 0;
}
int cuDeviceGet(int *out, int ordinal) {
  ENTRY;
  *out = ordinal;
  return ordinal < state.devices ? 0 : INVALID;
}
int cuDeviceGetName(char *name, int length, int device) {
  (void)device;
  ENTRY;
  snprintf(name, (size_t)length, "Imaginary GPU");
  return 0;
}
int cuDeviceGetAttribute(int *out, int attribute, int device) {
  (void)device;
  ENTRY;
  *out = attribute == 75 ? state.major : attribute == 76 ? state.minor : attribute == 38 ? 50 << 20 : 0;
  return 0;
}
static int made(void **out) {
  *out = calloc(1, sizeof(queue));
  count(&state.live, 1);
  return 0;
}
static int gone(void *object) {
  free(object);
  count(&state.live, -1);
  return 0;
}
int cuDevicePrimaryCtxRetain(void **out, int device) {
  static char context;
  (void)device;
  ENTRY;
  *out = &context;
  count(&state.live, 1);
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  count(&state.live, -1);
  return 0;
}
int cuCtxSetCurrent(void *context) {
  (void)context;
  ENTRY;
  return 0;
}
int cuGetErrorName(int result, const char **out) {
  *out = result == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
         : result == 700         ? "CUDA_ERROR_ILLEGAL_ADDRESS"
                                 : "CUDA_ERROR";
  return 0;
}
int cuGetErrorString(int result, const char **out) {
  *out = result == 700 ? "an illegal memory access was encountered" : "as the test wants it";
  return 0;
}
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  ENTRY;
  pthread_mutex_lock(&lock);
  *free_bytes = state.free_bytes - allocated;
  pthread_mutex_unlock(&lock);
  *total = state.free_bytes;
  return 0;
}
/* Memory that remembers its size in front. */
static int take(void **out, size_t bytes, bool counted) {
  size_t *memory = NULL;
  if (posix_memalign((void **)&memory, 256, bytes + 256)) return OUT_OF_MEMORY;
  memory[0] = counted ? bytes : 0;
  memset((char *)memory + 256, 0xff, bytes);
  pthread_mutex_lock(&lock);
  allocated += memory[0];
  state.live++;
  pthread_mutex_unlock(&lock);
  *out = (char *)memory + 256;
  return 0;
}
static int give_back(void *memory) {
  size_t *start = (size_t *)(void *)((char *)memory - 256);
  pthread_mutex_lock(&lock);
  allocated -= start[0];
  state.live--;
  pthread_mutex_unlock(&lock);
  free(start);
  return 0;
}
int cuMemAlloc_v2(pointer *out, size_t bytes) {
  ENTRY;
  pthread_mutex_lock(&lock);
  bool fits = bytes <= state.free_bytes - allocated;
  pthread_mutex_unlock(&lock);
  if (!fits) return OUT_OF_MEMORY;
  void *memory = NULL;
  int result = take(&memory, bytes, true);
  *out = (pointer)(uintptr_t)memory;
  return result;
}
int cuMemFree_v2(pointer memory) {
  return give_back((void *)(uintptr_t)memory);
}
int cuMemHostAlloc(void **out, size_t bytes, unsigned flags) {
  (void)flags;
  ENTRY;
  return take(out, bytes, false);
}
int cuMemFreeHost(void *memory) {
  return give_back(memory);
}

static void run(const operation *o) {
  if (!o->function) {
    memcpy(o->to, o->from, o->bytes);
    return;
  }
  void *scratch = NULL;
  if (posix_memalign(&scratch, 64, o->shared + 64)) abort();
  o->function->run(o->arguments, o->sizes, 0, (int64_t)o->grid[0] * o->grid[1], scratch);
  free(scratch);
}
static int put(void *object, operation o) {
  graph *recording = ((queue *)object)->recording;
  if (!recording) {
    run(&o);
    return 0;
  }
  if (recording->count == MOST_OPERATIONS) return INVALID;
  recording->operations[recording->count++] = o;
  return 0;
}
int cuMemcpyHtoDAsync_v2(pointer to, const void *from, size_t bytes, void *stream) {
  ENTRY;
  count(&state.copies_in, !((queue *)stream)->recording);
  return put(stream, (operation){.to = (void *)(uintptr_t)to, .from = from, .bytes = bytes});
}
int cuMemcpyDtoHAsync_v2(void *to, pointer from, size_t bytes, void *stream) {
  ENTRY;
  count(&state.copies_out, !((queue *)stream)->recording);
  return put(stream, (operation){.to = to, .from = (void *)(uintptr_t)from, .bytes = bytes});
}
int cuMemcpyDtoDAsync_v2(pointer to, pointer from, size_t bytes, void *stream) {
  ENTRY;
  return put(stream, (operation){.to = (void *)(uintptr_t)to, .from = (void *)(uintptr_t)from, .bytes = bytes});
}
int cuStreamCreate(void **out, unsigned flags) {
  (void)flags;
  ENTRY;
  return made(out);
}
int cuStreamDestroy_v2(void *stream) {
  return gone(stream);
}
int cuStreamSynchronize(void *stream) {
  (void)stream;
  ENTRY;
  return 0;
}
int cuStreamWriteValue32_v2(void *stream, pointer address, uint32_t value, unsigned flags) {
  (void)stream, (void)flags;
  ENTRY;
  *(uint32_t *)(uintptr_t)address = value;
  return 0;
}
int cuEventCreate(void **out, unsigned flags) {
  (void)flags;
  ENTRY;
  return made(out);
}
int cuEventDestroy_v2(void *event) {
  return gone(event);
}
int cuEventRecord(void *event, void *stream) {
  (void)event, (void)stream;
  ENTRY;
  return 0;
}
int cuEventSynchronize(void *event) {
  (void)event;
  ENTRY;
  return 0;
}
int cuEventElapsedTime(float *out, void *start, void *end) {
  (void)start, (void)end;
  ENTRY;
  *out = 0.25f;
  return 0;
}

/* PTX stands for the shared object at the path that it names after "//". */
static void *open_image(const char *image) {
  if (strncmp(image, "//", 2) == 0) return dlopen(image + 2, RTLD_NOW | RTLD_LOCAL);
  int file = memfd_create("fake-cubin", 0);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  /* An ELF file ends with its section headers. */
  uint64_t headers;
  uint16_t entry, count;
  memcpy(&headers, image + 40, sizeof headers);
  memcpy(&entry, image + 58, sizeof entry);
  memcpy(&count, image + 60, sizeof count);
  bool written = write(file, image, headers + (size_t)entry * count) > 0;
  void *library = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  close(file);
  return library;
}
int cuModuleLoadDataEx(void **out, const void *image, unsigned options, int *names, void **values) {
  ENTRY;
  bool text = strncmp(image, "//", 2) == 0;
  if (!text && state.refuse_binary) return NO_BINARY;
  if (text && state.log) {
    for (unsigned i = 0; i < options; i++)
      if (names[i] == 5) snprintf(values[i], 2048, "%s", state.log);
    return INVALID_PTX;
  }
  module *m = calloc(1, sizeof *m);
  m->library = open_image(image);
  if (!m->library) {
    free(m);
    return INVALID;
  }
  count(&state.live, 1);
  *out = m;
  return 0;
}
int cuModuleUnload(void *object) {
  module *m = object;
  dlclose(m->library);
  while (m->functions) {
    function *next = m->functions->next;
    free(m->functions);
    m->functions = next;
  }
  return gone(m);
}
int cuModuleGetFunction(void **out, void *object, const char *name) {
  ENTRY;
  module *m = object;
  void *symbol = dlsym(m->library, name);
  if (!symbol) return NOT_FOUND;
  function *f = calloc(1, sizeof *f);
  memcpy(&f->run, &symbol, sizeof symbol);
  /* A launch does not say how many parameters it has; these are those of tests/support/tiny_bundle.c. */
  static const char *const names[] = {"tiny_synthesize", "tiny_pick", "tiny_logits"};
  f->arguments = 2;
  while (f->arguments < 5 && strcmp(name, names[f->arguments - 2]) != 0) f->arguments++;
  if (strcmp(name, "tiny_join") == 0) f->arguments = 11;
  f->next = m->functions;
  m->functions = f;
  *out = f;
  return 0;
}
int cuFuncSetAttribute(void *object, int attribute, int value) {
  ENTRY;
  if (attribute == PREFERRED_CARVEOUT) ((function *)object)->carveout = value;
  return 0;
}
typedef struct launch_config {
  unsigned grid[3], block[3], shared;
  void *stream, *attributes;
  unsigned attribute_count;
} launch_config;
int cuLaunchKernelEx(const launch_config *config, void *object, void **parameters, void **extra) {
  (void)extra;
  ENTRY;
  operation o = {.function = object, .grid = {config->grid[0], config->grid[1]}, .shared = config->shared};
  for (int i = 0; i < o.function->arguments; i++) memcpy(&o.arguments[i], parameters[i], sizeof(void *));
  memcpy(&o.sizes, parameters[o.function->arguments], sizeof(void *));
  pthread_mutex_lock(&lock);
  state.launches++;
  memcpy(state.last_grid, config->grid, sizeof state.last_grid);
  state.last_block = config->block[0];
  state.last_shared = config->shared;
  if (state.last_carveout != o.function->carveout) state.divisions++;
  state.last_carveout = o.function->carveout;
  pthread_mutex_unlock(&lock);
  return put(config->stream, o);
}
int cuStreamBeginCapture_v2(void *object, int mode) {
  queue *s = object;
  (void)mode;
  ENTRY;
  if (s->recording) return INVALID;
  s->recording = calloc(1, sizeof *s->recording);
  count(&state.live, 1);
  count(&state.captures, 1);
  return 0;
}
int cuStreamEndCapture(void *object, void **out) {
  queue *s = object;
  int failure = fails(__func__);
  graph *g = s->recording;
  s->recording = NULL;
  if (failure || !g) {
    if (g) gone(g);
    *out = NULL;
    return failure ? failure : INVALID;
  }
  *out = g;
  return 0;
}
int cuGraphInstantiateWithFlags(void **out, void *object, unsigned long long flags) {
  (void)flags;
  ENTRY;
  graph *copy = malloc(sizeof *copy);
  memcpy(copy, object, sizeof *copy);
  count(&state.live, 1);
  *out = copy;
  return 0;
}
int cuGraphLaunch(void *object, void *stream) {
  (void)stream;
  ENTRY;
  graph *g = object;
  count(&state.graph_launches, 1);
  for (int i = 0; i < g->count; i++) run(&g->operations[i]);
  return 0;
}
int cuGraphDestroy(void *object) {
  return gone(object);
}
int cuGraphExecDestroy(void *object) {
  return gone(object);
}

/* ---- A profiler ---- */

static int range_push(const char *name) {
  pthread_mutex_lock(&lock);
  snprintf(state.open_ranges ? state.inner : state.outer, sizeof state.outer, "%s", name);
  state.ranges++;
  int depth = state.open_ranges++;
  pthread_mutex_unlock(&lock);
  return depth;
}

static int range_pop(void) {
  count(&state.open_ranges, -1);
  return 0;
}

int InitializeInjectionNvtx2(nvtx_export_table *tables);
int InitializeInjectionNvtx2(nvtx_export_table *tables) {
  const nvtx_version *version = tables(NVTX_TABLE_VERSION);
  const nvtx_callbacks *callbacks = tables(NVTX_TABLE_CALLBACKS);
  nvtx_function ***places = NULL;
  unsigned count = 0;
  if (version->version != 3 || !callbacks->module_functions(NVTX_MODULE_CORE, &places, &count) || count != 16) return 0;
  int (*push)(const char *) = range_push;
  int (*pop)(void) = range_pop;
  memcpy(places[NVTX_CORE_RANGE_PUSH], &push, sizeof push);
  memcpy(places[NVTX_CORE_RANGE_POP], &pop, sizeof pop);
  return 1;
}
