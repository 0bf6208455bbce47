/* sluice-run bench: times whole steps and their launches. */
#include "runtime/tools/options.h"
#include "runtime/tools/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench {
  sluice_model *model;
  const sluice_plan *plan;
  sluice_session *session;
  double *seconds;                    /* of each launch, summed over the timed steps */
  uint32_t *experts;                  /* distinct experts of each layer, summed over the timed steps */
  unsigned char *expert_hit;          /* scratch [experts] */
  uint64_t rows, tokens, keys, steps; /* of all timed steps */
  uint64_t *limited_keys;             /* of each launch */
  uint32_t sequences, chunk;
  uint64_t repeat;
} bench;

static void add_time(void *user, uint32_t launch, double seconds) {
  ((bench *)user)->seconds[launch] += seconds;
}

/* Counts the distinct experts of a layer in one step. */
static sluice_status *count_experts(void *user, const char *name, sluice_dtype dtype, const void *data, uint32_t rows,
                                    uint32_t row_elements) {
  bench *b = user;
  unsigned layer;
  int end = 0;
  if (dtype != SLUICE_I32 || sscanf(name, "layer.%u.router.experts%n", &layer, &end) != 1 || !end || name[end] ||
      layer >= b->plan->header->layers)
    return NULL;
  memset(b->expert_hit, 0, b->plan->header->experts);
  const int32_t *ids = data;
  for (size_t i = 0; i < (size_t)rows * row_elements; i++)
    if (ids[i] >= 0 && (uint32_t)ids[i] < b->plan->header->experts) b->expert_hit[ids[i]] = 1;
  for (uint32_t i = 0; i < b->plan->header->experts; i++) b->experts[layer] += b->expert_hit[i];
  return NULL;
}

static void reset(bench *b) {
  size_t launches = (size_t)b->plan->header->launches.count;
  memset(b->seconds, 0, launches * sizeof *b->seconds);
  memset(b->limited_keys, 0, launches * sizeof *b->limited_keys);
  memset(b->experts, 0, b->plan->header->layers * sizeof *b->experts);
  b->rows = b->tokens = b->keys = b->steps = 0;
}

/* What the step about to run costs, beyond what the plan says. */
static void count_step(bench *b, const sluice_chunk *chunks, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    uint32_t length = 0;
    sluice_status_free(sluice_sequence_length(b->session, chunks[i].sequence, &length));
    b->tokens += chunks[i].count;
    b->rows += chunks[i].logit_rows;
    for (uint32_t j = 0; j < chunks[i].count; j++) {
      uint64_t keys = (uint64_t)length + j + 1;
      b->keys += keys;
      for (uint64_t l = 0; l < b->plan->header->launches.count; l++) {
        uint64_t limit = b->plan->launches[l].cost.key_limit;
        b->limited_keys[l] += limit && limit < keys ? limit : keys;
      }
    }
  }
  b->steps++;
}

static bool by_rows(const sluice_plan_launch *launch) {
  return launch->grid[0].size == SLUICE_SIZE_ROWS || launch->grid[1].size == SLUICE_SIZE_ROWS;
}

/* One line for the step, then one for each kernel, over all its launches; times are for one step. */
static void report(const bench *b, const char *phase, double seconds, uint64_t context) {
  const sluice_plan *plan = b->plan;
  double steps = (double)b->steps;
  printf("{\"step\": \"%s\", \"tokens\": %llu, \"sequences\": %u, \"context\": %llu, \"us\": %.1f, "
         "\"tokens_per_second\": %.1f}\n",
         phase, (unsigned long long)(b->tokens / b->steps), b->sequences, (unsigned long long)context,
         1e6 * seconds / steps, (double)b->tokens / seconds);
  for (uint32_t k = 0; k < plan->header->kernels.count; k++) {
    double time = 0, bytes = 0, flops = 0;
    uint64_t launches = 0;
    for (uint64_t l = 0; l < plan->header->launches.count; l++) {
      const sluice_plan_launch *launch = &plan->launches[l];
      const sluice_plan_cost *cost = &launch->cost;
      if (launch->kernel != k) continue;
      double rows = (double)(by_rows(launch) ? b->rows : b->tokens);
      double experts = launch->layer != UINT32_MAX ? b->experts[launch->layer] : 0;
      launches++;
      time += b->seconds[l];
      bytes += steps * (double)cost->fixed_bytes + rows * (double)cost->row_bytes +
               (double)b->keys * (double)cost->key_bytes +
               (double)b->limited_keys[l] * (double)cost->limited_key_bytes + experts * (double)cost->expert_bytes;
      flops += steps * (double)cost->fixed_flops + rows * (double)cost->row_flops +
               (double)b->keys * (double)cost->key_flops + (double)b->limited_keys[l] * (double)cost->limited_key_flops;
    }
    if (!launches) continue;
    const char *attributes = sluice_plan_string(plan, plan->kernels[k].attributes);
    printf("{\"kernel\": \"%s\", \"step\": \"%s\", \"shape\": %s, \"launches\": %llu, \"us\": %.2f, \"bytes\": %.0f, "
           "\"flops\": %.0f}\n",
           sluice_plan_string(plan, plan->kernels[k].name), phase, attributes[0] ? attributes : "{}",
           (unsigned long long)launches, 1e6 * time / steps, bytes / steps, flops / steps);
  }
}

