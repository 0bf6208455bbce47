/* One step: check the batch, take cache pages, write the inputs, run the plan's launches. */
#include "runtime/session.h"

#include <string.h>
#include <time.h>

typedef struct step {
  sluice_session *session;
  const sluice_chunk *chunks;
  uint32_t chunk_count;
  uint64_t extents[SLUICE_SIZE_COUNT]; /* exact, for memory */
  int32_t sizes[SLUICE_SIZE_COUNT];    /* what kernels get */
  sluice_step_layout layout;
  char *arena_regions[SLUICE_SIZE_COUNT];
} step;

static uint64_t pages_for(const sluice_plan *plan, uint64_t tokens) {
  return (tokens + plan->header->page_tokens - 1) / plan->header->page_tokens;
}

/* ---- Checking ---- */

static sluice_status *check_chunk(const step *s, uint32_t index) {
  const sluice_session *session = s->session;
  const sluice_plan_header *header = session->model->plan.header;
  const sluice_chunk *chunk = &s->chunks[index];
  sluice_sequence *sequence = NULL;
  SLUICE_TRY(sluice_session_find(session, chunk->sequence, &sequence));
  if (session->chunk_of_sequence[chunk->sequence] >= 0)
    return sluice_error(SLUICE_INVALID, "sequence %d has two chunks in one step", chunk->sequence);
  session->chunk_of_sequence[chunk->sequence] = (int32_t)index;
  if (chunk->count == 0 || !chunk->tokens)
    return sluice_error(SLUICE_INVALID, "the chunk of sequence %d has no tokens", chunk->sequence);
  if (chunk->logit_rows > chunk->count)
    return sluice_error(SLUICE_INVALID, "sequence %d: %u logit rows are wanted of a chunk of %u tokens",
                        chunk->sequence, chunk->logit_rows, chunk->count);
  if (chunk->count > header->max_context - sequence->length)
    return sluice_error(SLUICE_INVALID,
                        "sequence %d: %u tokens and %u new ones exceed the longest context %u that the bundle was "
                        "compiled for",
                        chunk->sequence, sequence->length, chunk->count, header->max_context);
  for (uint32_t i = 0; i < chunk->count; i++)
    if (chunk->tokens[i] < 0 || (uint32_t)chunk->tokens[i] >= header->vocabulary)
      return sluice_error(SLUICE_INVALID, "sequence %d: token %d is outside the vocabulary of %u", chunk->sequence,
                          chunk->tokens[i], header->vocabulary);
  return NULL;
}

static sluice_status *check_batch(step *s) {
  const sluice_session *session = s->session;
  if (session->failed) return sluice_error(SLUICE_DEVICE, "the device failed in an earlier step; close the session");
  if (s->chunk_count == 0 || s->chunk_count > session->options.max_sequences)
    return sluice_error(SLUICE_INVALID, "a step of %u sequences; the session was created for 1 to %u", s->chunk_count,
                        session->options.max_sequences);
  sluice_status *status = NULL;
  uint64_t tokens = 0;
  for (uint32_t i = 0; i < s->chunk_count && !status; i++) {
    status = check_chunk(s, i);
    tokens += s->chunks[i].count;
  }
  for (uint32_t i = 0; i < s->chunk_count; i++) { /* back to -1, whatever was set */
    int32_t id = s->chunks[i].sequence;
    if (id >= 0 && (uint32_t)id < session->sequence_capacity) session->chunk_of_sequence[id] = -1;
  }
  if (!status && tokens > session->options.max_step_tokens)
    status = sluice_error(SLUICE_INVALID, "a step of %llu tokens; the session was created for at most %u",
                          (unsigned long long)tokens, session->options.max_step_tokens);
  return status;
}

/* ---- Preparing ---- */

static int32_t saturate(uint64_t value) {
  return value > INT32_MAX ? INT32_MAX : (int32_t)value;
}

