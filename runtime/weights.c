/* Loads the weights. Of files every matrix is cut into blocks of rows, and the pool's threads read and pack one block
 * each at a time. So the host memory needed next to the weights is one block for each thread, whatever the checkpoint's
 * size. Synthetic weights are made on the device (synthesize.c).
 */
#include "runtime/weights.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define BLOCK_ELEMENTS ((uint64_t)1 << 19) /* of a block, about; at least one panel */

/* ---- Checking a checkpoint on disk before anything is read ---- */

/* Type before shape: a packed weight has both of them other than expected, and its type says why. */
static sluice_status *check_tensor(const tensor_place *place) {
  const sluice_tensor_info *info = place->info;
  if (info->dtype != SLUICE_F32 && info->dtype != SLUICE_BF16 && info->dtype != SLUICE_F16) {
    bool wide = info->dtype == SLUICE_I64 || strcmp(info->dtype_name, "F64") == 0;
    return sluice_error(SLUICE_UNSUPPORTED, "%s: tensor \"%s\" is %s, expected BF16, F16 or F32%s", info->file,
                        info->name, info->dtype_name,
                        wide ? ""
                             : ": the checkpoint is quantised, which sluice does not read; use the model's BF16 "
                               "weights");
  }
  if (info->rank == place->rank && memcmp(info->shape, place->shape, place->rank * sizeof *place->shape) == 0)
    return NULL;
  char found[SLUICE_MAX_RANK * 24] = "", expected[3 * 24] = "";
  size_t used = 0;
  for (unsigned i = 0; i < info->rank; i++)
    used += (size_t)snprintf(found + used, sizeof found - used, "%s%lld", i ? ", " : "", (long long)info->shape[i]);
  used = 0;
  for (unsigned i = 0; i < place->rank; i++)
    used +=
        (size_t)snprintf(expected + used, sizeof expected - used, "%s%lld", i ? ", " : "", (long long)place->shape[i]);
  return sluice_error(SLUICE_INVALID, "%s: tensor \"%s\" has the shape [%s], the model wants [%s]", info->file,
                      info->name, found, expected);
}

/* The index of tensor `name` among the checkpoint's, which are sorted; SIZE_MAX when there is none. */
static size_t find_index(const sluice_checkpoint *checkpoint, const char *name) {
  size_t low = 0, high = sluice_checkpoint_tensor_count(checkpoint);
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = strcmp(sluice_checkpoint_tensor(checkpoint, middle)->name, name);
    if (order == 0) return middle;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return SIZE_MAX;
}

/* Marks in `used` what the plan takes. */
static sluice_status *check_sources(const sluice_plan *plan, const sluice_checkpoint *checkpoint, bool *used) {
  for (uint64_t w = 0; w < plan->header->weights.count; w++) {
    const sluice_plan_weight *weight = &plan->weights[w];
    for (uint32_t expert = 0; expert < weight->batch; expert++)
      for (uint32_t s = 0; s < weight->source_count; s++) {
        const sluice_plan_source *source = &plan->sources[weight->first_source + s];
        tensor_place place;
        SLUICE_TRY(tensor_find(checkpoint, plan, source, expert, weight->batch, &place));
        if (!place.info) return tensor_missing(checkpoint, plan, source, expert);
        SLUICE_TRY(check_tensor(&place));
        used[find_index(checkpoint, place.info->name)] = true;
      }
  }
  return NULL;
}

/* ---- What the plan does not take ---- */

/* Skipped tensors of one sort. */
typedef struct skipped_sort {
  const char *what, *first; /* a name */
  size_t count;
} skipped_sort;

