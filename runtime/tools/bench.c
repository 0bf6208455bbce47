/* sluice-run bench: times kernels and whole steps. */
#include "runtime/tools/bench.h"
#include "runtime/tools/options.h"
#include "runtime/tools/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CUDA_FLOP_RATE 790e12 /* an H100's bf16 tensor cores, sustained */
#define MAX_REPEAT 1000000u

typedef struct bench {
  sluice_model *model;
  bool has_weights, json;
  uint64_t repeat;
  uint32_t layer; /* UINT32_MAX: any */
  const char *kernel;
  bench_request request;
  bench_rates rates;
  bench_random *random;
  tool_trace *trace;
  uint32_t lines;       /* printed */
  double largest_share; /* above 1; 0: none was */
  bool measured_rate;   /* of memory; otherwise given */
} bench;

/* ---- Printing ---- */

/* `group` is NULL for a whole step. */
static sluice_status *print_json(const bench *b, const char *name, const char *shape, const bench_group *group,
                                 const bench_result *result, double floor) {
  sluice_text text = {0};
  sluice_text_printf(&text, "{\"kernel\": ");
  sluice_text_json_string(&text, name);
  sluice_text_printf(&text,
                     ", \"shape\": \"%s\", \"us\": %.3f, \"bytes\": %.0f, \"flops\": %.0f, \"floor_us\": %.3f, "
                     "\"share\": %.4f",
                     shape, result->us, result->cost.bytes, result->cost.flops, floor, floor / result->us);
  sluice_text_printf(&text, ", \"device\": ");
  sluice_text_json_string(&text, b->model->device->name);
  sluice_text_printf(&text, ", \"calls\": %llu", (unsigned long long)result->calls);
  if (group) {
    if (group->layer != UINT32_MAX) sluice_text_printf(&text, ", \"layer\": %u", group->layer);
    sluice_text_printf(&text, ", \"launches\": %u, \"copies\": %u, \"times\": %u", result->launches, result->copies,
                       group->times);
  } else {
    sluice_text_printf(&text, ", \"launches\": %u", result->launches);
  }
  sluice_text_printf(&text, "}\n");
  bool failed = text.failed;
  if (!failed) fputs(text.data, stdout);
  sluice_text_free(&text);
  return failed ? sluice_out_of_memory() : NULL;
}

static sluice_status *print_result(bench *b, bench_phase phase, const char *name, const bench_shape *shape,
                                   const bench_group *group, const bench_result *result) {
  bench_shape_text text = bench_shape_describe(shape, phase);
  double floor = bench_floor_us(&result->cost, &b->rates);
  sluice_status *status = NULL;
  if (b->json) {
    status = print_json(b, name, text.text, group, result, floor);
  } else {
    char layer[16] = "";
    if (group && group->layer != UINT32_MAX) snprintf(layer, sizeof layer, "%u", group->layer);
    if (b->lines == 0)
      printf("%s, memory %.1f GB/s\n%-26s %5s %-36s %12s %12s %9s %6s\n", b->model->device->name, 1e-9 * b->rates.bytes,
             "kernel", "layer", "shape", "us", "floor us", "GB/s", "share");
    printf("%-26s %5s %-36s %12.2f %12.2f %9.1f %5.1f%%\n", name, layer, text.text, result->us, floor,
           1e-3 * result->cost.bytes / result->us, 100 * floor / result->us);
  }
  b->lines++;
  if (floor > result->us && floor / result->us > b->largest_share) b->largest_share = floor / result->us;
  if (!status && fflush(stdout) != 0) status = sluice_error(SLUICE_IO, "cannot write to standard output");
  return status;
}

/* ---- Kernels ---- */

