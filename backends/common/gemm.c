/* Matrix products with weights: the families gemm and expert_gemm (docs/ir.md).
 *
 * A workgroup computes tile_m rows of x times one panel of w (for swiglu: a panel of the gate and the same panel of the
 * up matrix) into f32 in workgroup memory, then runs the epilogue on it and rounds once. With one row this reads the
 * panel from front to back; with many rows the panel stays in cache for all of them.
 */
#include "backends/common/gemm.h"
#include "backends/common/families.h"
#include "backends/common/tile.h"

/* Columns of w that lie together where no matrix instructions are used: those of a pair. */
enum { PAIR = 2 };

typedef enum epilogue { EPILOGUE_NONE, EPILOGUE_ADD, EPILOGUE_SWIGLU } epilogue;

typedef struct gemm {
  int64_t n, k, tile_m;
  int64_t panel;          /* rows of w in a panel of the weight */
  int64_t slice;          /* columns of out of one workgroup: one panel or several; streamed: that it makes at a time */
  int64_t workgroups;     /* streamed: that share the panels; 0: each slice has its own */
  int64_t group;          /* columns of w that lie together in a panel */
  unsigned lanes, stages; /* of a workgroup; see gemm_product, gemm_stream */
  bool turns;             /* streamed, in tiles in turns */
  epilogue epilogue;
  sluice_dtype x_dtype, weight_dtype, out_dtype;
  double alpha, limit;
  V x, out, residual;
  V rows;      /* of this workgroup */
  V first_row; /* of x and out (gemm); place in `order` (expert_gemm) */
  /* expert_gemm */
  V order;               /* pointer; NULL for gemm */
  bool sorted;           /* it was done before the kernel started, though that did not wait */
  int64_t slots_per_row; /* slot / this is the row of x */
} gemm;

/* Whether the target's engine multiplies. */
static bool has_engine(const gemm *g) {
  return g->group != PAIR;
}

/* Whether the target's matrix instructions can make the product. */
static bool suits_matrix(const emitter *e, const gemm *g) {
  const matrix_facts *m = &e->facts->matrix;
  return m->depth && g->group == m->group && g->x_dtype == SLUICE_BF16 && g->weight_dtype == SLUICE_BF16 &&
         g->k % m->depth == 0 && g->tile_m % m->rows == 0 && g->slice > 0 && g->slice % m->columns == 0;
}

static void read_attributes(emitter *e, gemm *g) {
  g->n = attribute(e, "n");
  g->k = attribute(e, "k");
  g->tile_m = attribute(e, "tile_m");
  g->panel = attribute(e, "panel");
  g->slice = attribute(e, "slice");
  g->workgroups = attribute(e, "workgroups");
  g->group = attribute(e, "group");
  g->lanes = (unsigned)attribute(e, "lanes");
  g->stages = (unsigned)attribute(e, "stages");
  g->turns = attribute_is(e, "schedule", "turns");
  g->epilogue = attribute_is(e, "epilogue", "swiglu") ? EPILOGUE_SWIGLU
                : attribute_is(e, "epilogue", "add")  ? EPILOGUE_ADD
                                                      : EPILOGUE_NONE;
  g->x_dtype = attribute_dtype(e, "x_dtype");
  g->weight_dtype = attribute_dtype(e, "weight_dtype");
  g->out_dtype = attribute_dtype(e, "out_dtype");
  g->alpha = attribute_float(e, "alpha");
  g->limit = attribute_float(e, "limit");
  unsigned vector = e->vector;
  bool fits = e->facts->lanes > 1 || g->panel <= 4 * (int64_t)vector; /* in registers */
  if (!e->status && (g->panel <= 0 || g->panel % vector || !fits || g->tile_m <= 0 || g->n <= 0))
    e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: a panel of %lld rows does not fit vectors of %u",
                             e->spec->symbol, (long long)g->panel, vector);
  if (!e->status && g->workgroups > 0) return; /* the target's engine looks at the rest */
  if (!e->status &&
      (g->slice <= 0 || g->slice % g->panel || g->slice % vector || (!has_engine(g) && g->slice != g->panel)))
    e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: slices of %lld columns of panels of %lld", e->spec->symbol,
                             (long long)g->slice, (long long)g->panel);
  if (!e->status && has_engine(g) && !(e->atoms->gemm && suits_matrix(e, g)))
    e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: no product takes groups of %lld columns here",
                             e->spec->symbol, (long long)g->group);
}

