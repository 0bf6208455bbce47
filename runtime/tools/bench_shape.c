/* The shape of a benchmark: sequences, context and new tokens. */
#include "runtime/tools/bench.h"

#include <stdio.h>
#include <string.h>

#define MAX_SEQUENCES ((uint64_t)1 << 20)
#define MAX_STEP_TOKENS ((uint64_t)1 << 24)
#define DEFAULT_CONTEXT 512u
#define DEFAULT_TOKENS 512u

const char *bench_phase_name(bench_phase phase) {
  return phase == BENCH_DECODE ? "decode" : "prefill";
}

/* A non-negative integer of `length` characters with an optional K or M. */
static bool parse_number(const char *text, size_t length, uint64_t *out_value) {
  uint64_t value = 0, unit = 1;
  if (length && (text[length - 1] == 'K' || text[length - 1] == 'M'))
    unit = text[--length] == 'K' ? (uint64_t)1 << 10 : (uint64_t)1 << 20;
  if (length == 0 || length > 12) return false;
  for (size_t i = 0; i < length; i++) {
    if (text[i] < '0' || text[i] > '9') return false;
    value = value * 10 + (uint64_t)(text[i] - '0');
  }
  *out_value = value * unit;
  return true;
}

sluice_status *bench_shape_parse(const char *text, bench_request *out_request) {
  bench_request request = {BENCH_UNSET, BENCH_UNSET, BENCH_UNSET, BENCH_UNSET};
  const struct {
    const char *name;
    uint64_t *value;
    bool zero; /* is allowed */
  } keys[] = {{"seqs", &request.sequences, false},
              {"context", &request.context, true},
              {"tokens", &request.tokens, false},
              {"tp", &request.tensor_parallel, false}};
  *out_request = request;
  if (!text) return NULL;
  for (const char *at = text;;) {
    size_t length = strcspn(at, ","), name_length = strcspn(at, "=,");
    size_t key = 0, count = sizeof keys / sizeof keys[0];
    while (key < count && (strlen(keys[key].name) != name_length || memcmp(keys[key].name, at, name_length) != 0))
      key++;
    if (key == count || at[name_length] != '=')
      return sluice_error(SLUICE_USAGE,
                          "--shape: \"%.*s\" is not one of seqs=N, context=N, tokens=N, tp=N, separated by commas",
                          length > 40 ? 40 : (int)length, at);
    if (*keys[key].value != BENCH_UNSET)
      return sluice_error(SLUICE_USAGE, "--shape: %s is given twice", keys[key].name);
    const char *number = at + name_length + 1;
    size_t number_length = length - name_length - 1;
    if (!parse_number(number, number_length, keys[key].value))
      return sluice_error(SLUICE_USAGE,
                          "--shape: %s is \"%.*s\", expected a number of at most 12 digits, with K for 1024 or M for "
                          "1024 * 1024",
                          keys[key].name, number_length > 40 ? 40 : (int)number_length, number);
    if (*keys[key].value == 0 && !keys[key].zero)
      return sluice_error(SLUICE_USAGE, "--shape: %s must be at least 1", keys[key].name);
    if (!at[length]) break;
    at += length + 1;
  }
  *out_request = request;
  return NULL;
}