static sluice_status *run_groups(bench *b, bench_phase phase, const bench_shape *shape, const bench_group_list *list) {
  for (uint32_t i = 0; i < list->count; i++) {
    const bench_group *group = &list->groups[i];
    char name[80];
    snprintf(name, sizeof name, "%s.%s", bench_phase_name(phase), group->name);
    bench_result result;
    SLUICE_TRY(sluice_annotate(bench_kernel_run(b->model, group, phase, shape, b->repeat, b->random, b->trace, &result),
                               "%s", name));
    SLUICE_TRY(print_result(b, phase, name, shape, group, &result));
  }
  return NULL;
}

/* `label` NULL: all of them. */
static sluice_status *run_kernels(bench *b, bench_phase phase, const char *label) {
  const sluice_plan *plan = &b->model->plan;
  bench_shape shape;
  SLUICE_TRY(bench_shape_resolve(&b->request, phase, label != NULL, plan, &shape));
  bench_extents extents;
  bench_shape_extents(&shape, plan, bench_runs_as_graph(b->model, &shape), &extents);
  bench_group_list list;
  SLUICE_TRY(label ? bench_groups_find(plan, extents.sizes, label, b->layer, &list)
                   : bench_groups_all(plan, extents.sizes, &list));
  sluice_status *status = run_groups(b, phase, &shape, &list);
  bench_group_list_free(&list);
  return status;
}

/* ---- Whole steps ---- */

typedef struct step_bench {
  bench *b;
  bench_phase phase;
  bench_shape shape;
  bench_extents extents;
  sluice_session *session;
  sluice_chunk *chunks;
  int32_t *tokens;
  double *experts;            /* distinct ones of each layer */
  unsigned char *experts_hit; /* scratch [experts] */
} step_bench;

/* A sluice_observer. */
static sluice_status *count_experts(void *user, const char *name, sluice_dtype dtype, const void *data, uint32_t rows,
                                    uint32_t row_elements) {
  step_bench *s = user;
  const sluice_plan_header *header = s->b->model->plan.header;
  unsigned layer;
  int end = 0;
  if (dtype != SLUICE_I32 || sscanf(name, "layer.%u.router.experts%n", &layer, &end) != 1 || !end || name[end] ||
      layer >= header->layers)
    return NULL;
  s->experts[layer] = bench_distinct(data, (size_t)rows * row_elements, header->experts, s->experts_hit);
  return NULL;
}

/* Gives each sequence its context without a step: pages in random order with random contents, and the length. */
static sluice_status *fake_context(step_bench *s) {
  sluice_session *session = s->session;
  const sluice_plan *plan = &session->model->plan;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < plan->header->layers; i++) bytes += plan->cache[i].page_bytes * session->pool.page_count;
  SLUICE_TRY(
      bench_random_fill(s->b->random, session->device, session->cache, bytes, (sluice_dtype)plan->header->dtype, 1));
  bench_random_shuffle(s->b->random, session->pool.free_pages, session->pool.free_count);
  uint32_t page_tokens = plan->header->page_tokens;
  uint32_t pages = (uint32_t)(((uint64_t)s->shape.context + page_tokens - 1) / page_tokens);
  for (uint32_t i = 0; i < s->shape.sequences; i++) {
    SLUICE_TRY(sluice_sequence_add(session, &s->chunks[i].sequence));
    sluice_sequence *sequence = &session->sequences[s->chunks[i].sequence];
    SLUICE_TRY(sluice_pages_append(&session->pool, &sequence->pages, pages));
    sequence->length = s->shape.context;
    s->chunks[i].tokens = s->tokens + (size_t)i * s->shape.tokens;
    s->chunks[i].count = s->shape.tokens;
    s->chunks[i].logit_rows = 1;
  }
  return NULL;
}

/* A step with new random tokens; every sequence is as long as before afterwards. */
static sluice_status *run_step(step_bench *s, tool_trace *trace, double *out_seconds) {
  size_t count = (size_t)s->shape.sequences * s->shape.tokens;
  for (size_t i = 0; i < count; i++)
    s->tokens[i] = (int32_t)(bench_random_next(s->b->random) % s->b->model->plan.header->vocabulary);
  sluice_step_result result;
  double start = tool_now();
  SLUICE_TRY(tool_trace_step(trace, bench_phase_name(s->phase), s->b->model, s->session, s->chunks, s->shape.sequences,
                             &result));
  *out_seconds = tool_now() - start;
  for (uint32_t i = 0; i < s->shape.sequences; i++)
    s->session->sequences[s->chunks[i].sequence].length = s->shape.context;
  return NULL;
}