static sluice_status *describe_skipped(const sluice_checkpoint *checkpoint, const skipped_sort *sorts, size_t count,
                                       char **out_line) {
  if (!count) return NULL;
  sluice_text text = {0};
  size_t total = 0;
  for (size_t i = 0; i < count; i++) total += sorts[i].count;
  sluice_text_printf(&text, "%s: %zu tensor%s that the text model does not need %s skipped:",
                     sluice_checkpoint_source(checkpoint), total, total > 1 ? "s" : "", total > 1 ? "are" : "is");
  for (size_t i = 0; i < count; i++) {
    sluice_text_printf(&text, "%s \"%.200s\"", i ? "," : "", sorts[i].first);
    if (sorts[i].count > 1) sluice_text_printf(&text, " and %zu more", sorts[i].count - 1);
    sluice_text_printf(&text, " (%s)", sorts[i].what);
  }
  if (!text.failed) { /* through a status: names from a file may hold what no terminal should see */
    sluice_status *line = sluice_error(SLUICE_INVALID, "%s", text.data);
    *out_line = sluice_copy_string(sluice_status_message(line), strlen(sluice_status_message(line)));
    sluice_status_free(line);
  }
  sluice_text_free(&text);
  return *out_line ? NULL : sluice_out_of_memory();
}

/* A head beside a plan whose head is the embedding must be the embedding. */
static sluice_status *check_head(const sluice_plan *plan, const sluice_checkpoint *checkpoint,
                                 const sluice_tensor_info *head) {
  const sluice_plan_source *embedding = NULL;
  for (uint64_t i = 0; i < plan->header->sources.count; i++)
    if (strcmp(sluice_plan_string(plan, plan->sources[i].name), "language_model.model.embed_tokens.weight") == 0)
      embedding = &plan->sources[i];
  tensor_place place = {0};
  if (embedding) SLUICE_TRY(tensor_find(checkpoint, plan, embedding, 0, 1, &place));
  bool equal = place.info && place.info->rank == head->rank && place.info->dtype == head->dtype &&
               memcmp(place.info->shape, head->shape, head->rank * sizeof *head->shape) == 0;
  float parts[2][4096];
  uint64_t total = equal ? head->bytes / sluice_dtype_size(head->dtype) : 0, count;
  for (uint64_t first = 0; first < total && equal; first += count) {
    count = total - first < 4096 ? total - first : 4096;
    for (int i = 0; i < 2; i++)
      SLUICE_TRY(sluice_checkpoint_read(checkpoint, i ? head->name : place.info->name, head->shape, head->rank, first,
                                        count, SLUICE_F32, false, parts[i]));
    equal = memcmp(parts[0], parts[1], count * sizeof(float)) == 0;
  }
  if (equal) return NULL;
  return sluice_error(SLUICE_INVALID,
                      "%s: tensor \"%s\" differs from the embedding, but the config that was compiled says that they "
                      "are the same: set \"tie_word_embeddings\" to false wherever it is true, and compile again",
                      head->file, head->name);
}

/* Refuses what may be a part of the model that would be left out; the rest becomes one line, NULL when there is none.
 */
static sluice_status *check_rest(const sluice_plan *plan, const sluice_checkpoint *checkpoint, const bool *used,
                                 char **out_line) {
  skipped_sort sorts[8];
  size_t count = 0;
  for (size_t i = 0; i < sluice_checkpoint_tensor_count(checkpoint); i++) {
    if (used[i]) continue;
    const sluice_tensor_info *info = sluice_checkpoint_tensor(checkpoint, i);
    const char *what;
    size_t sort = 0;
    tensor_leftover kind = tensor_classify(info, plan->header->layers, &what);
    if (kind == LEFTOVER_HEAD) SLUICE_TRY(check_head(plan, checkpoint, info));
    switch (kind) {
    case LEFTOVER_OTHER_MODEL:
      break;
    case LEFTOVER_HEAD:
    case LEFTOVER_SKIPPED:
      while (sort < count && strcmp(sorts[sort].what, what) != 0) sort++;
      if (sort == count && count < sizeof sorts / sizeof *sorts) sorts[count++] = (skipped_sort){what, info->name, 0};
      if (sort < count) sorts[sort].count++;
      break;
    case LEFTOVER_QUANTISED:
      return sluice_error(SLUICE_UNSUPPORTED,
                          "%s: tensor \"%s\" is of a quantised checkpoint, which sluice does not read: use the "
                          "model's BF16 weights",
                          info->file, info->name);
    case LEFTOVER_ADAPTER:
      return sluice_error(SLUICE_UNSUPPORTED,
                          "%s: tensor \"%s\" is of an adapter that is not merged: merge it into the weights "
                          "(merge_and_unload) and save the model again",
                          info->file, info->name);
    case LEFTOVER_TEXT:
      return sluice_error(SLUICE_INVALID,
                          "%s: tensor \"%s\" belongs to the text model, but the compiled model has no use for it: "
                          "either another config.json was compiled than this checkpoint's, or it has a part that "
                          "sluice does not know",
                          info->file, info->name);
    }
  }
  return describe_skipped(checkpoint, sorts, count, out_line);
}

