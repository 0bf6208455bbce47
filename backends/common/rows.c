/* Elementwise work and norms on rows of activations: embed, rms_norm, select_rows, add, swiglu, slice, combine
 * (docs/ir.md). A workgroup makes one row; every element is computed in f32 and rounded once, when it is stored. */
#include "backends/common/families.h"

/* The start of row `row` of a matrix with rows of `width` elements. */
static V row_at(emitter *e, sluice_dtype dtype, V matrix, V row, int64_t width) {
  return element_of(e, dtype, matrix, mul(e, row, int64(e, width)));
}

/* Refuses a row width outside 1 .. 2^31 - 1. */
static bool width_is_valid(emitter *e, const kernel_spec *spec, int64_t width) {
  if (!e->status && (width < 1 || width > INT32_MAX))
    e->status = sluice_error(SLUICE_INTERNAL, "%s: a row of %lld elements: expected 1 to %d", spec->symbol,
                             (long long)width, INT32_MAX);
  return !e->status;
}

/* ---- copies: embed, select_rows, slice ---- */

typedef struct row_copy {
  sluice_dtype from_dtype, to_dtype;
  V from, to;
} row_copy;

static void copy_body(emitter *e, V offset, unsigned vector, void *user) {
  const row_copy *row = user;
  store_f32(e, row->to_dtype, load_f32(e, row->from_dtype, row->from, offset, vector), row->to, offset);
}

void family_embed(emitter *e, const kernel_spec *spec) {
  const int64_t width = kernel_integer(spec, "width", &e->status);
  row_copy row = {.from_dtype = kernel_dtype(spec, "weight_dtype", &e->status),
                  .to_dtype = kernel_dtype(spec, "dtype", &e->status)};
  if (!width_is_valid(e, spec, width)) return;
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS, width));
  V token = load_i32(e, e->argument[0], e->x);
  row.from = row_at(e, row.from_dtype, e->argument[1], token, width);
  row.to = row_at(e, row.to_dtype, e->argument[2], e->x, width);
  row_loop(e, width, copy_body, &row);
  kernel_end(e);
}

void family_select_rows(emitter *e, const kernel_spec *spec) {
  const int64_t width = kernel_integer(spec, "width", &e->status);
  const sluice_dtype dtype = kernel_dtype(spec, "dtype", &e->status);
  row_copy row = {.from_dtype = dtype, .to_dtype = dtype};
  if (!width_is_valid(e, spec, width)) return;
  kernel_begin(e, spec, each(SLUICE_SIZE_ROWS, width));
  V token = load_i32(e, e->argument[1], e->x);
  row.from = row_at(e, dtype, e->argument[0], token, width);
  row.to = row_at(e, dtype, e->argument[2], e->x, width);
  row_loop(e, width, copy_body, &row);
  kernel_end(e);
}

void family_slice(emitter *e, const kernel_spec *spec) {
  const int64_t x_width = kernel_integer(spec, "x_width", &e->status);
  const int64_t width = kernel_integer(spec, "width", &e->status);
  const int64_t offset = kernel_integer(spec, "offset", &e->status);
  const sluice_dtype dtype = kernel_dtype(spec, "dtype", &e->status);
  row_copy row = {.from_dtype = dtype, .to_dtype = dtype};
  e->spec = spec;
  const sluice_size size = attribute_size(e, "size");
  if (!width_is_valid(e, spec, width)) return;
  if (offset < 0 || offset > x_width - width) {
    e->status = sluice_error(SLUICE_INTERNAL, "%s: columns %lld to %lld of %lld", spec->symbol, (long long)offset,
                             (long long)(offset + width), (long long)x_width);
    return;
  }
  kernel_shape shape = each(size, width);
  shape.rows[1] = x_width;
  shape.rows[2] = offset;
  kernel_begin(e, spec, shape);
  row.from = element_of(e, dtype, row_at(e, dtype, e->argument[0], e->x, x_width), int64(e, offset));
  row.to = row_at(e, dtype, e->argument[1], e->x, width);
  row_loop(e, width, copy_body, &row);
  kernel_end(e);
}