static void measure(step *s) {
  const sluice_plan *plan = &s->session->model->plan;
  uint64_t tokens = 0, rows = 0, tiles = 0, pages = 0;
  for (uint32_t i = 0; i < s->chunk_count; i++) {
    const sluice_chunk *chunk = &s->chunks[i];
    uint64_t context = (uint64_t)s->session->sequences[chunk->sequence].length + chunk->count;
    tokens += chunk->count;
    rows += chunk->logit_rows;
    tiles += ((uint64_t)chunk->count + plan->header->query_tile - 1) / plan->header->query_tile;
    if (pages_for(plan, context) > pages) pages = pages_for(plan, context);
  }
  uint64_t *extents = s->extents;
  extents[SLUICE_SIZE_ONE] = 1;
  extents[SLUICE_SIZE_TOKENS] = tokens;
  extents[SLUICE_SIZE_ROWS] = rows;
  extents[SLUICE_SIZE_SEQUENCES] = s->chunk_count;
  extents[SLUICE_SIZE_TILES] = tiles;
  extents[SLUICE_SIZE_PAGE_STRIDE] = pages;
  extents[SLUICE_SIZE_CONTEXT] = pages * plan->header->page_tokens;
  extents[SLUICE_SIZE_PAGES] = pages;
  extents[SLUICE_SIZE_CACHE_PAGES] = s->session->pool.page_count;
  extents[SLUICE_SIZE_TOKENS_CONTEXT] = tokens * extents[SLUICE_SIZE_CONTEXT];
  extents[SLUICE_SIZE_TOKENS_PAGES] = tokens * pages;
  for (int i = 0; i < SLUICE_SIZE_COUNT; i++) s->sizes[i] = saturate(extents[i]);
  s->layout = sluice_step_layout_of(plan, extents);
}

static sluice_status *grow_host(sluice_host_block *block, uint64_t bytes) {
  if (bytes <= block->capacity) return NULL;
  sluice_release(block->memory);
  *block = (sluice_host_block){0};
  block->memory = sluice_allocate_aligned(64, (size_t)bytes);
  if (!block->memory) return sluice_out_of_memory();
  block->capacity = bytes;
  return NULL;
}

static sluice_status *grow_memory(step *s) {
  sluice_session *session = s->session;
  sluice_device *device = session->model->device;
  uint64_t arena;
  SLUICE_TRY(sluice_arena_bytes(&session->model->plan, s->extents, &arena));
  SLUICE_TRY(sluice_block_grow(device, &session->arena, arena));
  SLUICE_TRY(sluice_block_grow(device, &session->inputs, s->layout.input_bytes));
  SLUICE_TRY(sluice_block_grow(device, &session->outputs, s->layout.output_bytes));
  if (device->host_memory) return NULL;
  SLUICE_TRY(grow_host(&session->host_inputs, s->layout.input_bytes));
  return grow_host(&session->host_outputs, s->layout.output_bytes);
}

/* Gives back the pages beyond the sequences' lengths, which a step took that did not happen. */
static void return_pages(step *s) {
  sluice_session *session = s->session;
  for (uint32_t i = 0; i < s->chunk_count; i++) {
    sluice_sequence *sequence = &session->sequences[s->chunks[i].sequence];
    sluice_pages_truncate(&session->pool, &sequence->pages,
                          (uint32_t)pages_for(&session->model->plan, sequence->length));
  }
}

static sluice_status *take_pages(step *s) {
  sluice_session *session = s->session;
  for (uint32_t i = 0; i < s->chunk_count; i++) {
    sluice_sequence *sequence = &session->sequences[s->chunks[i].sequence];
    uint64_t pages = pages_for(&session->model->plan, (uint64_t)sequence->length + s->chunks[i].count);
    sluice_status *status =
        sluice_pages_append(&session->pool, &sequence->pages, (uint32_t)pages - sequence->pages.count);
    if (status) return status;
  }
  return NULL;
}

static sluice_sampling_row sampling_row(const sluice_sampling *sampling, uint64_t position) {
  return (sluice_sampling_row){
      .temperature = sampling->temperature,
      .top_p = sampling->top_p > 0 ? sampling->top_p : 1.0f,
      .top_k = sampling->top_k > 0 ? sampling->top_k : 0,
      .position = (int32_t)position,
      .seed = sampling->seed,
  };
}