static uint64_t least(uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

sluice_status *bench_shape_resolve(const bench_request *request, bench_phase phase, bool strict,
                                   const sluice_plan *plan, bench_shape *out_shape) {
  const uint64_t longest = plan->header->max_context;
  uint64_t sequences = request->sequences, context = request->context, tokens = request->tokens;
  if (request->tensor_parallel != BENCH_UNSET && request->tensor_parallel != 1)
    return sluice_error(SLUICE_USAGE, "--shape: tp is %llu, but the bundle was compiled for one device: tp=1",
                        (unsigned long long)request->tensor_parallel);
  if (sequences == BENCH_UNSET) sequences = 1;
  if (phase == BENCH_DECODE) {
    if (strict && tokens != BENCH_UNSET && tokens != 1)
      return sluice_error(SLUICE_USAGE,
                          "--shape: tokens is %llu, but decoding takes one new token of each sequence; leave it out "
                          "or name a prefill kernel",
                          (unsigned long long)tokens);
    tokens = 1;
    if (context == BENCH_UNSET) context = least(DEFAULT_CONTEXT, longest - 1);
  } else {
    if (context == BENCH_UNSET) context = 0;
    if (tokens == BENCH_UNSET) tokens = least(DEFAULT_TOKENS, longest > context ? longest - context : 1);
  }
  if (sequences > MAX_SEQUENCES || tokens > MAX_STEP_TOKENS || sequences * tokens > MAX_STEP_TOKENS)
    return sluice_error(SLUICE_USAGE,
                        "--shape: %llu sequences of %llu new tokens are more than a step takes: %llu sequences, %llu "
                        "tokens together",
                        (unsigned long long)sequences, (unsigned long long)tokens, (unsigned long long)MAX_SEQUENCES,
                        (unsigned long long)MAX_STEP_TOKENS);
  if (context >= longest || tokens > longest - context)
    return sluice_error(SLUICE_INVALID,
                        "--shape: a context of %llu and %llu new tokens exceed the longest context %llu that the "
                        "bundle was compiled for; ask for less",
                        (unsigned long long)context, (unsigned long long)tokens, (unsigned long long)longest);
  uint64_t pages = (context + tokens + plan->header->page_tokens - 1) / plan->header->page_tokens * sequences;
  if (pages > INT32_MAX)
    return sluice_error(SLUICE_INVALID, "--shape: %llu cache pages are more than the format can number",
                        (unsigned long long)pages);
  *out_shape = (bench_shape){(uint32_t)sequences, (uint32_t)context, (uint32_t)tokens};
  return NULL;
}

bench_shape_text bench_shape_describe(const bench_shape *shape, bench_phase phase) {
  bench_shape_text result;
  char tokens[24] = "";
  if (phase == BENCH_PREFILL) snprintf(tokens, sizeof tokens, ",tokens=%u", shape->tokens);
  snprintf(result.text, sizeof result.text, "seqs=%u,context=%u%s,tp=1", shape->sequences, shape->context, tokens);
  return result;
}

bool bench_runs_as_graph(const sluice_model *model, const bench_shape *shape) {
  return model->device->driver->graph_begin && shape->tokens == 1;
}

static void set_context(const sluice_plan *plan, uint64_t tokens, uint64_t pages, uint64_t extents[SLUICE_SIZE_COUNT]) {
  extents[SLUICE_SIZE_CONTEXT] = pages * plan->header->page_tokens;
  extents[SLUICE_SIZE_PAGES] = pages;
  extents[SLUICE_SIZE_TOKENS_CONTEXT] = tokens * extents[SLUICE_SIZE_CONTEXT];
  extents[SLUICE_SIZE_TOKENS_PAGES] = tokens * pages;
}

void bench_shape_extents(const bench_shape *shape, const sluice_plan *plan, bool graph, bench_extents *out_extents) {
  const sluice_plan_header *header = plan->header;
  uint64_t tokens = (uint64_t)shape->sequences * shape->tokens;
  uint64_t pages = ((uint64_t)shape->context + shape->tokens + header->page_tokens - 1) / header->page_tokens;
  uint64_t tiles = ((uint64_t)shape->tokens + header->query_tile - 1) / header->query_tile;
  uint64_t most = ((uint64_t)header->max_context + header->page_tokens - 1) / header->page_tokens, rounded = 1;
  while (rounded < pages) rounded *= 2;
  if (!graph) rounded = pages;
  bench_extents result = {.pages = (uint32_t)pages};
  uint64_t *memory = result.memory;
  memory[SLUICE_SIZE_ONE] = 1;
  memory[SLUICE_SIZE_TOKENS] = tokens;
  memory[SLUICE_SIZE_ROWS] = shape->sequences;
  memory[SLUICE_SIZE_SEQUENCES] = shape->sequences;
  memory[SLUICE_SIZE_TILES] = tiles * shape->sequences;
  memory[SLUICE_SIZE_CACHE_PAGES] = pages * shape->sequences;
  memory[SLUICE_SIZE_LONGEST] = shape->tokens < header->query_tile ? shape->tokens : header->query_tile;
  memory[SLUICE_SIZE_PAGE_STRIDE] = rounded < most ? rounded : most;
  set_context(plan, tokens, memory[SLUICE_SIZE_PAGE_STRIDE], memory);

  uint64_t exact[SLUICE_SIZE_COUNT];
  memcpy(exact, memory, sizeof exact);
  set_context(plan, tokens, pages, exact);
  for (uint64_t i = 0; i < header->launches.count; i++) { /* a graph's launches are those of its memory */
    const sluice_plan_launch *launch = &plan->launches[i];
    const uint32_t used[] = {launch->grid[0].size, launch->grid[1].size};
    for (int j = 0; j < 2; j++) exact[used[j]] = memory[used[j]];
  }
  for (uint64_t i = 0; i < header->ranges.count; i++) exact[plan->ranges[i].size] = memory[plan->ranges[i].size];
  for (int i = 0; i < SLUICE_SIZE_COUNT; i++) result.sizes[i] = exact[i] > INT32_MAX ? INT32_MAX : (int32_t)exact[i];
  *out_extents = result;
}
