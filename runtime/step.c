/* One step: check the batch, take cache pages, write the inputs, run the plan's launches. */
#include "runtime/exchange.h"
#include "runtime/session.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct step {
  sluice_session *session;
  const sluice_chunk *chunks;
  uint32_t chunk_count;
  bool decode;                         /* runs as one graph */
  uint64_t extents[SLUICE_SIZE_COUNT]; /* of memory */
  int32_t sizes[SLUICE_SIZE_COUNT];    /* what kernels get */
  sluice_step_layout layout;
  char *arena_regions[SLUICE_SIZE_COUNT];
} step;

static uint64_t pages_for(const sluice_plan *plan, uint64_t tokens) {
  return (tokens + plan->header->page_tokens - 1) / plan->header->page_tokens;
}

/* ---- Checking ---- */

/* Without a penalty the list is not looked at. */
static uint32_t seen_count(const sluice_chunk *chunk) {
  const sluice_sampling *sampling = &chunk->sampling;
  const bool repetition = sampling->repetition_penalty != 0 && sampling->repetition_penalty != 1;
  const bool penalties = repetition || sampling->presence_penalty != 0 || sampling->frequency_penalty != 0;
  return penalties && chunk->logit_rows ? sampling->seen_count : 0;
}

static sluice_status *check_seen(const step *s, const sluice_chunk *chunk) {
  const sluice_sampling *sampling = &chunk->sampling;
  const uint32_t vocabulary = s->session->model->plan.header->vocabulary, count = seen_count(chunk);
  if (!(sampling->repetition_penalty >= 0 && isfinite(sampling->repetition_penalty)) ||
      !isfinite(sampling->presence_penalty) || !isfinite(sampling->frequency_penalty) ||
      !(sampling->min_p >= 0 && sampling->min_p <= 1))
    return sluice_error(SLUICE_INVALID,
                        "sequence %d: penalties of %g, %g and %g, min_p %g; expected finite numbers, a repetition "
                        "penalty of at least 0 and min_p in 0 .. 1",
                        chunk->sequence, (double)sampling->repetition_penalty, (double)sampling->presence_penalty,
                        (double)sampling->frequency_penalty, (double)sampling->min_p);
  if (sampling->logprobs > SLUICE_MOST_LOGPROBS)
    return sluice_error(SLUICE_INVALID,
                        "sequence %d: log-probabilities of %u tokens are wanted, at most %u are possible",
                        chunk->sequence, sampling->logprobs, SLUICE_MOST_LOGPROBS);
  if (count > vocabulary)
    return sluice_error(SLUICE_INVALID, "sequence %d: %u seen tokens of a vocabulary of %u; expected each once",
                        chunk->sequence, count, vocabulary);
  for (uint32_t i = 0; i < count; i++)
    if (sampling->seen[i].token < 0 || (uint32_t)sampling->seen[i].token >= vocabulary || sampling->seen[i].count < 0)
      return sluice_error(SLUICE_INVALID, "sequence %d: seen token %d (count %d) is outside the vocabulary of %u",
                          chunk->sequence, sampling->seen[i].token, sampling->seen[i].count, vocabulary);
  return NULL;
}

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
  return check_seen(s, chunk);
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

/* Pages that the memory of a decode step is laid out for: a power of two, so that addresses and grids, which a graph
 * keeps, change rarely while sequences grow. Never more than a sequence can have. */
static uint64_t rounded_pages(const step *s, uint64_t pages) {
  const sluice_plan *plan = &s->session->model->plan;
  uint64_t most = pages_for(plan, plan->header->max_context), rounded = 1;
  if (most > s->session->pool.page_count) most = s->session->pool.page_count;
  while (rounded < pages) rounded *= 2;
  return rounded < most ? rounded : most;
}

static void set_context(const sluice_plan *plan, uint64_t tokens, uint64_t pages, uint64_t extents[SLUICE_SIZE_COUNT]) {
  extents[SLUICE_SIZE_CONTEXT] = pages * plan->header->page_tokens;
  extents[SLUICE_SIZE_PAGES] = pages;
  extents[SLUICE_SIZE_TOKENS_CONTEXT] = tokens * extents[SLUICE_SIZE_CONTEXT];
  extents[SLUICE_SIZE_TOKENS_PAGES] = tokens * pages;
}

