/* One suite for all devices: what runtime/device.h promises, tested on the device that the program is called with
 * ("devices host"). Devices with drivers run over a double of the driver's library. A new device is a line in `all`;
 * what it does not have is a line in `lacking`, with the reason. What one driver has of its own is tested beside it
 * (tests/unit/runtime_cuda.c).
 *
 * Kernels are those of the tiny bundle (tests/support), whose code is C everywhere.
 */
#include "runtime/device.h"
#include "sluice/bundle.h"
#include "sluice/memory.h"
#include "support/driver_double.h"
#include "support/tiny_bundle.h"

#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static sluice_status *open_host(unsigned index, unsigned threads, sluice_device **out_device) {
  (void)index;
  return sluice_host_open(threads, out_device);
}

typedef struct tested_device {
  const char *name, *target; /* a target whose code it runs */
  sluice_status *(*open)(unsigned index, unsigned threads, sluice_device **out_device);
  const char *library, *control; /* of its double; NULL: it has no driver */
} tested_device;

static const tested_device all[] = {
    {"host", "host:x86-64", open_host, NULL, NULL},
    {"cuda", "cuda:sm_90a", sluice_cuda_open, "libcuda.so.1", "fake_cuda_control"},
    {"hip", "hip:gfx942", sluice_hip_open, "libamdhip64.so.7", "fake_hip_control"},
};

/* Entries of the driver that a device does not have, and why. All others must be there. */
static const struct {
  const char *device, *entry, *reason;
} lacking[] = {
    {"host", "open_queue", "a launch is done when it returns: threads share the device as it is"},
    {"host", "allocate_locked", "device memory is the host's: nothing is copied"},
    {"host", "release_locked", "likewise"},
    {"host", "enqueue_in", "likewise"},
    {"host", "enqueue_out", "likewise"},
    {"host", "staging_create", "weights are packed in place"},
    {"host", "staging_send", "likewise"},
    {"host", "staging_wait", "likewise"},
    {"host", "staging_release", "likewise"},
    {"host", "graph_begin", "a launch costs a function call: there is nothing to save"},
    {"host", "graph_end", "likewise"},
    {"host", "graph_launch", "likewise"},
    {"host", "graph_release", "likewise"},
    {"host", "time_graph", "likewise"},
    {"host", "mark", "a launch is done when it returns: its error says which one failed"},
    {"host", "last_mark", "likewise"},
    {"host", "range_push", "profilers of the host see functions"},
    {"host", "range_pop", "likewise"},
};

#define ENTRIES(X)                                                                                                     \
  X(close)                                                                                                             \
  X(open_queue)                                                                                                        \
  X(preference)                                                                                                        \
  X(describe)                                                                                                          \
  X(available)                                                                                                         \
  X(allocate)                                                                                                          \
  X(release)                                                                                                           \
  X(copy_in)                                                                                                           \
  X(copy_out)                                                                                                          \
  X(copy)                                                                                                              \
  X(load_code)                                                                                                         \
  X(unload_code)                                                                                                       \
  X(launch)                                                                                                            \
  X(synchronize)                                                                                                       \
  X(allocate_locked)                                                                                                   \
  X(release_locked)                                                                                                    \
  X(enqueue_in)                                                                                                        \
  X(enqueue_out)                                                                                                       \
  X(staging_create)                                                                                                    \
  X(staging_send)                                                                                                      \
  X(staging_wait)                                                                                                      \
  X(staging_release)                                                                                                   \
  X(graph_begin)                                                                                                       \
  X(graph_end)                                                                                                         \
  X(graph_launch)                                                                                                      \
  X(graph_release)                                                                                                     \
  X(time_graph)                                                                                                        \
  X(mark)                                                                                                              \
  X(last_mark)                                                                                                         \
  X(range_push)                                                                                                        \
  X(range_pop)
#define SIZE_OF_ENTRY(name) +sizeof(((sluice_device_driver *)NULL)->name)
_Static_assert(0 ENTRIES(SIZE_OF_ENTRY) == sizeof(sluice_device_driver), "every entry of a driver is in the list");