static sluice_status *check_checkpoint(const sluice_plan *plan, const sluice_checkpoint *checkpoint,
                                       char **out_skipped) {
  bool *used = sluice_allocate_array(sluice_checkpoint_tensor_count(checkpoint), sizeof *used);
  if (!used) return sluice_out_of_memory();
  sluice_status *status = check_sources(plan, checkpoint, used);
  if (!status) status = check_rest(plan, checkpoint, used, out_skipped);
  sluice_release(used);
  return status;
}

/* ---- Packing ---- */

typedef struct loader {
  sluice_model *model;
  const sluice_checkpoint *checkpoint;
  char *memory;          /* of the weights */
  uint64_t *first_block; /* of each weight; one more entry: the total */
  char **staging;        /* of each thread */
  /* Devices with memory of their own: two page-locked buffers of each thread, so that one is filled while the other is
   * on its way. Host memory is bounded by three buffers a thread, each of BLOCK_ELEMENTS elements or one panel of a
   * weight, whichever is larger. */
  sluice_staging **locked;
  bool *next_locked;   /* of each thread: which of its two comes next */
  uint64_t rows_bytes; /* of a thread's staging: the rows come first, then the packed block */

  pthread_mutex_t lock; /* the fields below */
  sluice_progress *progress;
  void *user;
  uint64_t done;
  sluice_status *status;
  uint64_t status_block; /* the block that `status` came from: the earliest one is reported */
  atomic_bool failed;
} loader;

/* A weight's matrix in units: rows or panels (of both halves, when there are two). */
typedef struct matrix_blocks {
  sluice_packed_size size;
  uint64_t block_units; /* of a block */
  uint64_t blocks;      /* of a matrix */
} matrix_blocks;

static matrix_blocks cut(const sluice_plan_weight *weight) {
  matrix_blocks result;
  (void)sluice_packed_size_of(weight, &result.size); /* checked when the plan was opened */
  result.block_units = BLOCK_ELEMENTS / (result.size.unit_bytes / sluice_format_size(weight->format));
  if (result.block_units > result.size.units) result.block_units = result.size.units;
  if (result.block_units == 0) result.block_units = 1;
  result.blocks = result.size.units ? (result.size.units - 1) / result.block_units + 1 : 1;
  return result;
}

/* Rows [first, first + count) of a source's slice, from the tensor at `place`: at once where the slice has all columns.
 */
static sluice_status *read_slice(const loader *load, const sluice_plan_weight *weight, const sluice_plan_source *source,
                                 const tensor_place *place, uint64_t first, uint64_t count, char *to) {
  const sluice_dtype dtype = (sluice_dtype)weight->format;
  const bool may_round = load->model->plan.header->dtype == SLUICE_BF16;
  const bool whole = source->columns == source->tensor_columns;
  const uint32_t rank = model_rank(load->model);
  const uint64_t first_row = sluice_source_row(source, rank), first_column = sluice_source_column(source, rank);
  const uint64_t elements = whole ? count * source->columns : source->columns, times = whole ? 1 : count;
  for (uint64_t i = 0; i < times; i++) {
    uint64_t at = place->first + (first_row + first + i) * source->tensor_columns + first_column;
    SLUICE_TRY(sluice_checkpoint_read(load->checkpoint, place->info->name, place->shape, place->rank, at, elements,
                                      dtype, may_round, to));
    to += elements * sluice_dtype_size(dtype);
  }
  return NULL;
}

