/* The product inside the families gemm and expert_gemm, as a target with matrix instructions makes it. */
#ifndef BACKENDS_COMMON_GEMM_H
#define BACKENDS_COMMON_GEMM_H

#include "backends/common/emit.h"

/* c[row][column] = x[row] . w[first_column + column] for the rows of x and the columns (rows of w) of one workgroup, in
 * f32. All bf16 on input; the weight lies in panels of groups of 8 columns. */
typedef struct gemm_product {
  V (*x_row)(emitter *e, V row, void *user); /* first element of row `row` (i64) of x */
  void *user;
  V rows;                   /* i64, 1 .. tile_m */
  int64_t k, tile_m, panel; /* k is a multiple of 32, tile_m of 8 */
  int64_t slice;            /* columns of the workgroup: 16, 32, ... panel, a divisor of the panel */
  unsigned matrices;        /* 1, or 2: gate and up */
  V weights[2];             /* start of the panel that holds the slice, for each matrix */
  V column;                 /* i64: first column of the slice in its panel */
  bool early;               /* the kernel did not wait yet: `multiply` does, before it reads x (atoms.wait) */
  V c[2];                   /* f32 [tile_m][slice] in workgroup memory, for each matrix */
} gemm_product;

/* Lanes of a workgroup that computes such a product. */
typedef struct gemm_engine {
  unsigned (*lanes)(const gemm_product *product);
  void (*multiply)(emitter *e, const gemm_product *product); /* the caller puts a barrier behind it */
} gemm_engine;

/* The same product for a workgroup that has a share of the panels, from first to last column: weights stream through
 * its memory. Panels have GEMM_STREAM_PANEL rows. */
enum { GEMM_STREAM_PANEL = 16 };
typedef struct gemm_stream {
  V x;       /* first row, bf16 [rows][k] */
  V rows;    /* i64, 1 .. tile_m */
  V weights; /* panel 0; with two matrices gate and up in turn */
  int64_t n, k, tile_m;
  unsigned matrices;
  int64_t panels;     /* of each matrix that the workgroup holds sums of at a time */
  int64_t workgroups; /* that share the panels; e->x is this one's number */
  V first, end;       /* i64: its panels of each matrix */
  /* What the result in `row` and `column` (i64) is made of besides the sums, or NULL; called well before `finish`. */
  V (*fetch)(emitter *e, V row, V column, void *user);
  /* Stores the result from the sums of each matrix (f32); by one lane. */
  void (*finish)(emitter *e, V row, V column, const V sums[2], V fetched, void *user);
  void *user;
} gemm_stream;

typedef struct gemm_stream_engine {
  unsigned (*lanes)(const gemm_stream *product);
  /* The kernel did not wait yet: this does (atoms.wait), before it reads x. */
  void (*multiply)(emitter *e, const gemm_stream *product);
} gemm_stream_engine;

#endif