enum { LOGITS = 2, PICK = 3, V = TINY_VOCABULARY }; /* kernels of the tiny bundle */

static const tested_device *tested;
static driver_double_control *control;
static driver_double *fake; /* NULL for a device without a driver */
static char bundle_path[128];
static sluice_bundle *bundle;
static sluice_plan plan;
static sluice_code_sections sections;

static void ok(sluice_status *status) {
  if (!status) return;
  sluice_status_print(status);
  fail_msg("%s", sluice_status_message(status));
}

static void refused(sluice_status *status, sluice_code code) {
  assert_non_null(status);
  assert_int_equal(sluice_status_code(status), code);
  assert_true(strlen(sluice_status_message(status)) > 10);
  sluice_status_free(status);
}

static int set_up(void **state) {
  (void)state;
  snprintf(bundle_path, sizeof bundle_path, "/tmp/devices_%s_%d.sluice", tested->name, (int)getpid());
  if (tiny_bundle_write_for(bundle_path, tested->target)) return 1;
  ok(sluice_bundle_open(bundle_path, &bundle));
  int code = sluice_bundle_find(bundle, SLUICE_SECTION_CODE, NULL);
  ok(sluice_bundle_plan(bundle, (uint32_t)sluice_bundle_find(bundle, SLUICE_SECTION_PLAN, NULL), bundle_path, &plan));
  sections = (sluice_code_sections){.binary = sluice_bundle_data(bundle, (uint32_t)code),
                                    .binary_length = sluice_bundle_code_length(bundle, (uint32_t)code)};
  if (!tested->library) return 0;
  void *library = dlopen(tested->library, RTLD_NOW);
  void *symbol = library ? dlsym(library, tested->control) : NULL;
  if (!symbol) return 1; /* a real driver, or none */
  memcpy(&control, &symbol, sizeof symbol);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  sluice_bundle_close(bundle);
  unlink(bundle_path);
  return 0;
}

static int reset(void **state) {
  (void)state;
  fake = control ? control() : NULL;
  return 0;
}

static int nothing_is_left(void **state) {
  (void)state;
  if (!fake || fake->live == 0) return 0;
  fprintf(stderr, "%d objects of the driver are left\n", fake->live);
  return 1;
}

static sluice_device *opened(void) {
  sluice_device *device = NULL;
  ok(tested->open(0, 2, &device));
  return device;
}

static void *allocated(sluice_device *device, uint64_t bytes) {
  void *memory = NULL;
  ok(device->driver->allocate(device, bytes, &memory));
  assert_non_null(memory);
  return memory;
}

/* Device memory with a copy of `data`. */
static void *placed(sluice_device *device, const void *data, uint64_t bytes) {
  void *memory = allocated(device, bytes);
  ok(device->driver->copy_in(device, memory, data, bytes));
  return memory;
}

static void fill(unsigned char *bytes, size_t count, unsigned seed) {
  for (size_t i = 0; i < count; i++) bytes[i] = (unsigned char)((seed = seed * 1664525u + 1013904223u) >> 24);
}

/* ---- what a device is ---- */

static void a_device_says_what_it_is(void **state) {
  (void)state;
  sluice_device *device = opened();
  assert_int_equal(strncmp(device->name, tested->name, strlen(tested->name)), 0);
  assert_int_equal(strncmp(device->target, tested->name, strlen(tested->name)), 0);
  assert_true(device->driver->preference(device, device->target) > 0);
  assert_true(device->driver->preference(device, tested->target) > 0);
  assert_int_equal(device->driver->preference(device, "toaster:v1"), 0);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (&all[i] != tested) assert_int_equal(device->driver->preference(device, all[i].target), 0);
  assert_true(device->largest_grid[0] >= 65535 && device->largest_grid[1] >= 65535);
  assert_non_null(device->threads);
  assert_true(device->driver->available(device) > 0);
  sluice_device_facts facts;
  ok(device->driver->describe(device, &facts));
  assert_true(strlen(facts.product) > 0 && strlen(facts.driver) > 0 && facts.memory_bytes > 0);
  if (!fake) assert_int_equal(facts.processors, 2); /* threads; a double's GPU has none */
  device->driver->close(device);
}