/* Steps are timed from the host, from the tokens to the next ones. The experts are counted in a step of their own, and
 * so are the launches of a trace. */
static sluice_status *time_steps(step_bench *s, double *seconds) {
  const uint64_t repeat = s->b->repeat;
  double ignored;
  for (int i = 0; i < 2; i++) SLUICE_TRY(run_step(s, NULL, &ignored)); /* warm up */
  for (uint64_t i = 0; i < repeat; i++) SLUICE_TRY(run_step(s, NULL, &seconds[i]));
  if (s->b->trace) SLUICE_TRY(run_step(s, s->b->trace, &ignored));
  sluice_session_observe(s->session, count_experts, s);
  SLUICE_TRY(run_step(s, NULL, &ignored));
  sluice_session_observe(s->session, NULL, NULL);

  const sluice_plan *plan = &s->b->model->plan;
  bench_result result = {.us = 1e6 * bench_median(seconds, (size_t)repeat), .copies = 1, .calls = repeat};
  result.launches = sluice_plan_count_launches(plan, s->extents.sizes, bench_runs_as_graph(s->b->model, &s->shape));
  for (uint32_t i = 0; i < plan->header->launches.count; i++) {
    const sluice_plan_launch *launch = &plan->launches[i];
    if (!sluice_plan_runs(plan, launch, s->extents.sizes)) continue;
    double experts = launch->layer != UINT32_MAX ? s->experts[launch->layer] : 0;
    bench_cost cost = bench_cost_of(plan, i, &s->shape, experts);
    result.cost.bytes += cost.bytes;
    result.cost.flops += cost.flops;
  }
  char name[32];
  snprintf(name, sizeof name, "step.%s", bench_phase_name(s->phase));
  return print_result(s->b, s->phase, name, &s->shape, NULL, &result);
}

static sluice_status *run_session(step_bench *s) {
  const sluice_plan_header *header = s->b->model->plan.header;
  size_t tokens = (size_t)s->shape.sequences * s->shape.tokens;
  sluice_session_options options = {.max_sequences = s->shape.sequences,
                                    .max_step_tokens = (uint32_t)tokens,
                                    .cache_tokens = s->extents.memory[SLUICE_SIZE_CACHE_PAGES] * header->page_tokens};
  SLUICE_TRY(sluice_session_create(s->b->model, &options, &s->session));
  s->chunks = sluice_allocate_array(s->shape.sequences, sizeof *s->chunks);
  s->tokens = sluice_allocate_array(tokens, sizeof *s->tokens);
  s->experts = sluice_allocate_array(header->layers, sizeof *s->experts);
  s->experts_hit = sluice_allocate_array(header->experts, 1);
  double *seconds = sluice_allocate_array((size_t)s->b->repeat, sizeof *seconds);
  sluice_status *status = NULL;
  if (!s->chunks || !s->tokens || !s->experts || !s->experts_hit || !seconds) status = sluice_out_of_memory();
  if (!status) status = fake_context(s);
  if (!status) status = time_steps(s, seconds);
  sluice_release(seconds);
  return status;
}

static sluice_status *run_steps(bench *b, bench_phase phase, bool strict) {
  step_bench s = {.b = b, .phase = phase};
  SLUICE_TRY(bench_shape_resolve(&b->request, phase, strict, &b->model->plan, &s.shape));
  bench_shape_extents(&s.shape, &b->model->plan, bench_runs_as_graph(b->model, &s.shape), &s.extents);
  sluice_status *status = run_session(&s);
  sluice_session_close(s.session);
  sluice_release(s.chunks);
  sluice_release(s.tokens);
  sluice_release(s.experts);
  sluice_release(s.experts_hit);
  return sluice_annotate(status, "step.%s", bench_phase_name(phase));
}

