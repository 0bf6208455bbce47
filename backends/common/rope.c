/* Norm and rotary position embedding of attention heads, and appending to the paged cache: the families head_norm,
 * rope_table, rope, cache_append and norm_rope_append (docs/ir.md). One workgroup is one token, or one head of it. */
#include "backends/common/families.h"
#include "backends/common/rope_tokens.h"

#include <math.h>

/* ---- sine and cosine ---- */

static V float64(emitter *e, double value) {
  return LLVMConstReal(e->f64, value);
}

/* sum of coefficients[i] * x^i, by Horner's rule in double. */
static V polynomial(emitter *e, V x, const double *coefficients, int count) {
  unsigned width = width_of(x);
  V sum = splat(e, float64(e, coefficients[count - 1]), width);
  for (int i = count - 2; i >= 0; --i) sum = fadd_(e, fmul_(e, sum, x), splat(e, float64(e, coefficients[i]), width));
  return sum;
}

/* Sine and cosine of an f32 angle, 0 <= angle <= 2^21, rounded from double.
 *
 * Cody and Waite's reduction: r = angle - n * pi/2, |r| <= pi/4 (a little more at the rounding of n). The first part of
 * pi/2 has 31 bits, so that its product with n < 2^22 is exact; the second has the next 53, which leaves an error below
 * 1e-19. On r the Taylor polynomials of degree 13 and 14 are good to 1e-13, far below the 6e-8 of a float32. */
static void sine_cosine(emitter *e, V angle, V *sine, V *cosine) {
  static const double sine_terms[] = {
      1.0, -1.0 / 6.0, 1.0 / 120.0, -1.0 / 5040.0, 1.0 / 362880.0, -1.0 / 39916800.0, 1.0 / 6227020800.0};
  static const double cosine_terms[] = {1.0,           -1.0 / 2.0,       1.0 / 24.0,        -1.0 / 720.0,
                                        1.0 / 40320.0, -1.0 / 3628800.0, 1.0 / 479001600.0, -1.0 / 87178291200.0};
  unsigned width = width_of(angle);
  T wide = vector_type(e->f64, width), bits = vector_type(e->i64, width);
  V x = LLVMBuildFPExt(e->builder, angle, wide, "");
  /* Adding 1.5 * 2^52 rounds to an integer, whose low bits are then the low bits of the sum. */
  V magic = splat(e, float64(e, 0x1.8p52), width);
  V shifted = fadd_(e, fmul_(e, x, splat(e, float64(e, 0x1.45f306dc9c883p-1), width)), magic); /* 2/pi */
  V n = fsub_(e, shifted, magic);
  V r = fsub_(e, x, fmul_(e, n, splat(e, float64(e, 0x1.921fb544p0), width)));
  r = fsub_(e, r, fmul_(e, n, splat(e, float64(e, 0x1.0b4611a626331p-34), width)));
  V square = fmul_(e, r, r);
  V s = fmul_(e, r, polynomial(e, square, sine_terms, 7));
  V c = polynomial(e, square, cosine_terms, 8);
  V quadrant = bitcast(e, shifted, bits);
  V one = splat(e, int64(e, 1), width), two = splat(e, int64(e, 2), width), zero = splat(e, int64(e, 0), width);
  V odd = icmp(e, LLVMIntNE, and_(e, quadrant, one), zero);
  V sine_negative = icmp(e, LLVMIntNE, and_(e, quadrant, two), zero);
  V cosine_negative = icmp(e, LLVMIntNE, and_(e, add(e, quadrant, one), two), zero);
  V sine_magnitude = select_(e, odd, c, s), cosine_magnitude = select_(e, odd, s, c);
  V sine_value = select_(e, sine_negative, LLVMBuildFNeg(e->builder, sine_magnitude, ""), sine_magnitude);
  V cosine_value = select_(e, cosine_negative, LLVMBuildFNeg(e->builder, cosine_magnitude, ""), cosine_magnitude);
  T narrow = vector_type(e->f32, width);
  *sine = LLVMBuildFPTrunc(e->builder, sine_value, narrow, "");
  *cosine = LLVMBuildFPTrunc(e->builder, cosine_value, narrow, "");
}

typedef struct table_row {
  V frequencies, position, out;
  int64_t half;
} table_row;

