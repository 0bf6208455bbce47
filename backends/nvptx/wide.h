/* Products of many rows; see wide.c. */
#ifndef BACKENDS_NVPTX_WIDE_H
#define BACKENDS_NVPTX_WIDE_H

#include "backends/common/gemm.h"

enum {
  WIDE_ROWS = 192,  /* of x in a tile, at most */
  WIDE_PANELS = 16, /* of 16 rows of w in a tile, of all matrices, at most */
  WIDE_LANES = 384,
  WIDE_STAGES = 4,
};

void wide_multiply(emitter *e, const gemm_stream *product);

#endif
