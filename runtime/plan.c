/* Checks a launch plan once, so that the runtime can read it in place without looking again.
 *
 * The bounds below are far above anything a real model needs and small enough that no product of two or three of them
 * leaves 64 bits: a size of a step is below 2^31 (TOKENS_CONTEXT and TOKENS_PAGES, which saturate, below 2^62 when used
 * for memory), so unit bytes are kept below 2^40 and the session checks the products that remain.
 */
#include "sluice/plan.h"
#include "sluice/dtype.h"

#include <string.h>

_Static_assert(sizeof(sluice_sampling_row) == 64, "plan format");
_Static_assert(sizeof(sluice_plan_argument) == 8, "plan format");
_Static_assert(sizeof(sluice_plan_buffer) == 32, "plan format");
_Static_assert(sizeof(sluice_plan_region) == 8, "plan format");
_Static_assert(sizeof(sluice_plan_weight) == 56, "plan format");
_Static_assert(sizeof(sluice_plan_source) == 48, "plan format");
_Static_assert(sizeof(sluice_plan_layer) == 16, "plan format");
_Static_assert(sizeof(sluice_plan_kernel) == 40, "plan format");
_Static_assert(sizeof(sluice_plan_launch) == 16 + 2 * 16 + 16 + 80, "plan format");
_Static_assert(sizeof(sluice_plan_observable) == 16, "plan format");
_Static_assert(sizeof(sluice_plan_join) == 24, "plan format");
_Static_assert(sizeof(sluice_plan_range) == 12, "plan format");
_Static_assert(sizeof(sluice_plan_header) == 48 + 12 * 16, "plan format");

#define MAX_UNIT_BYTES ((uint64_t)1 << 40)
#define MAX_WEIGHT_BYTES ((uint64_t)1 << 46)
#define MAX_DIMENSION ((uint32_t)1 << 28)
#define MAX_PAGE_TOKENS 65536u
#define MAX_ARGUMENTS 64u
#define MAX_WORKGROUP_BYTES ((uint32_t)1 << 30)

static sluice_status *bad(const char *what, uint64_t index) {
  return sluice_error(SLUICE_INVALID, "damaged launch plan: %s (entry %llu); compile the bundle again", what,
                      (unsigned long long)index);
}

static bool string_is_valid(const sluice_plan *plan, uint32_t offset) {
  return offset < plan->header->strings.count; /* the table ends with NUL */
}

static sluice_status *check_table(const void *data, size_t length, sluice_plan_table table, size_t element,
                                  const char *name, const void **out_elements) {
  if (table.offset % 8 != 0 || table.offset < sizeof(sluice_plan_header) || table.offset > length ||
      table.count > UINT32_MAX || table.count > (length - table.offset) / element)
    return sluice_error(SLUICE_INVALID,
                        "damaged launch plan: the table of %s (%llu elements at %llu) does not fit into %zu bytes; "
                        "compile the bundle again",
                        name, (unsigned long long)table.count, (unsigned long long)table.offset, length);
  *out_elements = (const char *)data + table.offset;
  return NULL;
}

static sluice_status *check_header(const sluice_plan_header *header) {
  if (header->dtype != SLUICE_F32 && header->dtype != SLUICE_BF16) return bad("unknown activation type", header->dtype);
  if (header->weight_dtype != SLUICE_F32 && header->weight_dtype != SLUICE_BF16)
    return bad("unknown weight type", header->weight_dtype);
  if (header->ranks < 1 || header->ranks > SLUICE_PLAN_RANKS) return bad("the number of ranks", header->ranks);
  if (header->hidden == 0 || header->hidden > MAX_DIMENSION) return bad("hidden size out of range", header->hidden);
  if (header->vocabulary == 0 || header->vocabulary > MAX_DIMENSION)
    return bad("vocabulary out of range", header->vocabulary);
  if (header->layers > MAX_DIMENSION) return bad("layer count out of range", header->layers);
  if (header->page_tokens == 0 || header->page_tokens > MAX_PAGE_TOKENS)
    return bad("page tokens out of range", header->page_tokens);
  if (header->query_tile == 0 || header->query_tile > MAX_PAGE_TOKENS)
    return bad("query tile out of range", header->query_tile);
  if (header->max_context == 0 || header->max_context > (uint32_t)INT32_MAX - MAX_PAGE_TOKENS)
    return bad("longest context out of range", header->max_context);
  if (header->experts > MAX_DIMENSION || header->experts_per_token > header->experts)
    return bad("expert counts out of range", header->experts);
  return NULL;
}

