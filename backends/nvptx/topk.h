/* The choice of blocks from their scores (m3.md 2.8), by all lanes of a workgroup. */
#ifndef BACKENDS_NVPTX_TOPK_H
#define BACKENDS_NVPTX_TOPK_H

#include "backends/nvptx/mma.h"

enum { TOPK_AT_ONCE = 8 }; /* blocks of a lane whose pages workgroup memory has room for */

typedef struct block_choice {
  V scores;  /* f32 of global memory, by block */
  V visible; /* i64: blocks that the token sees, its own one last */
  int64_t k, init, local_blocks;
  V page_table; /* i32 of global memory, by block; NULL: pages are not asked for */
  /* From topk_begin: i32[k] in workgroup memory: the chosen ids, in an order that depends on scores alone, -1 behind
   * them; and their pages. */
  V list, pages;
  V used; /* i64: how many there are, at least one */

  V from, to, wanted; /* of the ids [from, to), so many are to be chosen */
  V choice, once;     /* i1: whether there are more; whether no lane has more than TOPK_AT_ONCE of them */
  V row;              /* i32: what page_table says of them, in that case */
  V maxima, keys, count;
} block_choice;

/* What can be done before there are scores: takes workgroup memory, lists what is forced, reads what pages it can. */
void topk_begin(emitter *e, block_choice *choice);
/* Forced blocks count against k, the first ones before the recent ones; the others come by score, descending, then by
 * lower id; NaN is lowest. Scores are read only where there is a choice. Ends with a barrier. */
void topk_choose(emitter *e, const block_choice *choice);
/* Writes the list with ascending ids to `out` (i32[k]). */
void topk_write(emitter *e, const block_choice *choice, V out);

#endif
