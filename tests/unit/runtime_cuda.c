/* The cuda device over a double of the driver (tests/fake_cuda): its errors, decode graphs, weights through staging,
 * and nothing left over. The double's kernels are those of the tiny bundle, so steps give the host's logits. */
#include "fake_cuda/fake_cuda.h"
#include "runtime/devices/cuda.h"
#include "runtime/devices/gpu.h"
#include "runtime/model.h"
#include "runtime/session.h"
#include "support/tiny_bundle.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#if __has_include(<cuda.h>)
#include <cuda.h>
_Static_assert(GPU_SUCCESS == (int)CUDA_SUCCESS && GPU_OUT_OF_MEMORY == (int)CUDA_ERROR_OUT_OF_MEMORY, "results");
_Static_assert(GPU_NO_DEVICE == (int)CUDA_ERROR_NO_DEVICE, "results");
_Static_assert(GPU_NO_BINARY == (int)CUDA_ERROR_NO_BINARY_FOR_GPU, "results");
_Static_assert(CUDA_UNSUPPORTED_PTX_VERSION == (int)CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "results");
_Static_assert(CUDA_ATTRIBUTE_CLOCK_RATE == (int)CU_DEVICE_ATTRIBUTE_CLOCK_RATE, "attributes");
_Static_assert(CUDA_ATTRIBUTE_PROCESSORS == (int)CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, "attributes");
_Static_assert(CUDA_ATTRIBUTE_MEMORY_CLOCK_RATE == (int)CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, "attributes");
_Static_assert(CUDA_ATTRIBUTE_L2_CACHE_SIZE == (int)CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, "attributes");
_Static_assert(CUDA_ATTRIBUTE_CAPABILITY_MAJOR == (int)CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, "attributes");
_Static_assert(CUDA_ATTRIBUTE_CAPABILITY_MINOR == (int)CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, "attributes");
_Static_assert(CUDA_FUNCTION_MAX_DYNAMIC_SHARED == (int)CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, "attributes");
_Static_assert(CUDA_FUNCTION_CARVEOUT == (int)CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, "attributes");
_Static_assert(CUDA_FUNCTION_NON_PORTABLE_CLUSTER == (int)CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED,
               "attributes");
_Static_assert(GPU_STREAM_NON_BLOCKING == (int)CU_STREAM_NON_BLOCKING, "flags");
_Static_assert(GPU_EVENT_DISABLE_TIMING == (int)CU_EVENT_DISABLE_TIMING, "flags");
_Static_assert(GPU_CAPTURE_THREAD_LOCAL == (int)CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, "flags");
_Static_assert(CUDA_JIT_ERROR_LOG == (int)CU_JIT_ERROR_LOG_BUFFER, "options");
_Static_assert(CUDA_JIT_ERROR_LOG_BYTES == (int)CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, "options");
_Static_assert(CUDA_LAUNCH_PROGRAMMATIC_SERIALIZATION == (int)CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
               "ids");
_Static_assert(sizeof(gpu_pointer) == sizeof(CUdeviceptr), "pointers");
_Static_assert(sizeof(cuda_launch_attribute) == sizeof(CUlaunchAttribute), "launch attribute");
_Static_assert(offsetof(cuda_launch_attribute, value) == offsetof(CUlaunchAttribute, value), "launch attribute");
_Static_assert(sizeof(cuda_launch_config) == sizeof(CUlaunchConfig), "launch");
_Static_assert(offsetof(cuda_launch_config, block_x) == offsetof(CUlaunchConfig, blockDimX), "launch");
_Static_assert(offsetof(cuda_launch_config, shared_bytes) == offsetof(CUlaunchConfig, sharedMemBytes), "launch");
_Static_assert(offsetof(cuda_launch_config, stream) == offsetof(CUlaunchConfig, hStream), "launch");
_Static_assert(offsetof(cuda_launch_config, attributes) == offsetof(CUlaunchConfig, attrs), "launch");
_Static_assert(offsetof(cuda_launch_config, attribute_count) == offsetof(CUlaunchConfig, numAttrs), "launch");
#endif

