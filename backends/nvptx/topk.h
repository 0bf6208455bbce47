/* The choice of blocks from their scores (m3.md 2.8), by all lanes of a workgroup. */
#ifndef BACKENDS_NVPTX_TOPK_H
#define BACKENDS_NVPTX_TOPK_H

#include "backends/nvptx/mma.h"

typedef struct block_choice {
  V scores;  /* f32 of global memory, by block */
  V visible; /* i64: blocks that the token sees, its own one last */
  int64_t k, init, local_blocks;
  V list; /* i32[k] in workgroup memory: the chosen ids, ascending, -1 behind them */
} block_choice;

/* Forced blocks count against k, the first ones before the recent ones; the others come by score, descending, then by
 * lower id; NaN is lowest. Scores are read only where there is a choice. Ends with a barrier. Takes workgroup memory.
 */
void topk_choose(emitter *e, const block_choice *choice);

#endif
