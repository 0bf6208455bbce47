/* What the attention and the index families share: query tiles, the paged cache, and the selection of blocks. */
#ifndef BACKENDS_COMMON_ATTENTION_H
#define BACKENDS_COMMON_ATTENTION_H

#include "backends/common/emit.h"

/* Stands for "no score yet": the lowest float. Finite, so that differences with it are never NaN, and above no score.
 */
#define NO_SCORE (-3.4028234663852886e38)

/* The query tile of a workgroup (SLUICE_INPUT_TILES). All values are i64. */
typedef struct query_tile {
  V first;      /* row of its first token in the step's buffers */
  V count;      /* tokens, 1 .. query_tile */
  V position;   /* position of its first token */
  V page_table; /* pointer to the sequence's row of the page table, i32 */
} query_tile;

/* Reads the tile of workgroup column e->x. */
query_tile query_tile_load(emitter *e, V tiles, V page_table);

/* Pointer to the first byte of page number `index` of the tile's sequence in the pool `cache`. */
V cache_page(emitter *e, const query_tile *tile, V cache, V index, int64_t page_bytes);

/* A loop over [from, to) in vectors of the target's width, then single elements; the bounds are known at run time only.
 * `body` gets an offset in that range and a vector width. */
void span_loop(emitter *e, V from, V to, row_body *body, void *user);

/* f32 rows in workgroup memory begin at multiples of this many elements, so that whole vectors may be written. */
int64_t padded_row(int64_t width);

/* Copies rows of `width` elements of `dtype` into f32 rows, times `scale`; strides are in elements. */
typedef struct rows_copy {
  V from, to;
  sluice_dtype dtype;
  int64_t from_stride, to_stride;
  int64_t width;
  double scale;
} rows_copy;
void rows_to_f32(emitter *e, const rows_copy *copy, V rows);

/* Whether rows_multiply can multiply pairs of bf16 for a matrix of `dtype` with this many rows and columns. */
bool rows_pair_up(const emitter *e, sluice_dtype dtype, int64_t rows, int64_t columns);

/* to = from * matrix, or to += from * matrix. `from` has f32 rows of `depth` elements, `from_stride` apart, `to` rows
 * padded_row(columns) apart; the matrix lies in a cache page, its rows of `columns` elements one after another. Takes
 * workgroup memory where `columns` is no multiple of the vector length, and never reads beyond the matrix. */
typedef struct rows_product {
  V from, to;
  int64_t from_stride;
  V rows;
  V depth;
  int64_t max_depth;
  V matrix;
  sluice_dtype dtype;
  int64_t columns;
  bool transposed; /* several lanes: the matrix lies as columns of `max_depth` elements */
  bool accumulate;
  /* The matrix as rows_pack made it, or NULL. With it `from` is rounded to bf16 into `rounded` (bf16 [max_rows]
   * [padded_row(max_depth)]) and pairs are multiplied, which is twice as fast. */
  V panel, rounded;
} rows_product;
void rows_multiply(emitter *e, const rows_product *product);

/* Rows `2 i` and `2 i + 1` of a bf16 matrix of `columns` columns become the pairs of a panel (SLUICE_LAYOUT_PANELS),
 * for 2 i < depth; needs rows_pair_up. */
void rows_pack(emitter *e, V matrix, V depth, int64_t columns, V panel);

/* The attributes of index_select, and where the cache keeps index keys. */
typedef struct index_selection {
  int64_t heads, dim, k, init, local;
  int64_t page, page_bytes, index_offset;
  int64_t query_tile, max_pages;
  bool transposed; /* index keys lie as [dim][page], not [page][dim] */
  sluice_dtype dtype;
} index_selection;

/* Reads all but heads and dim, whose names differ between families, and checks them. False with e->status set when they
 * make no sense. */
bool index_selection_read(emitter *e, const kernel_spec *spec, index_selection *selection);

/* Blocks that a token at `position` sees: its own one is the last. */
V visible_blocks(emitter *e, V position, int64_t block);

/* Pages of a sequence that no launch of this step writes, its first so many: those before the page of its first new
 * token. `position` is that of the token in row `row` of the step's buffers. A sequence's new tokens lie one after
 * another, so that at most `row` of them are before this one. */
V settled_pages(emitter *e, V position, V row, int64_t page);

/* Writes the list of one token, with all lanes of a workgroup: ascending ids, -1 behind them. `scores` (f32, by block)
 * is read only where there is a choice. `out` may be memory of any kind; a barrier behind it is the caller's. */
void choose_blocks(emitter *e, V scores, V visible, int64_t k, int64_t init, int64_t local_blocks, V out);

/* Selects blocks for all tokens of `tile` and index head `head` (i64), from the queries `iq` ([T][heads][dim]), and
 * writes their lists to `blocks` (i32 [T][heads][k]): m3.md 2.7 and 2.8. Takes workgroup memory. */
void index_selection_emit(emitter *e, const index_selection *selection, const query_tile *tile, V head, V iq, V cache,
                          V blocks);

#endif