static char host_bundle[128], cuda_bundle[128], files[128];
static const char *weights; /* what is loaded: `files`, or `synthetic`, which holds the same */
static const char synthetic[] = "synthetic:7";
static fake_cuda_state *fake; /* of the library that stays loaded for the whole test */
static fake_cuda_control_function *control;

static void ok(sluice_status *status) {
  if (!status) return;
  sluice_status_print(status);
  fail_msg("%s", sluice_status_message(status));
}

static void refused(sluice_status *status, sluice_code code, const char *part) {
  assert_non_null(status);
  if (!strstr(sluice_status_message(status), part))
    fail_msg("\"%s\" lacks \"%s\"", sluice_status_message(status), part);
  assert_int_equal(sluice_status_code(status), code);
  sluice_status_free(status);
}

static int set_up(void **state) {
  (void)state;
  snprintf(host_bundle, sizeof host_bundle, "/tmp/runtime_cuda_%d.host", (int)getpid());
  snprintf(cuda_bundle, sizeof cuda_bundle, "/tmp/runtime_cuda_%d.cuda", (int)getpid());
  snprintf(files, sizeof files, "/tmp/runtime_cuda_%d.safetensors", (int)getpid());
  setenv("NVTX_INJECTION64_PATH", "libcuda.so.1", 1); /* the double is a profiler, too */
  void *library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) return 1;
  void *symbol = dlsym(library, "fake_cuda_control");
  if (!symbol) return 1; /* a real driver */
  memcpy(&control, &symbol, sizeof symbol);
  fake = control();
  return tiny_bundle_write(host_bundle) || tiny_bundle_write_for(cuda_bundle, "cuda:sm_90a") ||
         tiny_checkpoint_write(files, 7, NULL, NULL, NULL);
}

static int tear_down(void **state) {
  (void)state;
  unlink(host_bundle);
  unlink(cuda_bundle);
  unlink(files);
  return 0;
}

/* Before each test: a working driver. */
static int reset(void **state) {
  (void)state;
  weights = files;
  fake = control();
  return 0;
}

/* After each: everything was given back. */
static int nothing_is_left(void **state) {
  (void)state;
  if (fake->live == 0) return 0;
  fprintf(stderr, "%d objects of the driver are left\n", fake->live);
  return 1;
}

static sluice_status *try_model(const char *bundle, const char *device, sluice_model **out_model) {
  return sluice_model_open(bundle, &(sluice_model_options){.device = device, .threads = 2}, out_model);
}

static sluice_status *try_load(sluice_model *model) {
  sluice_checkpoint *checkpoint = NULL;
  SLUICE_TRY(sluice_checkpoint_open(weights, &checkpoint));
  sluice_status *status = sluice_model_load(model, checkpoint, NULL, NULL);
  sluice_checkpoint_close(checkpoint);
  return status;
}

static sluice_model *loaded_model(const char *bundle, const char *device) {
  sluice_model *model = NULL;
  ok(try_model(bundle, device, &model));
  ok(try_load(model));
  return model;
}

static sluice_session *session_of(sluice_model *model) {
  sluice_session *session = NULL;
  ok(sluice_session_create(
      model, &(sluice_session_options){.max_sequences = 4, .max_step_tokens = 16, .cache_tokens = 128}, &session));
  return session;
}

/* One step of `count` tokens each for `sequences` sequences; copies logits and tokens out. */
static sluice_status *step(sluice_session *session, int sequences, uint32_t count, int32_t token, float *logits,
                           int32_t *sampled) {
  int32_t tokens[16];
  for (uint32_t i = 0; i < count; i++) tokens[i] = (token + (int32_t)i) % TINY_VOCABULARY;
  sluice_chunk chunks[4];
  for (int i = 0; i < sequences; i++)
    chunks[i] = (sluice_chunk){.sequence = i, .tokens = tokens, .count = count, .logit_rows = 1};
  sluice_step_result result;
  SLUICE_TRY(sluice_step(session, chunks, (uint32_t)sequences, &result));
  const float *found = NULL;
  SLUICE_TRY(sluice_step_logits(session, &found));
  if (logits) memcpy(logits, found, (size_t)sequences * TINY_VOCABULARY * sizeof *logits);
  if (sampled) memcpy(sampled, result.sampled, (size_t)sequences * sizeof *sampled);
  return NULL;
}

