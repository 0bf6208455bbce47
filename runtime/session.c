/* Sessions: the memory plan, the cache, and the list of sequences. */
#include "runtime/session.h"

#include <string.h>

#define MAX_STEP_TOKENS ((uint32_t)1 << 24)
#define MAX_SEQUENCES ((uint32_t)1 << 20)
#define DEFAULT_STEP_TOKENS 512u

/* ---- Sizes ---- */

static uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

sluice_status *sluice_arena_bytes(const sluice_plan *plan, const uint64_t extents[SLUICE_SIZE_COUNT],
                                  uint64_t *out_bytes) {
  uint64_t total = 0;
  for (uint32_t i = 0; i < SLUICE_SIZE_COUNT; i++) {
    uint64_t bytes;
    if (__builtin_mul_overflow(plan->regions[i].unit_bytes, extents[i], &bytes) ||
        __builtin_add_overflow(total, bytes, &total) || total > (uint64_t)1 << 60)
      return sluice_error(
          SLUICE_OUT_OF_MEMORY, "a step of %llu tokens with a context of %llu needs more than 2^60 bytes of workspace",
          (unsigned long long)extents[SLUICE_SIZE_TOKENS], (unsigned long long)extents[SLUICE_SIZE_CONTEXT]);
  }
  *out_bytes = total;
  return NULL;
}

sluice_step_layout sluice_step_layout_of(const sluice_plan *plan, const uint64_t extents[SLUICE_SIZE_COUNT]) {
  const uint64_t tokens = extents[SLUICE_SIZE_TOKENS], rows = extents[SLUICE_SIZE_ROWS];
  const uint64_t input_bytes[SLUICE_INPUT_COUNT] = {
      [SLUICE_INPUT_TOKENS] = tokens * sizeof(int32_t),
      [SLUICE_INPUT_POSITIONS] = tokens * sizeof(int32_t),
      [SLUICE_INPUT_SEQUENCE] = tokens * sizeof(int32_t),
      [SLUICE_INPUT_PAGE_TABLE] = extents[SLUICE_SIZE_SEQUENCES] * extents[SLUICE_SIZE_PAGE_STRIDE] * sizeof(int32_t),
      [SLUICE_INPUT_TILES] = extents[SLUICE_SIZE_TILES] * 4 * sizeof(int32_t),
      [SLUICE_INPUT_LOGIT_ROWS] = rows * sizeof(int32_t),
      [SLUICE_INPUT_SAMPLING] =
          rows * sizeof(sluice_sampling_row) + extents[SLUICE_SIZE_SEEN] * sizeof(sluice_seen_token),
  };
  const uint64_t output_bytes[SLUICE_OUTPUT_COUNT] = {
      [SLUICE_OUTPUT_LOGITS] = rows * plan->header->vocabulary * sizeof(float),
      [SLUICE_OUTPUT_SAMPLED] = rows * sizeof(int32_t),
      [SLUICE_OUTPUT_LOGPROBS] = extents[SLUICE_SIZE_LOGPROBS] * sizeof(sluice_logprob_row),
  };
  sluice_step_layout layout = {.input_bytes = SLUICE_SIZE_COUNT * sizeof(int32_t)};
  for (int i = 0; i < SLUICE_INPUT_COUNT; i++) {
    layout.inputs[i] = layout.input_bytes;
    layout.input_bytes += round_up(input_bytes[i], 64);
  }
  for (int i = 0; i < SLUICE_OUTPUT_COUNT; i++) {
    layout.outputs[i] = layout.output_bytes;
    layout.output_bytes += round_up(output_bytes[i], 64);
  }
  return layout;
}

/* The largest extents of a step, but for two: ROWS is one for each sequence, and TOKENS_CONTEXT and TOKENS_PAGES are
 * left out. A step that goes beyond them makes the session's memory grow. */