/* What the sort of the step wrote. */
static V load_sorted(emitter *e, const gemm *g, T type, V pointer, V index) {
  V at = element(e, e->i32, pointer, index);
  return g->sorted ? load_ended(e, type, at) : load(e, type, at);
}

/* The row of out that row `row` of the workgroup goes to: itself, or its slot. */
static V out_row(emitter *e, const gemm *g, V row) {
  V place = add(e, g->first_row, row);
  return g->order ? to_i64(e, load_sorted(e, g, e->i32, g->order, place)) : place;
}

static V x_row(emitter *e, V row, void *user) {
  const gemm *g = user;
  V source = out_row(e, g, row);
  if (g->order && g->slots_per_row > 1) source = udiv(e, source, int64(e, g->slots_per_row));
  return element_of(e, g->x_dtype, g->x, mul(e, source, int64(e, g->k)));
}

static void multiply(emitter *e, gemm *g, V panel, V c) {
  tile_multiply(e, &(tile_product){.a_row = x_row,
                                   .user = g,
                                   .a_dtype = g->x_dtype,
                                   .b = panel,
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
  V index = add(e, mul(e, row, int64(e, g->slice)), column);
  V value = load_f32(e, SLUICE_F32, c, index, width);
  V at = add(e, out_base, column);
  if (g->epilogue == EPILOGUE_SWIGLU)
    value = swiglu(e, value, load_f32(e, SLUICE_F32, up, index, width), g->alpha, g->limit);
  if (g->epilogue == EPILOGUE_ADD) value = fadd_(e, value, load_f32(e, g->out_dtype, g->residual, at, width));
  store_f32(e, g->out_dtype, value, g->out, at);
}

static void finish(emitter *e, const gemm *g, V panel, V c, V up) {
  unsigned vector = e->vector;
  V first_column = mul(e, panel, int64(e, g->slice));
  V columns = imin(e, sub(e, int64(e, g->n), first_column), int64(e, g->slice));
  int64_t vectors = g->slice / vector;
  loop places = lane_loop(e, int64(e, 0), mul(e, g->rows, int64(e, vectors)));
  V row = udiv(e, places.index, int64(e, vectors));
  V column = mul(e, urem(e, places.index, int64(e, vectors)), int64(e, vector));
  V out_base = add(e, mul(e, out_row(e, g, row), int64(e, g->n)), first_column);
  V end = add(e, column, int64(e, vector));
  branch whole = if_begin(e, icmp(e, LLVMIntSLE, end, columns));
  finish_columns(e, g, c, up, row, out_base, column, vector);
  if (g->n % vector) {
    if_else(e, &whole);
    loop singles = loop_begin(e, column, columns, int64(e, 1));
    finish_columns(e, g, c, up, row, out_base, singles.index, 1);
    loop_end(e, &singles);
  }
  if_end(e, &whole);
  loop_end(e, &places);
}

/* What the target's engine gets; without weights and memory while only the number of lanes is wanted. */
static gemm_product engine_product(gemm *g) {
  return (gemm_product){.x = g->x,
                        .x_row = x_row,
                        .user = g,
                        .rows = g->rows,
                        .k = g->k,
                        .tile_m = g->tile_m,
                        .panel = g->panel,
                        .slice = g->slice,
                        .lanes = g->lanes,
                        .stages = g->stages,
                        .matrices = g->epilogue == EPILOGUE_SWIGLU ? 2 : 1};
}

static kernel_shape shape_of(const gemm *g, sluice_plan_extent y) {
  kernel_shape shape = {
      .x = {SLUICE_SIZE_ONE, 1, (uint32_t)((g->n + g->slice - 1) / g->slice), 0}, .y = y, .rows = {g->n}};
  if (has_engine(g)) shape.lanes = g->lanes;
  return shape;
}

/* What only the epilogue needs waits in workgroup memory: the engine's loop uses every register for weights on their
 * way. Taken back behind a barrier. */
static V park(emitter *e, const gemm *g) {
  V parked = workgroup_take(e, 3 * sizeof(int32_t));
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  store_i32(e, e->x, parked, int64(e, 0));
  store_i32(e, g->first_row, parked, int64(e, 1));
  store_i32(e, g->rows, parked, int64(e, 2));
  if_end(e, &first);
  return parked;
}

/* The workgroup's slice, and its rows. */
static V take_back(emitter *e, gemm *g, V parked) {
  g->first_row = load_i32(e, parked, int64(e, 1));
  g->rows = load_i32(e, parked, int64(e, 2));
  return load_i32(e, parked, int64(e, 0));
}

/* The tile's product and epilogue for slice e->x of the matrix at `weights`; early: x is not there yet. */
static void compute_tile(emitter *e, gemm *g, V weights, bool early) {
  gemm_product product = engine_product(g);
  product.early = early;
  const int64_t panel_elements = (g->k + g->group - 1) / g->group * g->group * g->panel;
  const int64_t panels = (g->n + g->panel - 1) / g->panel, of_slice = g->slice / g->panel;
  V first = mul(e, e->x, int64(e, of_slice * product.matrices));
  product.weights = element_of(e, g->weight_dtype, weights, mul(e, first, int64(e, panel_elements)));
  product.panels = imin(e, sub(e, int64(e, panels), mul(e, e->x, int64(e, of_slice))), int64(e, of_slice));
  for (unsigned i = 0; i < product.matrices; i++)
    product.c[i] = workgroup_take(e, (uint64_t)(g->tile_m * g->slice) * sizeof(float));
  V slice = e->x;
  if (has_engine(g)) {
    V parked = park(e, g);
    e->atoms->gemm->multiply(e, &product);
    e->atoms->barrier(e);
    slice = take_back(e, g, parked);
  } else {
    for (unsigned i = 0; i < product.matrices; i++)
      multiply(e, g, element_of(e, g->weight_dtype, product.weights, int64(e, i * panel_elements)), product.c[i]);
    e->atoms->barrier(e);
  }
  finish(e, g, slice, product.c[0], product.c[1]);
}

/* ---- streamed products ---- */

enum {
  FULL_TILE = 64,   /* smaller ones are for steps in which most experts have one */
  LARGE_TILE = 128, /* smaller ones are for steps of one tile */
};

/* What a streamed kernel does, besides `gemm`. */
typedef struct stream_kernel {
  gemm g;
  int64_t panels, panel_bytes;  /* of each matrix */
  int64_t round_panels, rounds; /* of a round; of a tile with all panels */
  unsigned matrices;
  V weights;
  V first, end;           /* gemm: the workgroup's panels */
  V step_rows, tile_rows; /* gemm in turns: rows of the step, and of a tile */
  /* expert_gemm */
  V counts, tiles;
  int64_t batch_bytes;
} stream_kernel;

static V stream_x_row(emitter *e, V row, void *user) {
  return x_row(e, row, &((stream_kernel *)user)->g);
}

static V fetch_residual(emitter *e, V row, V column, unsigned width, void *user) {
  const gemm *g = &((const stream_kernel *)user)->g;
  if (g->epilogue != EPILOGUE_ADD) return NULL;
  return load_f32(e, g->out_dtype, g->residual, add(e, mul(e, out_row(e, g, row), int64(e, g->n)), column), width);
}

static V result_of_sums(emitter *e, const V sums[2], void *user) {
  const gemm *g = &((const stream_kernel *)user)->g;
  return g->epilogue == EPILOGUE_SWIGLU ? swiglu(e, sums[0], sums[1], g->alpha, g->limit) : sums[0];
}

static V out_place(emitter *e, V row, void *user) {
  const gemm *g = &((const stream_kernel *)user)->g;
  return mul(e, out_row(e, g, row), int64(e, g->n));
}

static void finish_elements(emitter *e, V row, V column, const V sums[2], V residual, void *user) {
  const gemm *g = &((const stream_kernel *)user)->g;
  V value = result_of_sums(e, sums, user);
  if (residual) value = fadd_(e, value, residual);
  store_f32(e, g->out_dtype, value, g->out, add(e, out_place(e, row, user), column));
}

/* Panels [first, first + round_panels) of the matrix at `weights`, but none from `end` on. */
static void set_panels(emitter *e, const stream_kernel *s, V weights, V first, V end, gemm_round *round) {
  round->weights = byte_offset(e, weights, mul(e, first, int64(e, s->panel_bytes * s->matrices)));
  round->panels = imin(e, sub(e, end, first), int64(e, s->round_panels));
  round->column = mul(e, first, int64(e, s->g.panel));
}

static void locate_panels(emitter *e, V number, gemm_round *round, void *user) {
  const stream_kernel *s = user;
  set_panels(e, s, s->weights, add(e, s->first, mul(e, number, int64(e, s->round_panels))), s->end, round);
  round->rows = s->g.rows;
}

/* The product's part that all workgroups share; false when the target has no such product. */
static bool open_stream(emitter *e, stream_kernel *s, gemm_stream *product) {
  gemm *g = &s->g;
  if (!e->atoms->gemm_stream || !suits_matrix(e, g) || g->panel != e->facts->matrix.columns) {
    e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: no product streams panels of %lld rows here", e->spec->symbol,
                             (long long)g->panel);
    return false;
  }
  s->matrices = g->epilogue == EPILOGUE_SWIGLU ? 2 : 1;
  s->panels = (g->n + g->panel - 1) / g->panel;
  s->panel_bytes = g->k * g->panel * (int64_t)sluice_dtype_size(g->weight_dtype);
  s->round_panels = g->slice / g->panel;
  s->rounds = (s->panels + s->round_panels - 1) / s->round_panels;
  *product = (gemm_stream){.n = g->n,
                           .k = g->k,
                           .tile_m = g->tile_m,
                           .matrices = s->matrices,
                           .panels = s->round_panels,
                           .workgroups = g->workgroups,
                           .lanes = g->lanes,
                           .stages = g->stages,
                           .turns = g->turns,
                           .x_row = stream_x_row,
                           .fetch = fetch_residual,
                           .finish = finish_elements,
                           .result = result_of_sums,
                           .out_place = out_place,
                           .out_dtype = g->out_dtype,
                           .user = s};
  return true;
}

/* The workgroup's part of the residual, which is wanted in the end, on its way from memory in the beginning. */
static void prefetch_residual(emitter *e, const stream_kernel *s) {
  const gemm *g = &s->g;
  const int64_t line_bytes = e->facts->line_bytes;
  if (g->epilogue != EPILOGUE_ADD || !e->atoms->prefetch) return;
  const int64_t element_bytes = (int64_t)sluice_dtype_size(g->out_dtype);
  const int64_t share = (s->panels + g->workgroups - 1) / g->workgroups;
  const int64_t lines = (share * g->panel * element_bytes + line_bytes - 1) / line_bytes + 1;
  loop each = lane_loop(e, int64(e, 0), mul(e, g->rows, int64(e, lines)));
  V row = udiv(e, each.index, int64(e, lines)), line = urem(e, each.index, int64(e, lines));
  V column = add(e, mul(e, s->first, int64(e, g->panel)), mul(e, line, int64(e, line_bytes / element_bytes)));
  column = imin(e, column, int64(e, g->n - 1));
  V at = add(e, mul(e, out_row(e, g, row), int64(e, g->n)), column);
  e->atoms->prefetch(e, element_of(e, g->out_dtype, g->residual, at));
  loop_end(e, &each);
}

/* `number` of `count` workgroups, in an order in which neighbours are on one die and share what its cache holds:
 *
 *     workgroup    0 1 2 3 4 5 6 7 8 9      with two dies: even ones are on the first
 *     becomes      0 5 1 6 2 7 3 8 4 9
 */
static V order_by_die(emitter *e, V number, V count) {
  const int64_t dies = e->facts->dies;
  if (dies < 2) return number;
  V die = urem(e, number, int64(e, dies)), more = urem(e, count, int64(e, dies));
  V before = add(e, mul(e, die, udiv(e, count, int64(e, dies))), imin(e, die, more));
  return add(e, before, udiv(e, number, int64(e, dies)));
}

/* Tiles of rows beside each other share their weights: workgroups, which start in the order of their numbers, go
 * through the shares of so many tiles, then of the next ones. What these read of x stays in the cache that all
 * processors share. Changes e->x and e->y. */
static void order_tiles(emitter *e, int64_t workgroups, int64_t tile_m) {
  enum { ROWS = 1024 };
  V tiles = extent_of(e, &e->grid[1]), x = local_set(e, e->i64, e->x), y = local_set(e, e->i64, e->y);
  branch several = if_begin(e, icmp(e, LLVMIntSGT, tiles, int64(e, 1)));
  V number = add(e, mul(e, e->y, int64(e, workgroups)), e->x);
  number = order_by_die(e, number, mul(e, tiles, int64(e, workgroups)));
  const int64_t most = (ROWS + tile_m - 1) / tile_m;
  V first = mul(e, udiv(e, number, int64(e, workgroups * most)), int64(e, most));
  V group = imin(e, sub(e, tiles, first), int64(e, most));
  V within = to_i32(e, urem(e, number, int64(e, workgroups * most))), count = to_i32(e, group);
  set(e, x, to_i64(e, udiv(e, within, count)));
  set(e, y, add(e, first, to_i64(e, urem(e, within, count))));
  if_end(e, &several);
  e->x = get(e, e->i64, x);
  e->y = get(e, e->i64, y);
}

/* Steps of rows of tiles in turns: the tiles of a product can be chosen so that large ones do, experts cannot. */
enum { PRODUCT_ROW_STEP = 32, EXPERT_ROW_STEP = 16 };

/* Of `rows` rows, as many for each tile as go evenly into `tiles`, in whole steps. */
static V even_rows(emitter *e, V rows, V tiles, int64_t row_step) {
  V each = udiv(e, add(e, rows, sub(e, tiles, int64(e, 1))), tiles);
  return mul(e, ceil_div(e, each, row_step), int64(e, row_step));
}

/* Rows of a tile, tile_m at most, with which the step's `rows` take the fewest passes of all workgroups: as few tiles
 * as there may be, or some more that fill the last pass better. */
static V choose_tile_rows(emitter *e, const stream_kernel *s, V rows) {
  enum { CHOICES = 4 };
  V fewest = ceil_div(e, rows, s->g.tile_m), best = NULL, best_cost = NULL;
  for (int64_t i = 0; i < CHOICES; i++) {
    V tiles = add(e, fewest, int64(e, i)), height = even_rows(e, rows, tiles, PRODUCT_ROW_STEP);
    V cost = mul(e, ceil_div(e, mul(e, tiles, int64(e, s->rounds)), s->g.workgroups), height);
    V better = best ? icmp(e, LLVMIntSLT, cost, best_cost) : NULL;
    best = best ? select_(e, better, height, best) : height;
    best_cost = best_cost ? select_(e, better, cost, best_cost) : cost;
  }
  return best;
}

static V tiles_of_step(emitter *e, const stream_kernel *s) {
  return udiv(e, add(e, s->step_rows, sub(e, s->tile_rows, int64(e, 1))), s->tile_rows);
}

/* Round `number` of a product in turns: rounds of the panels for TOGETHER tiles of rows beside each other, one round of
 * the panels after the other, then for the next tiles. So a panel is read from memory once for all of these tiles, and
 * their rows stay in the cache that all processors share. */
static void locate_turn(emitter *e, V number, gemm_round *round, void *user) {
  enum { TOGETHER = 11 };
  stream_kernel *s = user;
  gemm *g = &s->g;
  V height = s->tile_rows;
  V tiles = to_i32(e, tiles_of_step(e, s)), at = to_i32(e, number);
  V group = udiv(e, at, int32(e, (int32_t)(TOGETHER * s->rounds))), first = mul(e, group, int32(e, TOGETHER));
  V count = imin(e, sub(e, tiles, first), int32(e, TOGETHER));
  V within = sub(e, at, mul(e, group, int32(e, (int32_t)(TOGETHER * s->rounds))));
  V panel = mul(e, to_i64(e, udiv(e, within, count)), int64(e, s->round_panels));
  g->first_row = mul(e, to_i64(e, add(e, first, urem(e, within, count))), height);
  g->rows = imin(e, sub(e, s->step_rows, g->first_row), height);
  set_panels(e, s, s->weights, panel, int64(e, s->panels), round);
  round->rows = g->rows;
}

static void gemm_in_turns(emitter *e, const kernel_spec *spec, const gemm *read, sluice_size size) {
  stream_kernel s = {.g = *read};
  gemm *g = &s.g;
  gemm_stream product;
  if (!open_stream(e, &s, &product)) return;
  kernel_begin(
      e, spec,
      (kernel_shape){.x = {SLUICE_SIZE_ONE, 1, (uint32_t)g->workgroups, 0}, .rows = {g->n}, .lanes = g->lanes});
  g->x = product.x = e->argument[0];
  g->out = product.out = e->argument[3];
  g->residual = e->argument[2];
  if (g->epilogue == EPILOGUE_ADD) product.residual = g->residual;
  s.weights = e->argument[1];
  s.step_rows = size_of(e, size);
  s.tile_rows = choose_tile_rows(e, &s, s.step_rows);
  product.locate = locate_turn;
  product.row_step = PRODUCT_ROW_STEP;
  product.first = e->x;
  product.end = mul(e, tiles_of_step(e, &s), int64(e, s.rounds));
  product.stride = g->workgroups;
  branch any = if_begin(e, icmp(e, LLVMIntSLT, product.first, product.end));
  e->atoms->gemm_stream->multiply(e, &product);
  if_end(e, &any);
  kernel_end(e);
}

static void gemm_streamed(emitter *e, const kernel_spec *spec, const gemm *read, sluice_size size) {
  if (read->turns) {
    gemm_in_turns(e, spec, read, size);
    return;
  }
  stream_kernel s = {.g = *read};
  gemm *g = &s.g;
  gemm_stream product;
  if (!open_stream(e, &s, &product)) return;
  kernel_begin(e, spec,
               (kernel_shape){.x = {SLUICE_SIZE_ONE, 1, (uint32_t)g->workgroups, 0},
                              .y = {size, (uint32_t)g->tile_m, 1, 0},
                              .rows = {g->n},
                              .lanes = g->lanes,
                              .begins_early = true});
  g->x = e->argument[0];
  g->residual = e->argument[2];
  g->out = e->argument[3];
  if (g->tile_m >= LARGE_TILE) order_tiles(e, g->workgroups, g->tile_m);
  g->first_row = mul(e, e->y, int64(e, g->tile_m));
  g->rows = imin(e, sub(e, size_of(e, size), g->first_row), int64(e, g->tile_m));
  s.weights = e->argument[1];
  s.first = udiv(e, mul(e, e->x, int64(e, s.panels)), int64(e, g->workgroups));
  s.end = udiv(e, mul(e, add(e, e->x, int64(e, 1)), int64(e, s.panels)), int64(e, g->workgroups));
  prefetch_residual(e, &s);
  product.x = g->x;
  product.early = true;
  product.locate = locate_panels;
  product.first = int64(e, 0);
  product.end = ceil_div(e, sub(e, s.end, s.first), s.round_panels);
  product.stride = 1;
  product.alone = g->tile_m < LARGE_TILE;
  product.single = (s.panels + g->workgroups - 1) / g->workgroups <= s.round_panels;
  e->atoms->gemm_stream->multiply(e, &product);
  kernel_end(e);
}

/* Rounds go through the tiles one after the other, but through those of one expert side by side: round by round of the
 * panels, so that memory is read once for all of them. */
static void locate_tile(emitter *e, V number, gemm_round *round, void *user) {
  stream_kernel *s = user;
  gemm *g = &s->g;
  V tile = udiv(e, number, int64(e, s->rounds)), entry = mul(e, tile, int64(e, 4));
  V expert = load_i32(e, s->tiles, entry), first_row = load_i32(e, s->tiles, add(e, entry, int64(e, 1)));
  V first = load_i32(e, s->counts, add(e, expert, int64(e, 1)));
  V end = load_i32(e, s->counts, add(e, expert, int64(e, 2)));
  V before = udiv(e, sub(e, first_row, first), int64(e, g->tile_m)); /* tiles of the expert */
  V all = to_i32(e, ceil_div(e, sub(e, end, first), g->tile_m));
  V within = to_i32(e, sub(e, number, mul(e, sub(e, tile, before), int64(e, s->rounds))));
  V panel = mul(e, to_i64(e, udiv(e, within, all)), int64(e, s->round_panels));
  V height = g->turns ? even_rows(e, sub(e, end, first), to_i64(e, all), EXPERT_ROW_STEP) : int64(e, g->tile_m);
  g->first_row = add(e, first, mul(e, to_i64(e, urem(e, within, all)), height));
  g->rows = imin(e, sub(e, end, g->first_row), height);
  V weights = byte_offset(e, s->weights, mul(e, expert, int64(e, s->batch_bytes)));
  set_panels(e, s, weights, panel, int64(e, s->panels), round);
  round->rows = g->rows;
}

static void expert_gemm_streamed(emitter *e, const kernel_spec *spec, const gemm *read, int64_t experts,
                                 int64_t batch_bytes) {
  stream_kernel s = {.g = *read, .batch_bytes = batch_bytes};
  gemm_stream product;
  if (!open_stream(e, &s, &product)) return;
  const int64_t workgroups = s.g.workgroups;
  kernel_begin(e, spec,
               (kernel_shape){.x = {SLUICE_SIZE_ONE, 1, (uint32_t)workgroups, 0}, .rows = {s.g.n}, .lanes = s.g.lanes});
  s.g.x = product.x = e->argument[0];
  s.weights = e->argument[1];
  s.counts = e->argument[3];
  s.g.order = e->argument[4];
  s.tiles = e->argument[5];
  s.g.out = product.out = e->argument[6];
  product.locate = locate_tile;
  product.row_step = EXPERT_ROW_STEP;
  const int64_t which = attribute_is(e, "gather", "token") ? 0 : 1;
  if (s.g.turns) product.ticket = element(e, e->i32, s.counts, int64(e, experts + 2 + which));
  product.alone = s.g.tile_m < FULL_TILE;
  product.first = order_by_die(e, e->x, int64(e, workgroups));
  product.end = mul(e, load_i32(e, s.counts, int64(e, 0)), int64(e, s.rounds));
  product.stride = workgroups; /* all are near each other at any time: fewer pages of memory are in use at once */
  branch any = if_begin(e, icmp(e, LLVMIntSLT, product.first, product.end));
  e->atoms->gemm_stream->multiply(e, &product);
  if_end(e, &any);
  kernel_end(e);
}

/* Operands: x, w, residual or none, out. */
void family_gemm(emitter *e, const kernel_spec *spec) {
  e->spec = spec;
  gemm g = {0};
  read_attributes(e, &g);
  sluice_size size = attribute_size(e, "size");
  if (e->status) return;
  if (g.workgroups > 0) {
    gemm_streamed(e, spec, &g, size);
    return;
  }
  kernel_shape shape = shape_of(&g, (sluice_plan_extent){size, (uint32_t)g.tile_m, 1, 0});
  shape.begins_early = has_engine(&g); /* the engine reads weights before x is there */
  kernel_begin(e, spec, shape);
  g.x = e->argument[0];
  g.residual = e->argument[2];
  g.out = e->argument[3];
  enum { ONE_TILE = 16 }; /* these are for steps of one tile */
  if (has_engine(&g) && e->facts->dies > 1 && g.tile_m > ONE_TILE)
    order_tiles(e, (g.n + g.slice - 1) / g.slice, g.tile_m);
  g.first_row = mul(e, e->y, int64(e, g.tile_m));
  g.rows = imin(e, sub(e, size_of(e, size), g.first_row), int64(e, g.tile_m));
  compute_tile(e, &g, e->argument[1], shape.begins_early);
  kernel_end(e);
}

/* The tiles of the shared expert, the last of `tiles`, read the same weights: their workgroups go through them slice by
 * slice, so that those of one slice run together and memory is read once. Changes e->x and e->y. */
static void order_shared_tiles(emitter *e, const gemm *g, V tiles) {
  V own = ceil_div(e, size_of(e, SLUICE_SIZE_TOKENS), g->tile_m), first = sub(e, tiles, own);
  V x = local_set(e, e->i64, e->x), y = local_set(e, e->i64, e->y);
  V inside = and_(e, icmp(e, LLVMIntSGE, e->y, first), icmp(e, LLVMIntSGT, own, int64(e, 1)));
  branch several = if_begin(e, inside);
  int64_t slices = (g->n + g->slice - 1) / g->slice;
  V number = to_i32(e, add(e, mul(e, sub(e, e->y, first), int64(e, slices)), e->x)), count = to_i32(e, own);
  set(e, x, to_i64(e, udiv(e, number, count)));
  set(e, y, add(e, first, to_i64(e, urem(e, number, count))));
  if_end(e, &several);
  e->x = get(e, e->i64, x);
  e->y = get(e, e->i64, y);
}

/* Rows of the grid: as many as there may be tiles, one for each slot. With large tiles most would have nothing to do,
 * and on a GPU even starting them takes time: then 16 for the tokens of a tile, which is about one for each tile in
 * small steps, and about one for each expert. */
static sluice_plan_extent tile_rows(const emitter *e, const gemm *g, int64_t slots) {
  enum { SMALL_TILE = 8, ROWS = 16 };
  if (e->facts->lanes == 1 || g->tile_m <= SMALL_TILE)
    return (sluice_plan_extent){SLUICE_SIZE_TOKENS, 1, (uint32_t)slots, 0};
  return (sluice_plan_extent){SLUICE_SIZE_TOKENS, (uint32_t)g->tile_m, ROWS, 0};
}

/* Entry e->y of expert_tiles, and one of its numbers as i64. */
static V load_tile(emitter *e, const gemm *g, V tiles) {
  return load_sorted(e, g, vector_type(e->i32, 4), tiles, mul(e, e->y, int64(e, 4)));
}

static V tile_item(emitter *e, V entry, int32_t item) {
  return to_i64(e, LLVMBuildExtractElement(e->builder, entry, int32(e, item), ""));
}

/* The shape of a kernel whose workgroups have a tile, or several in turn. */
static kernel_shape expert_shape(emitter *e, gemm *g, int64_t slots) {
  kernel_shape shape = shape_of(g, tile_rows(e, g, slots));
  const bool several = shape.y.divisor > 1;
  /* Tiles in turn: what the loop keeps is not worth half of the workgroups, unless few lanes do all the work. */
  if (g->tile_m == 16) shape.workgroups_per_processor = shape.lanes == e->facts->lanes ? 2 : 1;
  /* Of two products of one sort the second reads its weights while x is still being made. Alone it starts when all of
   * the first one have waited for the sort; as part of a joined kernel it waits itself. */
  shape.releases_next = attribute_is(e, "overlap", "first");
  shape.begins_early = attribute_is(e, "overlap", "second");
  g->sorted = shape.begins_early && !e->joined;
  if ((shape.releases_next || shape.begins_early) && (!has_engine(g) || several))
    e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: no two products overlap here", e->spec->symbol);
  return shape;
}

/* Operands: x, w, shared_w or none, counts, order, expert_tiles, out. */
void family_expert_gemm(emitter *e, const kernel_spec *spec) {
  e->spec = spec;
  gemm g = {0};
  read_attributes(e, &g);
  int64_t batch_bytes = attribute(e, "batch_bytes"), experts = attribute(e, "experts");
  bool shared = attribute(e, "shared") != 0;
  int64_t slots = attribute(e, "top_k") + shared; /* of a token */
  g.slots_per_row = attribute_is(e, "gather", "token") ? slots : 1;
  if (e->status) return;
  if (g.workgroups > 0) {
    if (shared)
      e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: a shared expert among experts that stream", spec->symbol);
    else
      expert_gemm_streamed(e, spec, &g, experts, batch_bytes);
    return;
  }
  kernel_shape shape = expert_shape(e, &g, slots);
  /* A workgroup has one tile, or, where the grid has fewer rows than there may be tiles, several in turn. */
  const bool several = shape.y.divisor > 1;
  if (e->status) return;
  kernel_begin(e, spec, shape);
  if (shape.releases_next) release_next(e);
  if (shape.begins_early) await_all_but_first(e);
  g.x = e->argument[0];
  g.order = e->argument[4];
  g.out = e->argument[6];
  V tiles = to_i64(e, load_sorted(e, &g, e->i32, e->argument[3], int64(e, 0))), x = e->x, entry = NULL;
  loop turns = {0};
  branch used = {0};
  if (several) {
    turns = loop_begin(e, e->y, tiles, extent_of(e, &e->grid[1]));
    e->y = turns.index;
  } else {
    /* The entry comes together with the number of tiles, not behind it; those behind the last hold anything. Every tile
     * has rows: that the branch asks for them keeps the load before it. */
    if (!shared) entry = load_tile(e, &g, e->argument[5]);
    V real = icmp(e, LLVMIntSLT, e->y, tiles);
    if (entry) real = and_(e, real, icmp(e, LLVMIntSGT, tile_item(e, entry, 2), int64(e, 0)));
    used = if_begin(e, real);
  }
  if (shared) order_shared_tiles(e, &g, tiles);
  if (!entry) entry = load_tile(e, &g, e->argument[5]);
  V expert = tile_item(e, entry, 0);
  g.first_row = tile_item(e, entry, 1);
  g.rows = tile_item(e, entry, 2);
  V weights = byte_offset(e, e->argument[1], mul(e, expert, int64(e, batch_bytes)));
  if (shared) weights = select_(e, icmp(e, LLVMIntEQ, expert, int64(e, experts)), e->argument[2], weights);
  compute_tile(e, &g, weights, shape.begins_early);
  if (several) {
    e->atoms->barrier(e); /* the next tile takes the same workgroup memory */
    e->x = x;
    loop_end(e, &turns);
  } else {
    if_end(e, &used);
  }
  kernel_end(e);
}
