/* Matrix products with weights: the families gemm and expert_gemm (docs/ir.md).
 *
 * A workgroup computes tile_m rows of x times one panel of w (for swiglu: a panel of the gate and the same panel of the
 * up matrix) into f32 in workgroup memory, then runs the epilogue on it and rounds once. With one row this reads the
 * panel from front to back; with many rows the panel stays in cache for all of them.
 */
#include "backends/common/families.h"
#include "backends/common/tile.h"

typedef enum epilogue { EPILOGUE_NONE, EPILOGUE_ADD, EPILOGUE_SWIGLU } epilogue;

typedef struct gemm {
  int64_t n, k, tile_m, panel;
  epilogue epilogue;
  sluice_dtype x_dtype, weight_dtype, out_dtype;
  double alpha, limit;
  V x, out, residual;
  V rows;      /* of this workgroup */
  V first_row; /* of x and out (gemm); place in `order` (expert_gemm) */
  /* expert_gemm */
  V order;               /* pointer; NULL for gemm */
  int64_t slots_per_row; /* slot / this is the row of x */
} gemm;

static void read_attributes(emitter *e, gemm *g) {
  g->n = attribute(e, "n");
  g->k = attribute(e, "k");
  g->tile_m = attribute(e, "tile_m");
  g->panel = attribute(e, "panel");
  g->epilogue = attribute_is(e, "epilogue", "swiglu") ? EPILOGUE_SWIGLU
                : attribute_is(e, "epilogue", "add")  ? EPILOGUE_ADD
                                                      : EPILOGUE_NONE;
  g->x_dtype = attribute_dtype(e, "x_dtype");
  g->weight_dtype = attribute_dtype(e, "weight_dtype");
  g->out_dtype = attribute_dtype(e, "out_dtype");
  g->alpha = attribute_float(e, "alpha");
  g->limit = attribute_float(e, "limit");
  unsigned vector = e->atoms->vector;
  if (!e->status && (g->panel <= 0 || g->panel % vector || g->panel > 4 * vector || g->tile_m <= 0 || g->n <= 0))
    e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: a panel of %lld rows does not fit vectors of %u",
                             e->spec->symbol, (long long)g->panel, vector);
}

/* The row of out that row `row` of the workgroup goes to: itself, or its slot. */
static V out_row(emitter *e, const gemm *g, V row) {
  V place = add(e, g->first_row, row);
  return g->order ? load_i32(e, g->order, place) : place;
}

static V x_row(emitter *e, V row, void *user) {
  const gemm *g = user;
  V source = out_row(e, g, row);
  if (g->order && g->slots_per_row > 1) source = udiv(e, source, int64(e, g->slots_per_row));
  return element_of(e, g->x_dtype, g->x, mul(e, source, int64(e, g->k)));
}

static void multiply(emitter *e, gemm *g, V weights, V panel, V c) {
  V pairs = int64(e, (g->k + 1) / 2 * 2 * g->panel);
  tile_multiply(e, &(tile_product){.a_row = x_row,
                                   .user = g,
                                   .a_dtype = g->x_dtype,
                                   .b = element_of(e, g->weight_dtype, weights, mul(e, panel, pairs)),
                                   .b_dtype = g->weight_dtype,
                                   .c = c,
                                   .c_stride = g->panel,
                                   .rows = g->rows,
                                   .depth = int64(e, g->k),
                                   .columns = int64(e, g->panel),
                                   .max_columns = g->panel});
}

/* Columns [column, column + width) of row `row` of the tile: from c (and up) to memory. */
static void finish_columns(emitter *e, const gemm *g, V c, V up, V row, V out_base, V column, unsigned width) {
  V index = add(e, mul(e, row, int64(e, g->panel)), column);
  V value = load_f32(e, SLUICE_F32, c, index, width);
  V at = add(e, out_base, column);
  if (g->epilogue == EPILOGUE_SWIGLU)
    value = swiglu(e, value, load_f32(e, SLUICE_F32, up, index, width), g->alpha, g->limit);
  if (g->epilogue == EPILOGUE_ADD) value = fadd_(e, value, load_f32(e, g->out_dtype, g->residual, at, width));
  store_f32(e, g->out_dtype, value, g->out, at);
}

