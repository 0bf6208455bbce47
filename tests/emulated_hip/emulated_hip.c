/* AMD's HIP library with one emulated GPU: memory is the host's, kernels are executed by the interpreter of their
 * machine code (tests/amdgcn/gcn.h). Built as libamdhip64.so.7, so that an unmodified sluice-run finds it:
 *
 *     LD_LIBRARY_PATH=build/release/emulated_hip EMULATED_GPU=gfx950 sluice-run generate nano.sluice --device hip:0 ...
 *
 * EMULATED_GPU says which GPU (gfx942), EMULATED_SEED in which order waves and workgroups run (0: one after another,
 * gcn.h), EMULATED_CHECKS=0 leaves out the checks for races, waits and hazards, EMULATED_COUNTS=FILE appends a line of
 * counts for each launch. A fault of a kernel is printed, and makes every later call fail, as on hardware.
 *
 * A queue runs what is put into it at once; a graph is a list of what was put in while recording.
 */
#include "amdgcn/gcn.h"

#pragma GCC diagnostic ignored "-Wmissing-prototypes" /* the entries, which are found by dlsym */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  INVALID_DEVICE = 101,
  NO_BINARY = 209,
  NOT_FOUND = 500,
  LAUNCH_FAILURE = 719,
  ATTRIBUTE_L2_CACHE_SIZE = 19,
  MOST_ARGUMENTS = 128,
};

/* A copy, or a launch. */
typedef struct operation {
  void *to;
  const void *from;
  size_t bytes;
  const gcn_kernel *kernel; /* NULL: a copy */
  uint32_t grid[3], workgroup[3], dynamic_lds;
  unsigned char kernarg[8 * MOST_ARGUMENTS];
} operation;

typedef struct graph {
  operation *operations;
  size_t count;
} graph;

typedef struct queue {
  graph *recording; /* NULL: what is put in runs at once */
} queue;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static gcn_machine *machine;
static gcn_target target;
static int stuck; /* after a kernel's fault */

static const char *setting(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  return value ? value : otherwise;
}

/* Prints and frees `status`. */
static int report(sluice_status *status) {
  if (!status) return SUCCESS;
  fprintf(stderr, "emulated GPU: %s\n", sluice_status_message(status));
  sluice_status_free(status);
  return LAUNCH_FAILURE;
}

int hipInit(unsigned flags) {
  (void)flags;
  pthread_mutex_lock(&lock);
  target = strcmp(setting("EMULATED_GPU", "gfx942"), "gfx950") == 0 ? GCN_GFX950 : GCN_GFX942;
  int result = machine ? SUCCESS : report(gcn_machine_create(target, &machine));
  pthread_mutex_unlock(&lock);
  return result;
}

int hipDriverGetVersion(int *out) {
  *out = 70000000;
  return SUCCESS;
}

int hipGetDeviceCount(int *out) {
  *out = 1;
  return SUCCESS;
}

int hipDeviceGet(int *out, int ordinal) {
  *out = ordinal;
  return ordinal ? INVALID_DEVICE : SUCCESS;
}

int hipSetDevice(int device) {
  return device ? INVALID_DEVICE : stuck;
}

int hipDeviceGetName(char *name, int length, int device) {
  (void)device;
  snprintf(name, (size_t)length, "emulated %s", target == GCN_GFX950 ? "MI355X" : "MI300X");
  return SUCCESS;
}

int hipGetDeviceProperties(void *properties, int device) {
  (void)device;
  snprintf((char *)properties + 1160, 256, "%s:sramecc+:xnack-", target == GCN_GFX950 ? "gfx950" : "gfx942");
  return SUCCESS;
}

int hipDeviceGetPCIBusId(char *id, int length, int device) {
  (void)device;
  snprintf(id, (size_t)length, "none");
  return SUCCESS;
}

int hipDeviceGetAttribute(int *out, int attribute, int device) {
  (void)device;
  *out = attribute == ATTRIBUTE_L2_CACHE_SIZE ? 4 << 20 : 0;
  return SUCCESS;
}

const char *hipGetErrorName(int result) {
  return result == OUT_OF_MEMORY    ? "hipErrorOutOfMemory"
         : result == LAUNCH_FAILURE ? "hipErrorLaunchFailure"
         : result == NO_BINARY      ? "hipErrorNoBinaryForGpu"
                                    : "hipErrorUnknown";
}

