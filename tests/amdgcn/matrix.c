/* Matrix instructions: D = A B + C on tiles spread over the lanes of a wave.
 *
 * A is rows x depth, B depth x columns, both with a lane for each row (column) and a group of consecutive depths:
 *     lane = (depth / n) * rows + row,   element = depth % n,   n = depth of a lane
 * and with several blocks the upper lanes hold the next ones. C and D have a lane for each column:
 *     16 rows: row = 4 * (lane / 16) + register % 4          32 rows: row = 8 * (register / 4) + 4 * (lane / 32) +
 * register % 4
 *
 * Rounding on CDNA3, as measured and published (Xie et al., "MMA-Sim", arXiv 2511.10909): depth is taken in groups of 8
 * (float16 and bfloat16), 4 (xf32) or 16 (fp8). Products of a group are exact; they are cut, toward zero, to multiples
 * of 2^(e - 24), e the largest sum of the factors' exponents among them, and added. The sum is cut, downward, at 2^(E -
 * 31) and the accumulator at 2^(E - 24), E being the larger of e and the accumulator's exponent; both are added and
 * rounded to nearest. For fp8 even and odd depths are first added apart. float32 and float64 are fused multiply-adds in
 * order of depth. Of CDNA4 nothing is published: the same rule is used; the scaled instructions round once, at the end.
 *
 * MODE does not matter here: denormals are kept, rounding is as above. */
#include "convert.h"
#include "machine.h"
#include <stdlib.h>
#include <xmmintrin.h>

enum matrix_type {
  TYPE_F32,
  TYPE_F16,
  TYPE_BF16,
  TYPE_I8,
  TYPE_FP8,
  TYPE_BF8,
  TYPE_FP6,
  TYPE_BF6,
  TYPE_FP4,
  TYPE_F64,
  TYPE_XF32
};
enum { MAX_ROWS = 32, MAX_TILE_ROWS = 64, MAX_DEPTH = 128 };

/* ---- Elements ---- */

static unsigned element_bits(uint8_t type) {
  static const uint8_t bits[] = {32, 16, 16, 8, 8, 8, 6, 6, 4, 64, 32};
  return bits[type];
}

static uint32_t bits_at(const uint32_t *const rows[], unsigned lane, unsigned bit, unsigned bits) {
  uint64_t window = rows[bit / 32][lane];
  if (bit % 32 + bits > 32) window |= (uint64_t)rows[bit / 32 + 1][lane] << 32;
  return (uint32_t)(window >> (bit % 32)) & (bits == 32 ? UINT32_MAX : (1u << bits) - 1);
}

/* Element `index` of every lane. */
static void unpack(const uint32_t *const rows[], unsigned index, uint8_t type, bool fnuz, float out[LANES]) {
  static const uint8_t formats[] = {[TYPE_FP8] = NARROW_FP8,
                                    [TYPE_BF8] = NARROW_BF8,
                                    [TYPE_FP6] = NARROW_FP6,
                                    [TYPE_BF6] = NARROW_BF6,
                                    [TYPE_FP4] = NARROW_FP4};
  unsigned bits = element_bits(type), shift = 16 * (index & 1);
  const uint32_t *row = rows[index * bits / 32];
  switch (type) {
  case TYPE_F32:
    memcpy(out, row, LANES * sizeof *out);
    break;
  case TYPE_XF32:
    for (unsigned l = 0; l < LANES; l++) out[l] = as_float(row[l] & ~0x1fffu);
    break;
  case TYPE_F16:
    for (unsigned l = 0; l < LANES; l++) out[l] = float_of_half(row[l] >> shift);
    break;
  case TYPE_BF16:
    for (unsigned l = 0; l < LANES; l++) out[l] = as_float(row[l] >> shift << 16);
    break;
  case TYPE_I8:
    for (unsigned l = 0; l < LANES; l++) out[l] = (float)(int8_t)(row[l] >> (8 * (index & 3)));
    break;
  default:
    for (unsigned l = 0; l < LANES; l++) {
      out[l] = float_of_narrow((narrow_format)formats[type], fnuz, bits_at(rows, l, bits * index, bits));
    }
    break;
  }
}

/* A factor as the unit sees it, by depth and row (of B: column): value = significand * 2^exponent, 1 <= |significand| <
 * 2 but for denormals of its format. */
