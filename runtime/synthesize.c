/* Synthetic weights, made on the device: the host only describes pieces (struct sluice_synthetic_piece), which the
 * plan's kernel "synthesize" turns into weights where they will lie. Pieces go to the device a batch at a time, so the
 * memory needed next to the weights is that of one batch on either side.
 */
#include "runtime/synthetic.h"
#include "runtime/weights.h"
#include "sluice/memory.h"

#include <string.h>

enum {
  PIECE_UNITS = 16384, /* of a piece, at most, but for one group of columns of a panel: 256 KiB of whole units */
  BATCH_PIECES = 4096  /* a launch: about 1 GB, enough to fill any device many times over */
};

typedef struct batch { /* as it lies in device memory */
  int32_t sizes[SLUICE_SIZE_COUNT];
  sluice_synthetic_piece pieces[BATCH_PIECES];
} batch;

typedef struct synthesis {
  sluice_model *model;
  uint64_t seed;
  uint32_t kernel;
  char *memory;   /* of the weights */
  void *device;   /* the batch on the device */
  batch *pending; /* pieces that are described and not made yet */
  uint32_t count;
  uint64_t done; /* bytes, with those of `pending` */
  sluice_progress *progress;
  void *user;
} synthesis;

static sluice_status *find_kernel(const sluice_plan *plan, uint32_t *out_kernel) {
  for (uint32_t i = 0; i < plan->header->kernels.count; i++)
    if (strcmp(sluice_plan_string(plan, plan->kernels[i].family), "synthesize") == 0 &&
        plan->kernels[i].argument_count == 2) {
      *out_kernel = i;
      return NULL;
    }
  return sluice_error(SLUICE_UNSUPPORTED, "the bundle has no kernel that makes synthetic weights: compile it again");
}

/* ---- Pieces ---- */

/* Makes what is pending; `weight` is the one at hand. */
static sluice_status *make_pending(synthesis *s, const sluice_plan_weight *weight) {
  if (s->count == 0) return NULL;
  sluice_device *device = s->model->device;
  const sluice_device_driver *driver = device->driver;
  s->pending->sizes[SLUICE_SIZE_ONE] = 1;
  s->pending->sizes[SLUICE_SIZE_TOKENS] = (int32_t)s->count;
  SLUICE_TRY(driver->copy_in(device, s->device, s->pending,
                             offsetof(batch, pieces) + s->count * sizeof(sluice_synthetic_piece)));
  void *arguments[] = {(char *)s->device + offsetof(batch, pieces), s->memory};
  SLUICE_TRY(
      driver->launch(device, s->model->code, s->kernel, arguments, 2, s->device, (const uint64_t[]){s->count, 1}));
  SLUICE_TRY(driver->synchronize(device));
  s->count = 0;
  const sluice_plan *plan = &s->model->plan;
  if (s->progress) s->progress(s->user, s->done, s->model->weight_bytes, sluice_plan_string(plan, weight->name));
  return NULL;
}

static sluice_status *add_piece(synthesis *s, const sluice_plan_weight *weight, const sluice_synthetic_piece *piece) {
  if (s->count == BATCH_PIECES) SLUICE_TRY(make_pending(s, weight));
  s->pending->pieces[s->count++] = *piece;
  s->done += (uint64_t)piece->units * piece->unit * sluice_format_size(weight->format);
  return NULL;
}

/* The largest unit of at most 16 bytes that divides both numbers of elements. */
static uint32_t unit_for(const sluice_plan_weight *weight, uint64_t start, uint64_t count) {
  uint32_t unit = weight->format == SLUICE_FORMAT_BF16 ? 8 : 4;
  while (start % unit || count % unit) unit /= 2;
  return unit;
}

/* `count` elements that lie one after another, from element `start` of the matrix at byte `to` on. `piece` knows the
 * tensor; first and rows are those of the first element. */
static sluice_status *add_run(synthesis *s, const sluice_plan_weight *weight, sluice_synthetic_piece piece, uint64_t to,
                              uint64_t start, uint64_t count) {
  uint64_t element = sluice_format_size(weight->format);
  piece.unit = piece.group = unit_for(weight, start, count);
  piece.row_units = piece.panel = 1;
  piece.group_bytes = (uint32_t)(piece.unit * element);
  for (uint64_t at = 0; at < count; at += piece.columns, piece.first += piece.columns) {
    uint64_t most = (uint64_t)PIECE_UNITS * piece.unit;
    piece.columns = (uint32_t)(count - at < most ? count - at : most);
    piece.units = piece.groups = piece.columns / piece.unit;
    piece.to = to + (start + at) * element;
    SLUICE_TRY(add_piece(s, weight, &piece));
  }
  return NULL;
}

