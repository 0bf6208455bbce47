#include "compiler/step_cost.h"

#include "sluice/dtype.h"

step_shape step_shape_of(uint64_t tokens, uint64_t sequences, uint64_t context) {
  step_shape s = {.tokens = tokens, .sequences = sequences, .context = context};
  uint64_t each = tokens / sequences;
  if (each == 0) each = 1;
  if (s.context < each) s.context = each;
  s.keys = sequences * (each * (s.context - each) + each * (each + 1) / 2);
  s.distinct_keys = sequences * s.context;
  return s;
}

void step_sizes(const sluice_plan *plan, const step_shape *s, int32_t out_sizes[SLUICE_SIZE_COUNT]) {
  uint64_t each = s->tokens / s->sequences,
           pages = (s->context + plan->header->page_tokens - 1) / plan->header->page_tokens;
  const uint64_t sizes[SLUICE_SIZE_COUNT] = {
      [SLUICE_SIZE_ONE] = 1,
      [SLUICE_SIZE_TOKENS] = s->tokens,
      [SLUICE_SIZE_ROWS] = s->sequences,
      [SLUICE_SIZE_SEQUENCES] = s->sequences,
      [SLUICE_SIZE_TILES] = (each + plan->header->query_tile - 1) / plan->header->query_tile * s->sequences,
      [SLUICE_SIZE_PAGE_STRIDE] = pages,
      [SLUICE_SIZE_CONTEXT] = pages * plan->header->page_tokens,
      [SLUICE_SIZE_PAGES] = pages,
      [SLUICE_SIZE_LONGEST] = each < plan->header->query_tile ? each : plan->header->query_tile};
  for (int i = 0; i < SLUICE_SIZE_COUNT; i++) out_sizes[i] = sizes[i] < INT32_MAX ? (int32_t)sizes[i] : INT32_MAX;
}

/* Sum over the tokens of min(keys seen, limit). */
static uint64_t limited_keys(const step_shape *s, uint64_t limit) {
  uint64_t each = s->tokens / s->sequences ? s->tokens / s->sequences : 1, sum = 0, least = s->context - each + 1;
  if (least >= limit) return s->sequences * each * limit;
  for (uint64_t i = 0; i < each; i++) sum += least + i < limit ? least + i : limit;
  return s->sequences * sum;
}

/* Distinct experts of the step when tokens choose at random: E (1 - (1 - k/E)^T). */
static double distinct_experts(const sluice_plan_header *header, uint64_t tokens) {
  if (header->experts == 0) return 0;
  double miss = 1, per_token = 1 - (double)header->experts_per_token / header->experts;
  for (uint64_t i = 0; i < tokens && miss > 1e-9; i++) miss *= per_token;
  return header->experts * (1 - miss);
}

/* Whether the launch works on the rows that are sampled. Its grid says so only when there is code. */
static bool is_of_rows(const sluice_plan *plan, const sluice_plan_launch *launch) {
  const sluice_plan_argument *arguments = plan->arguments + launch->first_argument;
  for (uint32_t i = 0; i < plan->kernels[launch->kernel].argument_count; i++)
    if (arguments[i].memory == SLUICE_MEMORY_ARENA && plan->buffers[arguments[i].index].size == SLUICE_SIZE_ROWS)
      return true;
  return false;
}

static double exchange_seconds(const sluice_plan *plan, const sluice_plan_launch *launch, const step_shape *shape,
                               const links *known) {
  const sluice_plan_buffer *own = &plan->buffers[plan->arguments[launch->first_argument].index];
  int32_t sizes[SLUICE_SIZE_COUNT];
  step_sizes(plan, shape, sizes);
  const double row_bytes = (double)own->width * (double)sluice_dtype_size((sluice_dtype)own->dtype);
  return links_seconds(known, plan->header->ranks, sizes[own->size] * row_bytes);
}