/* ---- opening ---- */

static void opening_fails_in_words(void **state) {
  (void)state;
  sluice_device *device = NULL;
  refused(sluice_cuda_open_library("/nowhere/libcuda.so", 0, 1, &device), SLUICE_NOT_FOUND,
          "no NVIDIA driver: tried /nowhere/libcuda.so: ");
  refused(sluice_cuda_open_library("libm.so.6", 0, 1, &device), SLUICE_UNSUPPORTED, "lacks cuInit");
  fake->version = 12020;
  refused(sluice_cuda_open(0, 1, &device), SLUICE_UNSUPPORTED, "supports CUDA 12.2; CUDA 12.5 (driver 555) or newer");
  fake = control();
  fake->devices = 0;
  refused(sluice_cuda_open(0, 1, &device), SLUICE_NOT_FOUND, "finds no GPU");
  fake = control();
  fake->devices = 2;
  refused(sluice_cuda_open(2, 1, &device), SLUICE_NOT_FOUND,
          "there is no device cuda:2: the NVIDIA driver finds 2 GPUs");
  static const char *const entries[] = {"cuInit",
                                        "cuDriverGetVersion",
                                        "cuDeviceGetCount",
                                        "cuDeviceGet",
                                        "cuDeviceGetName",
                                        "cuDeviceGetAttribute",
                                        "cuDevicePrimaryCtxRetain",
                                        "cuCtxSetCurrent",
                                        "cuStreamCreate",
                                        "cuEventCreate",
                                        "cuMemHostAlloc"};
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
    for (int at = 0; at < 2; at++) {
      fake = control();
      fake->fail = entries[i];
      fake->fail_at = at;
      fake->fail_result = 999;
      sluice_status *status = sluice_cuda_open(0, 1, &device);
      if (!status) { /* the entry is called once */
        assert_int_equal(at, 1);
        device->driver->close(device);
      } else {
        refused(status, SLUICE_DEVICE, "failed: CUDA_ERROR (999): as the test wants it");
      }
      assert_int_equal(fake->live, 0);
    }
}

static void another_architecture_is_refused(void **state) {
  (void)state;
  fake->major = 8;
  fake->minor = 9;
  sluice_model *model = NULL;
  refused(try_model(cuda_bundle, "cuda:0", &model), SLUICE_UNSUPPORTED,
          "was built for cuda:sm_90a; this machine is cuda:sm_89 (Imaginary GPU): compile it again with "
          "--target=cuda:sm_89");
  fake = control();
  refused(try_model(host_bundle, "cuda", &model), SLUICE_UNSUPPORTED,
          "was built for host:x86-64; this machine is cuda:sm_90");
  refused(try_model(cuda_bundle, "cuda:1", &model), SLUICE_NOT_FOUND, "there is no device cuda:1");
  refused(try_model(cuda_bundle, "cuda:1x", &model), SLUICE_USAGE, "unknown device \"cuda:1x\"");
}