/* Rows [first, first + count) of the stacked sources of one expert. */
static sluice_status *read_rows(const loader *load, const sluice_plan_weight *weight, uint32_t expert, uint64_t first,
                                uint64_t count, char *to) {
  const sluice_plan *plan = &load->model->plan;
  uint64_t row_bytes = weight->columns * sluice_format_size(weight->format);
  uint64_t start = 0; /* of the source at hand */
  for (uint32_t s = 0; s < weight->source_count && count; s++) {
    const sluice_plan_source *source = &plan->sources[weight->first_source + s];
    uint64_t end = start + source->rows;
    if (first < end) {
      uint64_t here = count < end - first ? count : end - first;
      tensor_place place;
      SLUICE_TRY(tensor_find(load->checkpoint, plan, source, expert, weight->batch, &place));
      if (!place.info) return tensor_missing(load->checkpoint, plan, source, expert);
      SLUICE_TRY(read_slice(load, weight, source, &place, first - start, here, to));
      to += here * row_bytes;
      first += here;
      count -= here;
    }
    start = end;
  }
  return NULL;
}

/* Copies `count` groups of `bytes` (a constant where it matters: 4, 8 or 16) of a row to their places in a panel. */
#define COPY_GROUPS(bytes)                                                                                             \
  for (uint64_t g = start; g < end; g++) memcpy(to + (g * panel + r) * (bytes), row + g * (bytes), (bytes))

/* One panel: `rows` <= `panel` rows of `row_bytes`, in groups of `group_bytes` columns. Runs of 64 bytes keep one cache
 * line of each row and the matching lines of the result at hand. */
static void pack_panel(const char *from, uint64_t rows, uint64_t row_bytes, uint64_t panel, uint64_t group_bytes,
                       char *to) {
  uint64_t whole = row_bytes / group_bytes, run = 64 / group_bytes, rest = row_bytes % group_bytes;
  for (uint64_t start = 0; start < whole; start += run) {
    uint64_t end = start + run < whole ? start + run : whole;
    for (uint64_t r = 0; r < rows; r++) {
      const char *row = from + r * row_bytes;
      if (group_bytes == 4)
        COPY_GROUPS(4);
      else if (group_bytes == 8)
        COPY_GROUPS(8);
      else
        COPY_GROUPS(16);
    }
    if (rows < panel)
      for (uint64_t g = start; g < end; g++)
        memset(to + (g * panel + rows) * group_bytes, 0, (size_t)((panel - rows) * group_bytes));
  }
  if (!rest) return;
  memset(to + whole * panel * group_bytes, 0, (size_t)(panel * group_bytes));
  for (uint64_t r = 0; r < rows; r++)
    memcpy(to + (whole * panel + r) * group_bytes, from + r * row_bytes + whole * group_bytes, (size_t)rest);
}
#undef COPY_GROUPS

/* Reads and packs units [first, last) of one matrix to `to`. */
static sluice_status *pack_units(const loader *load, const sluice_plan_weight *weight, const matrix_blocks *blocks,
                                 uint32_t expert, uint64_t first, uint64_t last, char *rows, char *to) {
  if (weight->layout == SLUICE_LAYOUT_ROWS) return read_rows(load, weight, expert, first, last - first, to);
  const sluice_packed_size *size = &blocks->size;
  uint64_t row_bytes = weight->columns * sluice_format_size(weight->format);
  uint64_t panel_bytes = size->unit_bytes / size->halves;
  for (uint32_t half = 0; half < size->halves; half++) {
    uint64_t first_row = first * weight->panel;
    uint64_t last_row = last * weight->panel < size->half_rows ? last * weight->panel : size->half_rows;
    SLUICE_TRY(
        read_rows(load, weight, expert, (uint64_t)half * size->half_rows + first_row, last_row - first_row, rows));
    for (uint64_t unit = first; unit < last; unit++) {
      uint64_t row = unit * weight->panel;
      uint64_t count = last_row - row < weight->panel ? last_row - row : weight->panel;
      const void *from = rows + (row - first_row) * row_bytes;
      void *panel = to + (unit - first) * size->unit_bytes + half * panel_bytes;
      pack_panel(from, count, row_bytes, weight->panel, size->group_bytes, panel);
    }
  }
  return NULL;
}