typedef struct tile {
  float value[MAX_DEPTH][MAX_TILE_ROWS];
  float significand[MAX_DEPTH][MAX_TILE_ROWS];
  int32_t exponent[MAX_DEPTH][MAX_TILE_ROWS];
  int32_t largest_exponent; /* 128: something infinite or not a number is in it */
} tile;

static int smallest_exponent(uint8_t type, bool fnuz) {
  switch (type) {
  case TYPE_F16:
    return -14;
  case TYPE_FP8:
    return fnuz ? -7 : -6;
  case TYPE_BF8:
    return fnuz ? -15 : -14;
  default:
    return -126;
  }
}

enum { EXPONENT_OF_ZERO = -1000 };

static void split(const float *value, unsigned count, int smallest, float *restrict significand,
                  int32_t *restrict exponent) {
  for (unsigned l = 0; l < count; l++) {
    float x = value[l];
    int32_t e = (int32_t)(float_bits(x) >> 23 & 255) - 127;
    e = e < smallest ? smallest : e;
    int32_t half = e / 2;
    exponent[l] = x == 0 ? EXPONENT_OF_ZERO : e;
    /* 2^-e in two steps: it may not be a float32 itself. */
    significand[l] = x * as_float((uint32_t)(127 - half) << 23) * as_float((uint32_t)(127 - (e - half)) << 23);
  }
}

static void gather(const wave *w, const operand *o, const matrix_shape *m, uint8_t type, bool fnuz, tile *out) {
  const uint32_t *rows[16];
  for (unsigned k = 0; k < o->registers; k++) rows[k] = w->vector[o->index + k];
  unsigned groups = (unsigned)LANES / m->rows / m->blocks, each = m->depth / groups;
  int smallest = smallest_exponent(type, fnuz);
  int32_t largest = EXPONENT_OF_ZERO;
  for (unsigned k = 0; k < each; k++) {
    float value[LANES];
    unpack(rows, k, type, fnuz, value);
    for (unsigned l = 0; l < LANES; l += m->rows) {
      unsigned group = l / m->rows, row = group / groups * m->rows, depth = group % groups * each + k;
      memcpy(&out->value[depth][row], &value[l], m->rows * sizeof *value);
      split(&value[l], m->rows, smallest, &out->significand[depth][row], &out->exponent[depth][row]);
      for (unsigned r = row; r < row + m->rows; r++)
        largest = out->exponent[depth][r] > largest ? out->exponent[depth][r] : largest;
    }
  }
  out->largest_exponent = largest;
}

/* ---- Where C and D are: a register holds, group by group of lanes, rows of the tile ---- */

static unsigned result_registers(const matrix_shape *m) {
  return (unsigned)m->rows * m->rows * m->blocks / LANES;
}

/* The tile's row in one group of lanes of a register; rows of later blocks count on. */
static unsigned row_of(const matrix_shape *m, unsigned group, unsigned r) {
  if (m->rows == 4) return group * 4 + r;
  if (m->rows == 16) return r / 4 * 16 + 4 * group + r % 4;
  return r / 16 * 32 + 8 * (r % 16 / 4) + 4 * group + r % 4;
}

typedef struct accumulator {
  uint32_t bits[MAX_TILE_ROWS][MAX_ROWS]; /* row, column */
} accumulator;

static bool gather_c(const wave *w, const operand *o, const matrix_shape *m, accumulator *out) {
  bool finite = true;
  for (unsigned r = 0; r < result_registers(m); r++) {
    for (unsigned group = 0; group < (unsigned)LANES / m->rows; group++) {
      uint32_t *row = out->bits[row_of(m, group, r)];
      if (o->kind == OPERAND_VECTOR) memcpy(row, &w->vector[o->index + r][group * m->rows], m->rows * sizeof *row);
      for (unsigned n = 0; n < m->rows; n++) {
        if (o->kind != OPERAND_VECTOR) row[n] = (uint32_t)o->integer;
        finite = finite && (row[n] >> 23 & 255) != 255;
      }
    }
  }
  return finite;
}

static void scatter_d(wave *w, const operand *o, const matrix_shape *m, const accumulator *in) {
  for (unsigned r = 0; r < result_registers(m); r++) {
    for (unsigned group = 0; group < (unsigned)LANES / m->rows; group++) {
      memcpy(&w->vector[o->index + r][group * m->rows], in->bits[row_of(m, group, r)], m->rows * sizeof *in->bits[0]);
    }
  }
}

/* ---- The rule of CDNA3 ---- */