static void table_body(emitter *e, V offset, unsigned vector, void *user) {
  const table_row *row = user;
  V frequency = load_f32(e, SLUICE_F32, row->frequencies, offset, vector);
  V sine, cosine;
  sine_cosine(e, fmul_(e, splat(e, row->position, vector), frequency), &sine, &cosine);
  store_f32(e, SLUICE_F32, cosine, row->out, offset);
  store_f32(e, SLUICE_F32, sine, row->out, add(e, offset, int64(e, row->half)));
}

/* The inverse frequencies 1 / theta^(2i / rotary_dim), all of it in float32 as the reference model computes them (m3.md
 * 2.6); powf is that of the machine that compiles. */
static V inverse_frequencies(emitter *e, double theta, int64_t rotary_dim) {
  enum { MOST = 1024 };
  V values[MOST];
  int64_t half = rotary_dim / 2;
  if (half > MOST) half = MOST;
  for (int64_t i = 0; i < half; ++i)
    values[i] = float32(e, (double)(1.0f / powf((float)theta, (float)(2 * i) / (float)rotary_dim)));
  V array = LLVMConstArray2(e->f32, values, (uint64_t)half);
  V global = LLVMAddGlobal(e->module, LLVMTypeOf(array), "inverse_frequencies");
  LLVMSetInitializer(global, array);
  LLVMSetGlobalConstant(global, 1);
  LLVMSetLinkage(global, LLVMPrivateLinkage);
  LLVMSetAlignment(global, 64);
  return global;
}

void family_rope_table(emitter *e, const kernel_spec *spec) {
  double theta = kernel_float(spec, "theta", &e->status);
  int64_t rotary_dim = kernel_integer(spec, "rotary_dim", &e->status);
  if (e->status) return;
  if (rotary_dim < 2 || rotary_dim % 2 || rotary_dim > 2048 || !(theta > 0)) {
    e->status = sluice_error(SLUICE_INTERNAL,
                             "%s: rotary_dim %lld and theta %g: expected an even dimension of 2 to 2048 "
                             "and a positive theta",
                             spec->symbol, (long long)rotary_dim, theta);
    return;
  }
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS, rotary_dim / 2));
  table_row row = {.half = rotary_dim / 2};
  row.frequencies = inverse_frequencies(e, theta, rotary_dim);
  row.position = to_f32(e, load_i32(e, e->argument[0], e->x));
  row.out = element(e, e->f32, e->argument[1], mul(e, e->x, int64(e, rotary_dim)));
  row_loop(e, row.half, table_body, &row);
  kernel_end(e);
}

/* ---- one head ---- */

/* A head on its way from a row of activations to its destination: normalised when `norm` is there, rotated when `table`
 * is, rounded once when it is stored. */
typedef struct head {
  sluice_dtype dtype, weight_dtype;
  V from;         /* first element of the head */
  V norm;         /* [dim] offsets w of the norm, or NULL */
  V table;        /* row of the rope table, or NULL */
  V to;           /* first element of the destination */
  int64_t stride; /* elements between neighbours at the destination */
  int64_t dim, rotary_dim;
  double epsilon;
  V scale;      /* 1 / root mean square */
  V vector_sum; /* local variables of the sum of squares */
  V scalar_sum;
  int64_t offset; /* of the elements that head_copy passes on */
} head;

static void square_body(emitter *e, V offset, unsigned vector, void *user) {
  const head *h = user;
  V x = load_f32(e, h->dtype, h->from, offset, vector);
  V slot = vector > 1 ? h->vector_sum : h->scalar_sum;
  set(e, slot, fma_(e, x, x, get(e, vector_type(e->f32, vector), slot)));
}

static V head_scaled(emitter *e, const head *h, V x, V weight) {
  if (!h->norm) return x;
  return fmul_(e, fmul_(e, x, h->scale), fadd_(e, weight, float32(e, 1)));
}

static V head_weight(emitter *e, const head *h, V offset, unsigned vector) {
  return h->norm ? load_f32(e, h->weight_dtype, h->norm, offset, vector) : NULL;
}

static V head_value(emitter *e, const head *h, V offset, unsigned vector) {
  return head_scaled(e, h, load_f32(e, h->dtype, h->from, offset, vector), head_weight(e, h, offset, vector));
}