static sluice_status *check_buffers(const sluice_plan *plan) {
  for (uint32_t i = 0; i < SLUICE_SIZE_COUNT; i++)
    if (plan->regions[i].unit_bytes % SLUICE_ARENA_ALIGNMENT != 0 || plan->regions[i].unit_bytes > MAX_UNIT_BYTES ||
        (i > SLUICE_SIZE_TOKENS_PAGES && plan->regions[i].unit_bytes))
      return bad("an arena region has an impossible size", i);
  for (uint64_t i = 0; i < plan->header->buffers.count; i++) {
    const sluice_plan_buffer *buffer = &plan->buffers[i];
    if (!string_is_valid(plan, buffer->name)) return bad("a buffer's name lies outside the strings", i);
    if (buffer->size >= SLUICE_SIZE_COUNT) return bad("a buffer has an unknown size", i);
    uint64_t region = plan->regions[buffer->size].unit_bytes;
    if (buffer->unit_offset % SLUICE_ARENA_ALIGNMENT != 0 || buffer->unit_bytes % SLUICE_ARENA_ALIGNMENT != 0 ||
        buffer->unit_offset > region || buffer->unit_bytes > region - buffer->unit_offset)
      return bad("a buffer lies outside its arena region", i);
    size_t element = sluice_dtype_size((sluice_dtype)buffer->dtype);
    if (element == 0 || buffer->width == 0 || (uint64_t)buffer->width * element > buffer->unit_bytes)
      return bad("a buffer's elements do not fit into its bytes", i);
  }
  return NULL;
}

static sluice_status *check_weight(const sluice_plan *plan, uint64_t index) {
  const sluice_plan_weight *weight = &plan->weights[index];
  if (!string_is_valid(plan, weight->name)) return bad("a weight's name lies outside the strings", index);
  sluice_packed_size size;
  const char *wrong = sluice_packed_size_of(weight, &size);
  if (wrong) return bad(wrong, index);
  if (weight->batch == 0 || weight->batch > MAX_DIMENSION) return bad("a weight's extents are out of range", index);
  if (weight->source_count == 0 || weight->first_source > plan->header->sources.count ||
      weight->source_count > plan->header->sources.count - weight->first_source)
    return bad("a weight's sources lie outside their table", index);
  uint64_t rows = 0;
  for (uint32_t i = 0; i < weight->source_count; i++) {
    const sluice_plan_source *source = &plan->sources[weight->first_source + i];
    if (source->role != SLUICE_ROLE_VALUES)
      return bad("a weight of a plain format has a source that is no values", index);
    if (source->columns != weight->columns) return bad("a weight's sources differ in their columns", index);
    rows += source->rows;
  }
  if (rows != weight->rows) return bad("a weight's sources do not add up to its rows", index);
  if (size.matrix_bytes > MAX_WEIGHT_BYTES || weight->batch_bytes != size.batch_bytes)
    return bad("a weight's bytes do not match its extents", index);
  if (weight->batch > MAX_WEIGHT_BYTES / weight->batch_bytes || weight->bytes != weight->batch * weight->batch_bytes)
    return bad("a weight's total bytes do not match", index);
  return NULL;
}

/* Whether `count` from `first` on are within [0, all). */
static bool is_slice(uint32_t first, uint32_t count, uint32_t all) {
  return count > 0 && count <= all && first <= all - count;
}

/* The slices of all ranks: those of the last one lie furthest on. */
static sluice_status *check_slices(const sluice_plan *plan, const sluice_plan_source *source, uint64_t index) {
  const uint64_t last = plan->header->ranks - 1;
  if (source->share < 1 || source->row_step > source->tensor_rows || source->column_step > source->tensor_columns)
    return bad("a checkpoint tensor's slices are out of range", index);
  const uint64_t row = source->first_row + last / source->share * source->row_step;
  const uint64_t column = source->first_column + last / source->share * source->column_step;
  if (row > MAX_DIMENSION || !is_slice((uint32_t)row, source->rows, source->tensor_rows) || column > MAX_DIMENSION ||
      !is_slice((uint32_t)column, source->columns, source->tensor_columns))
    return bad("a slice lies outside its checkpoint tensor's shape", index);
  return NULL;
}