static inline double power(int32_t e) {
  return as_double((uint64_t)(e + 1023) << 52);
}

/* Products of one row with all columns of its block, depths first, first + step, ... (count of them), cut and added:
 * sum * 2^(largest - 24). */
static void sum_products(const tile *a, const tile *b, unsigned row, unsigned column, unsigned first, unsigned step,
                         unsigned count, unsigned columns, int32_t *restrict sum, int32_t *restrict largest) {
  for (unsigned n = 0; n < columns; n++) largest[n] = -126;
  for (unsigned k = 0; k < count; k++) {
    unsigned depth = first + k * step;
    int32_t e = a->exponent[depth][row];
    const int32_t *of_b = &b->exponent[depth][column];
    for (unsigned n = 0; n < columns; n++) largest[n] = e + of_b[n] > largest[n] ? e + of_b[n] : largest[n];
  }
  for (unsigned n = 0; n < columns; n++) sum[n] = 0;
  for (unsigned k = 0; k < count; k++) {
    unsigned depth = first + k * step;
    int32_t e = a->exponent[depth][row];
    float s = a->significand[depth][row];
    const int32_t *of_b = &b->exponent[depth][column];
    const float *t = &b->significand[depth][column];
    for (unsigned n = 0; n < columns; n++) {
      int32_t shift = e + of_b[n] - largest[n] + 24;
      shift = shift < -100 ? -100 : shift;
      sum[n] += (int32_t)(s * t[n] * as_float((uint32_t)(shift + 127) << 23));
    }
  }
}

/* Adds sum * 2^(e - 24) to the accumulator. `drop`: fp8 leaves an accumulator out that is too small to matter. */
static void accumulate(const int32_t *sum, const int32_t *e, unsigned columns, bool drop, uint32_t *restrict c) {
  for (unsigned n = 0; n < columns; n++) {
    int32_t of_c = (int32_t)(c[n] >> 23 & 255) - 127;
    of_c = of_c < -126 ? -126 : of_c;
    int32_t top = e[n] > of_c ? e[n] : of_c;
    double cut_sum = floor((double)sum[n] * power(e[n] - top + 7)) * 0x1p-31;
    double cut_c = floor((double)as_float(c[n]) * power(24 - top)) * 0x1p-24;
    cut_c = drop && of_c < top - 25 ? 0 : cut_c;
    c[n] = float_bits((float)((cut_sum + cut_c) * power(top)));
  }
}

static void multiply_row(const tile *a, const tile *b, unsigned row, const matrix_shape *m, unsigned group, bool narrow,
                         uint32_t *c) {
  int32_t sum[MAX_ROWS], e[MAX_ROWS], odd_sum[MAX_ROWS], odd_e[MAX_ROWS];
  unsigned columns = m->rows, column = row / m->rows * m->rows;
  for (unsigned first = 0; first < m->depth; first += group) {
    unsigned count = m->depth - first < group ? m->depth - first : group;
    if (!narrow) {
      sum_products(a, b, row, column, first, 1, count, columns, sum, e);
    } else {
      sum_products(a, b, row, column, first, 2, count / 2, columns, sum, e);
      sum_products(a, b, row, column, first + 1, 2, count / 2, columns, odd_sum, odd_e);
      for (unsigned n = 0; n < columns; n++) {
        int32_t top = e[n] > odd_e[n] ? e[n] : odd_e[n];
        sum[n] = (int32_t)floor((double)sum[n] * power(e[n] - top)) +
                 (int32_t)floor((double)odd_sum[n] * power(odd_e[n] - top));
        e[n] = top;
      }
    }
    accumulate(sum, e, columns, narrow, c);
  }
}

/* Infinities and NaNs, and products past float32's range: what the order of rounding is no longer matters. */
static void multiply_special(const tile *a, const tile *b, const matrix_shape *m, accumulator *c) {
  for (unsigned row = 0; row < (unsigned)m->rows * m->blocks; row++) {
    unsigned first = row / m->rows * m->rows;
    for (unsigned n = 0; n < m->rows; n++) {
      double sum = (double)as_float(c->bits[row][n]);
      for (unsigned k = 0; k < m->depth; k++) {
        double p = (double)a->value[k][row] * (double)b->value[k][first + n];
        sum += fabs(p) >= 0x1p128 ? copysign((double)INFINITY, p) : p;
      }
      c->bits[row][n] = float_bits((float)sum);
    }
  }
}

