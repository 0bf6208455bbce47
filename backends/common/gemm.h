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

#endif