static void head_store(emitter *e, const head *h, V value, V offset, unsigned vector) {
  if (h->stride == 1 || vector == 1) {
    store_f32(e, h->dtype, value, h->to, mul(e, offset, int64(e, h->stride)));
    return;
  }
  for (unsigned i = 0; i < vector; ++i) {
    V one = LLVMBuildExtractElement(e->builder, value, int64(e, i), "");
    store_f32(e, h->dtype, one, h->to, mul(e, add(e, offset, int64(e, i)), int64(e, h->stride)));
  }
}

/* Elements a and b, half of the rotated dimensions apart. */
static void head_rotate(emitter *e, const head *h, V a, V b, V cosine, V sine, V offset) {
  head_store(e, h, fsub_(e, fmul_(e, a, cosine), fmul_(e, b, sine)), offset, width_of(a));
  V partner = add(e, offset, int64(e, h->rotary_dim / 2));
  head_store(e, h, fadd_(e, fmul_(e, b, cosine), fmul_(e, a, sine)), partner, width_of(a));
}

static void rotate_body(emitter *e, V offset, unsigned vector, void *user) {
  const head *h = user;
  V partner = add(e, offset, int64(e, h->rotary_dim / 2));
  V a = head_value(e, h, offset, vector), b = head_value(e, h, partner, vector);
  V cosine = load_f32(e, SLUICE_F32, h->table, offset, vector);
  V sine = load_f32(e, SLUICE_F32, h->table, partner, vector);
  head_rotate(e, h, a, b, cosine, sine, offset);
}

static void copy_body(emitter *e, V offset, unsigned vector, void *user) {
  const head *h = user;
  V at = add(e, offset, int64(e, h->offset));
  head_store(e, h, head_value(e, h, at, vector), at, vector);
}

/* 1 / root mean square, from each lane's sum of squares. */
static V head_scale(emitter *e, const head *h, V sum) {
  V mean = fdiv_(e, e->atoms->reduce(e, sum, REDUCE_ADD), float32(e, (double)h->dim));
  return e->atoms->rsqrt(e, fadd_(e, mean, float32(e, h->epsilon)));
}

/* Elements of each lane when all lanes share `width` evenly, as one vector; or 1, when it is a part of their number:
 * the first lanes have them then. 0: neither. */
static unsigned lane_share(const emitter *e, int64_t width) {
  if (width && width < e->lanes && e->lanes % width == 0) return 1;
  unsigned vector = e->vector;
  while (vector > 1 && width != (int64_t)vector * e->lanes) vector /= 2;
  return width == (int64_t)vector * e->lanes ? vector : 0;
}

/* The lane's first element of `width`, each lane having `share`; lanes that have none take that of one that has. */
static V first_of_share(emitter *e, int64_t width, unsigned share) {
  V lane = e->atoms->lane(e);
  return width < e->lanes ? urem(e, lane, int64(e, width)) : mul(e, lane, int64(e, share));
}

/* Around stores of a lane's share: without effect where all lanes have one. */
static branch share_begin(emitter *e, int64_t width) {
  if (width >= e->lanes) return (branch){NULL, NULL};
  return if_begin(e, icmp(e, LLVMIntSLT, e->atoms->lane(e), int64(e, width)));
}

static void share_end(emitter *e, branch *b) {
  if (b->join) if_end(e, b);
}

/* A lane has one vector of all dimensions for the norm, and one of each half of the rotated ones and of the others to
 * store: everything is asked for at once. Returns false for heads that do not come out even. */
static bool head_in_registers(emitter *e, head *h) {
  const int64_t half = h->table ? h->rotary_dim / 2 : 0, others = h->dim - 2 * half;
  const unsigned all = lane_share(e, h->dim), pair = lane_share(e, half), other = lane_share(e, others);
  if (e->lanes == 1 || !all || h->dim < e->lanes || (half && !pair) || (others && !other)) return false;
  V x[4] = {NULL}, weight[4] = {NULL}, at[4], table[2] = {NULL, NULL};
  at[0] = first_of_share(e, h->dim, all);
  at[1] = first_of_share(e, half ? half : e->lanes, pair);
  at[2] = add(e, at[1], int64(e, half));
  at[3] = add(e, first_of_share(e, others ? others : e->lanes, other), int64(e, 2 * half));
  const unsigned vector[] = {h->norm ? all : 0, pair, pair, other};
  for (unsigned i = 0; i < 4; i++) {
    if (!vector[i]) continue;
    x[i] = load_f32(e, h->dtype, h->from, at[i], vector[i]);
    if (i) weight[i] = head_weight(e, h, at[i], vector[i]);
  }
  for (unsigned i = 0; half && i < 2; i++) table[i] = load_f32(e, SLUICE_F32, h->table, at[1 + i], pair);
  if (h->norm) h->scale = head_scale(e, h, vector_reduce(e, fmul_(e, x[0], x[0]), REDUCE_ADD));
  for (unsigned i = 1; i < 4; i++)
    if (vector[i]) x[i] = head_scaled(e, h, x[i], weight[i]);
  if (half) {
    branch some = share_begin(e, half);
    head_rotate(e, h, x[1], x[2], table[0], table[1], at[1]);
    share_end(e, &some);
  }
  if (others) {
    branch some = share_begin(e, others);
    head_store(e, h, x[3], at[3], other);
    share_end(e, &some);
  }
  return true;
}