static sluice_status *check_weights(const sluice_plan *plan) {
  for (uint64_t i = 0; i < plan->header->sources.count; i++) {
    const sluice_plan_source *source = &plan->sources[i];
    if (!string_is_valid(plan, source->name) || !plan->strings[source->name])
      return bad("a checkpoint tensor has no name", i);
    if (!sluice_role_name(source->role)) return bad("a checkpoint tensor has an unknown role", i);
    if (source->rank < 1 || source->rank > 2 || source->tensor_rows > MAX_DIMENSION ||
        source->tensor_columns > MAX_DIMENSION || (source->rank == 1 && source->tensor_rows != 1))
      return bad("a checkpoint tensor's shape is out of range", i);
    SLUICE_TRY(check_slices(plan, source, i));
  }
  uint64_t total = 0;
  for (uint64_t i = 0; i < plan->header->weights.count; i++) {
    SLUICE_TRY(check_weight(plan, i));
    total += plan->weights[i].bytes; /* each below 2^46; stop long before the sum can wrap */
    if (total > (uint64_t)1 << 60) return bad("the weights' total is out of range", i);
  }
  return NULL;
}

static sluice_status *check_kernels(const sluice_plan *plan) {
  for (uint64_t i = 0; i < plan->header->kernels.count; i++) {
    const sluice_plan_kernel *kernel = &plan->kernels[i];
    if (!string_is_valid(plan, kernel->name) || !plan->strings[kernel->name] ||
        !string_is_valid(plan, kernel->family) || !string_is_valid(plan, kernel->attributes))
      return bad("a kernel's strings lie outside their table", i);
    if (kernel->argument_count > MAX_ARGUMENTS || kernel->workgroup_bytes > MAX_WORKGROUP_BYTES)
      return bad("a kernel's argument count or workgroup memory is out of range", i);
    if (kernel->cache_first > 1) return bad("a kernel's preference for its cache is neither 0 nor 1", i);
  }
  return NULL;
}

/* Ranges of a launch or a join: each of another size, in order. */
static bool ranges_are_valid(const sluice_plan *plan, uint32_t first, uint32_t count) {
  if (first > plan->header->ranges.count || count > plan->header->ranges.count - first) return false;
  for (uint32_t i = first; i < first + count; i++) {
    const sluice_plan_range *range = &plan->ranges[i];
    if (range->size >= SLUICE_SIZE_COUNT || range->from > range->to) return false;
    if (i > first && range->size <= range[-1].size) return false;
  }
  return true;
}

/* A collective's first two arguments are what a rank has and what all have, rows of the same sort. */
static sluice_status *check_collective(const sluice_plan *plan, const sluice_plan_launch *launch, uint64_t index) {
  if (launch->collective > 1 || launch->reserved) return bad("a launch's collective is unknown", index);
  if (!launch->collective) return NULL;
  const sluice_plan_argument *argument = plan->arguments + launch->first_argument;
  if (plan->kernels[launch->kernel].argument_count < 2 || argument[0].memory != SLUICE_MEMORY_ARENA ||
      argument[1].memory != SLUICE_MEMORY_ARENA)
    return bad("a collective's arguments are not two buffers", index);
  const sluice_plan_buffer *own = &plan->buffers[argument[0].index], *all = &plan->buffers[argument[1].index];
  if (own->dtype != all->dtype || own->size != all->size || (uint64_t)own->width * plan->header->ranks != all->width)
    return bad("a collective's buffers do not fit each other", index);
  return NULL;
}