static void code_that_does_not_suit(void **state) {
  (void)state;
  sluice_model *model = NULL;
  fake->refuse_binary = 1;
  refused(try_model(cuda_bundle, "cuda:0", &model), SLUICE_DEVICE, "loading the bundle's code failed");
  fake = control();
  fake->fail = "cuModuleGetFunction";
  fake->fail_at = 2;
  fake->fail_result = 500;
  refused(try_model(cuda_bundle, "cuda:0", &model), SLUICE_INVALID, "lacks the kernel \"tiny_");
  /* PTX, where the binary does not suit: the double takes a path for it. */
  fake = control();
  fake->refuse_binary = 1;
  sluice_device *device = NULL;
  ok(sluice_cuda_open(0, 1, &device));
  size_t length = 0;
  void *plan_bytes = tiny_plan(&length);
  sluice_plan plan;
  ok(sluice_plan_open(plan_bytes, length, &plan));
  static const char ptx[] = "//libm.so.6 and what is behind it is cut off";
  sluice_code_sections sections = {.binary = "binary", .binary_length = 6, .assembly = ptx, .assembly_length = 11};
  sluice_loaded_code *code = NULL;
  refused(device->driver->load_code(device, &sections, &plan, &code), SLUICE_INVALID, "lacks the kernel");
  fake->log = "ptxas application ptx input, line 7; error\nmore";
  refused(device->driver->load_code(device, &sections, &plan, &code), SLUICE_DEVICE,
          "ptxas application ptx input, line 7; error");
  device->driver->close(device);
  sluice_release(plan_bytes);
}

/* ---- memory ---- */

static void memory_runs_out_in_words(void **state) {
  (void)state;
  sluice_device *device = NULL;
  ok(sluice_cuda_open(0, 1, &device));
  fake->free_bytes = 1000;
  void *memory = NULL, *more = NULL;
  ok(device->driver->allocate(device, 600, &memory));
  assert_int_equal(device->driver->available(device), 400);
  refused(device->driver->allocate(device, 500, &more), SLUICE_OUT_OF_MEMORY,
          "asked for 500 bytes, 400 of 1000 are free");
  device->driver->release(device, memory);
  assert_int_equal(device->driver->available(device), 1000);
  device->driver->close(device);

  fake = control();
  sluice_model *model = loaded_model(cuda_bundle, "cuda:0");
  fake->free_bytes = 20000;
  sluice_session *session = NULL;
  refused(sluice_session_create(model, &(sluice_session_options){.cache_tokens = 100000}, &session),
          SLUICE_OUT_OF_MEMORY, "the longest context that fits has");
  sluice_model_close(model);
}

/* ---- steps ---- */

/* That a model on the fake GPU has the weights of one on the host, byte for byte. */
static void expect_weights_of(const sluice_model *host, const sluice_model *cuda) {
  assert_int_equal(host->weight_bytes, cuda->weight_bytes);
  char *copy = malloc(cuda->weight_bytes);
  ok(cuda->device->driver->copy_out(cuda->device, copy, cuda->weights, cuda->weight_bytes));
  assert_memory_equal(copy, host->weights, host->weight_bytes);
  free(copy);
}

static void steps_give_what_the_host_gives(void **state) {
  (void)state;
  sluice_model *models[2] = {loaded_model(host_bundle, "host"), loaded_model(cuda_bundle, "cuda:0")};
  expect_weights_of(models[0], models[1]);

  sluice_session *sessions[2] = {session_of(models[0]), session_of(models[1])};
  for (int s = 0; s < 2; s++)
    for (int i = 0; i < 3; i++) {
      int32_t id;
      ok(sluice_sequence_add(sessions[s], &id));
    }
  /* A prompt, then decoding over several pages, in batches of several sizes. */
  int captures = fake->captures;
  for (int i = 0; i < 30; i++) {
    float logits[2][4 * TINY_VOCABULARY];
    int32_t sampled[2][4];
    uint32_t count = i == 0 ? 5 : 1;
    int sequences = i % 7 == 6 ? 2 : 3;
    for (int s = 0; s < 2; s++) ok(step(sessions[s], sequences, count, 3 * i + 1, logits[s], sampled[s]));
    assert_memory_equal(logits[0], logits[1], (size_t)sequences * TINY_VOCABULARY * sizeof(float));
    assert_memory_equal(sampled[0], sampled[1], (size_t)sequences * sizeof(int32_t));
  }
  /* 29 decode steps were graphs, recorded anew only when the batch or a power of two pages changed. */
  assert_int_equal(fake->graph_launches, 29);
  assert_true(fake->captures - captures >= 2 && fake->captures - captures <= 8);

  assert_int_equal(fake->divisions, 1); /* the first launch's: no kernel asks for another division of memory */

  int launches = fake->launches, copies = fake->copies_in;
  ok(step(sessions[1], 3, 1, 9, NULL, NULL));
  assert_int_equal(fake->launches, launches); /* one graph, nothing else */
  assert_int_equal(fake->copies_in, copies);
  for (int s = 0; s < 2; s++) {
    sluice_session_close(sessions[s]);
    sluice_model_close(models[s]);
  }
}