static void head_move(emitter *e, head *h) {
  if (head_in_registers(e, h)) return;
  if (h->norm) {
    T vector = vector_type(e->f32, e->vector);
    h->vector_sum = local_set(e, vector, LLVMConstNull(vector));
    h->scalar_sum = local_set(e, e->f32, float32(e, 0.0));
    row_loop(e, h->dim, square_body, h);
    V sum = get(e, e->f32, h->scalar_sum);
    if (e->vector > 1) sum = fadd_(e, vector_reduce(e, get(e, vector, h->vector_sum), REDUCE_ADD), sum);
    h->scale = head_scale(e, h, sum);
  }
  h->offset = h->table ? h->rotary_dim : 0;
  if (h->table) row_loop(e, h->rotary_dim / 2, rotate_body, h);
  if (h->offset < h->dim) row_loop(e, h->dim - h->offset, copy_body, h);
}

/* A kernel over tokens, and over `heads` heads in y where a workgroup has lanes: a head is then a workgroup of one wave
 * of lanes. */
static kernel_shape heads_shape(const emitter *e, int64_t heads, int64_t dim, int64_t rotary_dim) {
  kernel_shape shape = each_of(SLUICE_SIZE_TOKENS, e->facts->lanes == 1 ? 1 : heads, dim);
  shape.rows[1] = rotary_dim / 2;
  shape.lanes = e->facts->wave;
  return shape;
}

/* `count` heads that lie one after another, heads_shape's heads `first` and on: the sources `dim` elements apart, the
 * destinations `to_step`. */
static void heads_move(emitter *e, head h, int64_t first, int64_t count, int64_t to_step) {
  V from = h.from, to = h.to, index;
  loop all = {0};
  branch mine = {0};
  if (e->lanes == 1) {
    all = loop_begin(e, int64(e, 0), int64(e, count), int64(e, 1));
    index = all.index;
  } else {
    index = sub(e, e->y, int64(e, first));
    mine = if_begin(e, icmp(e, LLVMIntULT, index, int64(e, count)));
  }
  h.from = element_of(e, h.dtype, from, mul(e, index, int64(e, h.dim)));
  h.to = element_of(e, h.dtype, to, mul(e, index, int64(e, to_step)));
  head_move(e, &h);
  if (e->lanes == 1)
    loop_end(e, &all);
  else
    if_end(e, &mine);
}

static bool head_sizes_ok(emitter *e, const kernel_spec *spec, int64_t heads, int64_t dim, int64_t rotary_dim) {
  if (e->status) return false;
  if (heads >= 1 && dim >= 1 && rotary_dim >= 0 && rotary_dim % 2 == 0 && rotary_dim <= dim) return true;
  e->status = sluice_error(SLUICE_INTERNAL,
                           "%s: %lld heads of %lld with %lld rotated dimensions: expected an even number of "
                           "rotated dimensions, at most those of a head",
                           spec->symbol, (long long)heads, (long long)dim, (long long)rotary_dim);
  return false;
}

void family_head_norm(emitter *e, const kernel_spec *spec) {
  int64_t heads = kernel_integer(spec, "heads", &e->status);
  head h = {.stride = 1,
            .dtype = kernel_dtype(spec, "dtype", &e->status),
            .weight_dtype = kernel_dtype(spec, "weight_dtype", &e->status),
            .dim = kernel_integer(spec, "head_dim", &e->status),
            .epsilon = kernel_float(spec, "eps", &e->status)};
  if (!head_sizes_ok(e, spec, heads, h.dim, 0)) return;
  kernel_begin(e, spec, heads_shape(e, heads, h.dim, 0));
  V row = mul(e, e->x, int64(e, heads * h.dim));
  h.from = element_of(e, h.dtype, e->argument[0], row);
  h.norm = e->argument[1];
  h.to = element_of(e, h.dtype, e->argument[2], row);
  heads_move(e, h, 0, heads, h.dim);
  kernel_end(e);
}