static sluice_status *write_inputs(step *s) {
  sluice_session *session = s->session;
  sluice_device *device = session->model->device;
  char *base = device->host_memory ? session->inputs.memory : session->host_inputs.memory;
  int32_t *tokens = (int32_t *)(void *)(base + s->layout.inputs[SLUICE_INPUT_TOKENS]);
  int32_t *positions = (int32_t *)(void *)(base + s->layout.inputs[SLUICE_INPUT_POSITIONS]);
  int32_t *rows_of_table = (int32_t *)(void *)(base + s->layout.inputs[SLUICE_INPUT_SEQUENCE]);
  int32_t *table = (int32_t *)(void *)(base + s->layout.inputs[SLUICE_INPUT_PAGE_TABLE]);
  int32_t (*tiles)[4] = (int32_t (*)[4])(void *)(base + s->layout.inputs[SLUICE_INPUT_TILES]);
  int32_t *logit_rows = (int32_t *)(void *)(base + s->layout.inputs[SLUICE_INPUT_LOGIT_ROWS]);
  sluice_sampling_row *sampling = (sluice_sampling_row *)(void *)(base + s->layout.inputs[SLUICE_INPUT_SAMPLING]);
  uint32_t query_tile = session->model->plan.header->query_tile;
  uint64_t stride = s->extents[SLUICE_SIZE_PAGE_STRIDE];

  uint32_t token = 0;
  for (uint32_t i = 0; i < s->chunk_count; i++) {
    const sluice_chunk *chunk = &s->chunks[i];
    const sluice_sequence *sequence = &session->sequences[chunk->sequence];
    memcpy(tokens + token, chunk->tokens, chunk->count * sizeof *tokens);
    for (uint32_t j = 0; j < chunk->count; j++) {
      positions[token + j] = (int32_t)(sequence->length + j);
      rows_of_table[token + j] = (int32_t)i;
    }
    for (uint32_t j = 0; j < chunk->count; j += query_tile) {
      uint32_t count = chunk->count - j < query_tile ? chunk->count - j : query_tile;
      int32_t tile[4] = {(int32_t)(token + j), (int32_t)count, (int32_t)i, (int32_t)(sequence->length + j)};
      memcpy(*tiles++, tile, sizeof tile);
    }
    for (uint32_t j = chunk->count - chunk->logit_rows; j < chunk->count; j++) {
      *logit_rows++ = (int32_t)(token + j);
      *sampling++ = sampling_row(&chunk->sampling, (uint64_t)sequence->length + j);
    }
    int32_t *row = table + i * stride;
    memcpy(row, sequence->pages.pages, sequence->pages.count * sizeof *row);
    for (uint64_t j = sequence->pages.count; j < stride; j++) row[j] = -1;
    token += chunk->count;
  }
  if (device->host_memory) return NULL;
  return device->driver->copy_in(device, session->inputs.memory, base, s->layout.input_bytes);
}

/* ---- Running ---- */

static char *buffer_address(const step *s, uint32_t index) {
  const sluice_plan_buffer *buffer = &s->session->model->plan.buffers[index];
  return s->arena_regions[buffer->size] + buffer->unit_offset * s->extents[buffer->size];
}

static void resolve_arguments(step *s) {
  sluice_session *session = s->session;
  const sluice_model *model = session->model;
  const sluice_plan *plan = &model->plan;
  char *region = session->arena.memory;
  for (int i = 0; i < SLUICE_SIZE_COUNT; i++) {
    s->arena_regions[i] = region;
    region += plan->regions[i].unit_bytes * s->extents[i];
  }
  for (uint64_t i = 0; i < plan->header->arguments.count; i++) {
    uint32_t index = plan->arguments[i].index;
    char *address = NULL;
    switch ((sluice_memory)plan->arguments[i].memory) {
    case SLUICE_MEMORY_NONE:
      break;
    case SLUICE_MEMORY_ARENA:
      address = buffer_address(s, index);
      break;
    case SLUICE_MEMORY_WEIGHT:
      address = model->weights + model->offsets[index];
      break;
    case SLUICE_MEMORY_INPUT:
      address = session->inputs.memory + s->layout.inputs[index];
      break;
    case SLUICE_MEMORY_OUTPUT:
      address = session->outputs.memory + s->layout.outputs[index];
      break;
    case SLUICE_MEMORY_CACHE:
      address = session->cache + session->layer_offsets[index];
      break;
    }
    session->arguments[i] = address;
  }
}