/* ---- rms_norm ---- */

typedef struct norm_row {
  sluice_dtype dtype, weight_dtype;
  V x, weight, out;
  V vector_sum, scalar_sum; /* local variables */
  V scale;                  /* 1 / root mean square */
} norm_row;

static void square_body(emitter *e, V offset, unsigned vector, void *user) {
  const norm_row *row = user;
  V x = load_f32(e, row->dtype, row->x, offset, vector);
  V sum = vector > 1 ? row->vector_sum : row->scalar_sum;
  set(e, sum, fma_(e, x, x, get(e, vector_type(e->f32, vector), sum)));
}

static V scaled(emitter *e, const norm_row *row, V x, V weight) {
  return fmul_(e, fmul_(e, x, row->scale), fadd_(e, weight, float32(e, 1)));
}

static void scale_body(emitter *e, V offset, unsigned vector, void *user) {
  const norm_row *row = user;
  V x = load_f32(e, row->dtype, row->x, offset, vector);
  V weight = load_f32(e, row->weight_dtype, row->weight, offset, vector);
  store_f32(e, row->dtype, scaled(e, row, x, weight), row->out, offset);
}

/* 1 / root mean square, from the sums of squares that each lane has. */
static V norm_scale(emitter *e, V vector_sum, V scalar_sum, int64_t width, double eps) {
  V sum = fadd_(e, vector_reduce(e, vector_sum, REDUCE_ADD), scalar_sum);
  sum = e->atoms->reduce(e, sum, REDUCE_ADD);
  return e->atoms->rsqrt(e, fadd_(e, fdiv_(e, sum, float32(e, (double)width)), float32(e, eps)));
}

/* The row stays in the lanes' registers: weights are read while the kernel waits, and all of a lane's elements at once.
 * The same sums, in the same order, as with row_loop. Returns false for rows that do not fit. */
static bool norm_in_registers(emitter *e, norm_row *row, int64_t width, double eps) {
  row_places p;
  if (!find_row_places(e, width, &p)) return false;
  V weight[MOST_ROW_PLACES], x[MOST_ROW_PLACES];
  for (int64_t i = 0; i < p.count; i++) weight[i] = load_f32(e, row->weight_dtype, row->weight, p.offset[i], e->vector);
  await_previous(e);
  V zero = LLVMConstNull(vector_type(e->f32, e->vector)), sum = zero;
  for (int64_t i = 0; i < p.count; i++) x[i] = load_f32(e, row->dtype, row->x, p.offset[i], e->vector);
  for (int64_t i = 0; i < p.count; i++) {
    V own = select_(e, p.inside[i], x[i], zero);
    sum = fma_(e, own, own, sum);
  }
  row->scale = norm_scale(e, sum, float32(e, 0), width, eps);
  for (int64_t i = 0; i < p.count; i++) {
    branch real = if_begin(e, p.inside[i]);
    store_f32(e, row->dtype, scaled(e, row, x[i], weight[i]), row->out, p.offset[i]);
    if_end(e, &real);
  }
  return true;
}