/* How panels of one half of a matrix lie. */
typedef struct panels {
  uint64_t to;                       /* first panel of the half, bytes from the start of the weights */
  uint64_t stride, group_bytes;      /* from a panel of the half to the next; of a group of columns of all its rows */
  uint32_t rows, padded_rows;        /* of the half */
  uint32_t groups, panel, unit_rows; /* groups of columns of a panel; rows of a panel; rows of a unit */
} panels;

/* Rows [first, last) of the half, which are whole panels or lie in one. `piece.first` is the index of row `first`'s
 * first element, `piece.rows` the number of rows from there on that are not padding. */
static sluice_status *add_rows(synthesis *s, const sluice_plan_weight *weight, const panels *p,
                               sluice_synthetic_piece piece, uint32_t first, uint32_t last) {
  uint32_t of_panel = last - first < p->panel ? last - first : p->panel, panel_count = (last - first) / of_panel;
  uint64_t element = sluice_format_size(weight->format), row_group_bytes = weight->group * element;
  uint64_t to = p->to + first / p->panel * p->stride + first % p->panel * row_group_bytes, start = piece.first;
  uint32_t rows = piece.rows;
  piece.unit = p->unit_rows * weight->group;
  piece.group = weight->group;
  piece.row_units = of_panel / p->unit_rows;
  piece.panel = p->panel;
  piece.panel_bytes = p->stride;
  piece.group_bytes = (uint32_t)p->group_bytes;
  uint32_t most_groups = PIECE_UNITS / piece.row_units, most_panels = 1;
  if (most_groups == 0) most_groups = 1;
  if (most_groups >= p->groups) {
    most_panels = most_groups / p->groups;
    most_groups = p->groups;
  }
  for (uint32_t at = 0, count; at < panel_count; at += count) {
    count = panel_count - at < most_panels ? panel_count - at : most_panels;
    for (uint32_t group = 0; group < p->groups; group += piece.groups) {
      piece.groups = p->groups - group < most_groups ? p->groups - group : most_groups;
      piece.units = count * piece.groups * piece.row_units;
      piece.to = to + at * p->stride + group * p->group_bytes;
      uint64_t row = (uint64_t)at * p->panel;
      piece.first = start + row * piece.row_elements + (uint64_t)group * weight->group;
      piece.rows = (uint32_t)(rows - row);
      piece.columns = weight->columns - group * weight->group;
      SLUICE_TRY(add_piece(s, weight, &piece));
    }
  }
  return NULL;
}

/* Rows [first, last) of the half, of one tensor, cut where whole panels begin and end. The half's last tensor also
 * makes the rows up to the end of the last panel. */
static sluice_status *add_panels(synthesis *s, const sluice_plan_weight *weight, panels p, sluice_synthetic_piece piece,
                                 uint32_t first, uint32_t last) {
  uint32_t end = last == p.rows ? p.padded_rows : last;
  p.unit_rows = (weight->format == SLUICE_FORMAT_BF16 ? 8 : 4) / weight->group;
  while (first % p.unit_rows || end % p.unit_rows || p.panel % p.unit_rows) p.unit_rows /= 2;
  for (uint32_t at = first, next; at < end; at = next) {
    next = (at / p.panel + 1) * p.panel;
    if (at % p.panel == 0 && end / p.panel > at / p.panel) next = end / p.panel * p.panel;
    if (next > end) next = end;
    sluice_synthetic_piece part = piece;
    part.first += (uint64_t)(at - first) * piece.row_elements;
    part.rows = last - at;
    SLUICE_TRY(add_rows(s, weight, &p, part, at, next));
  }
  return NULL;
}

/* ---- Weights ---- */

/* A source's slice as rows that lie one after another, from row `start` of the matrix at byte `to` on. */
static sluice_status *add_row_runs(synthesis *s, const sluice_plan_weight *weight, const sluice_plan_source *source,
                                   sluice_synthetic_piece piece, uint64_t to, uint64_t start) {
  const bool whole = source->columns == source->tensor_columns;
  const uint64_t elements = whole ? (uint64_t)source->rows * source->columns : source->columns;
  for (uint64_t row = 0; row < (whole ? 1 : source->rows); row++) {
    sluice_synthetic_piece run = piece;
    run.first += row * source->tensor_columns;
    SLUICE_TRY(add_run(s, weight, run, to, (start + row) * weight->columns, elements));
  }
  return NULL;
}