static sluice_status *check_launches(const sluice_plan *plan) {
  const sluice_plan_header *header = plan->header;
  for (uint64_t i = 0; i < header->arguments.count; i++) {
    const sluice_plan_argument *argument = &plan->arguments[i];
    uint64_t limit = 0;
    switch ((sluice_memory)argument->memory) {
    case SLUICE_MEMORY_NONE:
      limit = 1;
      break;
    case SLUICE_MEMORY_ARENA:
      limit = header->buffers.count;
      break;
    case SLUICE_MEMORY_WEIGHT:
      limit = header->weights.count;
      break;
    case SLUICE_MEMORY_INPUT:
      limit = SLUICE_INPUT_COUNT;
      break;
    case SLUICE_MEMORY_OUTPUT:
      limit = SLUICE_OUTPUT_COUNT;
      break;
    case SLUICE_MEMORY_CACHE:
      limit = header->layers;
      break;
    }
    if (argument->index >= limit) return bad("a kernel argument refers to memory that does not exist", i);
  }
  for (uint64_t i = 0; i < header->launches.count; i++) {
    const sluice_plan_launch *launch = &plan->launches[i];
    if (launch->kernel >= header->kernels.count) return bad("a launch has no kernel", i);
    uint32_t arguments = plan->kernels[launch->kernel].argument_count;
    if (launch->first_argument > header->arguments.count ||
        arguments > header->arguments.count - launch->first_argument)
      return bad("a launch's arguments lie outside their table", i);
    if (!ranges_are_valid(plan, launch->first_range, launch->range_count))
      return bad("a launch's ranges of steps are empty or out of order", i);
    if (!string_is_valid(plan, launch->label) || (launch->layer != UINT32_MAX && launch->layer >= header->layers))
      return bad("a launch's label or layer is out of range", i);
    SLUICE_TRY(check_collective(plan, launch, i));
    for (int d = 0; d < 2; d++) {
      const sluice_plan_extent *extent = &launch->grid[d];
      if (extent->size >= SLUICE_SIZE_COUNT || extent->divisor == 0 || extent->factor == 0 ||
          extent->factor > MAX_DIMENSION || extent->most > MAX_DIMENSION)
        return bad("a launch's grid is out of range", i);
    }
  }
  return NULL;
}

static sluice_status *check_joins(const sluice_plan *plan) {
  const sluice_plan_header *header = plan->header;
  for (uint64_t i = 0; i < header->joins.count; i++) {
    const sluice_plan_join *join = &plan->joins[i];
    if (join->kernel >= header->kernels.count) return bad("a join has no kernel", i);
    if (join->first_launch > header->launches.count || join->launch_count > header->launches.count - join->first_launch)
      return bad("a join's launches lie outside their table", i);
    if (i && join->first_launch < join[-1].first_launch) return bad("joins are out of order", i);
    if (!ranges_are_valid(plan, join->first_range, join->range_count) || join->reserved)
      return bad("a join's ranges of steps are empty or out of order", i);
    uint32_t parts = 0, arguments = 1;
    for (uint32_t l = 0; l < join->launch_count; l++) {
      const sluice_plan_launch *launch = &plan->launches[join->first_launch + l];
      bool runs;
      if (!sluice_ranges_agree(plan->ranges + join->first_range, join->range_count, plan->ranges + launch->first_range,
                               launch->range_count, &runs))
        return bad("only some steps of a join run one of its launches", i);
      if (!runs) continue;
      if (++parts > SLUICE_JOIN_PARTS) break;
      arguments += plan->kernels[launch->kernel].argument_count; /* each at most MAX_ARGUMENTS */
    }
    if (parts < 2 || parts > SLUICE_JOIN_PARTS) return bad("a join's number of parts is out of range", i);
    if (arguments > SLUICE_JOIN_ARGUMENTS || arguments != plan->kernels[join->kernel].argument_count)
      return bad("a join's arguments are not those of its parts", i);
  }
  return NULL;
}

const sluice_plan_join *sluice_plan_find_join(const sluice_plan *plan, uint32_t launch,
                                              const int32_t sizes[SLUICE_SIZE_COUNT]) {
  uint64_t low = 0, high = plan->header->joins.count;
  while (low < high) {
    uint64_t middle = low + (high - low) / 2;
    if (plan->joins[middle].first_launch < launch)
      low = middle + 1;
    else
      high = middle;
  }
  for (; low < plan->header->joins.count && plan->joins[low].first_launch == launch; low++)
    if (sluice_ranges_hold(plan->ranges + plan->joins[low].first_range, plan->joins[low].range_count, sizes))
      return &plan->joins[low];
  return NULL;
}

uint32_t sluice_plan_count_launches(const sluice_plan *plan, const int32_t sizes[SLUICE_SIZE_COUNT], bool joined) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < plan->header->launches.count;) {
    const sluice_plan_join *join = joined ? sluice_plan_find_join(plan, i, sizes) : NULL;
    count += join || sluice_plan_runs(plan, &plan->launches[i], sizes);
    i += join ? join->launch_count : 1;
  }
  return count;
}