void family_rms_norm(emitter *e, const kernel_spec *spec) {
  const int64_t width = kernel_integer(spec, "width", &e->status);
  const double eps = kernel_float(spec, "eps", &e->status);
  norm_row row = {.dtype = kernel_dtype(spec, "dtype", &e->status),
                  .weight_dtype = kernel_dtype(spec, "weight_dtype", &e->status)};
  e->spec = spec;
  const sluice_size size = attribute_size(e, "size");
  if (!width_is_valid(e, spec, width)) return;
  kernel_shape shape = each(size, width);
  shape.begins_early = true;
  kernel_begin(e, spec, shape);
  row.x = row_at(e, row.dtype, e->argument[0], e->x, width);
  row.weight = e->argument[1];
  row.out = row_at(e, row.dtype, e->argument[2], e->x, width);
  if (!norm_in_registers(e, &row, width, eps)) {
    prefetch_shared(e, e->argument[1], width * (int64_t)sluice_dtype_size(row.weight_dtype));
    await_previous(e);
    T vector = vector_type(e->f32, e->vector);
    row.vector_sum = local_set(e, vector, LLVMConstNull(vector));
    row.scalar_sum = local_set(e, e->f32, float32(e, 0));
    row_loop(e, width, square_body, &row);
    row.scale = norm_scale(e, get(e, vector, row.vector_sum), get(e, e->f32, row.scalar_sum), width, eps);
    row_loop(e, width, scale_body, &row);
  }
  kernel_end(e);
}

/* ---- add, swiglu ---- */

typedef struct pair_row {
  sluice_dtype dtype;
  V a, b, out;
  double alpha, limit;
} pair_row;

static void add_body(emitter *e, V offset, unsigned vector, void *user) {
  const pair_row *row = user;
  V a = load_f32(e, row->dtype, row->a, offset, vector), b = load_f32(e, row->dtype, row->b, offset, vector);
  store_f32(e, row->dtype, fadd_(e, a, b), row->out, offset);
}

static void swiglu_body(emitter *e, V offset, unsigned vector, void *user) {
  const pair_row *row = user;
  V gate = load_f32(e, row->dtype, row->a, offset, vector), up = load_f32(e, row->dtype, row->b, offset, vector);
  store_f32(e, row->dtype, swiglu(e, gate, up, row->alpha, row->limit), row->out, offset);
}

static void pair_kernel(emitter *e, const kernel_spec *spec, pair_row *row, int64_t width, row_body *body) {
  row->dtype = kernel_dtype(spec, "dtype", &e->status);
  e->spec = spec;
  const sluice_size size = attribute_size(e, "size");
  if (!width_is_valid(e, spec, width)) return;
  kernel_begin(e, spec, each(size, width));
  row->a = row_at(e, row->dtype, e->argument[0], e->x, width);
  row->b = row_at(e, row->dtype, e->argument[1], e->x, width);
  row->out = row_at(e, row->dtype, e->argument[2], e->x, width);
  row_loop(e, width, body, row);
  kernel_end(e);
}

void family_add(emitter *e, const kernel_spec *spec) {
  pair_row row = {0};
  pair_kernel(e, spec, &row, kernel_integer(spec, "width", &e->status), add_body);
}

void family_swiglu(emitter *e, const kernel_spec *spec) {
  pair_row row = {.alpha = kernel_float(spec, "alpha", &e->status), .limit = kernel_float(spec, "limit", &e->status)};
  const int64_t width = kernel_integer(spec, "width", &e->status);
  const int64_t slots = kernel_integer(spec, "slots", &e->status);
  if (e->status) return;
  if (width < 1 || slots < 1 || width > INT32_MAX / slots) {
    e->status = sluice_error(SLUICE_INTERNAL, "%s: %lld slots of %lld elements", spec->symbol, (long long)slots,
                             (long long)width);
    return;
  }
  pair_kernel(e, spec, &row, width * slots, swiglu_body);
}

/* ---- combine ---- */

enum { SLOTS_AT_ONCE = 4, MOST_SHARES = 16 };

typedef struct combine_row {
  sluice_dtype dtype;
  int64_t width, k;
  int64_t at_once; /* slots that are read before the first is used; divides k */
  bool shared;     /* y has a row more, which neither weight nor scale change */
  double scale;
  V y, weights, shared_y, residual, out; /* of this token; shared_y: that row, elsewhere; NULL: none */
} combine_row;