static void finish(emitter *e, const gemm *g, V panel, V c, V up) {
  unsigned vector = e->atoms->vector;
  V first_column = mul(e, panel, int64(e, g->panel));
  V columns = imin(e, sub(e, int64(e, g->n), first_column), int64(e, g->panel));
  V full = mul(e, udiv(e, columns, int64(e, vector)), int64(e, vector));
  loop rows = loop_begin(e, int64(e, 0), g->rows, int64(e, 1));
  V out_base = add(e, mul(e, out_row(e, g, rows.index), int64(e, g->n)), first_column);
  loop vectors = loop_begin(e, int64(e, 0), full, int64(e, vector));
  finish_columns(e, g, c, up, rows.index, out_base, vectors.index, vector);
  loop_end(e, &vectors);
  if (g->n % vector) {
    loop singles = loop_begin(e, full, columns, int64(e, 1));
    finish_columns(e, g, c, up, rows.index, out_base, singles.index, 1);
    loop_end(e, &singles);
  }
  loop_end(e, &rows);
}

/* The tile's product and epilogue for panel e->x of the matrix at `weights`. */
static void compute_tile(emitter *e, gemm *g, V weights) {
  V c = workgroup_take(e, (uint64_t)(g->tile_m * g->panel) * sizeof(float)), up = NULL;
  if (g->epilogue == EPILOGUE_SWIGLU) {
    up = workgroup_take(e, (uint64_t)(g->tile_m * g->panel) * sizeof(float));
    V gate_panel = mul(e, e->x, int64(e, 2));
    multiply(e, g, weights, gate_panel, c);
    multiply(e, g, weights, add(e, gate_panel, int64(e, 1)), up);
  } else {
    multiply(e, g, weights, e->x, c);
  }
  finish(e, g, e->x, c, up);
}

/* Operands: x, w, residual or none, out. */
void family_gemm(emitter *e, const kernel_spec *spec) {
  e->spec = spec;
  gemm g = {0};
  read_attributes(e, &g);
  sluice_size size = attribute_size(e, "size");
  if (e->status) return;
  kernel_begin(e, spec, SLUICE_SIZE_ONE, 1, (uint32_t)((g.n + g.panel - 1) / g.panel));
  g.x = e->argument[0];
  g.residual = e->argument[2];
  g.out = e->argument[3];
  g.first_row = mul(e, e->y, int64(e, g.tile_m));
  g.rows = imin(e, sub(e, size_of(e, size), g.first_row), int64(e, g.tile_m));
  compute_tile(e, &g, e->argument[1]);
  kernel_end(e);
}

/* Operands: x, w, counts, order, expert_tiles, out. */
void family_expert_gemm(emitter *e, const kernel_spec *spec) {
  e->spec = spec;
  gemm g = {0};
  read_attributes(e, &g);
  int64_t top_k = attribute(e, "top_k"), batch_bytes = attribute(e, "batch_bytes");
  g.slots_per_row = attribute_is(e, "gather", "token") ? top_k : 1;
  if (e->status) return;
  kernel_begin(e, spec, SLUICE_SIZE_ONE, 1, (uint32_t)((g.n + g.panel - 1) / g.panel));
  g.x = e->argument[0];
  g.order = e->argument[3];
  g.out = e->argument[5];
  branch used = if_begin(e, icmp(e, LLVMIntSLT, e->y, load_i32(e, e->argument[2], int64(e, 0))));
  V tile = mul(e, e->y, int64(e, 4));
  V expert = load_i32(e, e->argument[4], tile);
  g.first_row = load_i32(e, e->argument[4], add(e, tile, int64(e, 1)));
  g.rows = load_i32(e, e->argument[4], add(e, tile, int64(e, 2)));
  compute_tile(e, &g, byte_offset(e, e->argument[1], mul(e, expert, int64(e, batch_bytes))));
  if_end(e, &used);
  kernel_end(e);
}
