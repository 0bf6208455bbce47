/* Memory for benchmarks: random numbers, and copies of all that the launches of a group read and write. */
#include "runtime/tools/bench.h"

#include "sluice/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_COPIES 1024u
#define MAX_ARENA ((uint64_t)1 << 50)
#define POOL_BYTES ((uint64_t)4 << 20)
#define POOLS 8u
#define HOST_BYTES (16 * POOL_BYTES) /* so much comes from the host; larger memory repeats it, shifted */

/* ---- Random numbers ---- */

typedef struct number_pool { /* about normal numbers to copy from */
  sluice_dtype dtype;
  float deviation;
  char *data; /* [POOL_BYTES]; NULL: unused */
} number_pool;

struct bench_random {
  uint64_t state;
  number_pool pools[POOLS];
  uint32_t made; /* pools so far; the oldest gives way */
};

/* splitmix64 */
uint64_t bench_random_next(bench_random *random) {
  uint64_t z = random->state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

sluice_status *bench_random_create(bench_random **out_random) {
  *out_random = NULL;
  bench_random *random = sluice_allocate(sizeof *random);
  if (!random) return sluice_out_of_memory();
  *out_random = random;
  return NULL;
}

void bench_random_free(bench_random *random) {
  if (!random) return;
  for (uint32_t i = 0; i < POOLS; i++) sluice_release(random->pools[i].data);
  sluice_release(random);
}

static void make_numbers(bench_random *random, const number_pool *pool) {
  uint64_t count = POOL_BYTES / sluice_dtype_size(pool->dtype);
  float factor = pool->deviation / 37837.227f; /* of the sum of four uniform numbers */
  for (uint64_t i = 0; i < count; i++) {
    uint64_t z = bench_random_next(random);
    int32_t sum = (int32_t)((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48)) - 131070;
    if (pool->dtype == SLUICE_F32)
      ((float *)(void *)pool->data)[i] = (float)sum * factor;
    else
      ((uint16_t *)(void *)pool->data)[i] = sluice_bf16_from_f32((float)sum * factor);
  }
}

/* NULL when memory is short. */
static const char *find_numbers(bench_random *random, sluice_dtype dtype, float deviation) {
  for (uint32_t i = 0; i < POOLS; i++) {
    const number_pool *pool = &random->pools[i];
    if (pool->data && pool->dtype == dtype && !(pool->deviation < deviation) && !(pool->deviation > deviation))
      return pool->data;
  }
  number_pool *pool = &random->pools[random->made % POOLS];
  if (!pool->data) pool->data = sluice_allocate_aligned(64, POOL_BYTES);
  if (!pool->data) return NULL;
  random->made++;
  pool->dtype = dtype;
  pool->deviation = deviation;
  make_numbers(random, pool);
  return pool->data;
}

sluice_status *bench_random_fill(bench_random *random, sluice_device *device, void *to, uint64_t bytes,
                                 sluice_dtype dtype, float deviation) {
  const char *numbers = find_numbers(random, dtype, deviation);
  if (!numbers) return sluice_out_of_memory();
  char *memory = to;
  uint64_t done = 0;
  while (done < bytes && done < HOST_BYTES) { /* from a random place of the pool each time */
    uint64_t start = bench_random_next(random) % (POOL_BYTES / 64) * 64, part = POOL_BYTES - start;
    if (part > bytes - done) part = bytes - done;
    SLUICE_TRY(device->driver->copy_in(device, memory + done, numbers + start, part));
    done += part;
  }
  while (done < bytes) { /* from a random place of what is there */
    uint64_t start = bench_random_next(random) % (POOL_BYTES / 64) * 64, part = HOST_BYTES - POOL_BYTES;
    if (part > bytes - done) part = bytes - done;
    SLUICE_TRY(device->driver->copy(device, memory + done, memory + start, part));
    done += part;
  }
  return NULL;
}

void bench_random_shuffle(bench_random *random, int32_t *values, uint32_t count) {
  for (uint32_t i = count; i > 1; i--) {
    uint32_t other = (uint32_t)(bench_random_next(random) % i);
    int32_t value = values[i - 1];
    values[i - 1] = values[other];
    values[other] = value;
  }
}

/* `count` distinct numbers of 0 .. `limit` - 1, ascending; `count` <= `limit` (Floyd's algorithm). */
static void draw_distinct(bench_random *random, uint32_t limit, uint32_t count, int32_t *to) {
  for (uint32_t i = 0; i < count; i++) {
    uint32_t largest = limit - count + i;
    int32_t value = (int32_t)(bench_random_next(random) % (largest + 1));
    uint32_t at = i;
    bool taken = false;
    for (uint32_t j = 0; j < i && !taken; j++) taken = to[j] == value;
    if (taken) value = (int32_t)largest;
    for (; at > 0 && to[at - 1] > value; at--) to[at] = to[at - 1];
    to[at] = value;
  }
}

/* ---- Pieces ---- */

static uint64_t round_up(uint64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

static uint64_t buffer_bytes(const bench_calls *calls, uint32_t buffer) {
  const sluice_plan_buffer *entry = &calls->model->plan.buffers[buffer];
  return entry->unit_bytes * calls->extents.memory[entry->size];
}

static bench_piece *find_piece(const bench_calls *calls, const sluice_plan_argument *argument) {
  bool block = argument->memory == SLUICE_MEMORY_INPUT || argument->memory == SLUICE_MEMORY_OUTPUT;
  for (uint32_t i = 0; i < calls->piece_count; i++)
    if (calls->pieces[i].memory == argument->memory && calls->pieces[i].index == (block ? 0 : argument->index))
      return &calls->pieces[i];
  return NULL;
}

/* Adds what `argument` names, when it is not there yet. */
static void add_piece(bench_calls *calls, const sluice_plan_argument *argument) {
  const sluice_plan *plan = &calls->model->plan;
  if (argument->memory == SLUICE_MEMORY_NONE || find_piece(calls, argument)) return;
  bench_piece piece = {.memory = argument->memory, .index = argument->index, .offset = calls->copy_bytes};
  switch ((sluice_memory)argument->memory) {
  case SLUICE_MEMORY_NONE:
    return;
  case SLUICE_MEMORY_ARENA:
    piece.bytes = buffer_bytes(calls, argument->index);
    break;
  case SLUICE_MEMORY_WEIGHT:
    piece.bytes = plan->weights[argument->index].bytes;
    break;
  case SLUICE_MEMORY_CACHE:
    piece.bytes = plan->cache[argument->index].page_bytes * calls->extents.memory[SLUICE_SIZE_CACHE_PAGES];
    break;
  case SLUICE_MEMORY_INPUT:
    piece.index = 0;
    piece.bytes = calls->layout.input_bytes;
    break;
  case SLUICE_MEMORY_OUTPUT:
    piece.index = 0;
    piece.bytes = calls->layout.output_bytes;
    break;
  }
  calls->copy_bytes += round_up(piece.bytes);
  calls->pieces[calls->piece_count++] = piece;
}

static const sluice_plan_launch *launch_of(const bench_calls *calls, uint32_t i) {
  return &calls->model->plan.launches[calls->group->launches[i]];
}

static uint32_t arguments_of(const bench_calls *calls, uint32_t i) {
  return calls->model->plan.kernels[launch_of(calls, i)->kernel].argument_count;
}

static sluice_status *find_pieces(bench_calls *calls) {
  const sluice_plan *plan = &calls->model->plan;
  for (uint32_t i = 0; i < calls->group->count; i++) calls->argument_count += arguments_of(calls, i);
  calls->pieces = sluice_allocate_array((size_t)calls->argument_count + 1, sizeof *calls->pieces);
  if (!calls->pieces) return sluice_out_of_memory();
  add_piece(calls, &(sluice_plan_argument){SLUICE_MEMORY_INPUT, 0}); /* comes first: every launch reads the sizes */
  for (uint32_t i = 0; i < calls->group->count; i++)
    for (uint32_t a = 0; a < arguments_of(calls, i); a++)
      add_piece(calls, &plan->arguments[launch_of(calls, i)->first_argument + a]);
  return NULL;
}

const int32_t *bench_calls_sizes(const bench_calls *calls, uint32_t copy) {
  if (calls->like) return bench_calls_sizes(calls->like, copy);
  return (const int32_t *)(const void *)(calls->memory + copy * calls->copy_bytes);
}

char *bench_calls_address(const bench_calls *calls, uint32_t copy, const sluice_plan_argument *argument) {
  if (argument->memory == SLUICE_MEMORY_NONE) return NULL;
  uint64_t offset = find_piece(calls, argument)->offset;
  if (argument->memory == SLUICE_MEMORY_INPUT) offset += calls->layout.inputs[argument->index];
  if (argument->memory == SLUICE_MEMORY_OUTPUT) offset += calls->layout.outputs[argument->index];
  return calls->memory + copy * calls->copy_bytes + offset;
}

/* ---- Contents ---- */

/* What the plan shows of a buffer: "blocks", "router.experts", "router.weights"; NULL for others. */
static const char *observed_as(const bench_calls *calls, uint32_t buffer, uint32_t *out_dimension) {
  const sluice_plan *plan = &calls->model->plan;
  char prefix[32];
  int length = snprintf(prefix, sizeof prefix, "layer.%u.", calls->group->layer);
  for (uint64_t i = 0; i < plan->header->observables.count; i++) {
    const char *name = sluice_plan_string(plan, plan->observables[i].name);
    if (plan->observables[i].buffer != buffer || strncmp(name, prefix, (size_t)length) != 0) continue;
    *out_dimension = plan->observables[i].dimension;
    return name + length;
  }
  return NULL;
}

bool bench_calls_experts(const bench_calls *calls, uint32_t *out_buffer) {
  for (uint32_t i = 0; i < calls->piece_count; i++) {
    uint32_t dimension;
    if (calls->pieces[i].memory != SLUICE_MEMORY_ARENA) continue;
    const char *name = observed_as(calls, calls->pieces[i].index, &dimension);
    if (!name || strcmp(name, "router.experts") != 0) continue;
    *out_buffer = calls->pieces[i].index;
    return true;
  }
  return false;
}

static uint32_t position_of(const bench_calls *calls, uint64_t token) {
  return calls->shape.context + (uint32_t)(token % calls->shape.tokens);
}

/* Selected blocks of each token and head: its own block and random ones before it, ascending, then -1. */
static void draw_blocks(const bench_calls *calls, bench_random *random, uint32_t width, uint32_t k, int32_t *to) {
  for (uint64_t row = 0; row < calls->extents.memory[SLUICE_SIZE_TOKENS] * (width / k); row++, to += k) {
    uint32_t own = position_of(calls, row / (width / k)) / calls->model->plan.header->page_tokens;
    uint32_t others = own < k - 1 ? own : k - 1;
    draw_distinct(random, own, others, to);
    to[others] = (int32_t)own;
    for (uint32_t i = others + 1; i < k; i++) to[i] = -1;
  }
}

static void draw_weights(const bench_calls *calls, bench_random *random, uint32_t k, float *to) {
  for (uint64_t token = 0; token < calls->extents.memory[SLUICE_SIZE_TOKENS]; token++, to += k) {
    float sum = 0;
    for (uint32_t i = 0; i < k; i++) sum += to[i] = 0.1f + (float)(bench_random_next(random) >> 40) * 0x1p-24f;
    for (uint32_t i = 0; i < k; i++) to[i] /= sum;
  }
}

/* Activations are normal; indices are such as the model would choose; other integers (counters) are zero. */
static sluice_status *fill_buffer(bench_calls *calls, bench_random *random, const bench_piece *piece, char *to) {
  const sluice_plan_header *header = calls->model->plan.header;
  const sluice_plan_buffer *buffer = &calls->model->plan.buffers[piece->index];
  sluice_device *device = calls->model->device;
  uint32_t k = 0;
  const char *name = observed_as(calls, piece->index, &k);
  bool weights = name && strcmp(name, "router.weights") == 0;
  if ((buffer->dtype == SLUICE_F32 || buffer->dtype == SLUICE_BF16) && !weights)
    return bench_random_fill(random, device, to, piece->bytes, (sluice_dtype)buffer->dtype, 1);
  memset(calls->staging, 0, (size_t)piece->bytes);
  if (weights)
    draw_weights(calls, random, k, (float *)(void *)calls->staging);
  else if (name && strcmp(name, "router.experts") == 0)
    for (uint64_t token = 0; token < calls->extents.memory[SLUICE_SIZE_TOKENS]; token++)
      draw_distinct(random, header->experts, k, (int32_t *)(void *)calls->staging + token * k);
  else if (name && strcmp(name, "blocks") == 0)
    draw_blocks(calls, random, buffer->width, k, (int32_t *)(void *)calls->staging);
  return device->driver->copy_in(device, to, calls->staging, piece->bytes);
}

/* The inputs of a step as the runtime makes them, with the cache's pages in random order. */
static sluice_status *fill_inputs(bench_calls *calls, bench_random *random, char *to) {
  const sluice_plan_header *header = calls->model->plan.header;
  const bench_shape *shape = &calls->shape;
  char *base = calls->staging;
  memset(base, 0, (size_t)calls->layout.input_bytes);
  memcpy(base, calls->extents.sizes, sizeof calls->extents.sizes);
  int32_t *tokens = (int32_t *)(void *)(base + calls->layout.inputs[SLUICE_INPUT_TOKENS]);
  int32_t *positions = (int32_t *)(void *)(base + calls->layout.inputs[SLUICE_INPUT_POSITIONS]);
  int32_t *table_rows = (int32_t *)(void *)(base + calls->layout.inputs[SLUICE_INPUT_SEQUENCE]);
  int32_t *table = (int32_t *)(void *)(base + calls->layout.inputs[SLUICE_INPUT_PAGE_TABLE]);
  int32_t (*tiles)[4] = (int32_t (*)[4])(void *)(base + calls->layout.inputs[SLUICE_INPUT_TILES]);
  int32_t *logit_rows = (int32_t *)(void *)(base + calls->layout.inputs[SLUICE_INPUT_LOGIT_ROWS]);
  sluice_sampling_row *sampling = (sluice_sampling_row *)(void *)(base + calls->layout.inputs[SLUICE_INPUT_SAMPLING]);
  uint32_t token = 0, pages = calls->extents.pages;
  uint64_t stride = calls->extents.memory[SLUICE_SIZE_PAGE_STRIDE];
  for (uint32_t i = 0; i < pages * shape->sequences; i++) calls->page_order[i] = (int32_t)i;
  bench_random_shuffle(random, calls->page_order, pages * shape->sequences);
  for (uint32_t s = 0; s < shape->sequences; s++) {
    for (uint32_t j = 0; j < shape->tokens; j += header->query_tile) {
      uint32_t count = shape->tokens - j < header->query_tile ? shape->tokens - j : header->query_tile;
      int32_t tile[4] = {(int32_t)(token + j), (int32_t)count, (int32_t)s, (int32_t)(shape->context + j)};
      memcpy(*tiles++, tile, sizeof tile);
    }
    for (uint32_t j = 0; j < shape->tokens; j++, token++) {
      tokens[token] = (int32_t)(bench_random_next(random) % header->vocabulary);
      positions[token] = (int32_t)(shape->context + j);
      table_rows[token] = (int32_t)s;
    }
    memcpy(table + s * stride, calls->page_order + (size_t)s * pages, pages * sizeof *table);
    for (uint64_t i = pages; i < stride; i++) table[s * stride + i] = -1;
    logit_rows[s] = (int32_t)token - 1;
    sampling[s] = (sluice_sampling_row){.top_p = 1, .position = (int32_t)(shape->context + shape->tokens - 1)};
  }
  return calls->model->device->driver->copy_in(calls->model->device, to, base, calls->layout.input_bytes);
}

/* About as large as a trained model's: products of normal activations stay normal. The router's bias is none: all
 * experts are chosen alike. */
static float weight_deviation(const sluice_plan *plan, const sluice_plan_weight *weight) {
  const char *name = sluice_plan_string(plan, weight->name);
  if (strstr(name, "norm.weight") || strstr(name, "layernorm")) return 0.2f;
  if (strstr(name, "e_score_correction_bias")) return 0;
  if (weight->source_count && plan->sources[weight->first_source].rank == 1) return 0.1f;
  return 1 / sqrtf((float)weight->columns);
}

static sluice_status *fill_piece(bench_calls *calls, bench_random *random, uint32_t copy, const bench_piece *piece) {
  const sluice_plan *plan = &calls->model->plan;
  sluice_device *device = calls->model->device;
  char *to = calls->memory + copy * calls->copy_bytes + piece->offset;
  switch ((sluice_memory)piece->memory) {
  case SLUICE_MEMORY_ARENA:
    return fill_buffer(calls, random, piece, to);
  case SLUICE_MEMORY_WEIGHT:
    return bench_random_fill(random, device, to, piece->bytes, (sluice_dtype)plan->weights[piece->index].format,
                             weight_deviation(plan, &plan->weights[piece->index]));
  case SLUICE_MEMORY_CACHE:
    return bench_random_fill(random, device, to, piece->bytes, (sluice_dtype)plan->header->dtype, 1);
  case SLUICE_MEMORY_INPUT:
    return fill_inputs(calls, random, to);
  case SLUICE_MEMORY_OUTPUT: /* the logits, when the sampler is benched alone */
    return bench_random_fill(random, device, to, piece->bytes, SLUICE_F32, 1);
  case SLUICE_MEMORY_NONE:
    break;
  }
  return NULL;
}

/* ---- Calls ---- */

static sluice_status *choose_copies(bench_calls *calls, uint64_t touched_bytes, uint64_t rotation_bytes) {
  sluice_device *device = calls->model->device;
  uint64_t available = device->driver->available(device), usable = available / 10 * 9;
  uint64_t wanted = touched_bytes > BENCH_LARGE_CALL ? 1 : 2;
  if (wanted > 1 && touched_bytes) wanted = rotation_bytes / touched_bytes + 2;
  if (wanted > MAX_COPIES || !touched_bytes) wanted = MAX_COPIES;
  uint64_t fitting = usable / calls->copy_bytes;
  if (!fitting)
    return sluice_error(SLUICE_OUT_OF_MEMORY, "%s at this shape needs %s; %s has %s free", calls->group->name,
                        sluice_describe_bytes(calls->copy_bytes).text, device->name,
                        sluice_describe_bytes(available).text);
  calls->copies = (uint32_t)(wanted < fitting ? wanted : fitting);
  return NULL;
}

static sluice_status *resolve_arguments(bench_calls *calls) {
  const sluice_plan *plan = &calls->model->plan;
  calls->arguments = sluice_allocate_array((size_t)calls->argument_count * calls->copies, sizeof *calls->arguments);
  if (!calls->arguments) return sluice_out_of_memory();
  void **to = calls->arguments;
  for (uint32_t copy = 0; copy < calls->copies; copy++)
    for (uint32_t i = 0; i < calls->group->count; i++)
      for (uint32_t a = 0; a < arguments_of(calls, i); a++)
        *to++ = bench_calls_address(calls, copy, &plan->arguments[launch_of(calls, i)->first_argument + a]);
  return NULL;
}

static sluice_status *allocate_staging(bench_calls *calls) {
  uint64_t bytes = calls->layout.input_bytes;
  for (uint32_t i = 0; i < calls->piece_count; i++)
    if (calls->pieces[i].memory == SLUICE_MEMORY_ARENA && calls->pieces[i].bytes > bytes)
      bytes = calls->pieces[i].bytes;
  calls->staging = sluice_allocate_aligned(64, (size_t)round_up(bytes));
  calls->page_order = sluice_allocate_array((size_t)calls->extents.memory[SLUICE_SIZE_CACHE_PAGES], sizeof(int32_t));
  return calls->staging && calls->page_order ? NULL : sluice_out_of_memory();
}

static sluice_status *fill_calls(bench_calls *calls, bench_random *random, uint64_t touched_bytes,
                                 uint64_t rotation_bytes) {
  sluice_device *device = calls->model->device;
  uint64_t arena; /* here only to refuse what cannot be added up */
  SLUICE_TRY(sluice_arena_bytes(&calls->model->plan, calls->extents.memory, &arena));
  if (arena > MAX_ARENA)
    return sluice_error(SLUICE_OUT_OF_MEMORY, "the workspace at this shape needs %s",
                        sluice_describe_bytes(arena).text);
  SLUICE_TRY(find_pieces(calls));
  SLUICE_TRY(choose_copies(calls, touched_bytes, rotation_bytes));
  SLUICE_TRY(allocate_staging(calls));
  void *memory = NULL;
  SLUICE_TRY(device->driver->allocate(device, calls->copy_bytes * calls->copies, &memory));
  calls->memory = memory;
  if (bench_runs_as_graph(calls->model, &calls->shape) && calls->model->plan.header->joins.count)
    SLUICE_TRY(sluice_counters_create(device, &calls->counters));
  for (uint32_t copy = 0; copy < calls->copies; copy++)
    for (uint32_t i = 0; i < calls->piece_count; i++) SLUICE_TRY(fill_piece(calls, random, copy, &calls->pieces[i]));
  return resolve_arguments(calls);
}

sluice_status *bench_calls_create(sluice_model *model, const bench_group *group, const bench_shape *shape,
                                  bench_random *random, uint64_t touched_bytes, uint64_t rotation_bytes,
                                  bench_calls *out_calls) {
  bench_calls calls = {.model = model, .group = group, .shape = *shape};
  bench_shape_extents(shape, &model->plan, bench_runs_as_graph(model, shape), &calls.extents);
  calls.layout = sluice_step_layout_of(&model->plan, calls.extents.memory);
  sluice_status *status = fill_calls(&calls, random, touched_bytes, rotation_bytes);
  *out_calls = calls;
  if (status) bench_calls_free(out_calls);
  return status;
}

#define SHARED UINT64_MAX /* offset of a piece that has no memory of its own */

/* The piece of argument `a` of launch `i` where it needs more room than `like` has: a kernel's scratch. */
static sluice_status *find_larger(const bench_calls *calls, uint32_t i, uint32_t a, bench_piece **out_piece) {
  const bench_calls *like = calls->like;
  const sluice_plan_argument *mine = &calls->model->plan.arguments[launch_of(calls, i)->first_argument + a];
  const sluice_plan_argument *theirs = &like->model->plan.arguments[launch_of(like, i)->first_argument + a];
  *out_piece = NULL;
  if (mine->memory != theirs->memory)
    return sluice_error(SLUICE_UNSUPPORTED, "its operands are others than the default's");
  if (mine->memory == SLUICE_MEMORY_NONE || find_piece(calls, mine)->bytes <= find_piece(like, theirs)->bytes)
    return NULL;
  if (mine->memory != SLUICE_MEMORY_ARENA)
    return sluice_error(SLUICE_UNSUPPORTED, "its weights or pages lie otherwise than the default's");
  *out_piece = find_piece(calls, mine);
  return NULL;
}

/* Memory for what is larger; one piece of each serves all copies. */
static sluice_status *allocate_larger(bench_calls *calls) {
  uint64_t bytes = 0;
  bench_piece *piece;
  for (uint32_t i = 0; i < calls->piece_count; i++) calls->pieces[i].offset = SHARED;
  for (uint32_t i = 0; i < calls->group->count; i++)
    for (uint32_t a = 0; a < arguments_of(calls, i); a++) {
      SLUICE_TRY(find_larger(calls, i, a, &piece));
      if (!piece || piece->offset != SHARED) continue;
      piece->offset = bytes;
      bytes += round_up(piece->bytes);
    }
  void *memory = NULL;
  if (bytes) SLUICE_TRY(calls->model->device->driver->allocate(calls->model->device, bytes, &memory));
  calls->memory = memory;
  return NULL;
}

static sluice_status *share_arguments(bench_calls *calls) {
  const size_t count = calls->argument_count;
  bench_piece *piece;
  size_t at = 0;
  for (uint32_t i = 0; i < calls->group->count; i++)
    for (uint32_t a = 0; a < arguments_of(calls, i); a++, at++) {
      SLUICE_TRY(find_larger(calls, i, a, &piece));
      for (uint32_t copy = 0; copy < calls->copies; copy++)
        calls->arguments[copy * count + at] =
            piece ? calls->memory + piece->offset : calls->like->arguments[copy * count + at];
    }
  return NULL;
}

static sluice_status *open_like(bench_calls *calls) {
  const bench_calls *like = calls->like;
  bool same = calls->group->count == like->group->count;
  for (uint32_t i = 0; same && i < calls->group->count; i++)
    same = arguments_of(calls, i) == arguments_of(like, i) &&
           strcmp(sluice_plan_string(&calls->model->plan, launch_of(calls, i)->label),
                  sluice_plan_string(&like->model->plan, launch_of(like, i)->label)) == 0;
  if (!same) return sluice_error(SLUICE_UNSUPPORTED, "its launches are others than the default's");
  SLUICE_TRY(find_pieces(calls));
  calls->copies = like->copies;
  calls->arguments = sluice_allocate_array((size_t)calls->argument_count * calls->copies, sizeof *calls->arguments);
  if (!calls->arguments) return sluice_out_of_memory();
  SLUICE_TRY(allocate_larger(calls));
  return share_arguments(calls);
}

sluice_status *bench_calls_like(sluice_model *model, const bench_group *group, const bench_calls *like,
                                bench_calls *out_calls) {
  *out_calls = (bench_calls){.model = model, .group = group, .shape = like->shape, .like = like};
  bench_shape_extents(&like->shape, &model->plan, bench_runs_as_graph(model, &like->shape), &out_calls->extents);
  out_calls->layout = sluice_step_layout_of(&model->plan, out_calls->extents.memory);
  sluice_status *status = open_like(out_calls);
  if (status) bench_calls_free(out_calls);
  return status;
}

void bench_calls_free(bench_calls *calls) {
  sluice_device *device = calls->model->device;
  device->driver->release(device, calls->memory);
  device->driver->release(device, calls->counters);
  sluice_release(calls->pieces);
  sluice_release(calls->arguments);
  sluice_release(calls->staging);
  sluice_release(calls->page_order);
  *calls = (bench_calls){.model = calls->model};
}