static void usual_extents(const sluice_plan *plan, const sluice_session_options *options, uint64_t pages,
                          uint64_t extents[SLUICE_SIZE_COUNT]) {
  const sluice_plan_header *header = plan->header;
  uint64_t tokens = options->max_step_tokens, sequences = options->max_sequences;
  uint64_t longest = round_up(header->max_context, header->page_tokens) / header->page_tokens;
  if (longest > pages) longest = pages;
  memset(extents, 0, SLUICE_SIZE_COUNT * sizeof *extents);
  extents[SLUICE_SIZE_ONE] = 1;
  extents[SLUICE_SIZE_TOKENS] = tokens;
  extents[SLUICE_SIZE_ROWS] = sequences < tokens ? sequences : tokens;
  extents[SLUICE_SIZE_SEQUENCES] = sequences;
  extents[SLUICE_SIZE_TILES] = tokens / header->query_tile + sequences;
  if (extents[SLUICE_SIZE_TILES] > tokens) extents[SLUICE_SIZE_TILES] = tokens;
  extents[SLUICE_SIZE_PAGE_STRIDE] = longest;
  extents[SLUICE_SIZE_CONTEXT] = longest * header->page_tokens;
  extents[SLUICE_SIZE_PAGES] = longest;
  extents[SLUICE_SIZE_CACHE_PAGES] = pages;
}

static sluice_status *resolve(const sluice_plan *plan, const sluice_session_options *given,
                              sluice_session_options *options, uint32_t *out_pages) {
  *options = given ? *given : (sluice_session_options){0};
  if (!options->max_sequences) options->max_sequences = 1;
  if (!options->max_step_tokens) options->max_step_tokens = DEFAULT_STEP_TOKENS;
  if (options->max_step_tokens < options->max_sequences) options->max_step_tokens = options->max_sequences;
  if (!options->cache_tokens) options->cache_tokens = plan->header->max_context;
  if (options->max_sequences > MAX_SEQUENCES || options->max_step_tokens > MAX_STEP_TOKENS)
    return sluice_error(SLUICE_INVALID, "a step takes at most %u tokens of %u sequences; asked for %u of %u",
                        MAX_STEP_TOKENS, MAX_SEQUENCES, options->max_step_tokens, options->max_sequences);
  uint64_t pages =
      options->cache_tokens / plan->header->page_tokens + (options->cache_tokens % plan->header->page_tokens != 0);
  if (pages > INT32_MAX)
    return sluice_error(SLUICE_INVALID, "a cache of %llu tokens has more pages than the format can number",
                        (unsigned long long)options->cache_tokens);
  *out_pages = (uint32_t)pages;
  return NULL;
}

static uint64_t bytes_per_page(const sluice_plan *plan) {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < plan->header->layers; i++) bytes += plan->cache[i].page_bytes;
  return bytes;
}

sluice_status *sluice_model_memory(const sluice_model *model, const sluice_session_options *options,
                                   sluice_memory_plan *out_plan) {
  const sluice_plan *plan = &model->plan;
  sluice_session_options resolved;
  uint32_t pages = 0;
  memset(out_plan, 0, sizeof *out_plan);
  SLUICE_TRY(resolve(plan, options, &resolved, &pages));
  uint64_t extents[SLUICE_SIZE_COUNT];
  usual_extents(plan, &resolved, pages, extents);
  sluice_step_layout layout = sluice_step_layout_of(plan, extents);
  sluice_memory_plan result = {0};
  SLUICE_TRY(sluice_arena_bytes(plan, extents, &result.arena));
  result.weights = model->weight_bytes;
  result.bytes_per_page = bytes_per_page(plan);
  if (__builtin_mul_overflow(result.bytes_per_page, (uint64_t)pages, &result.cache) || result.cache > (uint64_t)1 << 61)
    return sluice_error(SLUICE_OUT_OF_MEMORY, "a cache of %llu tokens needs more than 2^61 bytes",
                        (unsigned long long)resolved.cache_tokens);
  result.inputs_outputs = layout.input_bytes + layout.output_bytes;
  result.total = result.weights + result.cache + result.arena + result.inputs_outputs;
  result.available = model->device->driver->available(model->device);
  if (model->weights && result.available <= UINT64_MAX - model->weight_bytes) result.available += model->weight_bytes;

  uint64_t fixed = result.total - result.cache;
  uint64_t left = result.available > fixed ? result.available - fixed : 0;
  uint64_t fitting = result.bytes_per_page ? left / result.bytes_per_page : UINT32_MAX;
  uint64_t longest = plan->header->max_context;
  result.longest_context =
      fitting > longest / plan->header->page_tokens ? longest : fitting * plan->header->page_tokens;
  *out_plan = result;
  return NULL;
}