static void combine_body(emitter *e, V offset, unsigned vector, void *user) {
  const combine_row *row = user;
  T type = vector_type(e->f32, vector);
  V sum = local_set(e, type, LLVMConstNull(type));
  /* What is added in the end is asked for first: all of it comes at the same time. */
  V added[3] = {NULL, NULL, NULL};
  if (row->shared) added[0] = load_f32(e, SLUICE_F32, row->y, add(e, int64(e, row->k * row->width), offset), vector);
  if (row->shared_y) added[1] = load_f32(e, SLUICE_F32, row->shared_y, offset, vector);
  if (row->residual) added[2] = load_f32(e, row->dtype, row->residual, offset, vector);
  loop slots = loop_begin(e, int64(e, 0), int64(e, row->k), int64(e, row->at_once));
  V weight[SLOTS_AT_ONCE], y[SLOTS_AT_ONCE];
  for (int64_t i = 0; i < row->at_once; i++) {
    V slot = add(e, slots.index, int64(e, i));
    weight[i] = load_f32(e, SLUICE_F32, row->weights, slot, 1);
    y[i] = load_f32(e, SLUICE_F32, row->y, add(e, mul(e, slot, int64(e, row->width)), offset), vector);
  }
  for (int64_t i = 0; i < row->at_once; i++) set(e, sum, fma_(e, y[i], weight[i], get(e, type, sum)));
  loop_end(e, &slots);
  V result = fmul_(e, get(e, type, sum), float32(e, row->scale));
  for (unsigned i = 0; i < 3; i++)
    if (added[i]) result = fadd_(e, result, added[i]);
  store_f32(e, row->dtype, result, row->out, offset);
}

/* Among how many workgroups a row is shared: each has work for all its lanes. */
static int64_t shares_of(const emitter *e, int64_t width) {
  const int64_t lanes = e->facts->lanes, vector = e->facts->vector;
  for (int64_t shares = lanes > 1 ? MOST_SHARES : 1; shares > 1; shares--)
    if (width % (shares * vector) == 0 && width / shares >= lanes * vector) return shares;
  return 1;
}

void family_combine(emitter *e, const kernel_spec *spec) {
  combine_row row = {.dtype = kernel_dtype(spec, "dtype", &e->status),
                     .width = kernel_integer(spec, "width", &e->status),
                     .k = kernel_integer(spec, "k", &e->status),
                     .shared = kernel_integer(spec, "shared", &e->status) != 0,
                     .scale = kernel_float(spec, "scale", &e->status)};
  const bool shared_rows = kernel_integer(spec, "shared_rows", &e->status) != 0;
  if (!width_is_valid(e, spec, row.width)) return;
  if (row.k < 1) {
    e->status = sluice_error(SLUICE_INTERNAL, "%s: %lld experts of a token", spec->symbol, (long long)row.k);
    return;
  }
  row.at_once = row.k % SLOTS_AT_ONCE ? 1 : SLOTS_AT_ONCE;
  const int64_t shares = shares_of(e, row.width), share = row.width / shares;
  kernel_begin(e, spec, each_of(SLUICE_SIZE_TOKENS, shares, row.width));
  V first = mul(e, e->y, int64(e, share)), at = add(e, mul(e, e->x, int64(e, row.width)), first);
  V slot = mul(e, e->x, int64(e, row.k + row.shared));
  row.y = element(e, e->f32, row_at(e, SLUICE_F32, e->argument[0], slot, row.width), first);
  row.weights = row_at(e, SLUICE_F32, e->argument[1], e->x, row.k);
  if (shared_rows) row.shared_y = element(e, e->f32, e->argument[2], at);
  row.out = element_of(e, row.dtype, e->argument[4], at);
  V residual = element_of(e, row.dtype, e->argument[3], at);
  branch present = if_begin(e, icmp(e, LLVMIntNE, e->argument[3], LLVMConstNull(e->pointer)));
  row.residual = residual;
  row_loop(e, share, combine_body, &row);
  if_else(e, &present);
  row.residual = NULL;
  row_loop(e, share, combine_body, &row);
  if_end(e, &present);
  kernel_end(e);
}