static void synthetic_weights_are_made_by_one_launch(void **state) {
  (void)state;
  sluice_model *host = loaded_model(host_bundle, "host"), *cuda = NULL;
  ok(try_model(cuda_bundle, "cuda:0", &cuda));
  weights = synthetic;
  int live = fake->live;
  ok(try_load(cuda));
  assert_int_equal(fake->live, live + 1); /* the weights; the pieces are gone */
  assert_int_equal(fake->launches, 1);
  assert_int_equal(fake->copies_in, 1);
  /* Pieces: scale 1; of a and b each the part of a panel that they share and the rest, 4; gate and up of each expert;
   * the two wide ones. */
  assert_int_equal(fake->last_grid[0], 1 + 4 + 2 * TINY_EXPERTS + 2);
  assert_int_equal(fake->last_grid[1], 1);
  expect_weights_of(host, cuda);
  sluice_model_close(host);
  sluice_model_close(cuda);

  static const char *const entries[] = {"cuMemcpyHtoDAsync_v2", "cuLaunchKernelEx", "cuStreamSynchronize"};
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
    fake = control();
    ok(try_model(cuda_bundle, "cuda:0", &cuda));
    fake->fail = entries[i];
    fake->fail_result = 700;
    refused(try_load(cuda), SLUICE_DEVICE, "making synthetic weights");
    fake->fail = NULL;
    ok(try_load(cuda));
    sluice_model_close(cuda);
    assert_int_equal(fake->live, 0);
  }
}

static void profilers_see_steps_and_launches(void **state) {
  (void)state;
  sluice_model *model = loaded_model(cuda_bundle, "cuda:0");
  sluice_session *session = session_of(model);
  int32_t id;
  ok(sluice_sequence_add(session, &id));
  int before = fake->ranges;
  ok(step(session, 1, 5, 0, NULL, NULL));
  uint64_t launches = sluice_model_plan(model)->header->launches.count;
  assert_int_equal(fake->ranges - before, 1 + launches);
  assert_int_equal(fake->open_ranges, 0);
  assert_string_equal(fake->outer, "step");
  const sluice_plan *plan = sluice_model_plan(model); /* its launches have no labels: their kernels name them */
  const sluice_plan_kernel *last = &plan->kernels[plan->launches[launches - 1].kernel];
  assert_string_equal(fake->inner, sluice_plan_string(plan, last->name));
  sluice_session_close(session);
  sluice_model_close(model);
}

static void many_batch_sizes_share_sixteen_graphs(void **state) {
  (void)state;
  sluice_model *model = loaded_model(cuda_bundle, "cuda:0");
  sluice_session *session = NULL;
  ok(sluice_session_create(
      model, &(sluice_session_options){.max_sequences = 24, .max_step_tokens = 40, .cache_tokens = 1600}, &session));
  sluice_chunk chunks[24];
  static const int32_t tokens[34] = {5, 6, 7};
  sluice_step_result result;
  for (int i = 0; i < 24; i++) { /* 9 to 16 pages each from here on */
    int32_t id;
    ok(sluice_sequence_add(session, &id));
    chunks[i] = (sluice_chunk){.sequence = id, .tokens = tokens, .count = 34, .logit_rows = 1};
    ok(sluice_step(session, &chunks[i], 1, &result));
    chunks[i].count = 1;
  }
  for (uint32_t n = 24; n >= 1; n--) ok(sluice_step(session, chunks, n, &result)); /* memory grows at the first */
  assert_int_equal(fake->captures, 24);
  for (uint32_t n = 1; n <= 4; n++) ok(sluice_step(session, chunks, n * 4, &result)); /* still there */
  assert_int_equal(fake->captures, 24);
  int live = fake->live;
  ok(sluice_step(session, chunks, 20, &result)); /* gone: recorded anew, and another one goes */
  assert_int_equal(fake->captures, 25);
  assert_int_equal(fake->live, live);
  sluice_session_close(session);
  sluice_model_close(model);
}