/* Distinct tokens for each sequence and position, so that the experts of a real batch are hit. */
static int32_t token_at(const bench *b, uint64_t sequence, uint64_t position) {
  uint64_t z = (sequence * 1000003 + position + 1) * 0x9E3779B97F4A7C15u;
  z ^= z >> 29;
  return (int32_t)(z % b->plan->header->vocabulary);
}

static sluice_status *prefill(bench *b, int32_t sequence, uint64_t count, int32_t *tokens, bool counted) {
  for (uint64_t done = 0; done < count;) {
    uint32_t part = count - done < b->chunk ? (uint32_t)(count - done) : b->chunk;
    for (uint32_t i = 0; i < part; i++) tokens[i] = token_at(b, (uint64_t)sequence, done + i);
    sluice_chunk chunk = {
        .sequence = sequence, .tokens = tokens, .count = part, .logit_rows = done + part == count ? 1 : 0};
    if (counted) count_step(b, &chunk, 1);
    sluice_step_result result;
    SLUICE_TRY(sluice_step(b->session, &chunk, 1, &result));
    done += part;
  }
  return NULL;
}

/* Whole steps are timed without the hook, launches in a second run with it. */
static sluice_status *bench_prefill(bench *b, uint64_t tokens, int32_t *buffer) {
  double best = 0;
  for (uint64_t r = 0; r <= b->repeat; r++) { /* the last one is for the launches */
    int32_t sequence;
    SLUICE_TRY(sluice_sequence_add(b->session, &sequence));
    reset(b);
    bool launches = r == b->repeat;
    sluice_session_hook_launches(b->session, launches ? add_time : NULL, b);
    sluice_session_observe(b->session, launches ? count_experts : NULL, b);
    double start = tool_now();
    SLUICE_TRY(prefill(b, sequence, tokens, buffer, launches));
    double seconds = tool_now() - start;
    if (!launches && (best == 0 || seconds < best)) best = seconds;
    SLUICE_TRY(sluice_sequence_remove(b->session, sequence));
  }
  sluice_session_hook_launches(b->session, NULL, NULL);
  sluice_session_observe(b->session, NULL, NULL);
  report(b, "prefill", best, tokens);
  return NULL;
}

static sluice_status *decode_step(bench *b, sluice_chunk *chunks, int32_t *tokens, uint64_t position) {
  for (uint32_t i = 0; i < b->sequences; i++) {
    tokens[i] = token_at(b, i, position);
    chunks[i].tokens = &tokens[i];
    chunks[i].count = 1;
    chunks[i].logit_rows = 1;
  }
  count_step(b, chunks, b->sequences);
  sluice_step_result result;
  return sluice_step(b->session, chunks, b->sequences, &result);
}

static sluice_status *bench_decode(bench *b, uint64_t context, int32_t *buffer, sluice_chunk *chunks) {
  for (uint32_t i = 0; i < b->sequences; i++) {
    SLUICE_TRY(sluice_sequence_add(b->session, &chunks[i].sequence));
    SLUICE_TRY(prefill(b, chunks[i].sequence, context, buffer, false));
  }
  uint64_t position = context;
  SLUICE_TRY(decode_step(b, chunks, buffer, position++)); /* warm up */
  double start = tool_now();
  for (uint64_t r = 0; r < b->repeat; r++) SLUICE_TRY(decode_step(b, chunks, buffer, position++));
  double seconds = tool_now() - start;
  reset(b);
  sluice_session_hook_launches(b->session, add_time, b);
  sluice_session_observe(b->session, count_experts, b);
  for (uint64_t r = 0; r < b->repeat; r++) SLUICE_TRY(decode_step(b, chunks, buffer, position++));
  sluice_session_hook_launches(b->session, NULL, NULL);
  sluice_session_observe(b->session, NULL, NULL);
  report(b, "decode", seconds, context);
  return NULL;
}

