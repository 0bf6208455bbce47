/* The host CPU as a device: code is an ELF shared object, memory is ordinary memory, a launch is a parallel loop. */
#include "runtime/device.h"
#include "runtime/devices/host_code.h"
#include "sluice/memory.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Parts that a launch is cut into for each thread. Many, because the workgroups of one launch can differ a lot: grids
 * of grouped products are sized for the worst case, and the workgroups beyond the real tile count do nothing. */
#define PARTS_PER_THREAD 64

#define HUGE_PAGE ((uint64_t)2 << 20)

typedef struct host_device {
  sluice_device base;
  unsigned level; /* index into level_names */
} host_device;

/* Workgroup memory of a thread that launches: launches may come from several threads at once, each has a piece of its
 * own while it runs. */
typedef struct host_piece {
  struct host_piece *next; /* of those that nobody has */
  char *memory;
} host_piece;

struct sluice_loaded_code {
  sluice_host_code library;
  sluice_host_kernel **kernels; /* as in the plan */
  char *workgroups;             /* one piece of `workgroup_stride` bytes for each thread of the pool but the caller */
  uint64_t workgroup_stride;
  pthread_mutex_t lock; /* of `pieces` */
  host_piece *pieces;   /* as many as launches ever ran at once */
};

static void host_close(sluice_device *device) {
  sluice_threads_close(device->threads);
  sluice_release(device);
}

/* Levels of x86-64, from worst to best; 0: another architecture. */
static const char *const level_names[] = {"host",           "host:x86-64",    "host:x86-64-v2",
                                          "host:x86-64-v3", "host:x86-64-v4", "host:x86-64-v4-bf16"};

static unsigned level_of_target(const char *target) {
  for (unsigned i = 1; i < sizeof level_names / sizeof *level_names; i++)
    if (strcmp(target, level_names[i]) == 0) return i;
  return 0;
}

static unsigned level_of_machine(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return __builtin_cpu_supports("avx512bf16") ? 5 : 4;
  if (__builtin_cpu_supports("x86-64-v3")) return 3;
  if (__builtin_cpu_supports("x86-64-v2")) return 2;
  return 1;
#else
  return 0;
#endif
}

static unsigned host_preference(const sluice_device *device, const char *target) {
  unsigned level = level_of_target(target);
  return level <= ((const host_device *)device)->level ? level : 0;
}

/* ---- Memory ---- */

/* The number in the first line of `path`; UINT64_MAX when there is none ("max"). */
static uint64_t read_number(const char *path) {
  FILE *file = fopen(path, "re");
  if (!file) return UINT64_MAX;
  unsigned long long value;
  int found = fscanf(file, "%llu", &value);
  fclose(file);
  return found == 1 ? value : UINT64_MAX;
}

static uint64_t control_group_available(const char *limit_path, const char *usage_path) {
  uint64_t limit = read_number(limit_path), usage = read_number(usage_path);
  if (limit == UINT64_MAX || usage == UINT64_MAX) return UINT64_MAX;
  return limit > usage ? limit - usage : 0;
}

/* The CPU's name as the system has it. */
static void find_cpu(char *out_name, size_t length) {
  snprintf(out_name, length, "CPU");
  FILE *file = fopen("/proc/cpuinfo", "re");
  if (!file) return;
  char line[256];
  while (fgets(line, sizeof line, file)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) != 0 || !colon) continue;
    line[strcspn(line, "\n")] = 0;
    snprintf(out_name, length, "%.*s", (int)length - 1, colon + 1 + strspn(colon + 1, " "));
    break;
  }
  fclose(file);
}

static sluice_status *host_describe(sluice_device *device, sluice_device_facts *out_facts) {
  *out_facts = (sluice_device_facts){.processors = sluice_threads_count(device->threads)};
  find_cpu(out_facts->product, sizeof out_facts->product);
  struct utsname system;
  if (uname(&system) == 0)
    snprintf(out_facts->driver, sizeof out_facts->driver, "%.20s %.40s", system.sysname, system.release);
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) out_facts->memory_bytes = (uint64_t)pages * (uint64_t)page;
  return NULL;
}