/* A power of two, from 1024 on, so that the graphs of decode steps stay valid while the list grows. */
static uint64_t rounded_seen(uint64_t seen) {
  uint64_t rounded = 1024;
  while (rounded < seen) rounded *= 2;
  return seen ? rounded : 0;
}

static void measure(step *s) {
  const sluice_session *session = s->session;
  const sluice_plan *plan = &session->model->plan;
  uint64_t tokens = 0, rows = 0, tiles = 0, pages = 0, longest = 0, seen = 0;
  bool logprobs = false;
  /* Ranks meet on the host, which no graph waits for. */
  s->decode = session->device->driver->graph_begin && !session->observer && !session->hook && !session->model->group;
  for (uint32_t i = 0; i < s->chunk_count; i++) {
    const sluice_chunk *chunk = &s->chunks[i];
    uint64_t context = (uint64_t)session->sequences[chunk->sequence].length + chunk->count;
    s->decode = s->decode && chunk->count == 1;
    tokens += chunk->count;
    rows += chunk->logit_rows;
    seen += seen_count(chunk);
    logprobs = logprobs || (chunk->logit_rows && chunk->sampling.logprobs);
    tiles += ((uint64_t)chunk->count + plan->header->query_tile - 1) / plan->header->query_tile;
    uint64_t tile = chunk->count < plan->header->query_tile ? chunk->count : plan->header->query_tile;
    if (tile > longest) longest = tile;
    if (pages_for(plan, context) > pages) pages = pages_for(plan, context);
  }
  uint64_t *extents = s->extents;
  extents[SLUICE_SIZE_ONE] = 1;
  extents[SLUICE_SIZE_TOKENS] = tokens;
  extents[SLUICE_SIZE_ROWS] = rows;
  extents[SLUICE_SIZE_SEQUENCES] = s->chunk_count;
  extents[SLUICE_SIZE_TILES] = tiles;
  extents[SLUICE_SIZE_CACHE_PAGES] = session->pool.page_count;
  extents[SLUICE_SIZE_LONGEST] = longest;
  extents[SLUICE_SIZE_SEEN] = rounded_seen(seen);
  extents[SLUICE_SIZE_LOGPROBS] = logprobs ? rows : 0;
  uint64_t memory_pages = s->decode ? rounded_pages(s, pages) : pages;
  extents[SLUICE_SIZE_PAGE_STRIDE] = memory_pages;
  set_context(plan, tokens, memory_pages, extents);
  /* Kernels get the true context, except where launches, which must be the graph's, depend on it. */
  uint64_t exact[SLUICE_SIZE_COUNT];
  memcpy(exact, extents, sizeof exact);
  set_context(plan, tokens, pages, exact);
  for (int i = 0; i < SLUICE_SIZE_COUNT; i++) s->sizes[i] = saturate(session->in_launches[i] ? extents[i] : exact[i]);
  s->layout = sluice_step_layout_of(plan, extents);
}

static sluice_status *grow_locked(sluice_device *device, sluice_block *block, uint64_t bytes) {
  if (bytes <= block->capacity) return NULL;
  device->driver->release_locked(device, block->memory);
  *block = (sluice_block){0};
  void *memory = NULL;
  SLUICE_TRY(device->driver->allocate_locked(device, bytes, &memory));
  block->memory = memory;
  block->capacity = bytes;
  return NULL;
}

/* What goes back to the host after every step: the sampled tokens and, where some are wanted, what log-probabilities
 * are made of, which lies behind them. */
static uint64_t sampled_bytes(const step *s) {
  if (!s->extents[SLUICE_SIZE_LOGPROBS]) return s->extents[SLUICE_SIZE_ROWS] * sizeof(int32_t);
  return s->layout.outputs[SLUICE_OUTPUT_LOGPROBS] - s->layout.outputs[SLUICE_OUTPUT_SAMPLED] +
         s->extents[SLUICE_SIZE_LOGPROBS] * sizeof(sluice_logprob_row);
}

static sluice_status *grow_logprobs(sluice_session *session, uint64_t rows) {
  if (rows <= session->logprobs_capacity) return NULL;
  sluice_logprobs *grown = sluice_reallocate_array(session->logprobs, (size_t)rows, sizeof *grown);
  if (!grown) return sluice_out_of_memory();
  session->logprobs = grown;
  session->logprobs_capacity = (uint32_t)rows;
  return NULL;
}