/* One matrix at byte `to`. */
static sluice_status *add_matrix(synthesis *s, const sluice_plan_weight *weight, uint32_t expert, uint64_t to) {
  const sluice_plan *plan = &s->model->plan;
  const uint32_t rank = model_rank(s->model);
  bool rows_as_they_are = weight->layout == SLUICE_LAYOUT_ROWS;
  sluice_packed_size size;
  (void)sluice_packed_size_of(weight, &size); /* checked when the plan was opened */
  const uint32_t halves = size.halves, half_rows = size.half_rows;
  const uint64_t element = sluice_format_size(weight->format);
  const panels p_of_half = {.rows = half_rows,
                            .panel = weight->panel,
                            .padded_rows = (uint32_t)size.units * size.unit_rows,
                            .groups = (weight->columns + weight->group - 1) / weight->group,
                            .group_bytes = (uint64_t)weight->panel * size.group_bytes,
                            .stride = size.unit_bytes};
  uint64_t start = 0; /* row of the matrix where the source begins */
  for (uint32_t i = 0; i < weight->source_count; i++) {
    const sluice_plan_source *source = &plan->sources[weight->first_source + i];
    char name[SLUICE_MAX_TENSOR_NAME];
    SLUICE_TRY(sluice_source_name(plan, source, expert, name));
    sluice_synthetic_piece piece = {.base = sluice_synthetic_base(name, s->seed),
                                    .row_elements = source->tensor_columns,
                                    .rows = 1,
                                    .dtype = weight->format,
                                    .factor = sluice_synthetic_factor(name, source->tensor_columns)};
    const uint64_t corner =
        (uint64_t)sluice_source_row(source, rank) * source->tensor_columns + sluice_source_column(source, rank);
    piece.first = corner;
    if (rows_as_they_are) SLUICE_TRY(add_row_runs(s, weight, source, piece, to, start));
    uint64_t end = start + source->rows;
    for (uint32_t half = 0; half < halves && !rows_as_they_are; half++) { /* the rows that are in this half */
      uint64_t half_start = (uint64_t)half * half_rows, half_end = half_start + half_rows;
      uint64_t first = start > half_start ? start : half_start, last = end < half_end ? end : half_end;
      if (first >= last) continue;
      panels p = p_of_half;
      piece.first = corner + (first - start) * source->tensor_columns;
      p.to = to + half * (p.stride / halves);
      SLUICE_TRY(add_panels(s, weight, p, piece, (uint32_t)(first - half_start), (uint32_t)(last - half_start)));
    }
    start = end;
  }
  if (size.matrix_bytes == size.batch_bytes) return NULL; /* no padding behind it */
  sluice_synthetic_piece padding = {.dtype = weight->format};
  return add_run(s, weight, padding, to, size.matrix_bytes / element, (size.batch_bytes - size.matrix_bytes) / element);
}

static sluice_status *add_weights(synthesis *s) {
  const sluice_plan *plan = &s->model->plan;
  uint64_t count = plan->header->weights.count;
  for (uint64_t i = 0; i < count; i++) {
    const sluice_plan_weight *weight = &plan->weights[i];
    for (uint32_t expert = 0; expert < weight->batch; expert++)
      SLUICE_TRY(add_matrix(s, weight, expert, s->model->offsets[i] + expert * weight->batch_bytes));
  }
  return count ? make_pending(s, &plan->weights[count - 1]) : NULL;
}

sluice_status *sluice_synthesize(sluice_model *model, uint64_t seed, char *memory, sluice_progress *progress,
                                 void *user) {
  synthesis s = {.model = model, .seed = seed, .memory = memory, .progress = progress, .user = user};
  SLUICE_TRY(find_kernel(&model->plan, &s.kernel));
  s.pending = sluice_allocate(sizeof *s.pending);
  if (!s.pending) return sluice_out_of_memory();
  sluice_device *device = model->device;
  sluice_status *status = device->driver->allocate(device, sizeof *s.pending, &s.device);
  if (!status) status = sluice_annotate(add_weights(&s), "making synthetic weights");
  device->driver->release(device, s.device);
  sluice_release(s.pending);
  return status;
}