/* ---- The command ---- */

/* "decode.experts" -> BENCH_DECODE, "experts"; "step.decode" -> BENCH_DECODE, NULL. */
static sluice_status *parse_kernel(const char *kernel, bench_phase *out_phase, const char **out_label) {
  for (int phase = 0; phase < BENCH_PHASE_COUNT; phase++) {
    const char *name = bench_phase_name((bench_phase)phase);
    size_t length = strlen(name);
    *out_phase = (bench_phase)phase;
    *out_label = NULL;
    if (strncmp(kernel, "step.", 5) == 0 && strcmp(kernel + 5, name) == 0) return NULL;
    *out_label = kernel + length + 1;
    if (strncmp(kernel, name, length) == 0 && kernel[length] == '.' && kernel[length + 1]) return NULL;
  }
  return sluice_error(SLUICE_USAGE,
                      "--kernel: \"%.60s\" is neither decode.NAME, prefill.NAME, step.decode nor step.prefill", kernel);
}

static sluice_status *run_all(bench *b) {
  for (int phase = 0; phase < BENCH_PHASE_COUNT; phase++) SLUICE_TRY(run_kernels(b, (bench_phase)phase, NULL));
  for (int phase = 0; phase < BENCH_PHASE_COUNT && b->has_weights; phase++)
    SLUICE_TRY(run_steps(b, (bench_phase)phase, false));
  return NULL;
}

static sluice_status *run_one(bench *b) {
  bench_phase phase;
  const char *label;
  SLUICE_TRY(parse_kernel(b->kernel, &phase, &label));
  return label ? run_kernels(b, phase, label) : run_steps(b, phase, true);
}

static sluice_status *run(bench *b) {
  bool host = b->model->device->host_memory;
  if (b->layer != UINT32_MAX && b->layer >= b->model->plan.header->layers)
    return sluice_error(SLUICE_USAGE, "--layer: the bundle's model has %u layers", b->model->plan.header->layers);
  SLUICE_TRY(bench_random_create(&b->random));
  b->measured_rate = !(b->rates.bytes > 0);
  if (b->measured_rate) SLUICE_TRY(bench_memory_rate(b->model, &b->rates.bytes));
  if (!(b->rates.flops > 0) && !host && b->model->plan.header->dtype == SLUICE_BF16) b->rates.flops = CUDA_FLOP_RATE;
  SLUICE_TRY(b->kernel ? run_one(b) : run_all(b));
  if (b->largest_share > 1)
    fprintf(stderr,
            "warning: a share of %.2f: calls were faster than the floor, so the rate of memory is above the %.1f GB/s "
            "that %s; give --memory-rate\n",
            b->largest_share, 1e-9 * b->rates.bytes, b->measured_rate ? "were measured" : "--memory-rate says");
  return NULL;
}

static sluice_status *check(const bench *b, uint64_t layer, double memory_rate, double flop_rate) {
  if (b->repeat < 1 || b->repeat > MAX_REPEAT)
    return sluice_error(SLUICE_USAGE, "--repeat must lie in 1 .. %u", MAX_REPEAT);
  if (memory_rate < 0 || flop_rate < 0)
    return sluice_error(SLUICE_USAGE, "--memory-rate and --flop-rate must be positive");
  if (layer != UINT64_MAX && layer > INT32_MAX) return sluice_error(SLUICE_USAGE, "--layer must lie below 2^31");
  if (layer != UINT64_MAX && !b->kernel) return sluice_error(SLUICE_USAGE, "--layer needs --kernel");
  bench_phase phase;
  const char *label = "";
  if (b->kernel) SLUICE_TRY(parse_kernel(b->kernel, &phase, &label));
  if (!label && !b->has_weights) return sluice_error(SLUICE_USAGE, "%s needs --weights; see --help", b->kernel);
  return NULL;
}