void family_rope(emitter *e, const kernel_spec *spec) {
  int64_t heads = kernel_integer(spec, "heads", &e->status);
  head h = {.stride = 1,
            .dtype = kernel_dtype(spec, "dtype", &e->status),
            .dim = kernel_integer(spec, "head_dim", &e->status),
            .rotary_dim = kernel_integer(spec, "rotary_dim", &e->status)};
  if (!head_sizes_ok(e, spec, heads, h.dim, h.rotary_dim)) return;
  kernel_begin(e, spec, heads_shape(e, heads, h.dim, h.rotary_dim));
  V row = mul(e, e->x, int64(e, heads * h.dim));
  h.from = element_of(e, h.dtype, e->argument[0], row);
  h.table = element(e, e->f32, e->argument[1], mul(e, e->x, int64(e, h.rotary_dim)));
  h.to = element_of(e, h.dtype, e->argument[2], row);
  heads_move(e, h, 0, heads, h.dim);
  kernel_end(e);
}

/* ---- the cache ---- */

/* Where the token of this workgroup lies: its page, and its slot in the page. */
typedef struct cache_slot {
  V page; /* first byte of the page in the layer's pool */
  V slot;
} cache_slot;

static cache_slot find_slot(emitter *e, V positions, V sequence, V page_table, V cache, int64_t page,
                            int64_t page_bytes) {
  V position = load_i32(e, positions, e->x);
  V row = mul(e, load_i32(e, sequence, e->x), size_of(e, SLUICE_SIZE_PAGE_STRIDE));
  V entry = load_i32(e, page_table, add(e, row, udiv(e, position, int64(e, page))));
  return (cache_slot){.page = byte_offset(e, cache, mul(e, entry, int64(e, page_bytes))),
                      .slot = urem(e, position, int64(e, page))};
}

/* Appends `count` heads: transposed ([dim][page] for each head) or as rows ([page][dim]). */
static void heads_append(emitter *e, head h, int64_t first, int64_t count, cache_slot at, int64_t page,
                         int64_t part_offset, bool transposed) {
  V part = byte_offset(e, at.page, int64(e, part_offset));
  h.stride = transposed ? page : 1;
  h.to = element_of(e, h.dtype, part, transposed ? at.slot : mul(e, at.slot, int64(e, h.dim)));
  heads_move(e, h, first, count, h.dim * page);
}

void family_cache_append(emitter *e, const kernel_spec *spec) {
  int64_t heads = kernel_integer(spec, "heads", &e->status);
  int64_t page = kernel_integer(spec, "page", &e->status);
  int64_t page_bytes = kernel_integer(spec, "page_bytes", &e->status);
  int64_t part_offset = kernel_integer(spec, "part_offset", &e->status);
  const char *part = kernel_string(spec, "part", &e->status);
  const bool transposed_keys = strcmp(kernel_string(spec, "transposed", &e->status), "keys") == 0;
  head h = {.dtype = kernel_dtype(spec, "dtype", &e->status), .dim = kernel_integer(spec, "head_dim", &e->status)};
  if (!head_sizes_ok(e, spec, heads, h.dim, 0)) return;
  kernel_begin(e, spec, heads_shape(e, heads, h.dim, 0));
  cache_slot at = find_slot(e, e->argument[1], e->argument[2], e->argument[3], e->argument[4], page, page_bytes);
  h.from = element_of(e, h.dtype, e->argument[0], mul(e, e->x, int64(e, heads * h.dim)));
  heads_append(e, h, 0, heads, at, page, part_offset, (strcmp(part, "value") != 0) == transposed_keys);
  kernel_end(e);
}

/* Operands of norm_rope_append. */
enum {
  PROJECTION,
  TABLE,
  Q_NORM,
  K_NORM,
  INDEX_Q_NORM,
  INDEX_K_NORM,
  POSITIONS,
  SEQUENCE,
  PAGE_TABLE,
  CACHE,
  Q,
  INDEX_Q
};