static uint64_t weight_of_block(const loader *load, uint64_t block) {
  uint64_t low = 0, high = load->model->plan.header->weights.count;
  while (high - low > 1) {
    uint64_t middle = low + (high - low) / 2;
    if (load->first_block[middle] <= block)
      low = middle;
    else
      high = middle;
  }
  return low;
}

static sluice_status *load_block(loader *load, unsigned thread, uint64_t block, uint64_t *out_bytes) {
  sluice_model *model = load->model;
  uint64_t index = weight_of_block(load, block);
  const sluice_plan_weight *weight = &model->plan.weights[index];
  matrix_blocks blocks = cut(weight);
  uint64_t within = block - load->first_block[index];
  uint32_t expert = (uint32_t)(within / blocks.blocks);
  uint64_t first = within % blocks.blocks * blocks.block_units;
  uint64_t last = first + blocks.block_units < blocks.size.units ? first + blocks.block_units : blocks.size.units;

  char *place = load->memory + model->offsets[index] + expert * weight->batch_bytes + first * blocks.size.unit_bytes;
  uint64_t bytes = (last - first) * blocks.size.unit_bytes;
  uint64_t padding = last == blocks.size.units ? weight->batch_bytes - blocks.size.units * blocks.size.unit_bytes : 0;
  char *rows = load->staging[thread];
  const sluice_device_driver *driver = model->device->driver;
  sluice_staging *locked = NULL;
  char *to = place;
  if (!model->device->host_memory) {
    locked = load->locked[2 * thread + load->next_locked[thread]];
    load->next_locked[thread] = !load->next_locked[thread];
    SLUICE_TRY(driver->staging_wait(model->device, locked)); /* what it held has arrived */
    to = locked->memory;
  }
  SLUICE_TRY(pack_units(load, weight, &blocks, expert, first, last, rows, to));
  memset(to + bytes, 0, (size_t)padding);
  *out_bytes = bytes + padding;
  return locked ? driver->staging_send(model->device, locked, 0, place, bytes + padding) : NULL;
}

static void load_blocks(void *user, unsigned thread, int64_t first, int64_t last) {
  loader *load = user;
  for (int64_t block = first; block < last && !atomic_load(&load->failed); block++) {
    uint64_t bytes = 0;
    sluice_status *status = load_block(load, thread, (uint64_t)block, &bytes);
    pthread_mutex_lock(&load->lock);
    if (!status) {
      load->done += bytes;
      const sluice_plan *plan = &load->model->plan;
      if (load->progress)
        load->progress(load->user, load->done, load->model->weight_bytes,
                       sluice_plan_string(plan, plan->weights[weight_of_block(load, (uint64_t)block)].name));
    } else {
      atomic_store(&load->failed, true);
      if (!load->status || (uint64_t)block < load->status_block) {
        sluice_status_free(load->status);
        load->status = status;
        load->status_block = (uint64_t)block;
      } else {
        sluice_status_free(status);
      }
    }
    pthread_mutex_unlock(&load->lock);
  }
}