sluice_status *command_bench(int argc, char **argv) {
  tool_model_options model = {0};
  const char *shape = NULL, *trace = NULL;
  double memory_rate = 0, flop_rate = 0;
  uint64_t layer = UINT64_MAX;
  bench b = {.repeat = 30, .layer = UINT32_MAX};
  const tool_option options[] = {
      {"--kernel", TOOL_TEXT, &b.kernel, "NAME", "this one only: decode.experts, prefill.attention, step.decode, ..."},
      {"--layer", TOOL_COUNT, &layer, "N", "the kernel of layer N (the first with block-sparse attention)"},
      {"--shape", TOOL_TEXT, &shape, "S", "seqs=N,context=N,tokens=N,tp=1; see above"},
      {"--weights", TOOL_INPUT, &model.weights, "DIR|synthetic:SEED", "the checkpoint, for whole steps"},
      {"--repeat", TOOL_COUNT, &b.repeat, "N", "take the median of N measurements (30)"},
      {"--memory-rate", TOOL_REAL, &memory_rate, "GB/s", "of the floor (measured at the start)"},
      {"--flop-rate", TOOL_REAL, &flop_rate, "TFLOP/s", "of the floor (GPU: 790 for bfloat16; host: unknown, no part)"},
      {"--device", TOOL_TEXT, &model.device, "D", "host, cuda:N, hip:N (host)"},
      {"--trust", TOOL_INPUT, &model.trust, "KEY", "run the bundle only if it is signed with this key"},
      {"--threads", TOOL_COUNT, &model.threads, "N", "threads on the host (0: one for each core)"},
      {"--trace", TOOL_OUTPUT, &trace, "FILE", "write a Chrome/Perfetto trace; adds a step that waits for each launch"},
      {"--json", TOOL_FLAG, &b.json, NULL, "print a JSON object a line"},
  };
  const tool_command command = {
      "sluice-run bench FILE.sluice [--kernel NAME] [--shape S] [--weights DIR|synthetic:SEED] [options]",
      "Times the kernels of the bundle, each on its own with random data, then, with --weights, whole steps.\n"
      "\n"
      "A kernel is PHASE.NAME. The phase is decode (one new token of each sequence) or prefill. The name stands for\n"
      "the launches of one layer that do one job: projections (with norms, rotation and cache), select_attend,\n"
      "attention (dense), output_projection (with the norm behind it), mlp, router, experts, routed (these two),\n"
      "shared_expert (where it is none of the experts), moe (all three), lm_head, sample; or any op that \"sluice "
      "explain\" lists.\n"
      "\n"
      "The shape: seqs sequences of context tokens in the cache each; prefill: tokens new ones of each. K is 1024,\n"
      "M is 1024 * 1024. Without it 1 sequence, decode after 512 tokens, prefill of 512.\n"
      "\n"
      "The context of a whole step is random cache contents. A kernel's calls go through copies of all that it\n"
      "touches, so that a copy has left the cache when it is used again. floor_us is the larger of bytes / memory\n"
      "rate and flops / flop rate; bytes count what has to be read once, once.\n",
      options, sizeof options / sizeof options[0]};
  const char *file;
  bool help;
  SLUICE_TRY(tool_parse(&command, argc, argv, &file, &help));
  if (help) return NULL;
  b.has_weights = model.weights != NULL;
  SLUICE_TRY(check(&b, layer, memory_rate, flop_rate));
  SLUICE_TRY(bench_shape_parse(shape, &b.request));
  b.rates = (bench_rates){1e9 * memory_rate, 1e12 * flop_rate};
  if (layer != UINT64_MAX) b.layer = (uint32_t)layer;
  SLUICE_TRY(tool_trace_open(trace, &b.trace));
  model.trace = b.trace;
  sluice_status *status = tool_open_model(file, &model, &b.model);
  if (!status) status = run(&b);
  bench_random_free(b.random);
  sluice_model_close(b.model);
  return tool_trace_close(b.trace, status);
}