static uint64_t host_available(const sluice_device *device) {
  (void)device;
  uint64_t available = UINT64_MAX;
  FILE *file = fopen("/proc/meminfo", "re");
  if (file) {
    char line[128];
    unsigned long long kilobytes;
    while (fgets(line, sizeof line, file))
      if (sscanf(line, "MemAvailable: %llu kB", &kilobytes) == 1) available = (uint64_t)kilobytes * 1024;
    fclose(file);
  }
  uint64_t group = control_group_available("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current");
  uint64_t old_group = control_group_available("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                               "/sys/fs/cgroup/memory/memory.usage_in_bytes");
  if (group < available) available = group;
  if (old_group < available) available = old_group;
  return available;
}

static sluice_status *host_allocate(sluice_device *device, uint64_t bytes, void **out_memory) {
  (void)device;
  *out_memory = NULL;
  if (bytes == 0) bytes = 64;
  /* Weights are read from front to back at the speed of memory: without huge pages the TLB would be the limit. */
  bool large = bytes >= 2 * HUGE_PAGE;
  uint64_t alignment = large ? HUGE_PAGE : 64;
  if (bytes > SIZE_MAX - alignment) return sluice_out_of_memory();
  size_t rounded = (size_t)((bytes + alignment - 1) / alignment * alignment);
  void *memory = sluice_allocate_aligned(alignment, rounded);
  if (!memory) return sluice_out_of_memory();
  if (large) (void)madvise(memory, rounded, MADV_HUGEPAGE); /* an offer; without it everything still works */
  *out_memory = memory;
  return NULL;
}

static void host_release(sluice_device *device, void *memory) {
  (void)device;
  sluice_release(memory);
}

static sluice_status *host_copy(sluice_device *device, void *to, const void *from, uint64_t bytes) {
  (void)device;
  if (bytes) memcpy(to, from, (size_t)bytes);
  return NULL;
}

/* ---- Code ---- */

static void release_piece(host_piece *piece) {
  if (!piece) return;
  sluice_release(piece->memory);
  sluice_release(piece);
}

static void host_unload(sluice_device *device, sluice_loaded_code *code) {
  (void)device;
  if (!code) return;
  sluice_host_code_close(&code->library);
  while (code->pieces) {
    host_piece *piece = code->pieces;
    code->pieces = piece->next;
    release_piece(piece);
  }
  pthread_mutex_destroy(&code->lock);
  sluice_release(code->workgroups);
  sluice_release(code->kernels);
  sluice_release(code);
}

static sluice_status *find_kernels(sluice_loaded_code *code, const sluice_plan *plan) {
  for (uint32_t i = 0; i < plan->header->kernels.count; i++) {
    const char *name = sluice_plan_string(plan, plan->kernels[i].name);
    void *symbol = dlsym(code->library.handle, name);
    if (!symbol) return sluice_error(SLUICE_INVALID, "the bundle's code lacks the kernel \"%s\" of its plan", name);
    memcpy(&code->kernels[i], &symbol, sizeof symbol); /* C has no conversion from object to function pointers */
  }
  return NULL;
}

static sluice_status *host_load(sluice_device *device, const sluice_code_sections *sections, const sluice_plan *plan,
                                sluice_loaded_code **out_code) {
  *out_code = NULL;
  if (!sections->binary) return sluice_error(SLUICE_INVALID, "the bundle has a plan but no code for this machine");
  sluice_loaded_code *code = sluice_allocate(sizeof *code);
  if (!code) return sluice_out_of_memory();
  pthread_mutex_init(&code->lock, NULL);
  uint64_t stride = 64;
  for (uint32_t i = 0; i < plan->header->kernels.count; i++)
    if (plan->kernels[i].workgroup_bytes > stride) stride = plan->kernels[i].workgroup_bytes;
  /* An odd number of cache lines apart, so that the threads' pieces do not compete for the same cache sets. */
  code->workgroup_stride = (stride + 63) / 64 * 64;
  if (code->workgroup_stride / 64 % 2 == 0) code->workgroup_stride += 64;
  code->kernels = sluice_allocate_array(plan->header->kernels.count, sizeof *code->kernels);
  code->workgroups = sluice_allocate_aligned(64, code->workgroup_stride * (sluice_threads_count(device->threads) - 1));
  sluice_status *status = NULL;
  if (!code->kernels || !code->workgroups) status = sluice_out_of_memory();
  if (!status) status = sluice_host_code_open(sections->binary, sections->binary_length, &code->library);
  if (!status) status = find_kernels(code, plan);
  if (status) {
    host_unload(device, code);
    return status;
  }
  *out_code = code;
  return NULL;
}

/* ---- Launches ---- */

typedef struct host_launch_state {
  sluice_loaded_code *code;
  sluice_host_kernel *kernel;
  void *const *arguments;
  const int32_t *sizes;
  char *workgroup; /* of the thread that launches */
} host_launch_state;

static void run_workgroups(void *user, unsigned thread, int64_t first, int64_t last) {
  const host_launch_state *launch = user;
  const sluice_loaded_code *code = launch->code;
  char *workgroup = thread ? code->workgroups + (thread - 1) * code->workgroup_stride : launch->workgroup;
  launch->kernel(launch->arguments, launch->sizes, first, last, workgroup);
}

static host_piece *take_piece(sluice_loaded_code *code) {
  pthread_mutex_lock(&code->lock);
  host_piece *piece = code->pieces;
  if (piece) code->pieces = piece->next;
  pthread_mutex_unlock(&code->lock);
  if (piece) return piece;
  piece = sluice_allocate(sizeof *piece);
  if (piece) piece->memory = sluice_allocate_aligned(64, code->workgroup_stride);
  if (piece && piece->memory) return piece;
  release_piece(piece);
  return NULL;
}

static void return_piece(sluice_loaded_code *code, host_piece *piece) {
  pthread_mutex_lock(&code->lock);
  piece->next = code->pieces;
  code->pieces = piece;
  pthread_mutex_unlock(&code->lock);
}

static sluice_status *host_launch(sluice_device *device, sluice_loaded_code *code, uint32_t kernel,
                                  void *const *arguments, uint32_t argument_count, const int32_t *sizes,
                                  const uint64_t grid[2]) {
  (void)argument_count;
  if (grid[0] > device->largest_grid[0] || grid[1] > device->largest_grid[1])
    return sluice_error(SLUICE_INVALID, "a launch of %llu x %llu workgroups; %s takes at most %llu x %llu",
                        (unsigned long long)grid[0], (unsigned long long)grid[1], device->name,
                        (unsigned long long)device->largest_grid[0], (unsigned long long)device->largest_grid[1]);
  const uint64_t workgroups = grid[0] * grid[1]; /* below 2^62 */
  host_piece *piece = take_piece(code);
  if (!piece) return sluice_out_of_memory();
  host_launch_state state = {code, code->kernels[kernel], arguments, sizes, piece->memory};
  int64_t parts = (int64_t)sluice_threads_count(device->threads) * PARTS_PER_THREAD;
  int64_t part = (int64_t)workgroups / parts;
  sluice_threads_run(device->threads, (int64_t)workgroups, part ? part : 1, run_workgroups, &state);
  return_piece(code, piece);
  return NULL;
}

static sluice_status *host_synchronize(sluice_device *device) {
  (void)device;
  return NULL;
}

static const sluice_device_driver host_driver = {
    .close = host_close,
    .preference = host_preference,
    .describe = host_describe,
    .available = host_available,
    .allocate = host_allocate,
    .release = host_release,
    .copy_in = host_copy,
    .copy_out = host_copy,
    .copy = host_copy,
    .load_code = host_load,
    .unload_code = host_unload,
    .launch = host_launch,
    .synchronize = host_synchronize,
};

sluice_status *sluice_host_open(unsigned threads, sluice_device **out_device) {
  *out_device = NULL;
  host_device *device = sluice_allocate(sizeof *device);
  if (!device) return sluice_out_of_memory();
  device->base.driver = &host_driver;
  device->base.host_memory = true;
  device->base.largest_grid[0] = device->base.largest_grid[1] = INT32_MAX; /* their product is far below 2^63 */
  device->level = level_of_machine();
  snprintf(device->base.name, sizeof device->base.name, "%s", level_names[device->level]);
  snprintf(device->base.target, sizeof device->base.target, "%s", level_names[device->level]);
  sluice_status *status = sluice_threads_create(threads, &device->base.threads);
  if (status) {
    sluice_release(device);
    return status;
  }
  *out_device = &device->base;
  return NULL;
}