static sluice_status *run(bench *b, uint64_t tokens, uint64_t context) {
  const sluice_plan_header *header = b->plan->header;
  uint64_t length = context + 2 * b->repeat + 1;
  if (tokens > length) length = tokens;
  if (length > header->max_context)
    return sluice_error(SLUICE_INVALID, "%llu tokens exceed the longest context %u that the bundle was compiled for",
                        (unsigned long long)length, header->max_context);
  uint64_t pages = (length + header->page_tokens - 1) / header->page_tokens;
  sluice_session_options options = {.max_sequences = b->sequences,
                                    .max_step_tokens = b->chunk > b->sequences ? b->chunk : b->sequences,
                                    .cache_tokens = pages * header->page_tokens * b->sequences};
  SLUICE_TRY(sluice_session_create(b->model, &options, &b->session));
  int32_t *buffer = sluice_allocate_array(options.max_step_tokens, sizeof *buffer);
  sluice_chunk *chunks = sluice_allocate_array(b->sequences, sizeof *chunks);
  b->seconds = sluice_allocate_array((size_t)header->launches.count, sizeof *b->seconds);
  b->limited_keys = sluice_allocate_array((size_t)header->launches.count, sizeof *b->limited_keys);
  b->experts = sluice_allocate_array(header->layers, sizeof *b->experts);
  b->expert_hit = sluice_allocate_array(header->experts, sizeof *b->expert_hit);
  sluice_status *status = NULL;
  if (!buffer || !chunks || !b->seconds || !b->limited_keys || !b->experts || !b->expert_hit)
    status = sluice_out_of_memory();
  if (!status && tokens) status = bench_prefill(b, tokens, buffer);
  if (!status && context) status = bench_decode(b, context, buffer, chunks);
  sluice_release(buffer);
  sluice_release(chunks);
  return status;
}

sluice_status *command_bench(int argc, char **argv) {
  tool_model_options model = {0};
  uint64_t tokens = 512, context = 512, sequences = 1, chunk = 512, repeat = 8;
  const tool_option options[] = {
      {"--weights", TOOL_TEXT, &model.weights, "DIR|synthetic:SEED", "the checkpoint"},
      {"--prefill", TOOL_COUNT, &tokens, "N", "time a prompt of N tokens (512; 0: skip)"},
      {"--context", TOOL_COUNT, &context, "N", "time decoding after N tokens (512; 0: skip)"},
      {"--sequences", TOOL_COUNT, &sequences, "N", "sequences that decode together (1)"},
      {"--chunk", TOOL_COUNT, &chunk, "N", "feed prompts in steps of N tokens (512)"},
      {"--repeat", TOOL_COUNT, &repeat, "N", "runs of the prompt (the fastest counts), steps of decoding (8)"},
      {"--device", TOOL_TEXT, &model.device, "D", "host (host)"},
      {"--threads", TOOL_COUNT, &model.threads, "N", "threads on the host (0: one for each core)"},
  };
  const tool_command command = {
      "sluice-run bench FILE.sluice --weights DIR|synthetic:SEED [options]",
      "Times whole steps, then each kernel. Prints one JSON object a line: \"us\" of one step, for kernels over all\n"
      "their launches in a step, with the bytes and flops they account for in the plan.\n",
      options, sizeof options / sizeof options[0]};
  const char *file;
  bool help;
  SLUICE_TRY(tool_parse(&command, argc, argv, &file, &help));
  if (help) return NULL;
  if (!model.weights) return sluice_error(SLUICE_USAGE, "bench needs --weights; see --help");
  if (sequences < 1 || sequences > 1u << 20 || chunk < 1 || chunk > 1u << 24 || repeat < 1 || repeat > 1u << 20 ||
      tokens > INT32_MAX || context > INT32_MAX)
    return sluice_error(SLUICE_USAGE, "a count is out of range; see --help");
  bench b = {.sequences = (uint32_t)sequences, .chunk = (uint32_t)chunk, .repeat = repeat};
  SLUICE_TRY(tool_open_model(file, &model, &b.model));
  b.plan = sluice_model_plan(b.model);
  sluice_status *status = run(&b, tokens, context);
  sluice_release(b.seconds);
  sluice_release(b.limited_keys);
  sluice_release(b.experts);
  sluice_release(b.expert_hit);
  sluice_session_close(b.session);
  sluice_model_close(b.model);
  return status;
}