static void execute_xdl(wave *w, const instruction *i) {
  static _Thread_local tile a, b;
  static _Thread_local accumulator c;
  const matrix_shape *m = &i->matrix;
  bool fnuz = w->launch->machine->target == GCN_GFX942, narrow = m->type_a >= TYPE_FP8 && m->type_a <= TYPE_FP4;
  gather(w, &i->operand[1], m, m->type_a, fnuz, &a);
  gather(w, &i->operand[2], m, m->type_b, fnuz, &b);
  bool finite = gather_c(w, &i->operand[3], m, &c) && a.largest_exponent < 128 && b.largest_exponent < 128;
  unsigned group = narrow ? 16 : m->type_a == TYPE_XF32 ? 4 : 8;
  if (!finite || a.largest_exponent + b.largest_exponent >= 126) {
    multiply_special(&a, &b, m, &c);
  } else {
    for (unsigned row = 0; row < (unsigned)m->rows * m->blocks; row++)
      multiply_row(&a, &b, row, m, group, narrow, c.bits[row]);
  }
  scatter_d(w, &i->operand[0], m, &c);
}

/* ---- float32, integers, float64 ---- */

static void execute_f32(wave *w, const instruction *i) {
  static _Thread_local tile a, b;
  static _Thread_local accumulator c;
  const matrix_shape *m = &i->matrix;
  gather(w, &i->operand[1], m, TYPE_F32, false, &a);
  gather(w, &i->operand[2], m, TYPE_F32, false, &b);
  gather_c(w, &i->operand[3], m, &c);
  for (unsigned row = 0; row < (unsigned)m->rows * m->blocks; row++) {
    float *sum = (float *)c.bits[row];
    for (unsigned k = 0; k < m->depth; k++) {
      float x = a.value[k][row];
      const float *y = &b.value[k][row / m->rows * m->rows];
      for (unsigned n = 0; n < m->rows; n++) sum[n] = __builtin_fmaf(x, y[n], sum[n]);
    }
  }
  scatter_d(w, &i->operand[0], m, &c);
}

static void execute_i8(wave *w, const instruction *i) {
  static _Thread_local tile a, b;
  static _Thread_local accumulator c;
  const matrix_shape *m = &i->matrix;
  gather(w, &i->operand[1], m, TYPE_I8, false, &a);
  gather(w, &i->operand[2], m, TYPE_I8, false, &b);
  gather_c(w, &i->operand[3], m, &c);
  for (unsigned row = 0; row < (unsigned)m->rows * m->blocks; row++) {
    for (unsigned k = 0; k < m->depth; k++) {
      int32_t x = (int32_t)a.value[k][row];
      const float *y = &b.value[k][row / m->rows * m->rows];
      for (unsigned n = 0; n < m->rows; n++) c.bits[row][n] += (uint32_t)(x * (int32_t)y[n]);
    }
  }
  scatter_d(w, &i->operand[0], m, &c);
}

static double wide_at(const wave *w, const operand *o, unsigned index, unsigned lane) {
  if (o->kind != OPERAND_VECTOR) return as_double((uint64_t)o->integer);
  return as_double(w->vector[o->index + 2 * index][lane] | (uint64_t)w->vector[o->index + 2 * index + 1][lane] << 32);
}

/* 16 x 16 x 4: row = lane / 16 + 4 * register. Four blocks of 4 x 4 x 4: block = lane / 4 % 4, depth (of D: row) = lane
 * / 16. */
static void execute_f64(wave *w, const instruction *i) {
  const matrix_shape *m = &i->matrix;
  double d[4][LANES];
  unsigned results = m->rows == 16 ? 4 : 1;
  for (unsigned r = 0; r < results; r++) {
    for (unsigned l = 0; l < LANES; l++) {
      double sum = wide_at(w, &i->operand[3], r, l);
      for (unsigned k = 0; k < 4; k++) {
        unsigned row = l / 16 + 4 * r, of_a = m->rows == 16 ? 16 * k + row : 16 * k + (l & 12) + row;
        double x = wide_at(w, &i->operand[1], 0, of_a), y = wide_at(w, &i->operand[2], 0, 16 * k + l % 16);
        if (i->blgp & 1) x = -x;
        if (i->blgp & 2) y = -y;
        sum = fma(x, y, k == 0 && (i->blgp & 4) ? -sum : sum);
      }
      d[r][l] = sum;
    }
  }
  for (unsigned r = 0; r < results; r++) {
    for (unsigned l = 0; l < LANES; l++) {
      w->vector[i->operand[0].index + 2 * r][l] = (uint32_t)double_bits(d[r][l]);
      w->vector[i->operand[0].index + 2 * r + 1][l] = (uint32_t)(double_bits(d[r][l]) >> 32);
    }
  }
}