/* What norm_rope_append reads of its attributes. */
typedef struct append_shape {
  int64_t heads, kv_heads, head_dim, index_heads, index_dim, page, page_bytes, value_offset, index_offset;
  bool transposed_keys;
  int64_t width; /* elements of a token's projection */
} append_shape;

static append_shape read_append(emitter *e, const kernel_spec *spec) {
  append_shape a = {.heads = kernel_integer(spec, "heads", &e->status),
                    .kv_heads = kernel_integer(spec, "kv_heads", &e->status),
                    .head_dim = kernel_integer(spec, "head_dim", &e->status),
                    .index_heads = kernel_integer(spec, "index_heads", &e->status),
                    .index_dim = kernel_integer(spec, "index_dim", &e->status),
                    .page = kernel_integer(spec, "page", &e->status),
                    .page_bytes = kernel_integer(spec, "page_bytes", &e->status),
                    .value_offset = kernel_integer(spec, "value_offset", &e->status),
                    .index_offset = kernel_integer(spec, "index_offset", &e->status)};
  a.transposed_keys = strcmp(kernel_string(spec, "transposed", &e->status), "keys") == 0;
  a.width = (a.heads + 2 * a.kv_heads) * a.head_dim + (a.index_heads > 0 ? (a.index_heads + 1) * a.index_dim : 0);
  return a;
}

/* Opens the kernel; before the launch before it is awaited: where the token goes, and the weights of the norms. */
static cache_slot begin_append(emitter *e, const kernel_spec *spec, const append_shape *a, kernel_shape shape,
                               sluice_dtype weight_dtype) {
  shape.begins_early = true;
  kernel_begin(e, spec, shape);
  V *argument = e->argument;
  cache_slot at = find_slot(e, argument[POSITIONS], argument[SEQUENCE], argument[PAGE_TABLE], argument[CACHE], a->page,
                            a->page_bytes);
  for (unsigned i = Q_NORM; i <= (a->index_heads > 0 ? INDEX_K_NORM : K_NORM); i++)
    prefetch_shared(e, argument[i],
                    (i <= K_NORM ? a->head_dim : a->index_dim) * (int64_t)sluice_dtype_size(weight_dtype));
  await_previous(e);
  return at;
}

/* Heads that go to the cache, to the part of the page at `part_offset`. */
static head_group cached_group(emitter *e, const append_shape *a, sluice_dtype dtype, cache_slot at, int64_t count,
                               int64_t part_offset, bool transposed) {
  V part = byte_offset(e, at.page, int64(e, part_offset));
  return (head_group){.count = count,
                      .stride = transposed ? a->page : 1,
                      .to = element_of(e, dtype, part, transposed ? at.slot : mul(e, at.slot, int64(e, a->head_dim))),
                      .to_step = a->head_dim * a->page};
}

/* Many tokens: a workgroup has a token. */
static void append_tokens(emitter *e, const kernel_spec *spec, const append_shape *a, const head *normed,
                          unsigned lanes) {
  kernel_shape shape = each_of(SLUICE_SIZE_TOKENS, 1, a->head_dim);
  shape.lanes = lanes;
  const cache_slot at = begin_append(e, spec, a, shape, normed->weight_dtype);
  V *argument = e->argument;
  const sluice_dtype dtype = normed->dtype;
  const head_sizes sizes = {.dtype = dtype,
                            .weight_dtype = normed->weight_dtype,
                            .dim = a->head_dim,
                            .rotary_dim = normed->rotary_dim,
                            .epsilon = normed->epsilon,
                            .from = element_of(e, dtype, argument[PROJECTION], mul(e, e->x, int64(e, a->width))),
                            .table = element(e, e->f32, argument[TABLE], mul(e, e->x, int64(e, normed->rotary_dim)))};
  head_group groups[5];
  V q = element_of(e, dtype, argument[Q], mul(e, e->x, int64(e, a->heads * a->head_dim)));
  groups[0] = (head_group){.count = a->heads, .to = q, .to_step = a->head_dim, .stride = 1};
  groups[1] = cached_group(e, a, dtype, at, a->kv_heads, 0, a->transposed_keys);
  groups[2] = cached_group(e, a, dtype, at, a->kv_heads, a->value_offset, !a->transposed_keys);
  unsigned count = 3;
  if (a->index_heads > 0) {
    V iq = element_of(e, dtype, argument[INDEX_Q], mul(e, e->x, int64(e, a->index_heads * a->index_dim)));
    groups[3] = (head_group){.count = a->index_heads, .to = iq, .to_step = a->index_dim, .stride = 1};
    groups[4] = cached_group(e, a, dtype, at, 1, a->index_offset, a->transposed_keys);
    groups[3].norm = argument[INDEX_Q_NORM];
    groups[4].norm = argument[INDEX_K_NORM];
    count = 5;
  }
  groups[0].norm = argument[Q_NORM];
  groups[1].norm = argument[K_NORM];
  for (unsigned i = 0; i < count; i++) groups[i].rotated = groups[i].norm != NULL;
  move_token_heads(e, &sizes, groups, count);
  kernel_end(e);
}