/* ---- Creation ---- */

sluice_status *sluice_block_grow(sluice_device *device, sluice_block *block, uint64_t bytes) {
  if (bytes <= block->capacity) return NULL;
  device->driver->release(device, block->memory); /* first, so that the two never exist at the same time */
  *block = (sluice_block){0};
  void *memory = NULL;
  SLUICE_TRY(device->driver->allocate(device, bytes, &memory));
  block->memory = memory;
  block->capacity = bytes;
  return NULL;
}

sluice_status *sluice_counters_create(sluice_device *device, void **out_counters) {
  static const char zeros[SLUICE_COUNTER_BYTES];
  *out_counters = NULL;
  void *counters = NULL;
  SLUICE_TRY(device->driver->allocate(device, sizeof zeros, &counters));
  sluice_status *status = device->driver->copy_in(device, counters, zeros, sizeof zeros);
  if (status)
    device->driver->release(device, counters);
  else
    *out_counters = counters;
  return status;
}

static sluice_status *fill(sluice_session *session, uint32_t pages, const sluice_memory_plan *memory) {
  const sluice_plan *plan = &session->model->plan;
  sluice_device *device = session->device;
  session->layer_offsets = sluice_allocate_array(plan->header->layers, sizeof *session->layer_offsets);
  session->arguments = sluice_allocate_array((size_t)plan->header->arguments.count, sizeof *session->arguments);
  if (!session->layer_offsets || !session->arguments) return sluice_out_of_memory();
  for (uint64_t i = 0; i < plan->header->launches.count; i++) {
    const sluice_plan_launch *launch = &plan->launches[i];
    session->in_launches[launch->grid[0].size] = session->in_launches[launch->grid[1].size] = true;
  }
  for (uint64_t i = 0; i < plan->header->ranges.count; i++) session->in_launches[plan->ranges[i].size] = true;
  if (plan->header->joins.count && device->driver->graph_begin)
    SLUICE_TRY(sluice_counters_create(device, &session->counters));
  uint64_t offset = 0;
  for (uint32_t i = 0; i < plan->header->layers; i++) {
    session->layer_offsets[i] = offset;
    offset += plan->cache[i].page_bytes * pages;
  }
  SLUICE_TRY(sluice_page_pool_create(pages, &session->pool));
  void *cache = NULL;
  SLUICE_TRY(device->driver->allocate(device, memory->cache, &cache));
  session->cache = cache;
  uint64_t extents[SLUICE_SIZE_COUNT];
  usual_extents(plan, &session->options, pages, extents);
  sluice_step_layout layout = sluice_step_layout_of(plan, extents);
  SLUICE_TRY(sluice_block_grow(device, &session->arena, memory->arena));
  SLUICE_TRY(sluice_block_grow(device, &session->inputs, layout.input_bytes));
  return sluice_block_grow(device, &session->outputs, layout.output_bytes);
}

