/* Attention of a few rows of queries over pages of keys and values, in bf16 with matrix instructions: what the kernels
 * of attention.c and split_attention.c have in common.
 *
 * The rows are pairs of a token and a head of one kv head. Each wave of a workgroup attends keys of its own with a
 * running maximum of its own, and in the end the waves' results are merged in LDS, in the order of the waves. Keys and
 * values go from memory straight to registers, each by one wave, so nothing is read twice and nothing waits for a
 * barrier until the end.
 *
 *   scores^T = K Q^T    rows: 32 keys in two fragments, columns: 16 pairs of a token and a head
 *   out^T   += V^T P^T  rows: dimensions, depth: the same 32 keys
 *
 * The result of the first product is the second operand of the second one, in the same lanes: a lane of group g = lane
 * / 16 holds rows 4 g .. 4 g + 3 of each of the two fragments, and as an operand wants depths 8 g .. 8 g + 7. So row r
 * of fragment f is made to be key 8 (r / 4) + 4 f + r % 4 of the 32:
 *
 *     fragment 0, group 1: rows 4 5 6 7  = keys  8  9 10 11
 *     fragment 1, group 1: rows 4 5 6 7  = keys 12 13 14 15     together keys 8 .. 15, depths 8 .. 15
 *
 * Only the order in which rows of K are read depends on it. Values lie transposed in the page, so that 8 keys of a
 * dimension are one read of 16 bytes.
 */
#ifndef BACKENDS_AMDGCN_ATTEND_H
#define BACKENDS_AMDGCN_ATTEND_H

#include "backends/amdgcn/buffer.h"
#include "backends/common/attention.h"

enum {
  ATTEND_WAVES = 4,
  ATTEND_COLUMNS = 16, /* of a fragment: pairs of a token and a head */
  ATTEND_KEYS = 32,    /* of a pair of fragments */
  ATTEND_MOST_FRAGMENTS = 4,
  ATTEND_MOST_STEPS = 4, /* of 32 dimensions */
  ATTEND_MOST_DIMS = 8,  /* fragments of 16 dimensions */
};

/* The shape, and where a lane is. */
typedef struct attender {
  int64_t heads, kv_heads, group, head_dim, page, page_bytes, value_offset;
  double factor;        /* of scores, so that weights are powers of two */
  unsigned steps, dims; /* of the head's dimensions, in 32s and in 16s */
  unsigned halves;      /* a wave attends so many times 32 keys at a time: 1 or 2 */
  buffer_reading reading;
  V lane, wave;         /* i64 */
  V column, lane_group; /* lane % 16, lane / 16 */
  V kv_head;            /* i64 */
  V q, out;             /* bf16 [token][head][dimension] */
} attender;

/* Reads the attributes. False when the shape is none of these kernels. */
bool attender_read(emitter *e, attender *a);
/* Behind kernel_begin: lane, wave, column, lane_group. */
void attender_place(emitter *e, attender *a);

/* Neighbouring tokens that a workgroup attends together, at most `fragments` fragments of pairs. i64 */
typedef struct attended_tokens {
  V first, count; /* rows of the step's buffers */
  V position;     /* of the first */
  unsigned fragments;
} attended_tokens;

/* What a wave has of them; locals where it changes. */
typedef struct attended_sums {
  const attended_tokens *tokens;
  V query[ATTEND_MOST_FRAGMENTS][ATTEND_MOST_STEPS]; /* operands */
  V position[ATTEND_MOST_FRAGMENTS];                 /* i64: of the lane's token; -1 where there is none */
  V bit[ATTEND_MOST_FRAGMENTS];                      /* i32: of the lane's token in masks */
  /* Weights are powers of two of score * factor - base. The maximum, which base is of, moves on when a score is above
   * the limit. */
  V maximum[ATTEND_MOST_FRAGMENTS], limit[ATTEND_MOST_FRAGMENTS], base[ATTEND_MOST_FRAGMENTS];
  V sum[ATTEND_MOST_FRAGMENTS]; /* two parts of it */
  V out[ATTEND_MOST_FRAGMENTS][ATTEND_MOST_DIMS];
} attended_sums;

/* Workgroup memory for the queries of so many fragments. */
V attend_take_queries(emitter *e, const attender *a, unsigned fragments);
/* Each wave reads the queries from memory, or with `queries` all lanes together, through workgroup memory: then it has
 * a barrier. */
void attend_open(emitter *e, const attender *a, const attended_tokens *tokens, V queries, attended_sums *s);

/* Adds 32 * halves keys, which are those from number `key` (i64) on of the page at `page`, block number `block` of the
 * sequence, of which the last token sees the first at least. `mask` (i32) has bits of the tokens that want the block;
 * NULL: all do. */
void attend_keys(emitter *e, const attender *a, const attended_sums *s, V page, V block, V key, V mask);

/* Pages whose keys all tokens may see. */
typedef struct page_list {
  V count;                                    /* i64 */
  V (*find)(emitter *e, V index, void *user); /* pointer to page number `index` (i64) of the list */
  V (*mask)(emitter *e, V index, void *user); /* i32: bits of the tokens that want it; NULL: all want all */
  void *user;
} page_list;

/* Adds every fourth page of the list, from the wave's number on. The next keys are read as soon as the registers of
 * those before are free. */
void attend_pages(emitter *e, const attender *a, const attended_sums *s, const page_list *list);

/* Workgroup memory for the merge of the waves' sums. */
typedef struct attend_memory {
  V maxima, totals; /* f32 [wave][column] */
  V outputs;        /* f32 [wave][column][dimensions at a time, padded] */
} attend_memory;
attend_memory attend_take_memory(emitter *e, const attender *a, unsigned most_fragments);

/* Merges the waves' sums and writes the tokens' outputs, zero where nothing was attended. With `partial`, f32 [rows]
 * [head_dim + 2] as docs/ir.md has it, they go there instead, not yet divided by the sum. Has barriers, the last one
 * behind all reads of `memory`. */
void attend_close(emitter *e, const attender *a, const attended_sums *s, const attend_memory *memory, V partial,
                  int64_t rows);

#endif