static sluice_status *grow_memory(step *s) {
  sluice_session *session = s->session;
  sluice_device *device = session->device;
  uint64_t arena;
  SLUICE_TRY(sluice_arena_bytes(&session->model->plan, s->extents, &arena));
  if (arena > session->arena.capacity || s->layout.input_bytes > session->inputs.capacity ||
      s->layout.output_bytes > session->outputs.capacity || s->layout.input_bytes > session->locked_inputs.capacity ||
      sampled_bytes(s) > session->locked_sampled.capacity)
    sluice_graphs_clear(&session->graphs, device); /* they hold the old addresses */
  SLUICE_TRY(sluice_block_grow(device, &session->arena, arena));
  SLUICE_TRY(sluice_block_grow(device, &session->inputs, s->layout.input_bytes));
  SLUICE_TRY(sluice_block_grow(device, &session->outputs, s->layout.output_bytes));
  SLUICE_TRY(grow_logprobs(session, s->extents[SLUICE_SIZE_LOGPROBS]));
  if (s->extents[SLUICE_SIZE_ROWS] > session->nan_capacity) {
    uint8_t *nan = sluice_reallocate_array(session->nan, (size_t)s->extents[SLUICE_SIZE_ROWS], sizeof *nan);
    if (!nan) return sluice_out_of_memory();
    session->nan = nan;
    session->nan_capacity = (uint32_t)s->extents[SLUICE_SIZE_ROWS];
  }
  if (device->host_memory) return NULL;
  SLUICE_TRY(grow_locked(device, &session->locked_inputs, session->inputs.capacity));
  return grow_locked(device, &session->locked_sampled, sampled_bytes(s) > 4096 ? sampled_bytes(s) : 4096);
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

static sluice_sampling_row sampling_row(const sluice_chunk *chunk, uint64_t position, uint32_t seen_first) {
  const sluice_sampling *sampling = &chunk->sampling;
  return (sluice_sampling_row){
      .temperature = sampling->temperature,
      /* one that is too small for an ordinary number still keeps the most likely token alone */
      .top_p = sampling->top_p > 0 ? fmaxf(sampling->top_p, FLT_MIN) : 1.0f,
      .top_k = sampling->top_k > 0 ? sampling->top_k : 0,
      .position = (int32_t)position,
      .seed = sampling->seed,
      .min_p = sampling->min_p,
      .repetition_penalty = sampling->repetition_penalty != 0 ? sampling->repetition_penalty : 1.0f,
      .presence_penalty = sampling->presence_penalty,
      .frequency_penalty = sampling->frequency_penalty,
      .seen_first = seen_first,
      .seen_count = seen_count(chunk),
      .logprobs = sampling->logprobs,
  };
}

static void write_inputs(step *s) {
  sluice_session *session = s->session;
  char *base = session->device->host_memory ? session->inputs.memory : session->locked_inputs.memory;
  int32_t *tokens = (int32_t *)(void *)(base + s->layout.inputs[SLUICE_INPUT_TOKENS]);
  int32_t *positions = (int32_t *)(void *)(base + s->layout.inputs[SLUICE_INPUT_POSITIONS]);
  int32_t *rows_of_table = (int32_t *)(void *)(base + s->layout.inputs[SLUICE_INPUT_SEQUENCE]);
  int32_t *table = (int32_t *)(void *)(base + s->layout.inputs[SLUICE_INPUT_PAGE_TABLE]);
  int32_t (*tiles)[4] = (int32_t (*)[4])(void *)(base + s->layout.inputs[SLUICE_INPUT_TILES]);
  int32_t *logit_rows = (int32_t *)(void *)(base + s->layout.inputs[SLUICE_INPUT_LOGIT_ROWS]);
  sluice_sampling_row *sampling = (sluice_sampling_row *)(void *)(base + s->layout.inputs[SLUICE_INPUT_SAMPLING]);
  sluice_seen_token *seen = (sluice_seen_token *)(void *)(sampling + s->extents[SLUICE_SIZE_ROWS]);
  uint32_t query_tile = session->model->plan.header->query_tile, seen_first = 0;
  uint64_t stride = s->extents[SLUICE_SIZE_PAGE_STRIDE];

  memcpy(base, s->sizes, sizeof s->sizes);
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
      *sampling++ = sampling_row(chunk, (uint64_t)sequence->length + j, seen_first);
    }
    if (seen_count(chunk)) memcpy(seen + seen_first, chunk->sampling.seen, seen_count(chunk) * sizeof *seen);
    seen_first += seen_count(chunk);
    int32_t *row = table + i * stride;
    memcpy(row, sequence->pages.pages, sequence->pages.count * sizeof *row);
    for (uint64_t j = sequence->pages.count; j < stride; j++) row[j] = -1;
    token += chunk->count;
  }
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
  return sluice_plan_grid(extent, (uint64_t)s->sizes[extent->size]);
}