/* ---- fp8, fp6 and fp4 with scales (gfx950) ---- */

/* The scale of 32 depths of a row: a power of two, one byte of the lane that holds these depths; op_sel says which
 * byte. */
static double scale_at(const wave *w, const instruction *i, unsigned which, unsigned row, unsigned depth) {
  if (!i->matrix.scaled || i->operands < 6) return 1;
  unsigned byte = (i->op_sel >> which & 1) + 2u * (i->op_sel_hi >> which & 1);
  uint32_t bits = read_lane(w, &i->operand[4 + which], depth / 32 * i->matrix.rows + row) >> (8 * byte) & 255;
  return bits == 255 ? (double)NAN : ldexp(1, (int)bits - 127);
}

static void execute_scaled(wave *w, const instruction *i) {
  static _Thread_local tile a, b;
  static _Thread_local accumulator c;
  const matrix_shape *m = &i->matrix;
  gather(w, &i->operand[1], m, m->type_a, false, &a);
  gather(w, &i->operand[2], m, m->type_b, false, &b);
  gather_c(w, &i->operand[3], m, &c);
  for (unsigned row = 0; row < m->rows; row++) {
    for (unsigned n = 0; n < m->rows; n++) {
      double sum = (double)as_float(c.bits[row][n]);
      for (unsigned first = 0; first < m->depth; first += 32) {
        double part = 0;
        for (unsigned k = first; k < first + 32; k++) part += (double)a.value[k][row] * (double)b.value[k][n];
        sum += part * scale_at(w, i, 0, row, first) * scale_at(w, i, 1, n, first);
      }
      c.bits[row][n] = float_bits((float)sum);
    }
  }
  scatter_d(w, &i->operand[0], m, &c);
}

/* ---- All of them: whatever MODE says, to nearest and with denormals ---- */

static void execute_matrix(wave *w, const instruction *i) {
  if (w->launch->checked && exec_mask(w) != UINT64_MAX) {
    wave_fault(w, GCN_FAULT_MASKED_MFMA, -1, "EXEC is %#llx; matrix instructions use all lanes",
               (unsigned long long)exec_mask(w));
    return;
  }
  unsigned control = _mm_getcsr();
  _mm_setcsr(control & ~(unsigned)(_MM_ROUND_MASK | 0x8040));
  switch (i->matrix.type_a) {
  case TYPE_F32:
    execute_f32(w, i);
    break;
  case TYPE_F64:
    execute_f64(w, i);
    break;
  case TYPE_I8:
    execute_i8(w, i);
    break;
  default:
    i->matrix.scaled ? execute_scaled(w, i) : execute_xdl(w, i);
    break;
  }
  _mm_setcsr(control);
}

/* ---- Decoding: v_mfma_<result>_<rows>x<columns>x<depth>[_<blocks>b]_<types> ---- */

static bool type_by_name(const char *name, size_t length, uint8_t *type) {
  static const struct {
    const char *name;
    uint8_t type;
  } table[] = {{"f32", TYPE_F32}, {"f16", TYPE_F16}, {"bf16", TYPE_BF16}, {"i8", TYPE_I8},
               {"fp8", TYPE_FP8}, {"bf8", TYPE_BF8}, {"f64", TYPE_F64},   {"xf32", TYPE_XF32}};
  for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
    if (strlen(table[k].name) != length || strncmp(table[k].name, name, length) != 0) continue;
    *type = table[k].type;
    return true;
  }
  return false;
}

/* Types of f8f6f4 instructions are in cbsz and blgp. */
static bool narrow_type(uint8_t code, uint8_t *type) {
  static const uint8_t types[] = {TYPE_FP8, TYPE_BF8, TYPE_FP6, TYPE_BF6, TYPE_FP4};
  if (code >= sizeof types) return false;
  *type = types[code];
  return true;
}

/* Passes of four cycles. A pass of one SIMD makes 1024 products of 16 bits and 2048 of 8, twice that on gfx950 in the
 * instructions of twice the depth, half in those of several blocks. */
