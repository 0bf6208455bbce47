/* The product inside the families gemm and expert_gemm, as a target with matrix instructions makes it. */
#ifndef BACKENDS_COMMON_GEMM_H
#define BACKENDS_COMMON_GEMM_H

#include "backends/common/emit.h"

/* c[row][column] = x[row] . w[column] for the rows of x and a slice of w, one panel or several, of one workgroup, in
 * f32. All bf16 on input; the weight lies in
 * panels of groups of facts->matrix.group columns, and k, tile_m and slice are multiples of what facts->matrix says. */
typedef struct gemm_product {
  V x;                                       /* all rows of x are in the 4 GB behind it */
  V (*x_row)(emitter *e, V row, void *user); /* first element of row `row` (i64) of x */
  void *user;
  V rows; /* i64, 1 .. tile_m */
  int64_t k, tile_m, panel;
  int64_t slice;          /* columns of the workgroup: a multiple of the panel */
  unsigned lanes, stages; /* of the workgroup; steps of its depth that a wave has under way */
  unsigned matrices;      /* 1, or 2: gate and up */
  V weights;              /* first panel of the slice; with two matrices gate and up in turn */
  V panels;               /* i64: panels of the slice that each matrix has, at least 1 */
  bool early;             /* the kernel did not wait yet: `multiply` does, before it reads x (await_previous) */
  V c[2];                 /* f32 [tile_m][slice] in workgroup memory, for each matrix */
} gemm_product;

typedef struct gemm_engine {
  void (*multiply)(emitter *e, const gemm_product *product); /* the caller puts a barrier behind it */
} gemm_engine;

/* The same products for workgroups that each have a share of all there is to do, whose weights stream through the
 * workgroup's memory. A share is a line of rounds; a round is a number of panels for a tile of rows of x. Panels have
 * facts->matrix.columns rows. */
typedef struct gemm_round {
  V weights; /* its first panel; with two matrices gate and up in turn */
  V panels;  /* i64: of each matrix, 1 .. gemm_stream.panels */
  V column;  /* i64: the first column of out */
  V rows;    /* i64: of x, 1 .. tile_m */
} gemm_round;

typedef struct gemm_stream {
  int64_t n, k, tile_m;
  unsigned matrices;      /* 1, or 2: gate and up */
  int64_t panels;         /* of each matrix in a round, at most */
  int64_t workgroups;     /* of the grid in x */
  unsigned lanes, stages; /* of a workgroup; steps of the depth that are in its memory or on their way */
  bool turns;             /* the rounds of a workgroup are tiles of the whole product */
  V first, end;           /* i64: the workgroup's rounds are first, first + stride, ... before end, at least one */
  int64_t stride;
  V ticket; /* i32 in memory, or NULL: in turns rounds are then those whose numbers the workgroup draws by counting up
             */
  /* In turns: a tile takes the time of a multiple of so many rows, which divides tile_m. A kernel has a loop for each
   * multiple, so that small steps make large kernels. */
  int64_t row_step;
  bool single; /* no workgroup has a second round */
  bool alone;  /* hardly any weights are another workgroup's, too: they need not stay in a cache */
  bool early;  /* the kernel did not wait yet: `multiply` does, before it reads x (await_previous) */
  /* What round `number` (i64) is. `x_row` and the two below are about the round that was located last. */
  void (*locate)(emitter *e, V number, gemm_round *out_round, void *user);
  V x;                                       /* all rows of x are in the 4 GB behind it */
  V (*x_row)(emitter *e, V row, void *user); /* first element of row `row` (i64) of x */
  /* What the results of `row` in `width` columns from `column` on (i64) are made of besides the sums, or NULL; called
   * well before `finish`. A width above 1 divides n, and `column` is a multiple of it. */
  V (*fetch)(emitter *e, V row, V column, unsigned width, void *user);
  /* Stores the results from the sums of each matrix, f32 or a vector of as many as there are columns; by one lane. */
  void (*finish)(emitter *e, V row, V column, const V sums[2], V fetched, void *user);
  /* The same for engines that bring many elements of a row together: the result (f32) but for the residual, and where
   * the row begins. */
  V (*result)(emitter *e, const V sums[2], void *user);
  sluice_dtype out_dtype;
  V out, residual; /* residual: added to the sums, NULL without one; of out's type and shape */
  V (*out_place)(emitter *e, V row, void *user); /* element of out, and of the residual, where row `row` (i64) begins */
  void *user;
} gemm_stream;

typedef struct gemm_stream_engine {
  void (*multiply)(emitter *e, const gemm_stream *product);
} gemm_stream_engine;

#endif