/* Cuts all weights into blocks and allocates the threads' staging memory. */
static sluice_status *prepare(loader *load) {
  sluice_model *model = load->model;
  uint64_t count = model->plan.header->weights.count, block_bytes = 64;
  unsigned threads = sluice_threads_count(model->device->threads);
  load->first_block = sluice_allocate_array((size_t)count + 1, sizeof *load->first_block);
  load->staging = sluice_allocate_array(threads, sizeof *load->staging);
  if (!load->first_block || !load->staging) return sluice_out_of_memory();
  uint64_t total = 0;
  for (uint64_t i = 0; i < count; i++) {
    load->first_block[i] = total;
    matrix_blocks blocks = cut(&model->plan.weights[i]);
    total += blocks.blocks * model->plan.weights[i].batch;
    /* The padding to 64 bytes belongs to the last block. */
    uint64_t bytes = blocks.block_units * blocks.size.unit_bytes + 64;
    if (bytes > block_bytes) block_bytes = bytes;
  }
  load->first_block[count] = total;
  load->rows_bytes = (block_bytes + 63) / 64 * 64;
  for (unsigned i = 0; i < threads; i++) {
    load->staging[i] = sluice_allocate_aligned(64, (size_t)load->rows_bytes);
    if (!load->staging[i]) return sluice_out_of_memory();
  }
  if (model->device->host_memory) return NULL;
  load->locked = sluice_allocate_array(2 * (size_t)threads, sizeof *load->locked);
  load->next_locked = sluice_allocate_array(threads, sizeof *load->next_locked);
  if (!load->locked || !load->next_locked) return sluice_out_of_memory();
  for (unsigned i = 0; i < 2 * threads; i++)
    SLUICE_TRY(model->device->driver->staging_create(model->device, load->rows_bytes, &load->locked[i]));
  return NULL;
}

static sluice_status *check_room(const sluice_model *model) {
  uint64_t available = model->device->driver->available(model->device);
  if (model->weight_bytes <= available) return NULL;
  return sluice_error(SLUICE_OUT_OF_MEMORY, "the weights need %s, %s has %s free",
                      sluice_describe_bytes(model->weight_bytes).text, model->device->name,
                      sluice_describe_bytes(available).text);
}

static sluice_status *load_files(sluice_model *model, const sluice_checkpoint *checkpoint, char *memory,
                                 sluice_progress *progress, void *user) {
  loader load = {.model = model, .checkpoint = checkpoint, .memory = memory, .progress = progress, .user = user};
  pthread_mutex_init(&load.lock, NULL);
  sluice_device *device = model->device;
  sluice_status *status = prepare(&load);
  if (!status) {
    uint64_t blocks = load.first_block[model->plan.header->weights.count];
    sluice_threads_run(device->threads, (int64_t)blocks, 1, load_blocks, &load);
    status = load.status;
  }
  unsigned threads = sluice_threads_count(device->threads);
  for (unsigned i = 0; load.locked && i < 2 * threads; i++) {
    sluice_status *unsent = load.locked[i] && !status ? device->driver->staging_wait(device, load.locked[i]) : NULL;
    if (unsent) status = unsent;
    device->driver->staging_release(device, load.locked[i]);
  }
  sluice_release(load.locked);
  sluice_release(load.next_locked);
  if (load.staging)
    for (unsigned i = 0; i < threads; i++) sluice_release(load.staging[i]);
  sluice_release(load.staging);
  sluice_release(load.first_block);
  pthread_mutex_destroy(&load.lock);
  return status;
}

sluice_status *sluice_model_load(sluice_model *model, const sluice_checkpoint *checkpoint, sluice_progress *progress,
                                 void *user) {
  if (model->weights) return sluice_error(SLUICE_USAGE, "the model has its weights already");
  bool synthetic = sluice_checkpoint_is_synthetic(checkpoint);
  if (!synthetic) SLUICE_TRY(check_checkpoint(&model->plan, checkpoint, &model->skipped));
  SLUICE_TRY(check_room(model));
  sluice_device *device = model->device;
  void *memory = NULL;
  SLUICE_TRY(device->driver->allocate(device, model->weight_bytes, &memory));
  sluice_status *status = synthetic
                              ? sluice_synthesize(model, sluice_checkpoint_seed(checkpoint), memory, progress, user)
                              : load_files(model, checkpoint, memory, progress, user);
  if (status) {
    device->driver->release(device, memory);
    return status;
  }
  model->weights = memory;
  return NULL;
}