sluice_status *sluice_session_create(sluice_model *model, const sluice_session_options *options,
                                     sluice_session **out_session) {
  *out_session = NULL;
  if (!model->weights && model->weight_bytes)
    return sluice_error(SLUICE_USAGE, "load the model's weights before creating a session");
  sluice_session_options resolved;
  uint32_t pages = 0;
  sluice_memory_plan memory;
  SLUICE_TRY(resolve(&model->plan, options, &resolved, &pages));
  SLUICE_TRY(sluice_model_memory(model, options, &memory));
  if (memory.total > memory.available)
    return sluice_error(
        SLUICE_OUT_OF_MEMORY,
        "%llu tokens of context do not fit: weights %s, cache %s, workspace %s, together %s; %s has %s; "
        "the longest context that fits has %llu tokens",
        (unsigned long long)resolved.cache_tokens, sluice_describe_bytes(memory.weights).text,
        sluice_describe_bytes(memory.cache).text, sluice_describe_bytes(memory.arena + memory.inputs_outputs).text,
        sluice_describe_bytes(memory.total).text, model->device->name, sluice_describe_bytes(memory.available).text,
        (unsigned long long)memory.longest_context);
  sluice_session *session = sluice_allocate(sizeof *session);
  if (!session) return sluice_out_of_memory();
  session->model = model;
  session->device = model->device;
  session->options = resolved;
  session->free_sequence = -1;
  sluice_status *status = NULL;
  if (model->device->driver->open_queue) status = model->device->driver->open_queue(model->device, &session->device);
  if (!status) status = fill(session, pages, &memory);
  if (status) {
    sluice_session_close(session);
    return status;
  }
  *out_session = session;
  return NULL;
}

void sluice_session_close(sluice_session *session) {
  if (!session) return;
  sluice_device *device = session->device;
  if (!device) device = session->model->device; /* opening the queue failed: nothing else is there */
  sluice_graphs_clear(&session->graphs, device);
  for (uint32_t i = 0; i < session->sequence_capacity; i++)
    sluice_pages_free(&session->pool, &session->sequences[i].pages);
  sluice_release(session->sequences);
  sluice_release(session->chunk_of_sequence);
  sluice_page_pool_free(&session->pool);
  device->driver->release(device, session->cache);
  device->driver->release(device, session->arena.memory);
  device->driver->release(device, session->inputs.memory);
  device->driver->release(device, session->outputs.memory);
  device->driver->release(device, session->counters);
  if (!device->host_memory) {
    device->driver->release_locked(device, session->locked_inputs.memory);
    device->driver->release_locked(device, session->locked_sampled.memory);
  }
  sluice_release(session->host_logits.memory);
  sluice_release(session->nan);
  sluice_release(session->logprobs);
  sluice_release(session->layer_offsets);
  sluice_release(session->arguments);
  if (device != session->model->device) device->driver->close(device);
  sluice_release(session);
}

/* ---- Sequences ---- */

sluice_status *sluice_session_check_idle(const sluice_session *session) {
  if (!session->running) return NULL;
  return sluice_error(SLUICE_USAGE, "an observer or a launch hook may not change its session, which is in a step");
}

sluice_status *sluice_session_find(const sluice_session *session, int32_t id, sluice_sequence **out_sequence) {
  if (id < 0 || (uint32_t)id >= session->sequence_capacity || !session->sequences[id].used)
    return sluice_error(SLUICE_INVALID, "there is no sequence %d in the session", id);
  *out_sequence = &session->sequences[id];
  return NULL;
}

/* Twice as many ids as before; the new ones are free, the lowest first. */
static sluice_status *grow_sequences(sluice_session *session) {
  uint32_t old = session->sequence_capacity, capacity = old ? 2 * old : 8;
  if (old >= MAX_SEQUENCES)
    return sluice_error(SLUICE_INVALID, "the session has %u sequences, no more fit", MAX_SEQUENCES);
  sluice_sequence *sequences = sluice_reallocate_array(session->sequences, capacity, sizeof *sequences);
  if (!sequences) return sluice_out_of_memory();
  session->sequences = sequences;
  int32_t *chunks = sluice_reallocate_array(session->chunk_of_sequence, capacity, sizeof *chunks);
  if (!chunks) return sluice_out_of_memory();
  session->chunk_of_sequence = chunks;
  for (uint32_t i = old; i < capacity; i++) {
    sequences[i] = (sluice_sequence){.next_free = i + 1 < capacity ? (int32_t)(i + 1) : -1};
    chunks[i] = -1;
  }
  session->free_sequence = (int32_t)old;
  session->sequence_capacity = capacity;
  return NULL;
}