static void failures_name_launch_and_step(void **state) {
  (void)state;
  static const struct {
    const char *entry;
    int at;
    uint32_t count; /* tokens of the step that fails: 1 decodes */
    const char *part;
  } cases[] = {
      {"cuLaunchKernelEx", 1, 5, "launch 1 ("},
      {"cuStreamSynchronize", 0, 5, "running the queue failed: CUDA_ERROR_ILLEGAL_ADDRESS (700): an illegal memory"},
      {"cuMemcpyHtoDAsync_v2", 0, 5, "copying to the device failed"},
      {"cuGraphLaunch", 0, 1, "decode graph of 4 launches"}, /* one of them two */
      {"cuStreamBeginCapture_v2", 0, 1, "recording a graph failed"},
      {"cuStreamEndCapture", 0, 1, "recording a graph failed"},
      {"cuGraphInstantiateWithFlags", 0, 1, "making a graph failed"},
      {"cuLaunchKernelEx", 0, 1, "launch 0 ("},
      {"cuLaunchKernelEx", 1, 1, "launch 2 ("},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int sticky = 0; sticky < 2; sticky++) {
      fake = control();
      sluice_model *model = loaded_model(cuda_bundle, "cuda:0");
      sluice_session *session = session_of(model);
      int32_t id;
      ok(sluice_sequence_add(session, &id));
      ok(step(session, 1, 5, 0, NULL, NULL));
      fake->fail = cases[i].entry;
      fake->fail_at = cases[i].at;
      fake->fail_result = 700;
      fake->sticky = sticky;
      sluice_status *status = step(session, 1, cases[i].count, 1, NULL, NULL);
      assert_non_null(status);
      if (!strstr(sluice_status_message(status), cases[i].part) || !strstr(sluice_status_message(status), "step 2"))
        fail_msg("%s: \"%s\" lacks \"%s\" or the step", cases[i].entry, sluice_status_message(status), cases[i].part);
      sluice_status_free(status);
      refused(step(session, 1, 1, 1, NULL, NULL), SLUICE_DEVICE, "the device failed in an earlier step");
      sluice_session_close(session);
      sluice_model_close(model);
      assert_int_equal(fake->live, 0);
    }
}

/* A step with too large a launch is refused as a whole, whichever launch it is, and the session goes on as if there had
 * been none. */
static void steps_with_large_grids_change_nothing(void **state) {
  (void)state;
  float expected[TINY_VOCABULARY], found[TINY_VOCABULARY];
  sluice_model *model = loaded_model(cuda_bundle, "cuda:0");
  sluice_session *session = session_of(model);
  int32_t sequence;
  ok(sluice_sequence_add(session, &sequence));
  ok(step(session, 1, 3, 1, expected, NULL));
  sluice_session_close(session);
  for (uint64_t most = 1; most < 8; most++) {
    session = session_of(model);
    ok(sluice_sequence_add(session, &sequence));
    model->device->largest_grid[0] = most;
    sluice_status *status = step(session, 1, 8, 1, NULL, NULL);
    assert_non_null(status);
    assert_int_equal(sluice_status_code(status), SLUICE_INVALID);
    unsigned long long tokens = 0;
    const char *advice = strstr(sluice_status_message(status), "use steps of at most ");
    if (!advice || sscanf(advice, "use steps of at most %llu tokens", &tokens) != 1 || tokens < 1 || tokens > most)
      fail_msg("\"%s\" gives no such advice", sluice_status_message(status));
    if (!strstr(sluice_status_message(status), "launch ")) fail_msg("\"%s\"", sluice_status_message(status));
    sluice_status_free(status);
    assert_int_equal(sluice_session_free_pages(session), 128 / TINY_PAGE);
    model->device->largest_grid[0] = INT32_MAX;
    ok(step(session, 1, 3, 1, found, NULL));
    assert_memory_equal(expected, found, sizeof found);
    sluice_session_close(session);
  }
  sluice_model_close(model);
}