static sluice_status *check_rest(const sluice_plan *plan) {
  const sluice_plan_header *header = plan->header;
  if (header->cache.count != header->layers) return bad("the cache table needs one entry for each layer", 0);
  uint64_t page = 0;
  for (uint32_t i = 0; i < header->layers; i++) {
    if (plan->cache[i].page_bytes % 64 != 0 || plan->cache[i].page_bytes > MAX_UNIT_BYTES ||
        plan->cache[i].has_index > 1 || plan->cache[i].reserved)
      return bad("a layer's cache page is out of range", i);
    page += plan->cache[i].page_bytes;
    if (page > MAX_UNIT_BYTES) return bad("the cache pages' total is out of range", i);
  }
  for (uint64_t i = 0; i < header->observables.count; i++) {
    const sluice_plan_observable *observable = &plan->observables[i];
    if (!string_is_valid(plan, observable->name) || !plan->strings[observable->name] ||
        observable->launch >= header->launches.count || observable->buffer >= header->buffers.count)
      return bad("an observable refers to something that does not exist", i);
    if (i && observable->launch < plan->observables[i - 1].launch) return bad("observables are out of order", i);
    const sluice_plan_buffer *buffer = &plan->buffers[observable->buffer];
    if (buffer->size != SLUICE_SIZE_TOKENS || observable->dimension == 0 || buffer->width % observable->dimension != 0)
      return bad("an observable's buffer has no row for each token", i);
  }
  return NULL;
}

/* Where the plan's tables are; all of each lies within the data. */
static sluice_status *find_tables(const void *data, size_t length, sluice_plan *plan) {
  const sluice_plan_header *header = plan->header;
  const struct {
    sluice_plan_table table;
    size_t element;
    const char *name;
  } tables[] = {
      {header->strings, 1, "strings"},
      {header->buffers, sizeof *plan->buffers, "buffers"},
      {header->regions, sizeof *plan->regions, "regions"},
      {header->weights, sizeof *plan->weights, "weights"},
      {header->sources, sizeof *plan->sources, "sources"},
      {header->cache, sizeof *plan->cache, "cache layers"},
      {header->kernels, sizeof *plan->kernels, "kernels"},
      {header->launches, sizeof *plan->launches, "launches"},
      {header->arguments, sizeof *plan->arguments, "arguments"},
      {header->observables, sizeof *plan->observables, "observables"},
      {header->joins, sizeof *plan->joins, "joins"},
      {header->ranges, sizeof *plan->ranges, "ranges"},
  };
  const void *elements[sizeof tables / sizeof tables[0]];
  for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
    SLUICE_TRY(check_table(data, length, tables[i].table, tables[i].element, tables[i].name, &elements[i]));
  plan->strings = elements[0];
  plan->buffers = elements[1];
  plan->regions = elements[2];
  plan->weights = elements[3];
  plan->sources = elements[4];
  plan->cache = elements[5];
  plan->kernels = elements[6];
  plan->launches = elements[7];
  plan->arguments = elements[8];
  plan->observables = elements[9];
  plan->joins = elements[10];
  plan->ranges = elements[11];
  return NULL;
}

sluice_status *sluice_plan_open(const void *data, size_t length, sluice_plan *out_plan) {
  memset(out_plan, 0, sizeof *out_plan);
  sluice_plan plan = {0};
  if ((uintptr_t)data % 8 != 0)
    return sluice_error(SLUICE_INVALID, "a launch plan must lie at a multiple of 8 bytes in memory");
  if (length < sizeof *plan.header)
    return sluice_error(SLUICE_INVALID, "damaged launch plan: %zu bytes, the header alone has %zu", length,
                        sizeof *plan.header);
  const sluice_plan_header *header = data;
  plan.header = header;
  if (header->version != SLUICE_PLAN_VERSION)
    return sluice_error(SLUICE_UNSUPPORTED,
                        "launch plan version %u, this program reads version %u: compile the bundle again",
                        header->version, SLUICE_PLAN_VERSION);
  SLUICE_TRY(check_header(header));

  SLUICE_TRY(find_tables(data, length, &plan));
  if (header->strings.count == 0 || plan.strings[0] || plan.strings[header->strings.count - 1])
    return sluice_error(SLUICE_INVALID, "damaged launch plan: the strings must start and end with a terminator");
  if (header->regions.count != SLUICE_SIZE_COUNT) return bad("there must be one arena region for each size", 0);

  SLUICE_TRY(check_buffers(&plan));
  SLUICE_TRY(check_weights(&plan));
  SLUICE_TRY(check_kernels(&plan));
  SLUICE_TRY(check_launches(&plan));
  SLUICE_TRY(check_joins(&plan));
  SLUICE_TRY(check_rest(&plan));
  *out_plan = plan;
  return NULL;
}