step_cost step_cost_of_launch(const sluice_plan *plan, const sluice_plan_launch *launch, const step_shape *s,
                              const step_rates *rates) {
  const sluice_plan_cost *c = &launch->cost;
  const double rows = (double)(is_of_rows(plan, launch) ? s->sequences : s->tokens);
  const double limited = c->key_limit ? (double)limited_keys(s, c->key_limit) : 0;
  /* Keys are read from memory once for each sequence, whatever the number of its tokens, if caches serve the rest. */
  const double limited_read = limited < (double)s->distinct_keys ? limited : (double)s->distinct_keys;
  step_cost t = {.launches = 1, .exchanges = launch->collective};
  t.bytes = (double)c->fixed_bytes + rows * (double)c->row_bytes + (double)s->distinct_keys * (double)c->key_bytes +
            limited_read * (double)c->limited_key_bytes +
            distinct_experts(plan->header, s->tokens) * (double)c->expert_bytes;
  t.flops = (double)c->fixed_flops + rows * (double)c->row_flops + (double)s->keys * (double)c->key_flops +
            limited * (double)c->limited_key_flops;
  if (rates->bandwidth > 0) {
    const double memory = t.bytes / rates->bandwidth, arithmetic = rates->flops > 0 ? t.flops / rates->flops : 0;
    t.memory_seconds = memory >= arithmetic ? memory : 0;
    t.arithmetic_seconds = memory >= arithmetic ? 0 : arithmetic;
  }
  if (launch->collective && rates->links.gigabytes_second > 0)
    t.links_seconds = exchange_seconds(plan, launch, s, &rates->links);
  return t;
}

void step_cost_add(step_cost *sum, const step_cost *one) {
  sum->bytes += one->bytes;
  sum->flops += one->flops;
  sum->memory_seconds += one->memory_seconds;
  sum->arithmetic_seconds += one->arithmetic_seconds;
  sum->links_seconds += one->links_seconds;
  sum->launches += one->launches;
  sum->exchanges += one->exchanges;
}

step_cost step_cost_of_step(const sluice_plan *plan, const step_shape *shape, const step_rates *rates) {
  int32_t sizes[SLUICE_SIZE_COUNT];
  step_sizes(plan, shape, sizes);
  step_cost sum = {0};
  for (uint64_t i = 0; i < plan->header->launches.count; i++) {
    if (!sluice_plan_runs(plan, &plan->launches[i], sizes)) continue;
    const step_cost one = step_cost_of_launch(plan, &plan->launches[i], shape, rates);
    step_cost_add(&sum, &one);
  }
  return sum;
}

double step_cost_seconds(const step_cost *cost) {
  return cost->memory_seconds + cost->arithmetic_seconds + cost->links_seconds;
}

step_memory step_memory_of(const sluice_plan *plan, uint64_t sequences, uint64_t context, uint64_t tokens) {
  const sluice_plan_header *h = plan->header;
  const uint64_t pages = (context + h->page_tokens - 1) / h->page_tokens;
  const uint64_t extents[SLUICE_SIZE_COUNT] = {[SLUICE_SIZE_ONE] = 1,
                                               [SLUICE_SIZE_TOKENS] = tokens,
                                               [SLUICE_SIZE_ROWS] = sequences,
                                               [SLUICE_SIZE_SEQUENCES] = sequences,
                                               [SLUICE_SIZE_TILES] = tokens,
                                               [SLUICE_SIZE_TOKENS_CONTEXT] = tokens * pages * h->page_tokens,
                                               [SLUICE_SIZE_TOKENS_PAGES] = tokens * pages};
  step_memory m = {0};
  for (uint64_t i = 0; i < h->weights.count; i++) m.weights += plan->weights[i].bytes;
  for (uint64_t i = 0; i < h->cache.count; i++) m.cache += plan->cache[i].page_bytes * pages * sequences;
  for (uint64_t i = 0; i < h->regions.count; i++) m.arena += plan->regions[i].unit_bytes * extents[i];
  return m;
}