/* Ids that are not used form a list through next_free. */
static void free_id(sluice_session *session, int32_t id) {
  session->sequences[id] = (sluice_sequence){.next_free = session->free_sequence};
  session->free_sequence = id;
}

sluice_status *sluice_sequence_add(sluice_session *session, int32_t *out_sequence) {
  SLUICE_TRY(sluice_session_check_idle(session));
  if (session->free_sequence < 0) SLUICE_TRY(grow_sequences(session));
  int32_t id = session->free_sequence;
  session->free_sequence = session->sequences[id].next_free;
  session->sequences[id] = (sluice_sequence){.used = true};
  *out_sequence = id;
  return NULL;
}

/* Copies page `from` to page `to` in every layer. */
static sluice_status *copy_page(sluice_session *session, int32_t from, int32_t to) {
  const sluice_plan *plan = &session->model->plan;
  sluice_device *device = session->device;
  for (uint32_t i = 0; i < plan->header->layers; i++) {
    char *base = session->cache + session->layer_offsets[i];
    uint64_t bytes = plan->cache[i].page_bytes;
    SLUICE_TRY(device->driver->copy(device, base + (uint64_t)to * bytes, base + (uint64_t)from * bytes, bytes));
  }
  return NULL;
}

sluice_status *sluice_sequence_fork(sluice_session *session, int32_t sequence, int32_t *out_sequence) {
  sluice_sequence *parent = NULL;
  SLUICE_TRY(sluice_session_check_idle(session));
  SLUICE_TRY(sluice_session_find(session, sequence, &parent));
  int32_t id;
  SLUICE_TRY(sluice_sequence_add(session, &id));
  parent = &session->sequences[sequence]; /* the list may have moved */
  sluice_sequence *child = &session->sequences[id];
  uint32_t full = parent->length / session->model->plan.header->page_tokens;
  sluice_status *status = sluice_pages_share(&session->pool, &parent->pages, full, &child->pages);
  if (!status && parent->pages.count > full) {
    status = sluice_pages_append(&session->pool, &child->pages, 1);
    if (!status) status = copy_page(session, parent->pages.pages[full], child->pages.pages[full]);
  }
  child->length = parent->length;
  if (status) {
    sluice_pages_free(&session->pool, &child->pages);
    free_id(session, id);
    return status;
  }
  *out_sequence = id;
  return NULL;
}

sluice_status *sluice_sequence_remove(sluice_session *session, int32_t sequence) {
  sluice_sequence *found = NULL;
  SLUICE_TRY(sluice_session_check_idle(session));
  SLUICE_TRY(sluice_session_find(session, sequence, &found));
  sluice_pages_free(&session->pool, &found->pages);
  free_id(session, sequence);
  return NULL;
}

sluice_status *sluice_sequence_length(const sluice_session *session, int32_t sequence, uint32_t *out_tokens) {
  sluice_sequence *found = NULL;
  SLUICE_TRY(sluice_session_find(session, sequence, &found));
  *out_tokens = found->length;
  return NULL;
}

uint64_t sluice_session_free_pages(const sluice_session *session) {
  return session->pool.free_count;
}

void sluice_session_observe(sluice_session *session, sluice_observer *observer, void *user) {
  session->observer = observer;
  session->observer_user = user;
}

void sluice_session_hook_launches(sluice_session *session, sluice_launch_hook *hook, void *user) {
  session->hook = hook;
  session->hook_user = user;
}