static uint8_t passes_of(const matrix_shape *m, gcn_target target) {
  unsigned products = (unsigned)m->rows * m->rows * m->depth * m->blocks, bits = element_bits(m->type_a), rate;
  if (bits < element_bits(m->type_b)) bits = element_bits(m->type_b);
  bool doubled = target == GCN_GFX950 && m->depth * (m->rows / 16u) * bits >= 512;
  if (m->type_a == TYPE_F64) return m->rows == 4 ? 4 : target == GCN_GFX950 ? 16 : 8;
  if (m->scaled) return (uint8_t)((m->rows == 16 ? 4 : 8) * (bits == 8 ? 2 : 1));
  if (m->type_a == TYPE_F32)
    rate = 128;
  else if (m->type_a == TYPE_XF32 || m->blocks > 1)
    rate = 512;
  else
    rate = (bits == 16 ? 1024u : 2048u) * (doubled ? 2 : 1);
  return (uint8_t)(products / rate);
}

static bool parse_shape(instruction *i, const char *text) {
  matrix_shape *m = &i->matrix;
  unsigned rows, columns, depth, blocks = 1;
  char *end;
  rows = (unsigned)strtoul(text, &end, 10);
  if (*end++ != 'x') return false;
  columns = (unsigned)strtoul(end, &end, 10);
  if (*end++ != 'x') return false;
  depth = (unsigned)strtoul(end, &end, 10);
  if (*end++ != '_') return false;
  if (*end >= '0' && *end <= '9') {
    blocks = (unsigned)strtoul(end, &end, 10);
    if (strncmp(end, "b_", 2) != 0) return false;
    end += 2;
  }
  if (rows != columns || rows > MAX_ROWS || depth > MAX_DEPTH || rows * blocks > MAX_TILE_ROWS || depth == 0 ||
      rows == 0)
    return false;
  m->rows = (uint8_t)rows;
  m->depth = (uint8_t)depth;
  m->blocks = (uint8_t)blocks;
  if (strcmp(end, "f8f6f4") == 0) {
    m->scaled = true;
    return narrow_type(i->cbsz, &m->type_a) && narrow_type(i->blgp, &m->type_b);
  }
  const char *second = strchr(end, '_');
  size_t length = second ? (size_t)(second - end) : strlen(end);
  if (!type_by_name(end, length, &m->type_a)) return false;
  m->type_b = m->type_a;
  return !second || type_by_name(second + 1, strlen(second + 1), &m->type_b);
}

bool matrix_resolve(instruction *i, gcn_target target) {
  const char *name = i->mnemonic + strlen("v_mfma_");
  if (!mnemonic_starts(i, "v_mfma_")) return false;
  if (strncmp(name, "scale_", 6) == 0) name += 6;
  name = strchr(name, '_');
  if (!name || !parse_shape(i, name + 1)) return false;
  matrix_shape *m = &i->matrix;
  m->xdl = m->type_a != TYPE_F32 && m->type_a != TYPE_F64;
  m->passes = passes_of(m, target);
  bool negates = m->type_a == TYPE_F64;
  if (i->operands < 4 || (!m->scaled && !negates && (i->cbsz || i->abid || i->blgp))) return false;
  settle_constant(&i->operand[3], m->type_a == TYPE_F64 ? 'd' : m->type_a == TYPE_I8 ? 'u' : 'f');
  unsigned groups = (unsigned)LANES / m->rows / m->blocks, width = m->type_a == TYPE_F64 ? 2 : 1;
  unsigned each = m->type_a == TYPE_F64 ? 1 : m->depth / groups;
  unsigned a = (each * element_bits(m->type_a) + 31) / 32, b = (each * element_bits(m->type_b) + 31) / 32;
  unsigned d = m->type_a == TYPE_F64 && m->rows == 4 ? 2 : result_registers(m) * width;
  if (i->operand[0].registers != d || i->operand[1].registers < a || i->operand[2].registers < b ||
      i->operand[1].kind != OPERAND_VECTOR || i->operand[2].kind != OPERAND_VECTOR) {
    return false;
  }
  mark_writes(i, &i->operand[0]);
  for (unsigned k = 1; k < i->operands; k++) {
    if (k > 3) settle_constant(&i->operand[k], 'u');
    mark_reads(i, &i->operand[k]);
  }
  i->execute = execute_matrix;
  i->class = CLASS_MATRIX;
  return true;
}