/* ---- host memory ---- */

typedef struct failing {
  int at, seen;
} failing;

static int fail_at(void *user, size_t bytes) {
  failing *f = user;
  (void)bytes;
  return f->seen++ == f->at;
}

static sluice_status *whole_run(void) {
  sluice_model *model = NULL;
  SLUICE_TRY(try_model(cuda_bundle, "cuda:0", &model));
  sluice_status *status = try_load(model);
  sluice_session *session = NULL;
  if (!status)
    status = sluice_session_create(
        model, &(sluice_session_options){.max_sequences = 4, .max_step_tokens = 16, .cache_tokens = 128}, &session);
  int32_t id;
  if (!status) status = sluice_sequence_add(session, &id);
  if (!status) status = step(session, 1, 5, 0, NULL, NULL);
  if (!status) status = step(session, 1, 1, 3, NULL, NULL);
  sluice_session_close(session);
  sluice_model_close(model);
  return status;
}

static void run_without_host_memory(const char *source) {
  weights = source;
  size_t before = sluice_live_allocations();
  int at = 0;
  for (;; at++) {
    failing f = {.at = at};
    sluice_set_allocation_hook(fail_at, &f);
    sluice_status *status = whole_run();
    sluice_set_allocation_hook(NULL, NULL);
    bool finished = f.seen <= at;
    if (finished) ok(status);
    if (status) assert_int_equal(sluice_status_code(status), SLUICE_OUT_OF_MEMORY);
    sluice_status_free(status);
    assert_int_equal(sluice_live_allocations(), before);
    assert_int_equal(fake->live, 0);
    if (finished) break;
  }
  assert_true(at > 20);
}

static void host_memory_runs_out_anywhere(void **state) {
  (void)state;
  run_without_host_memory(files);
  run_without_host_memory(synthetic);
}

static void run_without_device_memory(const char *source, const char *entry) {
  weights = source;
  for (int at = 0;; at++) {
    fake = control();
    fake->fail = entry;
    fake->fail_at = at;
    fake->fail_result = 2;
    sluice_status *status = whole_run();
    assert_int_equal(fake->live, 0);
    if (!status) {
      assert_true(at >= 4);
      break;
    }
    assert_int_equal(sluice_status_code(status), SLUICE_OUT_OF_MEMORY);
    sluice_status_free(status);
  }
}

static void device_memory_runs_out_anywhere(void **state) {
  (void)state;
  run_without_device_memory(files, "cuMemAlloc_v2");
  run_without_device_memory(files, "cuMemHostAlloc");
  run_without_device_memory(synthetic, "cuMemAlloc_v2");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, reset, nothing_is_left)
  const struct CMUnitTest tests[] = {
      TEST(opening_fails_in_words),           TEST(another_architecture_is_refused),
      TEST(code_that_does_not_suit),          TEST(memory_runs_out_in_words),
      TEST(steps_give_what_the_host_gives),   TEST(synthetic_weights_are_made_by_one_launch),
      TEST(profilers_see_steps_and_launches), TEST(many_batch_sizes_share_sixteen_graphs),
      TEST(failures_name_launch_and_step),    TEST(steps_with_large_grids_change_nothing),
      TEST(host_memory_runs_out_anywhere),    TEST(device_memory_runs_out_anywhere)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