/* The grid of a launch in this step; false when there is nothing to launch. */
static bool launch_grid(const step *s, uint64_t index, uint64_t grid[2]) {
  const sluice_plan_launch *launch = &s->session->model->plan.launches[index];
  grid[0] = grid_extent(s, &launch->grid[0]);
  grid[1] = grid_extent(s, &launch->grid[1]);
  return sluice_plan_runs(&s->session->model->plan, launch, s->sizes) && grid[0] && grid[1];
}

static sluice_status *annotate_launch(const step *s, sluice_status *status, uint64_t index) {
  const sluice_plan *plan = &s->session->model->plan;
  const sluice_plan_launch *launch = &plan->launches[index];
  const char *label = sluice_plan_string(plan, launch->label);
  const char *kernel = sluice_plan_string(plan, plan->kernels[launch->kernel].name);
  return sluice_annotate(status, "launch %llu (%s%s%s)", (unsigned long long)index, label, label[0] ? ", kernel " : "",
                         kernel);
}

/* The most tokens that a step like this one may have, so that the grid dimension stays within `most`; 0: none. No other
 * size of a step grows faster than its tokens and their contexts. */
static uint64_t most_tokens(const step *s, const sluice_plan_extent *extent, uint64_t most) {
  uint64_t units = most / extent->factor * extent->divisor, tokens = s->extents[SLUICE_SIZE_TOKENS];
  switch ((sluice_size)extent->size) {
  case SLUICE_SIZE_ONE:
  case SLUICE_SIZE_CACHE_PAGES:
  case SLUICE_SIZE_PAGE_STRIDE:
  case SLUICE_SIZE_CONTEXT:
  case SLUICE_SIZE_PAGES:
  case SLUICE_SIZE_SEEN:
    return 0;
  case SLUICE_SIZE_TOKENS_CONTEXT:
  case SLUICE_SIZE_TOKENS_PAGES:
    units /= s->extents[extent->size] / tokens; /* one row of them for each token */
    break;
  case SLUICE_SIZE_TOKENS:
  case SLUICE_SIZE_ROWS:
  case SLUICE_SIZE_LOGPROBS:
  case SLUICE_SIZE_SEQUENCES:
  case SLUICE_SIZE_TILES:
  case SLUICE_SIZE_LONGEST:
  case SLUICE_SIZE_COUNT:
    break;
  }
  return units < tokens ? units : tokens - 1;
}

/* Checks a launch's workgroups before anything of the step is put into the queue. */
static sluice_status *check_grid(const step *s, uint64_t index) {
  const sluice_plan_launch *launch = &s->session->model->plan.launches[index];
  const sluice_device *device = s->session->model->device;
  uint64_t grid[2];
  if (!launch_grid(s, index, grid)) return NULL;
  for (int d = 0; d < 2; d++) {
    if (grid[d] <= device->largest_grid[d]) continue;
    uint64_t tokens = most_tokens(s, &launch->grid[d], device->largest_grid[d]);
    char advice[96] = "use shorter contexts";
    if (tokens)
      snprintf(advice, sizeof advice, "use steps of at most %llu tokens (--chunk, max_step_tokens)",
               (unsigned long long)tokens);
    return annotate_launch(
        s,
        sluice_error(
            SLUICE_INVALID,
            "a step of %llu tokens would be a launch of %llu x %llu workgroups, %s takes at most %llu x %llu; %s",
            (unsigned long long)s->extents[SLUICE_SIZE_TOKENS], (unsigned long long)grid[0],
            (unsigned long long)grid[1], device->name, (unsigned long long)device->largest_grid[0],
            (unsigned long long)device->largest_grid[1], advice),
        index);
  }
  return NULL;
}

static sluice_status *check_grids(const step *s) {
  for (uint64_t i = 0; i < s->session->model->plan.header->launches.count; i++) SLUICE_TRY(check_grid(s, i));
  return NULL;
}

