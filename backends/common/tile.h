/* Products of small matrices, the inner part of every kernel that multiplies: C = A * B in f32.
 *
 *   A: `rows` x `depth`, f32 or bf16; a callback gives the start of each row, so that rows may be gathered
 *
 *   B: `depth` x `columns`, in one of two forms:
 *        packed: one panel of SLUICE_LAYOUT_PANELS (sluice/plan.h), in pairs of columns
 *        plain:  row-major with a row stride, as keys ([d][page]) and values ([page][d]) lie in cache pages
 *
 *   C: f32, row-major in memory with a row stride; with `accumulate` the product is added to what is there
 *
 * Every element of C is one chain of fused multiply-adds in ascending depth order, whatever the number of rows and
 * columns: so a row's result does not depend on what else is in the tile. Where the target has dot_bf16, both operands
 * are bf16 and B is packed, the chain goes over pairs.
 *
 * With several lanes a chain has 32 links, and chains are added up in f64, in ascending order. With u = 2^-24, an
 * element is then off by at most 32 u (|a| |b|, summed) + u |c|, whatever the depth.
 *
 * On the host the accumulators are a block of vector registers.
 */
#ifndef BACKENDS_COMMON_TILE_H
#define BACKENDS_COMMON_TILE_H

#include "backends/common/emit.h"

/* Pointer to the first element of row `row` (i64) of A. */
typedef V tile_row(emitter *e, V row, void *user);

typedef struct tile_product {
  tile_row *a_row;
  void *user; /* for a_row */
  sluice_dtype a_dtype;
  V b; /* pointer */
  sluice_dtype b_dtype;
  V b_stride;        /* plain: elements between rows of B; NULL: B is packed */
  bool b_transposed; /* plain, several lanes: B lies as columns, `b_stride` elements apart */
  V c;               /* pointer to f32 */
  int64_t c_stride;  /* elements; at least max_columns rounded up to whole vectors: the last vector of a row is stored
                        whole */
  bool accumulate;
  V rows;    /* i64, >= 0 */
  V depth;   /* i64, >= 0 */
  V columns; /* i64, >= 0. Plain: B is read in whole vectors, up to vector - 1 elements past `columns` in each row.
                Packed: must be the panel, a constant and a multiple of the vector length */
  int64_t max_columns; /* compile-time bound of columns */
} tile_product;

/* Emits loops over all register blocks of the product. With several lanes, barriers before it (A and C are there) and
 * after it (C is read) are the caller's. */
void tile_multiply(emitter *e, const tile_product *product);

#endif