/* A wave has a head. */
static void append_heads(emitter *e, const kernel_spec *spec, const append_shape *a, const head *normed_head) {
  head normed = *normed_head;
  const sluice_dtype dtype = normed.dtype;
  kernel_shape shape = heads_shape(e, a->heads + 2 * a->kv_heads + (a->index_heads > 0 ? a->index_heads + 1 : 0),
                                   a->head_dim, normed.rotary_dim);
  shape.rows[2] = a->index_heads > 0 ? a->index_dim : 0;
  const cache_slot at = begin_append(e, spec, a, shape, normed.weight_dtype);
  V *argument = e->argument, from = element_of(e, dtype, argument[PROJECTION], mul(e, e->x, int64(e, a->width)));
  normed.table = element(e, e->f32, argument[TABLE], mul(e, e->x, int64(e, normed.rotary_dim)));

  head h = normed;
  h.dim = a->head_dim;
  h.from = from;
  h.norm = argument[Q_NORM];
  h.to = element_of(e, dtype, argument[Q], mul(e, e->x, int64(e, a->heads * a->head_dim)));
  heads_move(e, h, 0, a->heads, a->head_dim);
  h.from = element_of(e, dtype, from, int64(e, a->heads * a->head_dim));
  h.norm = argument[K_NORM];
  heads_append(e, h, a->heads, a->kv_heads, at, a->page, 0, a->transposed_keys);
  head value = {.dtype = dtype, .dim = a->head_dim};
  value.from = element_of(e, dtype, from, int64(e, (a->heads + a->kv_heads) * a->head_dim));
  heads_append(e, value, a->heads + a->kv_heads, a->kv_heads, at, a->page, a->value_offset, !a->transposed_keys);
  if (a->index_heads > 0) {
    const int64_t first = a->heads + 2 * a->kv_heads;
    h.dim = a->index_dim;
    h.from = element_of(e, dtype, from, int64(e, first * a->head_dim));
    h.norm = argument[INDEX_Q_NORM];
    h.to = element_of(e, dtype, argument[INDEX_Q], mul(e, e->x, int64(e, a->index_heads * a->index_dim)));
    heads_move(e, h, first, a->index_heads, a->index_dim);
    h.from = element_of(e, dtype, h.from, int64(e, a->index_heads * a->index_dim));
    h.norm = argument[INDEX_K_NORM];
    heads_append(e, h, first + a->index_heads, 1, at, a->page, a->index_offset, a->transposed_keys);
  }
  kernel_end(e);
}

void family_norm_rope_append(emitter *e, const kernel_spec *spec) {
  const append_shape a = read_append(e, spec);
  const head normed = {.dtype = kernel_dtype(spec, "dtype", &e->status),
                       .stride = 1,
                       .weight_dtype = kernel_dtype(spec, "weight_dtype", &e->status),
                       .rotary_dim = kernel_integer(spec, "rotary_dim", &e->status),
                       .epsilon = kernel_float(spec, "eps", &e->status)};
  const bool many = kernel_integer(spec, "many", &e->status) != 0;
  if (!head_sizes_ok(e, spec, a.heads, a.head_dim, normed.rotary_dim) ||
      (a.index_heads > 0 && !head_sizes_ok(e, spec, a.index_heads, a.index_dim, normed.rotary_dim)))
    return;
  const bool alike = a.index_heads <= 0 || a.index_dim == a.head_dim;
  const unsigned lanes = many && alike ? token_lanes(e, a.head_dim, normed.rotary_dim) : 0;
  if (lanes)
    append_tokens(e, spec, &a, &normed, lanes);
  else
    append_heads(e, spec, &a, &normed);
}
