/* The choice of blocks from their scores (m3.md 2.8), by one wave of a workgroup. */
#ifndef BACKENDS_AMDGCN_TOPK_H
#define BACKENDS_AMDGCN_TOPK_H

#include "backends/common/attention.h"

enum { AMDGCN_TOPK_MOST = 64 }; /* k up to which a wave chooses; beyond, all lanes do, one block after the other */

typedef struct wave_choice {
  V scores;  /* f32 of global memory, by block */
  V visible; /* i64: blocks that the token sees, its own one last */
  int64_t k, init, local_blocks;
  /* From amdgcn_topk_begin: i32[k] in workgroup memory, the chosen ids ascending, -1 behind them; i64: how many there
   * are. */
  V list, used;

  V from, to, wanted; /* of the ids [from, to), so many are to be chosen */
  V choice;           /* i1: whether there are more */
  V keys, overflow;
} wave_choice;

/* Takes workgroup memory. */
void amdgcn_topk_begin(emitter *e, wave_choice *choice);
/* Forced blocks count against k, the first ones before the recent ones; the others come by score, descending, then by
 * lower id; NaN is lowest. Scores are read only where there is a choice. All lanes of the workgroup; ends with a
 * barrier. */
void amdgcn_topk_choose(emitter *e, const wave_choice *choice);

#endif