const char *hipGetErrorString(int result) {
  return result == LAUNCH_FAILURE ? "a kernel failed; the emulated GPU has printed where" : hipGetErrorName(result);
}

/* ---- Memory ---- */

int hipMemGetInfo(size_t *free_bytes, size_t *total) {
  *free_bytes = (size_t)4 << 30;
  *total = (size_t)4 << 30;
  return SUCCESS;
}

int hipMalloc(void **out, size_t bytes) {
  pthread_mutex_lock(&lock);
  int result = stuck ? stuck : report(gcn_allocate(machine, bytes, out)) ? OUT_OF_MEMORY : SUCCESS;
  pthread_mutex_unlock(&lock);
  return result;
}

int hipFree(void *memory) {
  pthread_mutex_lock(&lock);
  int result = report(gcn_release(machine, memory));
  pthread_mutex_unlock(&lock);
  return result;
}

int hipHostMalloc(void **out, size_t bytes, unsigned flags) {
  (void)flags;
  return hipMalloc(out, bytes); /* kernels may read page-locked memory */
}

int hipHostFree(void *memory) {
  return hipFree(memory);
}

/* ---- Queues ---- */

static void count_launch(const operation *o, const gcn_counts *c) {
  const char *path = setting("EMULATED_COUNTS", "");
  FILE *file = *path ? fopen(path, "a") : NULL;
  if (!file) return;
  fprintf(file,
          "{\"kernel\":\"%s\",\"workgroups\":%llu,\"instructions\":%llu,\"vector\":%llu,\"matrix_cycles\":%llu,"
          "\"loaded\":%llu,\"stored\":%llu,\"lines\":%llu,\"lds_cycles\":%llu,\"lds_conflicts\":%llu}\n",
          gcn_kernel_describe(o->kernel)->name, (unsigned long long)c->workgroups, (unsigned long long)c->instructions,
          (unsigned long long)c->vector, (unsigned long long)c->matrix_cycles, (unsigned long long)c->global_loaded,
          (unsigned long long)c->global_stored, (unsigned long long)c->global_lines, (unsigned long long)c->lds_cycles,
          (unsigned long long)c->lds_conflicts);
  fclose(file);
}

static int run(const operation *o) {
  if (!o->kernel) {
    memcpy(o->to, o->from, o->bytes);
    return SUCCESS;
  }
  gcn_counts counts = {0};
  gcn_launch_options options = {.grid = {o->grid[0], o->grid[1], o->grid[2]},
                                .workgroup = {o->workgroup[0], o->workgroup[1], o->workgroup[2]},
                                .dynamic_lds = o->dynamic_lds,
                                .kernarg = o->kernarg,
                                .kernarg_bytes = gcn_kernel_describe(o->kernel)->explicit_bytes,
                                .seed = strtoull(setting("EMULATED_SEED", "0"), NULL, 10),
                                .unchecked = strcmp(setting("EMULATED_CHECKS", "1"), "0") == 0,
                                .counts = &counts};
  int result = report(gcn_launch(o->kernel, &options));
  if (result) stuck = result;
  count_launch(o, &counts);
  return result;
}

static int put(queue *q, const operation *o) {
  pthread_mutex_lock(&lock);
  int result = stuck;
  if (!result && !q->recording) {
    result = run(o);
  } else if (!result) {
    graph *g = q->recording;
    operation *more = realloc(g->operations, (g->count + 1) * sizeof *more);
    if (more) {
      g->operations = more;
      g->operations[g->count++] = *o;
    }
    result = more ? SUCCESS : OUT_OF_MEMORY;
  }
  pthread_mutex_unlock(&lock);
  return result;
}

static int put_copy(void *stream, void *to, const void *from, size_t bytes) {
  return put(stream, &(operation){.to = to, .from = from, .bytes = bytes});
}

int hipMemcpyHtoDAsync(void *to, const void *from, size_t bytes, void *stream) {
  return put_copy(stream, to, from, bytes);
}

int hipMemcpyDtoHAsync(void *to, void *from, size_t bytes, void *stream) {
  return put_copy(stream, to, from, bytes);
}

int hipMemcpyDtoDAsync(void *to, void *from, size_t bytes, void *stream) {
  return put_copy(stream, to, from, bytes);
}

static int make(void **out) {
  *out = calloc(1, sizeof(queue));
  return *out ? SUCCESS : OUT_OF_MEMORY;
}

static int drop(void *object) {
  free(object);
  return SUCCESS;
}

int hipStreamCreateWithFlags(void **out, unsigned flags) {
  (void)flags;
  return make(out);
}