static const char *reason_without(const char *entry) {
  for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++)
    if (strcmp(lacking[i].device, tested->name) == 0 && strcmp(lacking[i].entry, entry) == 0) return lacking[i].reason;
  return NULL;
}

static void what_is_missing_is_listed(void **state) {
  (void)state;
  sluice_device *device = opened();
  const sluice_device_driver *driver = device->driver;
#define CHECK(entry)                                                                                                   \
  if ((driver->entry == NULL) != (reason_without(#entry) != NULL))                                                     \
    fail_msg("the entry %s is %s, but the list says otherwise", #entry, driver->entry ? "there" : "missing");
  ENTRIES(CHECK)
#undef CHECK
  /* What belongs together is there together. */
  assert_int_equal(device->host_memory, driver->enqueue_in == NULL);
  assert_int_equal(driver->graph_begin == NULL, driver->time_graph == NULL);
  assert_int_equal(driver->mark == NULL, driver->last_mark == NULL);
  device->driver->close(device);
}

/* ---- memory and copies ---- */

static void memory_holds_what_is_copied(void **state) {
  (void)state;
  static const uint64_t sizes[] = {0, 1, 63, 64, 65, 4096, (1u << 20) + 3};
  sluice_device *device = opened();
  const sluice_device_driver *driver = device->driver;
  unsigned char *data = malloc((1u << 20) + 3), *back = malloc((1u << 20) + 3);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const uint64_t bytes = sizes[i];
    char *from = allocated(device, bytes), *to = allocated(device, bytes);
    assert_int_equal((uintptr_t)from % 64, 0);
    assert_ptr_not_equal(from, to);
    fill(data, bytes, (unsigned)i);
    ok(driver->copy_in(device, from, data, bytes));
    ok(driver->copy(device, to, from, bytes));
    memset(back, 0, bytes);
    ok(driver->copy_out(device, back, to, bytes));
    assert_memory_equal(back, data, bytes);
    if (bytes > 64) { /* parts, from and to odd places */
      ok(driver->copy_in(device, to + 7, data, bytes - 33));
      ok(driver->copy_out(device, back, to + 7, bytes - 33));
      assert_memory_equal(back, data, bytes - 33);
      ok(driver->copy_out(device, back, to, 7));
      assert_memory_equal(back, data, 7); /* what lies before is as it was */
      ok(driver->copy_out(device, back, to + bytes - 26, 26));
      assert_memory_equal(back, data + bytes - 26, 26); /* and what lies behind */
    }
    driver->release(device, from);
    driver->release(device, to);
  }
  driver->release(device, NULL);
  free(data);
  free(back);
  driver->close(device);
}

static void memory_has_an_end(void **state) {
  (void)state;
  sluice_device *device = opened();
  const sluice_device_driver *driver = device->driver;
  void *memory = &memory;
  refused(driver->allocate(device, (uint64_t)1 << 60, &memory), SLUICE_OUT_OF_MEMORY);
  assert_null(memory);
  memory = &memory;
  refused(driver->allocate(device, UINT64_MAX, &memory), SLUICE_OUT_OF_MEMORY);
  assert_null(memory);
  memory = allocated(device, 1000); /* it goes on */
  driver->release(device, memory);
  if (fake) { /* to the byte where there is nobody else */
    fake->free_bytes = 10000;
    memory = allocated(device, 6000);
    assert_int_equal(driver->available(device), 4000);
    void *more = NULL;
    refused(driver->allocate(device, 5000, &more), SLUICE_OUT_OF_MEMORY);
    driver->release(device, memory);
    assert_int_equal(driver->available(device), 10000);
  }
  driver->close(device);
}

/* ---- the queue ---- */

/* The launch of a step of `rows` rows: logits[r] = counts[chosen[r]] * scale, then the largest of each row. */
typedef struct work {
  float counts[8 * V], scale[V];
  int32_t chosen[8], sizes[SLUICE_SIZE_COUNT];
  sluice_sampling_row sampling[8];
  void *device_counts, *device_scale, *device_chosen, *device_sizes, *device_sampling, *logits, *picked;
} work;

static void place_work(sluice_device *device, work *w, unsigned seed) {
  *w = (work){.sizes = {1, 8, 8}};
  for (int i = 0; i < 8 * V; i++) w->counts[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 28);
  for (int i = 0; i < V; i++) w->scale[i] = (float)(i + 1);
  for (int i = 0; i < 8; i++) w->chosen[i] = (i * 3 + (int)seed) & 7;
  w->device_counts = placed(device, w->counts, sizeof w->counts);
  w->device_scale = placed(device, w->scale, sizeof w->scale);
  w->device_chosen = placed(device, w->chosen, sizeof w->chosen);
  w->device_sizes = placed(device, w->sizes, sizeof w->sizes);
  w->device_sampling = placed(device, w->sampling, sizeof w->sampling);
  w->logits = allocated(device, 8 * V * sizeof(float));
  w->picked = allocated(device, 8 * sizeof(int32_t));
}

static void release_work(sluice_device *device, const work *w) {
  void *const memory[] = {w->device_counts,   w->device_scale, w->device_chosen, w->device_sizes,
                          w->device_sampling, w->logits,       w->picked};
  for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) device->driver->release(device, memory[i]);
}

static sluice_status *launch_work(sluice_device *device, sluice_loaded_code *code, const work *w, uint64_t rows) {
  void *logits[] = {w->device_counts, w->device_scale, w->device_chosen, w->logits};
  void *pick[] = {w->logits, w->device_sampling, w->picked};
  const uint64_t x[] = {rows, 1}, y[] = {1, rows};
  SLUICE_TRY(device->driver->launch(device, code, LOGITS, logits, 4, w->device_sizes, x));
  return device->driver->launch(device, code, PICK, pick, 3, w->device_sizes, y);
}

static void expect_work(sluice_device *device, const work *w, int rows) {
  float logits[8 * V];
  int32_t picked[8];
  ok(device->driver->copy_out(device, logits, w->logits, sizeof logits)); /* behind the launches */
  ok(device->driver->copy_out(device, picked, w->picked, sizeof picked));
  for (int r = 0; r < rows; r++) {
    int best = 0;
    for (int v = 0; v < V; v++) {
      assert_true(logits[r * V + v] == w->counts[w->chosen[r] * V + v] * w->scale[v]);
      if (logits[r * V + v] > logits[r * V + best]) best = v;
    }
    assert_int_equal(picked[r], best);
  }
}

static sluice_loaded_code *loaded(sluice_device *device) {
  sluice_loaded_code *code = NULL;
  ok(device->driver->load_code(device, &sections, &plan, &code));
  return code;
}

static void the_queue_runs_in_order(void **state) {
  (void)state;
  sluice_device *device = opened();
  sluice_loaded_code *code = loaded(device);
  work w;
  place_work(device, &w, 1);
  for (unsigned round = 0; round < 20; round++) { /* what is behind a launch sees what it made, and copies are seen */
    for (int i = 0; i < 8 * V; i++) w.counts[i] = (float)((i * 7 + (int)round) % 31);
    ok(device->driver->copy_in(device, w.device_counts, w.counts, sizeof w.counts));
    ok(launch_work(device, code, &w, 8));
    expect_work(device, &w, 8);
  }
  ok(device->driver->synchronize(device));
  ok(device->driver->synchronize(device)); /* an empty queue */
  release_work(device, &w);
  device->driver->unload_code(device, code);
  device->driver->unload_code(device, NULL);
  device->driver->close(device);
}

static void queues_of_one_device_are_apart(void **state) {
  (void)state;
  sluice_device *device = opened(), *other = NULL;
  if (!device->driver->open_queue) {
    device->driver->close(device);
    return;
  }
  ok(device->driver->open_queue(device, &other));
  assert_string_equal(other->target, device->target);
  assert_int_equal(other->host_memory, device->host_memory);
  assert_memory_equal(other->largest_grid, device->largest_grid, sizeof device->largest_grid);
  sluice_loaded_code *code = loaded(device);
  work w[2];
  sluice_device *queues[] = {device, other};
  for (unsigned q = 0; q < 2; q++) place_work(queues[q], &w[q], q + 5);
  for (unsigned q = 0; q < 2; q++) ok(launch_work(queues[q], code, &w[q], 8)); /* code is the device's */
  for (unsigned q = 2; q-- > 0;) expect_work(queues[q], &w[q], 8);
  for (unsigned q = 0; q < 2; q++) release_work(queues[q], &w[q]);
  other->driver->close(other);
  place_work(device, &w[0], 9); /* the device goes on without it */
  ok(launch_work(device, code, &w[0], 8));
  expect_work(device, &w[0], 8);
  release_work(device, &w[0]);
  device->driver->unload_code(device, code);
  device->driver->close(device);
}

/* ---- code ---- */

static void code_that_does_not_fit_is_refused(void **state) {
  (void)state;
  sluice_device *device = opened();
  sluice_loaded_code *code = (sluice_loaded_code *)(void *)&code;
  sluice_status *status = device->driver->load_code(device, &(sluice_code_sections){0}, &plan, &code);
  assert_non_null(status);
  assert_null(code);
  sluice_status_free(status);
  /* A plan that wants a kernel which is not there. */
  sluice_plan_kernel kernels[16];
  assert_true(plan.header->kernels.count <= 16);
  memcpy(kernels, plan.kernels, plan.header->kernels.count * sizeof *kernels);
  kernels[LOGITS].name = plan.observables[0].name;
  sluice_plan other = plan;
  other.kernels = kernels;
  status = device->driver->load_code(device, &sections, &other, &code);
  assert_non_null(status);
  assert_int_equal(sluice_status_code(status), SLUICE_INVALID);
  assert_non_null(strstr(sluice_status_message(status), "layer.0.out"));
  sluice_status_free(status);
  assert_null(code);
  device->driver->unload_code(device, loaded(device)); /* it goes on */
  device->driver->close(device);
}

static void launches_have_limits(void **state) {
  (void)state;
  sluice_device *device = opened();
  sluice_loaded_code *code = loaded(device);
  work w;
  place_work(device, &w, 3);
  const int launches = fake ? fake->launches : 0;
  void *arguments[] = {w.device_counts, w.device_scale, w.device_chosen, w.logits};
  for (int d = 0; d < 2; d++) {
    uint64_t grid[] = {1, 1};
    grid[d] = device->largest_grid[d] + 1;
    refused(device->driver->launch(device, code, LOGITS, arguments, 4, w.device_sizes, grid), SLUICE_INVALID);
  }
  if (fake) assert_int_equal(fake->launches, launches);
  ok(launch_work(device, code, &w, 1)); /* the smallest */
  expect_work(device, &w, 1);
  release_work(device, &w);
  device->driver->unload_code(device, code);
  device->driver->close(device);
}

/* ---- memory that is locked, and staging ---- */

static void locked_memory_is_copied_in_the_queue(void **state) {
  (void)state;
  sluice_device *device = opened();
  const sluice_device_driver *driver = device->driver;
  if (!driver->allocate_locked) {
    driver->close(device);
    return;
  }
  enum { BYTES = 10000 };
  void *in = NULL, *out = NULL, *none = NULL;
  ok(driver->allocate_locked(device, BYTES, &in));
  ok(driver->allocate_locked(device, BYTES, &out));
  ok(driver->allocate_locked(device, 0, &none));
  char *memory = allocated(device, BYTES), *copy = allocated(device, BYTES);
  fill(in, BYTES, 5);
  memset(out, 0, BYTES);
  ok(driver->enqueue_in(device, memory, in, BYTES));
  ok(driver->copy(device, copy, memory, BYTES));
  ok(driver->enqueue_out(device, out, copy, BYTES));
  ok(driver->enqueue_in(device, memory, in, 0));
  ok(driver->synchronize(device));
  assert_memory_equal(out, in, BYTES);
  driver->release_locked(device, in);
  driver->release_locked(device, out);
  driver->release_locked(device, none);
  driver->release_locked(device, NULL);
  driver->release(device, memory);
  driver->release(device, copy);
  driver->close(device);
}

enum { STAGED = 4096, PARTS = 24 };

typedef struct sender {
  sluice_device *device;
  char *memory; /* [PARTS][STAGED] of the device */
  unsigned seed;
  sluice_status *status;
} sender;

static sluice_status *send_parts(const sender *s) {
  const sluice_device_driver *driver = s->device->driver;
  sluice_staging *staging[2] = {NULL, NULL};
  sluice_status *status = NULL;
  for (int i = 0; i < 2 && !status; i++) status = driver->staging_create(s->device, STAGED, &staging[i]);
  for (unsigned part = 0; part < PARTS && !status; part++) {
    sluice_staging *at = staging[part % 2];
    status = driver->staging_wait(s->device, at); /* before it is filled again */
    if (status) break;
    fill((unsigned char *)at->memory, STAGED, s->seed + part);
    char *to = s->memory + (size_t)part * STAGED;
    status = driver->staging_send(s->device, at, 0, to, 100);
    if (!status) status = driver->staging_send(s->device, at, 100, to + 100, STAGED - 100);
  }
  for (int i = 0; i < 2; i++) {
    sluice_status *last = staging[i] && !status ? driver->staging_wait(s->device, staging[i]) : NULL;
    if (last) status = last;
    driver->staging_release(s->device, staging[i]);
  }
  return status;
}

static void *send_in_a_thread(void *user) {
  sender *s = user;
  s->status = send_parts(s);
  return NULL;
}

static void staging_sends_from_several_threads(void **state) {
  (void)state;
  enum { THREADS = 3 };
  sluice_device *device = opened();
  if (!device->driver->staging_create) {
    device->driver->close(device);
    return;
  }
  pthread_t threads[THREADS];
  sender senders[THREADS];
  for (unsigned t = 0; t < THREADS; t++) {
    senders[t] = (sender){.device = device, .memory = allocated(device, STAGED * PARTS), .seed = 100 * t};
    assert_int_equal(pthread_create(&threads[t], NULL, send_in_a_thread, &senders[t]), 0);
  }
  unsigned char expected[STAGED], found[STAGED];
  for (unsigned t = 0; t < THREADS; t++) {
    pthread_join(threads[t], NULL);
    ok(senders[t].status);
  }
  for (unsigned t = 0; t < THREADS; t++) {
    for (unsigned part = 0; part < PARTS; part++) {
      fill(expected, STAGED, senders[t].seed + part);
      ok(device->driver->copy_out(device, found, senders[t].memory + (size_t)part * STAGED, STAGED));
      assert_memory_equal(found, expected, STAGED);
    }
    device->driver->release(device, senders[t].memory);
  }
  device->driver->staging_release(device, NULL);
  device->driver->close(device);
}

/* ---- graphs ---- */

static void graphs_run_with_what_memory_holds(void **state) {
  (void)state;
  sluice_device *device = opened();
  const sluice_device_driver *driver = device->driver;
  if (!driver->graph_begin) {
    driver->close(device);
    return;
  }
  sluice_loaded_code *code = loaded(device);
  work w;
  place_work(device, &w, 11);
  void *in = NULL, *out = NULL;
  ok(driver->allocate_locked(device, sizeof w.counts, &in));
  ok(driver->allocate_locked(device, 8 * sizeof(int32_t), &out));
  sluice_device_graph *graph = NULL;
  ok(driver->graph_begin(device)); /* recorded, thrown away */
  ok(launch_work(device, code, &w, 8));
  ok(driver->graph_end(device, NULL));
  ok(driver->graph_begin(device));
  ok(driver->enqueue_in(device, w.device_counts, in, sizeof w.counts));
  ok(launch_work(device, code, &w, 8));
  ok(driver->enqueue_out(device, out, w.picked, 8 * sizeof(int32_t)));
  ok(driver->graph_end(device, &graph));
  assert_non_null(graph);
  for (unsigned round = 0; round < 5; round++) {
    for (int i = 0; i < 8 * V; i++) w.counts[i] = (float)((i * 11 + (int)round * 5) % 37);
    memcpy(in, w.counts, sizeof w.counts); /* read when it runs */
    memset(out, 0xff, 8 * sizeof(int32_t));
    ok(driver->graph_launch(device, graph));
    ok(driver->synchronize(device));
    expect_work(device, &w, 8);
    int32_t picked[8];
    ok(driver->copy_out(device, picked, w.picked, sizeof picked));
    assert_memory_equal(out, picked, sizeof picked);
  }
  double seconds = -1;
  ok(driver->time_graph(device, graph, &seconds));
  assert_true(seconds > 0 && seconds < 60);
  ok(launch_work(device, code, &w, 8)); /* nothing is recorded any more */
  expect_work(device, &w, 8);
  driver->graph_release(device, graph);
  driver->graph_release(device, NULL);
  driver->release_locked(device, in);
  driver->release_locked(device, out);
  release_work(device, &w);
  driver->unload_code(device, code);
  driver->close(device);
}

/* ---- marks and ranges ---- */

static void marks_say_how_far_the_queue_is(void **state) {
  (void)state;
  sluice_device *device = opened();
  if (device->driver->mark) {
    const uint32_t before = device->marks;
    for (uint32_t i = 1; i <= 10; i++) {
      ok(device->driver->mark(device));
      assert_int_equal(device->marks, before + i);
    }
    ok(device->driver->synchronize(device));
    assert_int_equal(device->driver->last_mark(device), before + 10);
  }
  sluice_range_push(device, "outer"); /* with or without a profiler, with or without entries */
  sluice_range_push(device, "inner");
  sluice_range_pop(device);
  sluice_range_pop(device);
  device->driver->close(device);
}

/* ---- failures at every call ---- */

/* Everything above in short. What fails is given back. */
static sluice_status *use(sluice_device *device, sluice_loaded_code *code, bool is_queue) {
  const sluice_device_driver *driver = device->driver;
  work w = {.sizes = {1, 8, 8}};
  struct {
    void **to;
    const void *from;
    size_t bytes;
  } parts[] = {{&w.device_counts, w.counts, sizeof w.counts},
               {&w.device_scale, w.scale, sizeof w.scale},
               {&w.device_chosen, w.chosen, sizeof w.chosen},
               {&w.device_sizes, w.sizes, sizeof w.sizes},
               {&w.device_sampling, w.sampling, sizeof w.sampling},
               {&w.logits, w.counts, sizeof w.counts},
               {&w.picked, w.chosen, sizeof w.chosen}};
  sluice_device_facts facts;
  sluice_status *status = driver->describe(device, &facts);
  void *locked = NULL;
  sluice_device_graph *graph = NULL;
  for (size_t i = 0; i < sizeof parts / sizeof *parts && !status; i++) {
    status = driver->allocate(device, parts[i].bytes, parts[i].to);
    if (!status) status = driver->copy_in(device, *parts[i].to, parts[i].from, parts[i].bytes);
  }
  if (!status) status = launch_work(device, code, &w, 8);
  if (!status && driver->mark) status = driver->mark(device);
  if (!status) status = driver->copy(device, w.logits, w.device_counts, sizeof w.counts);
  if (!status) status = driver->synchronize(device);
  if (!status && driver->allocate_locked) status = driver->allocate_locked(device, sizeof w.counts, &locked);
  if (!status && driver->staging_create && !is_queue) {
    char *memory = NULL;
    status = driver->allocate(device, STAGED * PARTS, (void **)&memory);
    if (!status) status = send_parts(&(sender){.device = device, .memory = memory});
    driver->release(device, memory);
  }
  if (!status && driver->graph_begin) {
    status = driver->graph_begin(device);
    if (!status) {
      status = driver->enqueue_in(device, w.device_counts, locked, sizeof w.counts);
      if (!status) status = launch_work(device, code, &w, 8);
      if (!status)
        status = driver->graph_end(device, &graph);
      else
        sluice_status_free(driver->graph_end(device, NULL));
    }
    double seconds;
    if (!status) status = driver->graph_launch(device, graph);
    if (!status) status = driver->time_graph(device, graph, &seconds);
    driver->graph_release(device, graph);
  }
  if (driver->release_locked) driver->release_locked(device, locked);
  release_work(device, &w);
  return status;
}

static sluice_status *whole_life(void) {
  sluice_device *device = NULL, *queue = NULL;
  SLUICE_TRY(tested->open(0, 2, &device));
  sluice_loaded_code *code = NULL;
  sluice_status *status = device->driver->load_code(device, &sections, &plan, &code);
  if (!status) status = use(device, code, false);
  if (!status && device->driver->open_queue) status = device->driver->open_queue(device, &queue);
  if (queue) {
    status = use(queue, code, true);
    queue->driver->close(queue);
  }
  device->driver->unload_code(device, code);
  device->driver->close(device);
  return status;
}

static void any_call_of_the_driver_may_fail(void **state) {
  (void)state;
  if (!fake) return; /* there is no driver */
  for (int sticky = 0; sticky < 2; sticky++) {
    int failures = 0;
    for (int at = 0;; at++) {
      fake = control();
      fake->fail = "*";
      fake->fail_at = at;
      fake->fail_result = 700;
      fake->sticky = sticky;
      const size_t before = sluice_live_allocations();
      sluice_status *status = whole_life();
      assert_int_equal(fake->live, 0);
      const bool finished = !fake->failed;
      if (finished) ok(status);
      if (status) assert_true(strlen(sluice_status_message(status)) > 10);
      failures += status != NULL; /* not all: what is only asked for a message, say, may fail unseen */
      sluice_status_free(status);
      assert_int_equal(sluice_live_allocations(), before);
      if (finished) break;
    }
    assert_true(failures > 60);
  }
}

typedef struct failing {
  int at, seen;
} failing;

static int fail_at(void *user, size_t bytes) {
  failing *f = user;
  (void)bytes;
  return f->seen++ == f->at;
}

static void host_memory_may_end_anywhere(void **state) {
  (void)state;
  const size_t before = sluice_live_allocations();
  for (int at = 0;; at++) {
    failing f = {.at = at};
    sluice_set_allocation_hook(fail_at, &f);
    sluice_status *status = whole_life();
    sluice_set_allocation_hook(NULL, NULL);
    if (status) assert_int_equal(sluice_status_code(status), SLUICE_OUT_OF_MEMORY);
    const bool finished = f.seen <= at;
    if (finished) ok(status);
    sluice_status_free(status);
    assert_int_equal(sluice_live_allocations(), before);
    if (fake) assert_int_equal(fake->live, 0);
    if (finished) {
      assert_true(at > 5);
      break;
    }
  }
}

int main(int argc, char **argv) {
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (argc == 2 && strcmp(argv[1], all[i].name) == 0) tested = &all[i];
  if (!tested) {
    fprintf(stderr, "usage: devices NAME, one of");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) fprintf(stderr, " %s", all[i].name);
    fprintf(stderr, "\n");
    return 2;
  }
#define TEST(name) cmocka_unit_test_setup_teardown(name, reset, nothing_is_left)
  const struct CMUnitTest tests[] = {
      TEST(a_device_says_what_it_is),
      TEST(what_is_missing_is_listed),
      TEST(memory_holds_what_is_copied),
      TEST(memory_has_an_end),
      TEST(the_queue_runs_in_order),
      TEST(queues_of_one_device_are_apart),
      TEST(code_that_does_not_fit_is_refused),
      TEST(launches_have_limits),
      TEST(locked_memory_is_copied_in_the_queue),
      TEST(staging_sends_from_several_threads),
      TEST(graphs_run_with_what_memory_holds),
      TEST(marks_say_how_far_the_queue_is),
      TEST(any_call_of_the_driver_may_fail),
      TEST(host_memory_may_end_anywhere),
  };
#undef TEST
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