static uint64_t grid_extent(const step *s, const sluice_plan_extent *extent) {
  uint64_t size = (uint64_t)s->sizes[extent->size];
  return (size + extent->divisor - 1) / extent->divisor * extent->factor;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static sluice_status *run_launch(step *s, uint32_t index) {
  sluice_session *session = s->session;
  sluice_model *model = session->model;
  sluice_device *device = model->device;
  const sluice_plan_launch *launch = &model->plan.launches[index];
  const uint64_t grid[2] = {grid_extent(s, &launch->grid[0]), grid_extent(s, &launch->grid[1])};
  double start = session->hook ? now() : 0;
  if (grid[0] && grid[1])
    SLUICE_TRY(device->driver->launch(device, model->code, launch->kernel, session->arguments + launch->first_argument,
                                      model->plan.kernels[launch->kernel].argument_count, s->sizes, grid));
  if (session->hook) {
    SLUICE_TRY(device->driver->synchronize(device));
    session->hook(session->hook_user, index, now() - start);
  }
  return NULL;
}

static sluice_status *observe(step *s, const sluice_plan_observable *observable, bool *out_device_failed) {
  sluice_session *session = s->session;
  sluice_device *device = session->model->device;
  const sluice_plan *plan = &session->model->plan;
  const sluice_plan_buffer *buffer = &plan->buffers[observable->buffer];
  const void *data = buffer_address(s, observable->buffer);
  void *copy = NULL;
  sluice_dtype dtype = (sluice_dtype)buffer->dtype;
  *out_device_failed = true;
  SLUICE_TRY(device->driver->synchronize(device));
  uint64_t bytes = s->extents[buffer->size] * buffer->width * sluice_dtype_size(dtype);
  if (!device->host_memory) {
    copy = sluice_allocate(bytes);
    sluice_status *status = copy ? device->driver->copy_out(device, copy, data, bytes) : sluice_out_of_memory();
    if (status) {
      sluice_release(copy);
      return status;
    }
    data = copy;
  }
  *out_device_failed = false;
  sluice_status *status = session->observer(session->observer_user, sluice_plan_string(plan, observable->name), dtype,
                                            data, (uint32_t)s->extents[buffer->size], buffer->width);
  sluice_release(copy);
  return status;
}

/* Runs all launches. `*out_device_failed` tells a failed device from an error of the observer. */
static sluice_status *run_launches(step *s, bool *out_device_failed) {
  const sluice_plan *plan = &s->session->model->plan;
  sluice_device *device = s->session->model->device;
  uint64_t observable = 0;
  for (uint32_t i = 0; i < plan->header->launches.count; i++) {
    *out_device_failed = true;
    SLUICE_TRY(
        sluice_annotate(run_launch(s, i), "launch %u (%s)", i, sluice_plan_string(plan, plan->launches[i].label)));
    while (observable < plan->header->observables.count && plan->observables[observable].launch == i) {
      if (s->session->observer) SLUICE_TRY(observe(s, &plan->observables[observable], out_device_failed));
      observable++;
    }
  }
  *out_device_failed = true;
  SLUICE_TRY(device->driver->synchronize(device));
  if (!device->host_memory)
    SLUICE_TRY(device->driver->copy_out(device, s->session->host_outputs.memory, s->session->outputs.memory,
                                        s->layout.output_bytes));
  *out_device_failed = false;
  return NULL;
}

static sluice_status *prepare_and_run(step *s, bool *out_device_failed) {
  *out_device_failed = false;
  measure(s);
  SLUICE_TRY(take_pages(s));
  SLUICE_TRY(grow_memory(s));
  SLUICE_TRY(write_inputs(s));
  resolve_arguments(s);
  return run_launches(s, out_device_failed);
}

sluice_status *sluice_step(sluice_session *session, const sluice_chunk *chunks, uint32_t chunk_count,
                           sluice_step_result *out_result) {
  step s = {.session = session, .chunks = chunks, .chunk_count = chunk_count};
  *out_result = (sluice_step_result){0};
  SLUICE_TRY(check_batch(&s));
  bool device_failed;
  sluice_status *status = prepare_and_run(&s, &device_failed);
  if (status) {
    session->failed = device_failed;
    return_pages(&s);
    return status;
  }
  for (uint32_t i = 0; i < chunk_count; i++) session->sequences[chunks[i].sequence].length += chunks[i].count;
  const char *outputs = session->model->device->host_memory ? session->outputs.memory : session->host_outputs.memory;
  out_result->rows = (uint32_t)s.extents[SLUICE_SIZE_ROWS];
  if (out_result->rows) {
    out_result->logits = (const float *)(const void *)(outputs + s.layout.outputs[SLUICE_OUTPUT_LOGITS]);
    out_result->sampled = (const int32_t *)(const void *)(outputs + s.layout.outputs[SLUICE_OUTPUT_SAMPLED]);
  }
  return NULL;
}