int hipStreamDestroy(void *stream) {
  return drop(stream);
}

int hipStreamSynchronize(void *stream) {
  (void)stream;
  return stuck;
}

int hipEventCreateWithFlags(void **out, unsigned flags) {
  (void)flags;
  return make(out);
}

int hipEventDestroy(void *event) {
  return drop(event);
}

int hipEventRecord(void *event, void *stream) {
  (void)event, (void)stream;
  return stuck;
}

int hipEventSynchronize(void *event) {
  (void)event;
  return stuck;
}

/* There is no time on this GPU, only counts. */
int hipEventElapsedTime(float *out, void *start, void *end) {
  (void)start, (void)end;
  *out = 1;
  return stuck;
}

/* ---- Code ---- */

int hipModuleLoadDataEx(void **out, const void *image, unsigned options, int *names, void **values) {
  (void)options, (void)names, (void)values;
  /* An ELF file ends with its section headers. */
  uint64_t headers;
  uint16_t entry, count;
  memcpy(&headers, (const char *)image + 40, sizeof headers);
  memcpy(&entry, (const char *)image + 58, sizeof entry);
  memcpy(&count, (const char *)image + 60, sizeof count);
  pthread_mutex_lock(&lock);
  gcn_module *module = NULL;
  int result =
      report(gcn_module_load(machine, image, headers + (uint64_t)entry * count, &module)) ? NO_BINARY : SUCCESS;
  *out = module;
  pthread_mutex_unlock(&lock);
  return result;
}

int hipModuleUnload(void *module) {
  pthread_mutex_lock(&lock);
  gcn_module_unload(module);
  pthread_mutex_unlock(&lock);
  return SUCCESS;
}

int hipModuleGetFunction(void **out, void *module, const char *name) {
  const gcn_kernel *kernel = gcn_kernel_find(module, name);
  *out = (void *)(uintptr_t)kernel;
  return kernel ? SUCCESS : NOT_FOUND;
}

int hipModuleLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared_bytes, void *stream, void **parameters,
                          void **extra) {
  (void)extra;
  const gcn_kernel *kernel = function;
  const gcn_kernel_info *info = gcn_kernel_describe(kernel);
  operation o = {.kernel = kernel,
                 .grid = {grid_x, grid_y, grid_z},
                 .workgroup = {block_x, block_y, block_z},
                 .dynamic_lds = shared_bytes};
  if (info->explicit_bytes > sizeof o.kernarg || block_x > info->max_workgroup_lanes) return INVALID_VALUE;
  for (uint32_t i = 0; i < info->arguments; i++) {
    const gcn_argument *argument = gcn_kernel_argument(kernel, i);
    memcpy(o.kernarg + argument->offset, parameters[i], argument->bytes);
  }
  return put(stream, &o);
}

/* ---- Graphs ---- */

int hipStreamBeginCapture(void *stream, int mode) {
  (void)mode;
  queue *q = stream;
  if (q->recording) return INVALID_VALUE;
  q->recording = calloc(1, sizeof *q->recording);
  return q->recording ? SUCCESS : OUT_OF_MEMORY;
}

int hipStreamEndCapture(void *stream, void **out) {
  queue *q = stream;
  *out = q->recording;
  q->recording = NULL;
  return *out ? SUCCESS : INVALID_VALUE;
}

int hipGraphInstantiateWithFlags(void **out, void *recorded, unsigned long long flags) {
  (void)flags;
  const graph *from = recorded;
  graph *copy = calloc(1, sizeof *copy);
  if (!copy) return OUT_OF_MEMORY;
  copy->operations = malloc(from->count * sizeof *copy->operations + 1);
  if (!copy->operations) {
    free(copy);
    return OUT_OF_MEMORY;
  }
  memcpy(copy->operations, from->operations, from->count * sizeof *copy->operations);
  copy->count = from->count;
  *out = copy;
  return SUCCESS;
}

int hipGraphLaunch(void *object, void *stream) {
  (void)stream;
  const graph *g = object;
  pthread_mutex_lock(&lock);
  int result = stuck;
  for (size_t i = 0; i < g->count && !result; i++) result = run(&g->operations[i]);
  pthread_mutex_unlock(&lock);
  return result;
}

int hipGraphDestroy(void *object) {
  graph *g = object;
  free(g->operations);
  return drop(g);
}

int hipGraphExecDestroy(void *object) {
  return hipGraphDestroy(object);
}