static sluice_status *run_launch(step *s, uint32_t index) {
  sluice_session *session = s->session;
  sluice_model *model = session->model;
  sluice_device *device = session->device;
  const sluice_plan_launch *launch = &model->plan.launches[index];
  uint64_t grid[2];
  double start = session->hook ? sluice_seconds() : 0;
  if (launch_grid(s, index, grid)) {
    void *const *arguments = session->arguments + launch->first_argument;
    if (launch->collective) SLUICE_TRY(sluice_exchange(session, launch, arguments, s->sizes));
    SLUICE_TRY(device->driver->launch(device, model->code, launch->kernel, arguments,
                                      model->plan.kernels[launch->kernel].argument_count,
                                      (const int32_t *)(const void *)session->inputs.memory, grid));
  }
  if (session->hook) {
    SLUICE_TRY(device->driver->synchronize(device));
    session->hook(session->hook_user, index, sluice_seconds() - start);
  }
  return NULL;
}

static sluice_status *observe(step *s, const sluice_plan_observable *observable, bool *out_device_failed) {
  sluice_session *session = s->session;
  sluice_device *device = session->device;
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

/* The step's copies, on devices with memory of their own. */
static sluice_status *enqueue_inputs(step *s) {
  const sluice_session *session = s->session;
  sluice_device *device = session->device;
  if (device->host_memory) return NULL;
  return device->driver->enqueue_in(device, session->inputs.memory, session->locked_inputs.memory,
                                    s->layout.input_bytes);
}

static sluice_status *enqueue_sampled(step *s) {
  const sluice_session *session = s->session;
  sluice_device *device = session->device;
  if (device->host_memory || !sampled_bytes(s)) return NULL;
  return device->driver->enqueue_out(device, session->locked_sampled.memory,
                                     session->outputs.memory + s->layout.outputs[SLUICE_OUTPUT_SAMPLED],
                                     sampled_bytes(s));
}

/* ---- A decode step: one graph ---- */

/* The launches of a join as one: the workgroups and arguments of its parts in turn, and the counters. */
static sluice_status *run_join(step *s, const sluice_plan_join *join) {
  const sluice_session *session = s->session;
  const sluice_plan *plan = &session->model->plan;
  sluice_device *device = session->device;
  void *arguments[SLUICE_JOIN_ARGUMENTS];
  uint64_t workgroups[2] = {0, 1};
  uint32_t count = 0;
  for (uint32_t i = join->first_launch; i < join->first_launch + join->launch_count; i++) {
    const sluice_plan_launch *launch = &plan->launches[i];
    uint32_t of_launch = plan->kernels[launch->kernel].argument_count;
    uint64_t grid[2];
    if (!sluice_plan_runs(plan, launch, s->sizes)) continue;
    if (launch_grid(s, i, grid)) workgroups[0] += grid[0] * grid[1];
    memcpy(arguments + count, session->arguments + launch->first_argument, of_launch * sizeof *arguments);
    count += of_launch;
  }
  arguments[count++] = session->counters;
  return device->driver->launch(device, session->model->code, join->kernel, arguments, count,
                                (const int32_t *)(const void *)session->inputs.memory, workgroups);
}

static sluice_status *enqueue_decode(step *s) {
  const sluice_plan *plan = &s->session->model->plan;
  SLUICE_TRY(enqueue_inputs(s));
  for (uint32_t i = 0; i < plan->header->launches.count;) {
    const sluice_plan_join *join = sluice_plan_find_join(plan, i, s->sizes);
    sluice_status *status = join ? run_join(s, join) : run_launch(s, i);
    if (status) return annotate_launch(s, status, i);
    i += join ? join->launch_count : 1;
  }
  return enqueue_sampled(s);
}

/* How many launches the graph holds. */
static uint32_t count_launches(const step *s) {
  const sluice_plan *plan = &s->session->model->plan;
  uint32_t launches = 0;
  for (uint32_t i = 0; i < plan->header->launches.count;) {
    const sluice_plan_join *join = sluice_plan_find_join(plan, i, s->sizes);
    uint64_t grid[2];
    launches += join || launch_grid(s, i, grid);
    i += join ? join->launch_count : 1;
  }
  return launches;
}

static sluice_status *record_decode(step *s, sluice_device_graph **out_graph) {
  sluice_device *device = s->session->device;
  resolve_arguments(s);
  SLUICE_TRY(device->driver->graph_begin(device));
  sluice_status *status = enqueue_decode(s);
  if (!status) return device->driver->graph_end(device, out_graph);
  sluice_status_free(device->driver->graph_end(device, NULL));
  return status;
}

static sluice_status *run_decode(step *s, bool *out_device_failed) {
  sluice_session *session = s->session;
  sluice_device *device = session->device;
  sluice_device_graph *graph = sluice_graphs_find(&session->graphs, s->extents);
  sluice_status *status = NULL;
  if (!graph) {
    status = record_decode(s, &graph);
    if (!status) sluice_graphs_keep(&session->graphs, device, s->extents, graph);
  }
  /* Nothing has run yet: unless the device itself is at fault, the session can go on. */
  *out_device_failed = status && sluice_status_code(status) == SLUICE_DEVICE;
  if (!status) {
    *out_device_failed = true;
    status = device->driver->graph_launch(device, graph);
    if (!status) status = device->driver->synchronize(device);
  }
  if (status) {
    return sluice_annotate(status, "decode graph of %u launches", count_launches(s));
  }
  *out_device_failed = false;
  return NULL;
}

/* ---- Any other step: launch by launch ---- */

/* Names the launch behind a failure that showed when all had been put into the queue. */
static sluice_status *annotate_marks(const step *s, sluice_status *status, uint32_t marks_before) {
  const sluice_device *device = s->session->device;
  if (!status || !device->driver->last_mark) return status;
  uint32_t done = device->driver->last_mark(device) - marks_before;
  uint64_t count = s->session->model->plan.header->launches.count;
  if (done > count) done = 0; /* the last mark is one of an earlier step */
  return done < count ? annotate_launch(s, status, done) : status;
}

static sluice_status *enqueue_launch(step *s, uint32_t index) {
  const sluice_plan *plan = &s->session->model->plan;
  sluice_device *device = s->session->device;
  if (device->driver->range_push) {
    const char *label = sluice_plan_string(plan, plan->launches[index].label);
    device->driver->range_push(
        device, label[0] ? label : sluice_plan_string(plan, plan->kernels[plan->launches[index].kernel].name));
  }
  sluice_status *status = run_launch(s, index);
  sluice_range_pop(device);
  if (!status && device->driver->mark) status = device->driver->mark(device);
  return status ? annotate_launch(s, status, index) : NULL;
}

/* `*out_device_failed` tells a failed device from an error of the observer. */
static sluice_status *run_launches(step *s, bool *out_device_failed) {
  const sluice_plan *plan = &s->session->model->plan;
  sluice_device *device = s->session->device;
  uint32_t marks_before = device->marks;
  uint64_t observable = 0;
  resolve_arguments(s);
  *out_device_failed = true;
  SLUICE_TRY(enqueue_inputs(s));
  for (uint32_t i = 0; i < plan->header->launches.count; i++) {
    *out_device_failed = true;
    SLUICE_TRY(enqueue_launch(s, i));
    while (observable < plan->header->observables.count && plan->observables[observable].launch == i) {
      if (s->session->observer) SLUICE_TRY(observe(s, &plan->observables[observable], out_device_failed));
      observable++;
    }
  }
  *out_device_failed = true;
  sluice_status *status = enqueue_sampled(s);
  if (!status) status = device->driver->synchronize(device);
  if (status) return annotate_marks(s, status, marks_before);
  *out_device_failed = false;
  return NULL;
}

static sluice_status *prepare_and_run(step *s, bool *out_device_failed) {
  *out_device_failed = false;
  measure(s);
  SLUICE_TRY(check_grids(s));
  SLUICE_TRY(take_pages(s));
  SLUICE_TRY(grow_memory(s));
  write_inputs(s);
  return s->decode ? run_decode(s, out_device_failed) : run_launches(s, out_device_failed);
}

/* The logarithms of a row's probabilities. A difference of equal infinities is none. */
static float logprob_of(const sluice_logprob_row *row, float logit) {
  const double distance = logit == row->largest ? 0 : (double)logit - (double)row->largest;
  return (float)(distance - log(row->mass));
}

static void read_logprobs(const step *s, const char *memory) {
  const sluice_logprob_row *rows = (const sluice_logprob_row *)(const void *)memory;
  const uint32_t vocabulary = s->session->model->plan.header->vocabulary;
  sluice_logprobs *out = s->session->logprobs;
  for (uint32_t i = 0; i < s->chunk_count; i++) {
    const sluice_chunk *chunk = &s->chunks[i];
    const uint32_t wanted = chunk->sampling.logprobs, count = wanted < vocabulary ? wanted : vocabulary;
    for (uint32_t j = 0; j < chunk->logit_rows; j++, rows++, out++) {
      *out = (sluice_logprobs){.count = count};
      if (!count) continue;
      out->chosen = logprob_of(rows, rows->chosen);
      for (uint32_t k = 0; k < count; k++)
        out->top[k] = (sluice_token_logprob){rows->top[k].token, logprob_of(rows, rows->top[k].logit)};
    }
  }
}

/* Takes what the sampler wrote apart (SLUICE_OUTPUT_SAMPLED). */
static void read_sampled(const step *s, sluice_step_result *out_result) {
  const sluice_session *session = s->session;
  uint32_t rows = (uint32_t)s->extents[SLUICE_SIZE_ROWS];
  if (!rows) return;
  char *memory = session->device->host_memory ? session->outputs.memory + s->layout.outputs[SLUICE_OUTPUT_SAMPLED]
                                              : session->locked_sampled.memory;
  int32_t *sampled = (int32_t *)(void *)memory;
  uint32_t nan_rows = 0;
  for (uint32_t i = 0; i < rows; i++) {
    session->nan[i] = sampled[i] < 0;
    nan_rows += session->nan[i];
    if (session->nan[i]) sampled[i] = -1 - sampled[i];
  }
  *out_result = (sluice_step_result){.sampled = sampled, .nan = session->nan, .rows = rows, .nan_rows = nan_rows};
  if (!s->extents[SLUICE_SIZE_LOGPROBS]) return;
  read_logprobs(s, memory + (s->layout.outputs[SLUICE_OUTPUT_LOGPROBS] - s->layout.outputs[SLUICE_OUTPUT_SAMPLED]));
  out_result->logprobs = session->logprobs;
}

sluice_status *sluice_step(sluice_session *session, const sluice_chunk *chunks, uint32_t chunk_count,
                           sluice_step_result *out_result) {
  step s = {.session = session, .chunks = chunks, .chunk_count = chunk_count};
  sluice_device *device = session->device;
  *out_result = (sluice_step_result){0};
  SLUICE_TRY(sluice_session_check_idle(session));
  session->last_rows = 0;
  SLUICE_TRY(check_batch(&s));
  bool device_failed;
  session->steps++;
  session->running = true;
  sluice_range_push(device, "step");
  if (device->host_memory) sluice_threads_begin(device->threads); /* its launches are loops of these threads */
  sluice_status *status = prepare_and_run(&s, &device_failed);
  if (device->host_memory) sluice_threads_end(device->threads);
  session->running = false;
  sluice_range_pop(device);
  if (status) {
    session->failed = device_failed;
    return_pages(&s);
    return device_failed ? sluice_annotate(status, "step %llu", (unsigned long long)session->steps) : status;
  }
  for (uint32_t i = 0; i < chunk_count; i++) session->sequences[chunks[i].sequence].length += chunks[i].count;
  session->last_rows = (uint32_t)s.extents[SLUICE_SIZE_ROWS];
  session->last_logits = s.layout.outputs[SLUICE_OUTPUT_LOGITS];
  session->logits_copied = false;
  read_sampled(&s, out_result);
  return NULL;
}

sluice_status *sluice_step_logits(sluice_session *session, const float **out_logits) {
  sluice_device *device = session->device;
  *out_logits = NULL;
  SLUICE_TRY(sluice_session_check_idle(session));
  if (!session->last_rows) return NULL;
  const char *logits = session->outputs.memory + session->last_logits;
  if (!device->host_memory) {
    uint64_t bytes = (uint64_t)session->last_rows * session->model->plan.header->vocabulary * sizeof(float);
    if (bytes > session->host_logits.capacity) {
      sluice_release(session->host_logits.memory);
      session->host_logits = (sluice_block){.memory = sluice_allocate_aligned(64, (size_t)bytes)};
      if (!session->host_logits.memory) return sluice_out_of_memory();
      session->host_logits.capacity = bytes;
    }
    if (!session->logits_copied)
      SLUICE_TRY(device->driver->copy_out(device, session->host_logits.memory, logits, bytes));
    session->logits_copied = true;
    logits = session->host_logits.memory;
  }
  *out_logits = (const float *)(const void *)logits;
  return NULL;
}
